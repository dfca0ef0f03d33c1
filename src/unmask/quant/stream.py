"""Safetensors files larger than memory: written from front to back, read in chunks of rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.models.checkpoint import open_shard
from unmask.numerics import bf16, mx
from unmask.quant.layout import Entry

CHUNK_BYTES = 16 * 2**20
"""Source bytes that are in memory at a time, and four times that while they are converted."""

Part = bytes | memoryview
"""A piece of a file."""

_HASHED_AT_ONCE = 2**20
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of the types that weights may have."""


def header(entries: Sequence[Entry]) -> bytes:
    """The beginning of a safetensors file that holds the entries, in this order; BF16 must come first, so that it lies at even offsets."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        content[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + entry.size]}
        offset += entry.size
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_file(path: Path, parts: Iterable[Part]) -> dict[str, object]:
    """Write a file from parts and put it in its place when it is complete, and on disk; nothing stays of one that is not.

    Returns:
        `bytes` and `sha256` of the content.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for part in parts:
                size += file.write(part)
                digest.update(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return {"bytes": size, "sha256": digest.hexdigest()}


def is_intact(path: Path, written: object) -> bool:
    """Whether a file has the `bytes` and the `sha256` that `write_file` returned."""
    if not isinstance(written, dict) or not path.is_file() or path.stat().st_size != written.get("bytes"):
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while content := file.read(_HASHED_AT_ONCE):
            digest.update(content)
    return digest.hexdigest() == written.get("sha256")


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 of the names, sizes and headers of safetensors files and of 64 KiB of samples of each: enough to tell two checkpoints apart
    without reading them.

    Raises:
        UnmaskError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                length = int.from_bytes(file.read(8), "little")
                digest.update(f"{path.name} {size} ".encode() + file.read(min(length, size)))
                for index in range(_SAMPLES):
                    file.seek(index * size // _SAMPLES)
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise UnmaskError(f"{path}: cannot read: {error.strerror}") from None
    return digest.hexdigest()


class Shard:
    """A weight file of the source, its header checked.

    Args:
        path: the file. shapes: those of the tensors that it must hold, exactly.

    Raises:
        UnmaskError: what `open_shard` raises; a tensor that is not floating point.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
        self.path, self.shapes = path, shapes
        with open_shard(path, shapes) as file:
            types = {name: file.get_slice(name).get_dtype() for name in shapes}
        for name, dtype in types.items():
            if dtype not in _DTYPES:
                raise UnmaskError(f"{path}: tensor {name} has dtype {dtype}; supported: {', '.join(_DTYPES)}")
        self._widths = {name: _DTYPES[dtype] for name, dtype in types.items()}

    def size(self, name: str) -> int:
        """Bytes of a tensor."""
        return self._widths[name] * int(np.prod(self.shapes[name], dtype=np.int64))

    def rows(self, name: str) -> Iterator[tuple[int, torch.Tensor]]:
        """A tensor in chunks: the first row of each, and the chunk. The file is opened anew: nothing of other tensors stays mapped."""
        count = self.shapes[name][0]
        step = max(1, CHUNK_BYTES * count // self.size(name))
        with open_shard(self.path, self.shapes) as file:
            part = file.get_slice(name)
            for start in range(0, count, step):
                yield start, part[start : start + step]


def to_bf16(chunk: torch.Tensor) -> NDArray[np.uint16]:
    """BF16 patterns of a chunk of any floating type, rounded to nearest even by way of FP32."""
    return _patterns(chunk) if chunk.dtype == torch.bfloat16 else bf16.to_bits(bf16.round(_values(chunk)))


def to_mx(chunk: torch.Tensor, form: mx.MxFormat) -> mx.MxTensor:
    """A chunk of any floating type, by way of FP32, in MX blocks along its last axis."""
    return mx.quantize_bf16(_patterns(chunk), form) if chunk.dtype == torch.bfloat16 else mx.quantize(_values(chunk), form)


def _patterns(chunk: torch.Tensor) -> NDArray[np.uint16]:
    patterns: NDArray[np.uint16] = chunk.contiguous().view(torch.uint16).numpy()
    return patterns


def _values(chunk: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = chunk.to(torch.float32).contiguous().numpy()
    return values
