"""What is published about the NPU that these programs answer to: figures of others, never measured here.

arXiv 2601.20706v1: one denoising step's sampling at batch 16, block 32, vocabulary 126 464, logits in MXFP8, 1 GHz, HBM2e.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2601.20706v1"


@dataclass(frozen=True)
class Published:
    """One configuration.

    Attributes:
        ms: latency.
        cycles, breakdown: in all and by part, where given; the parts sum to one less than all.
        integer_kb, float_kb: scalar memories; the vector SRAM has 8 MB in all of them.
    """

    ms: float
    integer_kb: int
    float_kb: int
    cycles: int | None = None
    breakdown: dict[str, int] | None = None


BY_VLEN = {
    512: Published(3.41, 8, 1),
    1024: Published(1.79, 8, 2),
    2048: Published(0.99, 8, 4, 991_038, {"vector": 477_696, "memory": 392_320, "scalar": 117_412, "control": 3_609}),
}
A6000_MS = 2.51
"""The same sampling on an RTX A6000, as published there."""

BATCH, BLOCK, VOCABULARY = 16, 32, 126_464


def published(vlen: int, batch: int, block: int, vocabulary: int) -> Published | None:
    """The published figures of a workload, or None where it is another one."""
    return BY_VLEN.get(vlen) if (batch, block, vocabulary) == (BATCH, BLOCK, VOCABULARY) else None
