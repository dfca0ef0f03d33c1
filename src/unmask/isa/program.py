"""A program as a file: instructions, what HBM holds when it starts, and where things are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, check_loops, decode

_VERSION = "2"
ONLY_ENTRY = "step"
"""The entry of a program that names none."""


@dataclass(frozen=True)
class Region:
    """A named range of HBM, in bytes."""

    address: int
    size: int


@dataclass
class Program:
    """What the compiler emits and every reading runs.

    Attributes:
        words: uint64 [instructions, 2].
        phases: one name per instruction: what the instruction is for.
        entries: named ranges [first, end) of instructions that run on their own, from the first to a HALT: the kinds of step that one
            memory image serves.
        hbm_bytes: bytes of HBM the program uses.
        regions: named ranges of HBM.
        data: initial content of some regions, uint8; regions without data start as zeros.
        machine: the machine the program was compiled for, as its configuration's JSON object.
        about: what was compiled: network shape and decoding policy, for the reader and for running the program again.
    """

    words: NDArray[np.uint64]
    phases: list[str]
    hbm_bytes: int
    regions: dict[str, Region]
    data: dict[str, NDArray[np.uint8]]
    machine: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.phases) != len(self.words):
            raise UnmaskError(f"program: {len(self.phases)} phase names for {len(self.words)} instructions")
        if not self.entries:
            self.entries = {ONLY_ENTRY: (0, len(self.words))}
        for name, (first, end) in self.entries.items():
            if not 0 <= first < end <= len(self.words):
                raise UnmaskError(f"program: entry {name} is [{first}, {end}) of {len(self.words)} instructions")
            check_loops(decode(self.words[first:end]))

    def entry(self, name: str) -> Program:
        """One entry as a program of its own, sharing everything else.

        Raises:
            UnmaskError: there is no such entry.
        """
        if name not in self.entries:
            raise UnmaskError(f"the program has no entry {name!r}; there are {', '.join(self.entries)}")
        first, end = self.entries[name]
        return replace(self, words=self.words[first:end], phases=self.phases[first:end], entries={name: (0, end - first)})

    @property
    def ops(self) -> list[Op]:
        return decode(self.words)

    def image(self) -> NDArray[np.uint8]:
        """What HBM holds when the program starts, uint8 [hbm_bytes]."""
        hbm = np.zeros(self.hbm_bytes, np.uint8)
        for name, content in self.data.items():
            self.write(hbm, name, content)
        return hbm

    def write(self, hbm: NDArray[np.uint8], region: str, content: NDArray[np.generic]) -> None:
        """Put an array's bytes at the start of a named region of a memory.

        Raises:
            UnmaskError: the program has no such region, or the array is larger than it.
        """
        place = self.regions.get(region)
        raw = np.ascontiguousarray(content).view(np.uint8).reshape(-1)
        if place is None or raw.size > place.size:
            raise UnmaskError(f"region {region!r}: expected at most {place.size if place else 0} bytes, not {raw.size}")
        hbm[place.address : place.address + raw.size] = raw

    def read(self, hbm: NDArray[np.uint8], region: str, dtype: str) -> NDArray[np.generic]:
        """A copy of a named region of a memory as a flat array of `dtype`."""
        place = self.regions[region]
        return hbm[place.address : place.address + place.size].copy().view(dtype)

    def save(self, path: str | Path) -> None:
        """Write the program; the file is a safetensors container whose metadata holds everything but the bytes."""
        path = Path(path)
        names = sorted(set(self.phases))
        meta = {
            "version": _VERSION,
            "phases": names,
            "hbm_bytes": self.hbm_bytes,
            "regions": {name: [region.address, region.size] for name, region in self.regions.items()},
            "machine": self.machine,
            "about": self.about,
            "entries": self.entries,
        }
        number = {name: index for index, name in enumerate(names)}
        phase_index = np.array([number[phase] for phase in self.phases], dtype=np.uint16)
        tensors: dict[str, NDArray[Any]] = {
            "words": self.words,
            "phase_of": phase_index,
            **{f"data.{name}": array for name, array in self.data.items()},
        }
        partial = path.with_name(path.name + ".partial")
        try:
            save_file(tensors, partial, metadata={"unmask": json.dumps(meta)})
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise UnmaskError(f"{path}: cannot write the program: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a program.

        Raises:
            UnmaskError: the file is missing, truncated or not a program.
        """
        try:
            with safe_open(path, framework="np") as file:
                meta = json.loads((file.metadata() or {})["unmask"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if meta["version"] != _VERSION:
                raise UnmaskError(f"{path}: program file version {meta['version']}, expected {_VERSION}")
            return cls(
                words=tensors["words"],
                phases=[meta["phases"][i] for i in tensors["phase_of"]],
                hbm_bytes=meta["hbm_bytes"],
                regions={name: Region(*pair) for name, pair in meta["regions"].items()},
                data={name.removeprefix("data."): array for name, array in tensors.items() if name.startswith("data.")},
                machine=meta["machine"],
                about=meta["about"],
                entries={name: (first, end) for name, (first, end) in meta["entries"].items()},
            )
        except FileNotFoundError:
            raise UnmaskError(f"{path}: no such program file") from None
        except (SafetensorError, KeyError, ValueError, IndexError, TypeError, AttributeError, OSError) as error:
            raise UnmaskError(f"{path}: not a readable unmask program ({type(error).__name__}: {error})") from None
