"""Vectors through a unit in Verilator, one per cycle: `stream(Unit(...), {"op": ops, "a": a}, latency=4)["result"]`."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.lib import wiring
from numpy.typing import NDArray
from pyosys import libyosys

Vectors = dict[str, NDArray[Any]]

_PORT = re.compile(r"^  (input|output)(?: signed)?(?: \[(\d+):0\])? \\?(\S+?) ?;$", re.MULTILINE)
_VERILATOR = Path(sysconfig.get_path("purelib")) / "verilator"
_CACHE = Path(tempfile.gettempdir()) / f"unmask-verilator-{os.getuid()}"
_OPTIONS = ("-O3", "--x-assign", "0", "-Wno-fatal", "-Wno-lint")


class Simulation:
    """A unit in Verilator, compiled once per content and kept in the temporary folder.

    Ports are those of the flattened signature (`bus__ready`), without the clock and the reset; state lasts from one `run` to the next.
    """

    def __init__(self, unit: wiring.Component) -> None:
        text = _verilog(unit)
        ports = _PORT.findall(text[: text.index("endmodule")])
        found = [(direction == "input", int(high or 0) + 1, name) for direction, high, name in ports]
        self._inputs = [(width, name) for is_input, width, name in found if is_input and name not in ("clk", "rst")]
        self._outputs = [(width, name) for is_input, width, name in found if not is_input]
        clocked, resettable = (any(name == port for _, _, name in found) for port in ("clk", "rst"))
        self._library = ctypes.CDLL(str(_build(text, _wrapper(self._inputs, self._outputs, clocked, resettable))))
        self._library.start.restype = ctypes.c_void_p
        self._model = ctypes.c_void_p(self._library.start())

    def __del__(self) -> None:
        if hasattr(self, "_model"):
            self._library.finish(self._model)

    def run(self, inputs: Vectors, cycles: int | None = None) -> Vectors:
        """Hold `inputs` [n] for a cycle each, and return the outputs of every cycle, seen before the clock edge that ends it.

        Ports of up to 64 bits are integers (any dtype in, uint64 out), wider ones uint32 [n, words], lowest first. Inputs that are not
        given are 0, but those that say which registers load are all ones; beyond their end (`cycles` > n) the last ones stay.
        """
        unknown = inputs.keys() - {name for _, name in self._inputs}
        if unknown:
            raise KeyError(f"no input {sorted(unknown)}: expected some of {[name for _, name in self._inputs]}")
        given = max((len(values) for values in inputs.values()), default=0)
        total = given if cycles is None else cycles
        columns = [_words(inputs.get(name), width, given, total, name.endswith("loads")) for width, name in self._inputs]
        driven = np.ascontiguousarray(np.concatenate([np.zeros((total, 0), np.uint32), *columns], axis=1))
        sizes = [_word_count(width) for width, _ in self._outputs]
        seen = np.zeros((total, sum(sizes)), np.uint32)
        self._library.run(self._model, ctypes.c_void_p(driven.ctypes.data), ctypes.c_void_p(seen.ctypes.data), ctypes.c_size_t(total))
        results, start = {}, 0
        for (width, name), size in zip(self._outputs, sizes, strict=True):
            part = np.ascontiguousarray(seen[:, start : start + size])
            results[name] = part if width > 64 else part.view(np.uint64)[:, 0] if size == 2 else part[:, 0].astype(np.uint64)
            start += size
        return results


def stream(unit: wiring.Component | Simulation, inputs: Vectors, latency: int) -> Vectors:
    """Outputs [n] of a unit for `inputs` [n], one vector per cycle, each output taken `latency` cycles after its inputs.

    A unit starts from reset, a simulation of one from where it is.
    """
    simulation = unit if isinstance(unit, Simulation) else Simulation(unit)
    count = max(len(values) for values in inputs.values())
    return {name: values[latency:] for name, values in simulation.run(inputs, count + latency).items()}


def _word_count(width: int) -> int:
    return (width + 31) // 32


def _words(values: NDArray[Any] | None, width: int, given: int, total: int, ones: bool) -> NDArray[np.uint32]:
    size = _word_count(width)
    if values is None:
        bits = [min(32, width - 32 * index) for index in range(size)]
        return np.tile(np.array([(1 << of_word) - 1 if ones else 0 for of_word in bits], np.uint32), (total, 1))
    if len(values) != given:
        raise ValueError(f"{len(values)} values of an input beside {given} of another")
    if values.ndim == 1:
        wide = values.astype(np.uint64) & np.uint64((1 << min(width, 64)) - 1)
        values = np.zeros((given, max(size, 2)), np.uint32)
        values[:, :2] = np.ascontiguousarray(wide).view(np.uint32).reshape(-1, 2)
        values = values[:, :size]
    return values.astype(np.uint32)[np.minimum(np.arange(total), given - 1)]


def _verilog(unit: wiring.Component) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "unit.il", Path(folder) / "unit.v"
        source.write_text(rtlil.convert(unit, name="unit"))
        design = libyosys.Design()
        for command in (f"read_rtlil {source}", "proc", "flatten", "opt_clean", f"write_verilog -noattr {result}"):
            libyosys.Pass.call(design, f"tee -q {command}")
        return result.read_text()


def _wrapper(inputs: list[tuple[int, str]], outputs: list[tuple[int, str]], clocked: bool, resettable: bool) -> str:
    def move(width: int, name: str, at: int, out: bool) -> str:
        parts = []
        for index in range(_word_count(width)):
            port = f"unit->{name}" if width <= 64 else f"unit->{name}[{index}]"
            if out:
                parts.append(f"out[{at + index}] = (uint32_t)({port}{f' >> {32 * index}' if width <= 64 and index else ''});")
            elif width <= 64 and index:
                parts.append(f"{port} |= (uint64_t)in[{at + index}] << 32;")
            else:
                parts.append(f"{port} = in[{at + index}];")
        return " ".join(parts)

    def moves(ports: list[tuple[int, str]], out: bool) -> tuple[str, int]:
        at, lines = 0, []
        for width, name in ports:
            lines.append(move(width, name, at, out))
            at += _word_count(width)
        return "\n    ".join(lines), at

    drive, in_words = moves(inputs, False)
    sense, out_words = moves(outputs, True)
    low, edge = ("unit->clk = 0;", "unit->clk = 1; unit->eval();") if clocked else ("", "")
    reset = f"unit->rst = 1; {low} unit->eval(); {edge} {low} unit->rst = 0;" if resettable else ""
    return f"""#include "Vunit.h"
extern "C" void *start() {{
  Vunit *unit = new Vunit;
  {reset}
  return unit;
}}
extern "C" void finish(void *model) {{ delete (Vunit *)model; }}
extern "C" void run(void *model, const uint32_t *in, uint32_t *out, size_t cycles) {{
  Vunit *unit = (Vunit *)model;
  for (size_t i = 0; i < cycles; i++, in += {in_words}, out += {out_words}) {{
    {low}
    {drive}
    unit->eval();
    {sense}
    {edge}
  }}
}}
double sc_time_stamp() {{ return 0; }}
"""


def _run(*command: str, cwd: Path) -> None:
    environment = {**os.environ, "VERILATOR_ROOT": str(_VERILATOR)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")


def _build(verilog: str, wrapper: str) -> Path:
    folder = _CACHE / hashlib.sha256((verilog + wrapper).encode()).hexdigest()[:24]
    library = folder / "unit.so"
    if library.exists():
        return library
    _CACHE.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=_CACHE))
    (work / "unit.v").write_text(verilog)
    _run(str(_VERILATOR / "bin" / "verilator_bin"), "--cc", "unit.v", "--top", "unit", "--Mdir", "model", *_OPTIONS, cwd=work)
    headers = ("-I", "model", "-I", str(_VERILATOR / "include"), "-I", str(_VERILATOR / "include" / "vltstd"))
    # One translation unit: Verilator's headers take longer to compile than a unit.
    sources = sorted((work / "model").glob("*.cpp"))
    (work / "all.cpp").write_text("".join(f'#include "{path.name}"\n' for path in sources) + wrapper)
    runtime = [str(_runtime(name)) for name in ("verilated.cpp", "verilated_threads.cpp")]
    _run("g++", "-std=c++17", "-O1", "-fPIC", "-shared", *headers, "all.cpp", *runtime, "-lpthread", "-o", "unit.so", cwd=work)
    try:
        work.rename(folder)
    except OSError:  # Someone else built the same.
        shutil.rmtree(work)
    return library


def _runtime(name: str) -> Path:
    """An object file of Verilator's own run time, which every unit shares."""
    result = _CACHE / f"{name}.o"
    if not result.exists():
        unfinished = _CACHE / f"{name}.{os.getpid()}.o"
        include = _VERILATOR / "include"
        _run("g++", "-std=c++17", "-O1", "-fPIC", "-I", str(include), "-c", str(include / name), "-o", str(unfinished), cwd=_CACHE)
        unfinished.rename(result)
    return result
