"""Static smoothing: scales from calibration texts, fixed for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmask.decoding.cache.smoothing import Scales
from unmask.errors import UnmaskError
from unmask.models.arithmetic import Arithmetic
from unmask.models.checkpoint import resolve_checkpoint
from unmask.models.family import Network
from unmask.models.layers import Architecture, TransformerBlock
from unmask.quant.smoothing.scales import filling, peak

FILE = "kv_scales.safetensors"
"""Where a checkpoint folder keeps its scales."""


@dataclass(frozen=True)
class KvScales:
    """The scales of a whole network: two tensors [layers, kv_heads, head_dim], float32 with positive BF16 values."""

    keys: Tensor
    values: Tensor

    def check(self, shape: Architecture, source: str = "KV scales") -> None:
        """Hold the scales against a network's sizes; `source` names them in messages.

        Raises:
            UnmaskError: scales of another shape than the network's K and V, or that are not positive BF16 numbers.
        """
        expected = (shape.layers, shape.kv_heads, shape.head_dim)
        for name, scales in (("keys", self.keys), ("values", self.values)):
            if tuple(scales.shape) != expected:
                raise UnmaskError(f"{source}: tensor {name} has shape {list(scales.shape)}; expected {list(expected)}")
            if not (bool((scales > 0).all()) and bool(scales.isfinite().all()) and torch.equal(scales, scales.bfloat16().float())):
                raise UnmaskError(f"{source}: tensor {name} holds a scale that is no positive BF16 number")


class Static:
    """A scale per layer, head and channel that does not depend on what is generated."""

    def __init__(self, calibrated: KvScales) -> None:
        self._calibrated = calibrated

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        return Scales(*(x[layer][None, :, None, :].to(keys.dtype) for x in (self._calibrated.keys, self._calibrated.values)))


def calibration_canvases(
    texts: Sequence[Sequence[int]], mask_token_id: int, *, count: int = 64, length: int = 128, seed: int = 0
) -> Tensor:
    """Windows of texts with a part of their tokens masked: int64 [count, length].

    Each window lies anywhere in a text drawn at random, and a fraction of it drawn evenly from [0, 1) is masked.

    Args:
        texts: token ids; only those of at least `length` are used.
        mask_token_id: what stands for a masked token.
        count, length: of the windows.
        seed: of the draws.

    Raises:
        UnmaskError: no text of that length.
    """
    long = [torch.tensor(text) for text in texts if len(text) >= length]
    if not long:
        raise UnmaskError(f"no text of at least {length} tokens to calibrate on")
    generator = torch.Generator().manual_seed(seed)
    windows = []
    for number in torch.randint(len(long), (count,), generator=generator).tolist():
        start = int(torch.randint(len(long[number]) - length + 1, (), generator=generator))
        windows.append(long[number][start : start + length])
    masked = torch.rand((count, length), generator=generator) < torch.rand((count, 1), generator=generator)
    return torch.stack(windows).masked_fill(masked, mask_token_id)


@torch.no_grad()
def calibrate(model: Network, ids: Tensor, batch: int = 16) -> KvScales:
    """The scales of a network, from the largest magnitudes of K and V over calibration canvases.

    Args:
        model: the network.
        ids: int64 [canvases, positions], with masks as the canvases of a generation have them.
        batch: canvases per forward pass; it changes nothing but the time and memory needed.
    """
    peaks: dict[int, tuple[Tensor, Tensor]] = {}

    def run(
        index: int,
        block: TransformerBlock,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention_bias: Tensor | None,
        arithmetic: Arithmetic,
    ) -> Tensor:
        q, k, v = block.project(x, cos, sin, arithmetic)
        found = tuple(peak(part.float(), dim=(0, 2))[0, :, 0] for part in (k, v))
        before = peaks.get(index, found)
        peaks[index] = torch.maximum(before[0], found[0]), torch.maximum(before[1], found[1])
        return block.attend(x, q, k, v, attention_bias, arithmetic)

    for canvases in torch.split(ids, batch):
        model.hidden(canvases, layers=run)
    layers = [peaks[index] for index in sorted(peaks)]
    return KvScales(*(filling(torch.stack(parts)) for parts in zip(*layers, strict=True)))


def save_scales(scales: KvScales, folder: Path) -> None:
    """Write the scales into a checkpoint folder.

    Raises:
        UnmaskError: the file cannot be written.
    """
    try:
        save_file({"keys": scales.keys.bfloat16(), "values": scales.values.bfloat16()}, folder / FILE)
    except (OSError, SafetensorError) as error:
        raise UnmaskError(f"cannot write {folder / FILE}: {error}") from None


def scales_for(method: str, name_or_path: str | Path, model: Network) -> KvScales | None:
    """What a machine's smoothing `method` needs of a checkpoint: its scales under `static`, else None. Raises what `load_scales` does."""
    return load_scales(name_or_path, model) if method == "static" else None


def load_scales(name_or_path: str | Path, model: Network) -> KvScales:
    """The scales that a checkpoint folder, or a shipped checkpoint, holds for `model`.

    Raises:
        UnmaskError: no checkpoint of that name, or no scales in it; a damaged file; scales of another shape than the network's K and V,
            or that are not positive BF16 numbers.
    """
    path = resolve_checkpoint(name_or_path) / FILE
    if not path.is_file():
        raise UnmaskError(f"{path} is missing: static smoothing needs scales that were calibrated for the checkpoint")
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UnmaskError(f"{path} is not a complete safetensors file: {' '.join(str(error).split())}") from None
    for name in ("keys", "values"):
        if name not in found:
            raise UnmaskError(f"{path}: tensor {name} is missing")
    scales = KvScales(found["keys"].float(), found["values"].float())
    scales.check(model.config.architecture, str(path))
    return scales
