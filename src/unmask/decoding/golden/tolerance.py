"""How far a replay may be from the recording.

The vectors were recorded with PyTorch's AVX2 kernels. Where these run (see `pin_kernels`), the replay is bit-identical or nearly so; other
vector widths add in another order, which float32 hardly shows and bfloat16 does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_BF16_ULP = 2.0**-7  # of a value in [1, 2)


def pin_kernels() -> None:
    """Ask PyTorch for its AVX2 kernels, so that a replay does not depend on the machine.

    Works only before the process has run its first PyTorch operation. Machines whose widest kernels are AVX2 or that are no x86
    are left alone, and so is a setting that the user made.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "avx512f" in cpuinfo.read_text():
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@dataclass(frozen=True)
class Tolerance:
    """Bounds on absolute differences.

    Attributes:
        dtype: of the network.
        cfg_scale: guidance multiplies rounding errors of the logits.
        same_kernels: whether the kernels are those of the recording.
    """

    dtype: torch.dtype
    cfg_scale: float
    same_kernels: bool

    @classmethod
    def here(cls, dtype: torch.dtype, cfg_scale: float) -> Tolerance:
        return cls(dtype, cfg_scale, torch.backends.cpu.get_cpu_capability() == "AVX2")

    def logits(self, logits: Tensor) -> Tensor:
        """Per row of `logits` [..., vocabulary]: 1e-4 in float32; in bfloat16 one unit in the last place of the largest logit with the
        recording's kernels, four with others."""
        if self.dtype != torch.bfloat16:
            return torch.full(logits.shape[:-1], 1e-4, dtype=torch.float64)
        return _ulp(logits) * (1 if self.same_kernels else 4)

    def probability(self, p: Tensor, logits: Tensor, *, guided: bool) -> Tensor:
        """Of probabilities `p` [...] from the rows of `logits` [..., vocabulary].

        In float32 1e-5, times `1 + cfg_scale` if `guided`. In bfloat16 two units in the last place of `p`, and with other kernels
        also what it moves, `2 p (1 - p)`, when its logits move by one unit of the largest.
        """
        amplified = 1 + self.cfg_scale * guided
        if self.dtype != torch.bfloat16:
            return torch.full(p.shape, 1e-5 * amplified, dtype=torch.float64)
        own = 2 * _BF16_ULP * p + 1e-5
        return own if self.same_kernels else own + 2 * p * (1 - p) * _ulp(logits) * amplified


def _ulp(logits: Tensor) -> Tensor:
    largest = logits.double().nan_to_num(neginf=0.0).abs().amax(dim=-1).clamp(min=2.0**-20)
    return torch.exp2(torch.floor(torch.log2(largest))) * _BF16_ULP
