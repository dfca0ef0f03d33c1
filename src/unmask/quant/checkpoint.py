"""Machine checkpoints: a checkpoint's matrices packed to MX, tensor by tensor, and read again.

A checkpoint larger than memory is converted in chunks of rows. The folder is written under a name that ends in `.partial` and gets its own
when it is complete; `progress.json` in it lists the finished files, so that the same call goes on where another one ended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.models import packed
from unmask.models.checkpoint import INDEX, open_shard, read_config, read_json, resolve_checkpoint, shapes, shards, unfilled
from unmask.numerics import bf16, mx
from unmask.quant import stream
from unmask.quant.layout import ELEMENTS, SCALES, VERSION, CheckpointFormats, Entry, entries, read_machine, roles
from unmask.quant.smoothing.static import FILE as KV_SCALES
from unmask.quant.stream import Part, Shard


@dataclass(frozen=True)
class Quantized:
    """What a call of `quantize_checkpoint` did.

    Attributes:
        folder: the finished checkpoint.
        packed, kept: tensors in MX, and in BF16.
        source_bytes, stored_bytes: of all tensors, before and after.
        converted_bytes: of the source, by this call; the rest was found finished.
        seconds: wall time of this call.
    """

    folder: Path
    packed: int
    kept: int
    source_bytes: int
    stored_bytes: int
    converted_bytes: int
    seconds: float


def quantize_checkpoint(
    source: str | Path, output: str | Path, formats: CheckpointFormats, report: Callable[[int, int], None] | None = None
) -> Quantized:
    """Write a machine checkpoint; go on with an unfinished one of the same source and formats.

    Args:
        source: a checkpoint folder, or the name of a shipped one.
        output: the folder to make. It may exist if it is empty.
        report: is told the source bytes that are done, and those of the whole, after each chunk.

    Raises:
        UnmaskError: before any work: what `load_network` raises for names, shapes and types; a source that is packed already; an output
            that exists, is being written or was begun with something else; too little space. During it: a weight that is NaN or infinite,
            or beyond BF16, and nothing is kept; a file that cannot be written, with the finished ones kept.
    """
    started = time.monotonic()
    folder, output = resolve_checkpoint(source), Path(os.path.abspath(output))
    if packed.is_packed(folder):
        raise UnmaskError(f"{folder} is a machine checkpoint already")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UnmaskError(f"{output} exists already; expected the name of a new folder")
    job = _Job.plan(folder, formats)
    partial = output.with_name(output.name + packed.PARTIAL)
    try:
        if not partial.exists():
            _check_space(next(path for path in partial.parents if path.exists()), job.stored_bytes)
        with _only_writer(partial):
            done = _finished(partial, job)
            _check_space(partial, job.stored_bytes - sum(job.stored_size(name) for name in done))
            converted = job.convert(partial, done, report or (lambda _done, _all: None))
            _copy_side_files(folder, partial)
            os.replace(partial / packed.PROGRESS, partial / packed.MARKER)
            os.replace(partial, output)
    except _BrokenWeight:
        shutil.rmtree(partial, ignore_errors=True)  # it could never be finished
        raise
    except OSError as error:
        why = "no space left on the device" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UnmaskError(f"{partial}: cannot write: {why}; finished files stay, the same command goes on from there") from None
    kept = list(job.forms.values()).count(None)
    seconds = time.monotonic() - started
    return Quantized(output, len(job.forms) - kept, kept, job.source_bytes, job.stored_bytes, converted, seconds)


def read_tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Path, str, Tensor]]:
    """File, name and float32 values of each tensor of a machine checkpoint: exactly those of its formats.

    Args:
        expected: the shapes of the network's tensors by their names.

    Raises:
        UnmaskError: what `read_machine`, `shards` and `open_shard` raise; a tensor of another type.
    """
    formats, _ = read_machine(folder)
    family, config = read_config(folder)
    forms = {name: formats.of(role) for name, role in roles(unfilled(family, config)).items()}
    stored = {name: entries(name, shape, forms[name]) for name, shape in expected.items()}
    flat = {entry.name: entry for parts in stored.values() for entry in parts}
    for path, names in shards(folder, {name: entry.shape for name, entry in flat.items()}):
        with open_shard(path, {name: flat[name].shape for name in names}) as file:
            for name in names:
                if (found := file.get_slice(name).get_dtype()) != flat[name].dtype:
                    raise UnmaskError(f"{path}: tensor {name} has dtype {found}; expected {flat[name].dtype}")
            for name, parts in stored.items():
                form = forms[name]
                if parts[0].name not in names:
                    continue
                if form is None:
                    yield path, name, file.get_tensor(name).to(torch.float32)
                    continue
                if name + SCALES not in names:
                    raise UnmaskError(f"{path}: tensor {name + SCALES} is in another file than {name + ELEMENTS}")
                elements, scales = (file.get_tensor(part.name).numpy() for part in parts)
                yield path, name, torch.from_numpy(mx.dequantize(mx.unpack(elements, scales, form, expected[name][1])))


@dataclass(frozen=True)
class _Job:
    """What there is to do: the source's files with their tensors, the format of each tensor, and what `machine.json` will say."""

    folder: Path
    shards: list[Shard]
    forms: dict[str, mx.MxFormat | None]
    machine: dict[str, Any]

    @classmethod
    def plan(cls, folder: Path, formats: CheckpointFormats) -> _Job:
        family, config = read_config(folder)
        network = unfilled(family, config)
        expected = shapes(network)
        found = [Shard(path, {name: expected[name] for name in names}) for path, names in shards(folder, expected)]
        machine = {
            "version": VERSION,
            "unmask": version("unmask"),
            "block": mx.BLOCK,
            "formats": asdict(formats),
            "family": family.name,
            "source": stream.fingerprint([shard.path for shard in found]),
        }
        return cls(folder, found, {name: formats.of(role) for name, role in roles(network).items()}, machine)

    @property
    def source_bytes(self) -> int:
        return sum(self._source_size(shard) for shard in self.shards)

    @property
    def stored_bytes(self) -> int:
        return sum(self.stored_size(shard.path.name) for shard in self.shards)

    def stored_size(self, name: str) -> int:
        """Bytes of the tensors in the finished file of that name."""
        (shard,) = (shard for shard in self.shards if shard.path.name == name)
        return sum(entry.size for entry in self._entries(shard))

    def _source_size(self, shard: Shard) -> int:
        return sum(shard.size(name) for name in shard.shapes)

    def _entries(self, shard: Shard) -> list[Entry]:
        """BF16 first: `stream.header` asks for it."""
        parts = [entry for name, shape in shard.shapes.items() for entry in entries(name, shape, self.forms[name])]
        return sorted(parts, key=lambda entry: entry.dtype != "BF16")

    def convert(self, partial: Path, done: dict[str, Any], report: Callable[[int, int], None]) -> int:
        """Write the files that are not `done`, and note each when it is complete; returns the source bytes converted."""
        found = ready = sum(self._source_size(shard) for shard in self.shards if shard.path.name in done)
        whole = self.source_bytes

        def count(size: int) -> None:
            nonlocal ready
            ready += size
            report(ready, whole)

        count(0)
        for shard in self.shards:
            name = shard.path.name
            if name not in done:
                done[name] = stream.write_file(partial / name, self._parts(shard, count))
            in_order = {shard.path.name: done[shard.path.name] for shard in self.shards if shard.path.name in done}
            _write_json(partial / packed.PROGRESS, {**self.machine, "shards": in_order})
        if (self.folder / INDEX).is_file():
            placed = {entry.name: shard.path.name for shard in self.shards for entry in self._entries(shard)}
            _write_json(partial / INDEX, {"metadata": {"total_size": self.stored_bytes}, "weight_map": placed})
        return ready - found

    def _parts(self, shard: Shard, count: Callable[[int], None]) -> Iterator[Part]:
        """The content of one finished file, in the order of `_entries`; `count` is told the source bytes of each chunk."""
        yield stream.header(self._entries(shard))
        for name in sorted(shard.shapes, key=lambda name: self.forms[name] is not None):
            form, scales = self.forms[name], []
            for start, chunk in shard.rows(name):
                if form is None:
                    bits = stream.to_bf16(chunk)
                    _check_finite(shard.path, name, start, (bits & bf16.INFINITY_BITS) == bf16.INFINITY_BITS)
                    yield bits.data
                else:
                    block = stream.to_mx(chunk, form)
                    if (block.scales == mx.NAN_SCALE).any():
                        _check_finite(shard.path, name, start, ~torch.isfinite(chunk.to(torch.float32)).numpy())
                    scales.append(block.scales.data)
                    yield mx.pack(block).data
                count(chunk.numel() * chunk.element_size())
            yield from scales


class _BrokenWeight(UnmaskError):
    """A weight that no format holds."""


def _check_finite(path: Path, name: str, start: int, broken: NDArray[np.bool_]) -> None:
    if broken.any():
        index = np.argwhere(broken)[0]
        index[0] += start
        raise _BrokenWeight(f"{path}: tensor {name} holds NaN or infinity at {index.tolist()}")


@contextmanager
def _only_writer(partial: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from writing it."""
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UnmaskError(f"{partial} is being written by another process") from None
    finally:
        os.close(handle)


def _finished(partial: Path, job: _Job) -> dict[str, Any]:
    """The files of an earlier attempt that are complete and undamaged, after checking that it was an attempt at the same.

    What was interrupted between its last two renamings has its `machine.json` already.
    """
    progress, marker = partial / packed.PROGRESS, partial / packed.MARKER
    if marker.is_file():
        os.replace(marker, progress)
    if not progress.is_file():
        if any(path.suffix != packed.PARTIAL for path in partial.iterdir()):
            raise UnmaskError(f"{partial} is no unfinished machine checkpoint; move it away, or choose another output")
        _write_json(progress, {**job.machine, "shards": {}})
    content = read_json(progress)
    written = content.pop("shards", None)
    if content != job.machine or not isinstance(written, dict):
        raise UnmaskError(f"{partial} was begun with another source, other formats or another unmask; delete it, or choose another output")
    names = {shard.path.name for shard in job.shards}
    return {name: facts for name, facts in written.items() if name in names and stream.is_intact(partial / name, facts)}


def _check_space(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UnmaskError(f"{folder}: {needed:,} bytes are still to be written; {free:,} are free")


def _copy_side_files(folder: Path, partial: Path) -> None:
    """Configuration, tokenizer and the scales of the KV cache."""
    for path in sorted(folder.iterdir()):
        if path.name == KV_SCALES or (path.suffix == ".json" and path.name != INDEX):
            stream.write_file(partial / path.name, [path.read_bytes()])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    stream.write_file(path, [(json.dumps(content, indent=2) + "\n").encode()])
