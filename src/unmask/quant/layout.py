"""What a machine checkpoint is: which tensors are packed, into which files' entries, and what `machine.json` says.

| file | holds |
|---|---|
| `config.json`, tokenizer, `kv_scales.safetensors` | those of the source |
| weight files, named as the source's | `<tensor>.elements` and `<tensor>.scales`, uint8, of a packed matrix; all else in BF16 |
| `model.safetensors.index.json` | as in the source, where that has one |
| `machine.json` | formats, versions, size and SHA-256 of every weight file |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from unmask.errors import UnmaskError
from unmask.models import packed
from unmask.models.checkpoint import read_json
from unmask.models.family import Network
from unmask.models.layers import ExpertMixture
from unmask.numerics import mx

VERSION = 1
BF16 = "bf16"
ELEMENTS, SCALES = ".elements", ".scales"


@dataclass(frozen=True)
class CheckpointFormats:
    """The number formats that a checkpoint is made for, by name.

    weights: of every matrix that the network multiplies with, the LM head included. activations, kv, logits: what the machine that runs it
    is to use; recorded, they change no tensor. embedding: of the embedding table. logits and embedding may be `bf16`; where the LM head is
    the embedding table (tied), it is stored once, in the format of the embedding, and packed when a program is compiled.

    Raises:
        UnmaskError: a name that is no format.
    """

    weights: str
    activations: str
    kv: str
    logits: str = BF16
    embedding: str = BF16

    def __post_init__(self) -> None:
        for field in fields(self):
            name, plain = getattr(self, field.name), field.name in ("logits", "embedding")
            if name not in mx.FORMATS and not (plain and name == BF16):
                known = ", ".join([*mx.FORMATS, *([BF16] if plain else [])])
                raise UnmaskError(f"{field.name}: unknown format {name!r}: expected one of {known}")

    def of(self, role: str) -> mx.MxFormat | None:
        """The format that tensors of a role (`weights`, `embedding`, `vector`) are packed to; None: BF16."""
        return None if role == "vector" else mx.FORMATS.get(getattr(self, role))


@dataclass(frozen=True)
class Entry:
    """A tensor of a safetensors file: its name there, `BF16` or `U8`, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        count = 2 if self.dtype == "BF16" else 1
        for length in self.shape:
            count *= length
        return count


def roles(network: Network) -> dict[str, str]:
    """The role of every tensor of a network by its name: `weights` for a matrix that it multiplies with, `embedding`, `vector` (a norm, a
    bias, and a mixture's router, which a machine packs to a wider format than its weights)."""
    found = dict.fromkeys(network.state_dict(), "vector")
    routers = [part.router for part in (block.parts.feed_forward for block in network.parts.blocks) if isinstance(part, ExpertMixture)]
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and not any(module is router for router in routers):
            found[f"{name}.weight"] = "weights"
        elif isinstance(module, nn.Embedding):
            found[f"{name}.weight"] = "embedding"
    return found


def entries(name: str, shape: tuple[int, ...], form: mx.MxFormat | None) -> tuple[Entry, ...]:
    """What is stored of a tensor, in MX if there is a format: packed elements [rows, kp * bits / 8] and scales [rows, kp / 32]."""
    if form is None:
        return (Entry(name, "BF16", shape),)
    columns = mx.padded(shape[1])
    return (
        Entry(name + ELEMENTS, "U8", (shape[0], columns * form.element.bits // 8)),
        Entry(name + SCALES, "U8", (shape[0], columns // mx.BLOCK)),
    )


def read_machine(folder: Path) -> tuple[CheckpointFormats, dict[str, Any]]:
    """The formats in a machine checkpoint's `machine.json`, and all that it says.

    Raises:
        UnmaskError: it is missing, damaged, of another version, or names a format that is unknown here.
    """
    path = folder / packed.MARKER
    content = read_json(path)
    if content.get("version") != VERSION:
        raise UnmaskError(f"{path}: version {content.get('version')!r} of the layout; this unmask reads version {VERSION}")
    named = content.get("formats")
    names = {field.name for field in fields(CheckpointFormats)}
    if not isinstance(named, dict) or set(named) != names or not all(isinstance(name, str) for name in named.values()):
        raise UnmaskError(f"{path}: formats must name those of {', '.join(sorted(names))}")
    try:
        return CheckpointFormats(**named), content
    except UnmaskError as error:
        raise UnmaskError(f"{path}: {error}") from None


def read_formats(folder: Path) -> dict[str, str] | None:
    """The formats that a checkpoint folder was made for: names of `weights`, `activations`, `kv`, `logits` and `embedding`; None for a
    checkpoint that is in no machine's formats.

    Raises:
        UnmaskError: the folder is unfinished; what `read_machine` raises.
    """
    packed.refuse_unfinished(folder)
    return asdict(read_machine(folder)[0]) if packed.is_packed(folder) else None


def check_formats(folder: Path, machine: Mapping[str, str]) -> list[str]:
    """Compare a checkpoint with the formats of the machine that is to run it, by role; a role that `machine` does not name is not compared.

    Returns:
        One line per role that differs and only loses what the checkpoint was tuned for; empty for a checkpoint in no machine's formats.

    Raises:
        UnmaskError: the weights differ, which would round them a second time; what `read_formats` raises.
    """
    made_for = read_formats(folder) or {}
    differing = {role: name for role, name in made_for.items() if machine.get(role, name) != name}
    if "weights" in differing:
        raise UnmaskError(f"{folder} holds weights in {differing['weights']}; the machine's are {machine['weights']}")
    return [f"{folder} was made for {role} in {name}; the machine's are {machine[role]}" for role, name in differing.items()]
