"""A built engine in this process: its registers, its memory, and what it logs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError

RECORD = np.dtype(
    [("program", "<u4"), ("kind", "<u2"), ("engine", "<u2"), ("cycle", "<i8"), ("address", "<u8"), ("value", "<u8")], align=False
)
START, RETIRE, STRAY, STATUS = 16, 17, 18, 20
"""Kinds of records above those of `Space`, which are writes."""
DONE, FAULT, TIMEOUT = 1, 2, 3
SLICE = 20_000
"""Cycles between two looks at whether somebody wants the run to end."""

Ask = Callable[[int, int, int, int, int, NDArray[np.int32]], NDArray[np.int64]]
"""What the memory says of a DMA instruction that starts: its engine, its number, the cycle, the addresses of its elements and scales, and
the integer SRAM; the AXI bursts that will be asked for, int64 [n, 3]: address, cycle of the request on the bus, cycle of the last beat or
of the response."""
_ASK = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint64),
    *(ctypes.POINTER(ctypes.c_int32), ctypes.c_uint64),
    ctypes.POINTER(ctypes.c_void_p),
)


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `DONE`, `FAULT` or `TIMEOUT`; what the status, fault and cycle registers say."""

    status: int
    code: int
    pc: int
    cycles: int


class Delays(NamedTuple):
    """Of a memory of fixed latency, cycles: from a request of the load engine to its first beat, from the last beat of a write to its
    response."""

    read: int
    write: int


@cache
def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, number = ctypes.c_void_p, ctypes.c_uint64
    for name, result, arguments in (
        ("open", handle, (ctypes.c_int, ctypes.c_int, number, handle, ctypes.c_int)),
        ("close", None, (handle,)),
        ("renew", None, (handle,)),
        ("words", None, (handle, handle, number)),
        ("content", None, (handle, handle, number, number, number, ctypes.c_int)),
        ("start", None, (handle, ctypes.c_uint32, ctypes.c_int)),
        ("run", ctypes.c_int, (handle, number)),
        ("elapsed", ctypes.c_int64, (handle,)),
        ("end", None, (handle, handle)),
        ("log", number, (handle, ctypes.POINTER(handle))),
        ("forget", None, (handle,)),
    ):
        function = getattr(library, f"bench_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Bench:
    """An engine that comes out of reset with empty memories, behind it HBM."""

    def __init__(self, library: Path, delays: Delays, seed: int = 0, ask: Ask | None = None, timed: bool = True) -> None:
        """Load it.

        Args:
            library: of `unmask.rtl.lockstep.build.harness`.
            delays: of a memory of fixed latency.
            seed: of stalls.
            ask: a memory that says itself when it has served what; `delays` are then for bursts that it did not expect.
            timed: without it `ask` only hears of instructions, and `delays` are for all bursts.

        Raises:
            UnmaskError: the library cannot be loaded.
        """
        try:
            self._calls = _library(library)
        except OSError as error:
            raise UnmaskError(f"{library}: the built RTL cannot be loaded: {error}") from None
        self._ask, self._answer = ask, np.zeros((0, 3), np.int64)
        self._error: BaseException | None = None
        self._callback = None if ask is None else _ASK(self._asked)  # kept: the library calls it
        self._handle = self._calls.bench_open(*delays, seed, self._callback, ask is not None and timed)
        self._content: NDArray[np.uint8] | None = None
        self._conditions: tuple[int, int, bool] = (0, 0, False)

    def close(self) -> None:
        """Give the engine's memory back."""
        if self._handle is not None:
            self._calls.bench_close(self._handle)
            self._handle = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def reset(self) -> None:
        """A new engine, with empty memories; HBM stays behind it."""
        self._calls.bench_renew(self._handle)
        self._attach()

    def load(self, words: NDArray[np.uint64]) -> None:
        """Write a program's words, uint64 [instructions, 2], to the instruction memory, from its start."""
        parts = np.ascontiguousarray(words, "<u8").view("<u4").reshape(-1)
        self._calls.bench_words(self._handle, parts.ctypes.data, parts.size)

    def attach(self, content: NDArray[np.uint8], errors: tuple[int, int] = (0, 0), stalls: bool = False) -> None:
        """Put HBM behind the engine.

        Args:
            content: read and written in place.
            errors: a range of bytes whose beats have an error response.
            stalls: latency is random, and the memory is not always ready.
        """
        self._content, self._conditions = content, (*errors, stalls)
        self._attach()

    def _attach(self) -> None:
        if self._content is not None:
            self._calls.bench_content(self._handle, self._content.ctypes.data, self._content.size, *self._conditions)

    def run(self, number: int, *, record: bool, timeout: int, watch: Callable[[int], None] = lambda cycles: None) -> Outcome:
        """Run the program in the instruction memory from its first instruction.

        Args:
            number: of the program, for the log.
            record: log what happens.
            timeout: cycles after which the engine is given up and a new one is made.
            watch: called now and then with the cycles so far; what it raises ends the run, and the next one finds a new engine.

        Raises:
            UnmaskError: the memory could not say when it serves an instruction; or was asked, while nothing is recorded, for a burst
                that it did not expect.
        """
        self._calls.bench_start(self._handle, number, record)
        busy = 1
        while busy == 1 and (left := timeout - self._calls.bench_elapsed(self._handle)) > 0:
            busy = self._calls.bench_run(self._handle, min(left, SLICE))
            if busy < 0:
                error, self._error = self._error, None
                self.reset()
                raise (
                    UnmaskError("the hardware asks for a burst of memory that the memory's model does not expect")
                    if error is None
                    else error
                )
            try:
                watch(self._calls.bench_elapsed(self._handle))
            except BaseException:
                self.reset()
                raise
        found = np.zeros(4, np.uint64)
        self._calls.bench_end(self._handle, found.ctypes.data)
        if found[0] == TIMEOUT:
            # The engine is a new one.
            self._attach()
        return Outcome(*(int(value) for value in found))

    def take_log(self) -> NDArray[Any]:
        """What was logged since the last call, an array of `RECORD`."""
        place = ctypes.c_void_p()
        count = self._calls.bench_log(self._handle, ctypes.byref(place))
        records = np.zeros(count, RECORD)
        if count:
            ctypes.memmove(records.ctypes.data, place.value or 0, records.nbytes)
        self._calls.bench_forget(self._handle)
        return records

    def _asked(self, engine: int, pc: int, cycle: int, memory: int, scales: int, integers: Any, words: int, bursts: Any) -> int:
        assert self._ask is not None
        try:
            answer = self._ask(engine, pc, cycle, memory, scales, np.ctypeslib.as_array(integers, (words,)))
        except BaseException as error:  # it cannot pass through C++; `run` raises it
            self._error = error
            return -1
        self._answer = np.ascontiguousarray(answer, np.int64)
        bursts[0] = self._answer.ctypes.data
        return len(self._answer)
