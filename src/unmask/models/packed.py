"""The seam through which checkpoints in number formats are read: this package knows no such format.

A folder of that kind holds `machine.json`. While it is being written it has another name, which ends in `.partial`, and holds
`progress.json` instead. Who knows the formats says here how its tensors are read; `unmask.quant.checkpoint` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "machine.json"
PROGRESS = "progress.json"
PARTIAL = ".partial"

TensorReader = Callable[[Path, Mapping[str, tuple[int, ...]]], "Iterator[tuple[Path, str, Tensor]]"]
"""From a folder with `machine.json` and the expected tensors' shapes: file, name and values (float32) of each."""

_finders: list[Callable[[], TensorReader]] = []


def register(find: Callable[[], TensorReader]) -> None:
    """Say who reads packed checkpoints; `find` is called when one is read, so that it may import late."""
    _finders[:] = [find]


def refuse_unfinished(folder: Path) -> None:
    """Make sure that a folder is not a half-written machine checkpoint.

    Raises:
        UnmaskError: it is.
    """
    if (folder / PROGRESS).is_file():
        finished = str(folder).removesuffix(PARTIAL)
        raise UnmaskError(f"{folder} is an unfinished machine checkpoint; finish it by the same `unmask quantize ... --output {finished}`")


def is_packed(folder: Path) -> bool:
    """Whether a folder is a checkpoint in number formats."""
    return (folder / MARKER).is_file()


def tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Path, str, Tensor]]:
    """File, name and float32 values of every tensor of a packed checkpoint; `expected` maps their names to their shapes.

    Raises:
        UnmaskError: nobody is there to read it; what the reader raises.
    """
    if not _finders:
        raise UnmaskError(f"{folder} is a machine checkpoint, and nothing that reads number formats is loaded")
    return _finders[0]()(folder, expected)
