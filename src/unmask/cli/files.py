"""Files that commands read and write: mistakes are found early, and nothing is left half-written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.isa.program import Program


def check_output(path: Path) -> None:
    """Find out whether a file can be written, before the work that makes its content.

    Raises:
        UnmaskError: the folder is missing or read-only, or something that is not a file has this name.
    """
    if path.exists() and not path.is_file():
        raise UnmaskError(f"{path}: cannot write: not a regular file")
    if not path.parent.is_dir():
        raise UnmaskError(f"{path}: cannot write: no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UnmaskError(f"{path}: cannot write: permission denied")


def write_text(text: str, path: Path | None) -> None:
    """Write text to a file, replacing it only when complete, or to standard output.

    Raises:
        UnmaskError: the file cannot be written.
    """
    if path is None:
        sys.stdout.write(text)
        return
    check_output(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UnmaskError(f"{path}: cannot write: {error.strerror}") from None


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UnmaskError: it is missing, unreadable or not text.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UnmaskError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnmaskError(f"{path}: not a text file") from None


def load_program(path: Path) -> Program:
    """The program in a file.

    Raises:
        UnmaskError: it is missing, not a regular file, or not a program.
    """
    from unmask.isa.program import Program

    if path.exists() and not path.is_file():
        raise UnmaskError(f"{path}: not a program file but {'a folder' if path.is_dir() else 'a device'}")
    return Program.load(path)
