"""From a unit in Amaranth to a library that runs programs on it; what the library's C++ knows of the unit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import UnmaskError
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.machine.sequencer import REGISTER_BITS
from unmask.numerics import mx
from unmask.rtl.lockstep.names import instructions_of
from unmask.rtl.lockstep.reference import Space
from unmask.rtl.lockstep.verilate import LIBRARY, Report, build, cache_folder, digest, fixed_sources, silent

_PACKAGES = ("rtl", "isa", "numerics", "machine")
_DMA = (Engine.LOAD, Engine.STORE)
"""In the order in which the memory serves those that start in the same cycle."""


class Tap(NamedTuple):
    """A write port that the harness listens to.

    Attributes:
        engine: whose results pass it.
        space: the memory.
        unit: locations per address.
        lanes, width: locations written at once, and bits of each.
        delay: cycles by which a write comes after its instruction's.
        address, mask, data: names of the ports.
    """

    engine: Engine
    space: Space
    unit: int
    lanes: int
    width: int
    delay: int
    address: str
    mask: str
    data: str


def _python_sources() -> list[bytes]:
    root = Path(str(resources.files("unmask")))
    files = [path for package in _PACKAGES for path in sorted((root / package).rglob("*.py")) if "lockstep" not in path.parts]
    return [part for path in files for part in (str(path.relative_to(root)).encode(), path.read_bytes())]


def _port(name: str) -> str:
    """A port as Verilator's C++ calls it."""
    return name.replace("__", "___05F")


def taps_of(machine: Machine, engine: Any) -> list[Tap]:
    """The write ports of `unmask.rtl.engine.SamplingEngine` or `unmask.rtl.npu.Npu`, built with `trace`."""
    granule = machine.vector.granule

    def tap(owner: Engine, space: Space, name: str, unit: int, width: int) -> Tap:
        lanes = len(getattr(engine, f"trace_{name}_mask"))
        return Tap(owner, space, unit, lanes, width, 0, *(f"trace_{name}_{member}" for member in ("address", "mask", "data")))

    taps = [
        tap(Engine.VECTOR, Space.VECTOR, "vector_dst", granule, 16),
        tap(Engine.LOAD, Space.VECTOR, "vector_load", granule, 16),
        tap(Engine.VECTOR, Space.FLOAT, "float_0", 1, 32),
        tap(Engine.VECTOR, Space.FLOAT, "float_1", 1, 32),
        tap(Engine.VECTOR, Space.INTEGER, "integer_vector", 1, 32),
        tap(Engine.LOAD, Space.INTEGER, "integer_load", 1, 32),
        Tap(Engine.SEQUENCER, Space.REGISTER, 1, 1, REGISTER_BITS, 1, *(f"trace_register_{part}" for part in ("number", "write", "value"))),
    ]
    if Engine.MATRIX in engine.engines:
        taps += [
            tap(Engine.MATRIX, Space.VECTOR, "vector_matrix", granule, 16),
            tap(Engine.LOAD, Space.MATRIX, "matrix_codes", mx.BLOCK, engine.matrix_sram.bits),
            tap(Engine.LOAD, Space.SCALES, "matrix_scales", 1, 8),
        ]
    return taps


def ports_header(machine: Machine, engines: Iterable[Engine], taps: Sequence[Tap], gated: Iterable[str] = ()) -> str:
    """`ports.h`: what the test bench knows of a design; `gated` are the engines that have a clock of their own, in lower case."""
    from unmask.rtl.host import PROGRAM, Register

    names = {"CLOCK": "clk", "RESET": "rst", "MEMORY_BYTES": "memory_bytes"}
    names |= {f"HOST_{part.upper()}": f"host_{part}" for part in ("address", "write", "write_data", "read_data")}
    for bus, members in (
        ("read", "arvalid arready araddr arlen rvalid rready rdata rresp rlast"),
        ("write", "awvalid awready awaddr awlen wvalid wready wdata wstrb wlast bvalid bready bresp"),
    ):
        names |= {member.upper(): f"{bus}__{member}" for member in members.split()}
    lines = ["#pragma once", *(f"#define PORT_{key} {_port(name)}" for key, name in names.items())]
    lines += [f"#define BEAT {machine.hbm.beat_bytes}", f"#define PROGRAM_BASE {PROGRAM}u"]
    lines.append(f"#define INTEGER_WORDS {machine.sram.integer_words}")
    lines += [f"#define REGISTER_{register.name} {int(register)}u" for register in Register]
    lines += [f"#define SPACE_HBM {int(Space.HBM)}"]
    lines += [f"#define ENGINE_{engine.name} {int(engine)}" for engine in _DMA]
    uses = []
    for write, engine in enumerate(_DMA):
        start = f"trace_{engine.name.lower()}_start"
        uses.append(f"START_DMA({int(engine)}, {write}, {', '.join(_port(start + part) for part in ('', '_pc', '_memory', '_scales'))})")
    lines.append("#define START_DMAS " + " ".join(uses))
    traced = (Engine.SEQUENCER, *engines)
    uses = [f"GATE({number}, {_port(f'{name}_clk')}, trace_{name}_start, trace_{name}_retire)" for number, name in enumerate(gated)]
    lines += [f"#define GATE_COUNT {len(uses)}", "#define GATES " + " ".join(uses)]
    for event in ("START", "RETIRE"):
        uses = []
        for engine in traced:
            name = f"trace_{engine.name.lower()}_{event.lower()}"
            uses.append(f"{event}_TAP({int(engine)}, {_port(name)}, {_port(name)}_pc)")
        lines.append(f"#define {event}_TAPS " + " ".join(uses))
    uses = [
        f"WRITE_TAP({int(t.engine)}, {int(t.space)}, {t.unit}, {t.lanes}, {t.width}, {t.delay}, "
        f"{_port(t.address)}, {_port(t.mask)}, {_port(t.data)})"
        for t in taps
    ]
    lines.append("#define WRITE_TAPS " + " ".join(uses))
    integers = [f"INTEGER_TAP({t.lanes}, {_port(t.address)}, {_port(t.mask)}, {_port(t.data)})" for t in taps if t.space is Space.INTEGER]
    lines.append("#define INTEGER_TAPS " + " ".join(integers))
    return "\n".join(lines) + "\n"


def harness(machine: Machine, unit: str = "sampler", report: Report = silent) -> Path:
    """The library of a unit of a machine, built if need be: minutes the first time.

    Raises:
        UnmaskError: as `build`; no such unit; the hardware cannot be that machine.
    """
    if unit not in _UNITS:
        raise UnmaskError(f"unknown unit {unit!r}: expected one of {', '.join(_UNITS)}")
    # Elaboration takes long too: a stamp tells which library came of these sources.
    key = digest([unit.encode(), machine.model_dump_json().encode(), sys.version.encode(), *_python_sources(), *fixed_sources()])
    stamp = cache_folder() / f"{key}.stamp"
    if stamp.exists() and (library := cache_folder() / stamp.read_text() / LIBRARY).exists():
        return library
    # What the hardware cannot be is told before anything is said to be built.
    engine = _UNITS[unit](machine, unit)
    report("hardware to Verilog")
    library = build(*_described(machine, engine), report)
    partial = stamp.with_suffix(f".{os.getpid()}")
    partial.write_text(library.parent.name)
    partial.replace(stamp)
    return library


def _sampler(machine: Machine, unit: str) -> Any:
    from unmask.rtl.engine import SamplingEngine

    return SamplingEngine(machine, instructions=instructions_of(unit), trace=True)


def _npu(machine: Machine, unit: str) -> Any:
    from unmask.rtl.npu import Npu

    return Npu(machine, trace=True)


def _described(machine: Machine, engine: Any) -> tuple[str, str]:
    """Its Verilog and its `ports.h`."""
    from unmask.rtl.lockstep.gating import with_clocks
    from unmask.rtl.verilog import rtlil_of, verilog_from

    clocks = {f"{name}_clk": path for name, path in engine.places.items()}
    text = with_clocks(rtlil_of(engine, "top"), "top", clocks)
    return verilog_from(text), ports_header(machine, engine.engines, taps_of(machine, engine), engine.places)


_UNITS: dict[str, Callable[[Machine, str], Any]] = {"sampler": _sampler, "vector": _sampler, "npu": _npu}
