"""Running yosys, OpenSTA and Icarus, with one line of explanation where one is missing or fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from unmask.errors import UnmaskError
from unmask.rtl.verilog import YOSYS

_PACKAGES = {"sta": "opensta", "iverilog": "iverilog", "vvp": "iverilog"}


def missing(*programs: str) -> list[str]:
    """Debian packages of those of `programs` that are not on the path."""
    return sorted({_PACKAGES[program] for program in programs if shutil.which(program) is None})


def run(program: str, arguments: list[str], folder: Path) -> str:
    """Run a program in a folder; its standard output.

    Raises:
        UnmaskError: it is not installed, or failed.
    """
    if packages := missing(program):
        raise UnmaskError(f"{program} is not installed; on Debian: apt-get install {' '.join(packages)}")
    return _run([program, *arguments], folder, program)


def yosys(script: str, folder: Path, name: str) -> str:
    """Run a yosys script, in a process of its own, in a folder that gets the script and its log; the log.

    Raises:
        UnmaskError: it failed.
    """
    path = folder / f"{name}.ys"
    path.write_text(script)
    log = _run([sys.executable, "-c", YOSYS, path.name], folder, f"yosys {name}")
    (folder / f"{name}.log").write_text(log)
    return log


def _run(command: list[str], folder: Path, what: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in [*done.stdout.splitlines(), *done.stderr.splitlines()] if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no output"]
        raise UnmaskError(f"{what} failed in {folder}: {errors[0].strip()}")
    return done.stdout
