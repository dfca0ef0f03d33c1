"""The sampler's part of a denoising step as a GPU runs it, in the dtypes of the published references."""

from __future__ import annotations

from typing import Literal

from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import FP64_OPERATIONS, Kernel, streamed
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError

Confidence = Literal["bf16", "fp32", "fp64"]
_BYTES = {"bf16": 2, "fp32": 4, "fp64": 8}
_SOFTMAX_READS = 3
"""Of a row that exceeds the shared memory: for its maximum, for the sum and for the result."""


def sampling_kernels(gpu: Gpu, policy: Policy, batch: int, rows: int, vocabulary: int, confidence: Confidence) -> list[Kernel]:
    """From logits in BF16 to a committed canvas.

    Args:
        gpu: what runs it.
        policy: temperature, remasking and commit.
        batch: sequences.
        rows: positions of each that are sampled.
        vocabulary: logits of a position.
        confidence: dtype of the softmax.

    Raises:
        UnmaskError: a scorer, or a cut of the distribution, whose kernels are not known here.
    """
    if policy.remasking not in ("low_confidence", "random"):
        raise UnmaskError(f"the kernels of remasking {policy.remasking!r} are not known on a GPU; expected low_confidence or random")
    if policy.commit == "guided":
        raise UnmaskError("commit 'guided' also runs a guide, whose network is not known here; expected another commit")
    elements, positions = batch * rows * vocabulary, batch * rows
    kernels: list[Kernel] = []
    if policy.cfg_scale:
        kernels.append(streamed(gpu, "guidance", "combine logits", elements, 6).times(3))
    if policy.exclude_mask or policy.suppress_eos:
        kernels.append(streamed(gpu, "exclude tokens", "copy logits", elements, 4))
        kernels.append(streamed(gpu, "exclude tokens", "fill", positions, 4))
    kernels += _candidates(gpu, policy, elements)
    if policy.remasking == "random":
        kernels.append(streamed(gpu, "confidence", "uniform draw", positions, 4))
    else:
        kernels += softmax(gpu, elements, vocabulary, confidence)
        kernels.append(streamed(gpu, "confidence", "gather", positions, 16))
    return kernels + _commit(gpu, policy, positions)


def _candidates(gpu: Gpu, policy: Policy, elements: int) -> list[Kernel]:
    """The arg-max, of logits or of `exp(l) / (-ln U) ** T` in FP64 (Zheng et al., arXiv 2409.02908)."""
    if policy.temperature == 0:
        return [streamed(gpu, "candidate", "arg-max", elements, 2, "reduce")]
    cost = FP64_OPERATIONS
    return [
        streamed(gpu, "gumbel", "to FP64", elements, 10),
        streamed(gpu, "gumbel", "uniform draw", elements, 8, fp64=cost["draw"]),
        streamed(gpu, "gumbel", "logarithm", elements, 16, fp64=cost["log"]),
        streamed(gpu, "gumbel", "negate", elements, 16),
        streamed(gpu, "gumbel", "power", elements, 16, fp64=cost["pow"]),
        streamed(gpu, "gumbel", "exponential", elements, 16, fp64=cost["exp"]),
        streamed(gpu, "gumbel", "divide", elements, 24, fp64=cost["divide"]),
        streamed(gpu, "candidate", "arg-max", elements, 8, "reduce"),
    ]


def softmax(gpu: Gpu, elements: int, vocabulary: int, confidence: Confidence) -> list[Kernel]:
    """The whole softmax over the vocabulary: a thread block per row, which goes over it three times. The second and third time it finds
    the row in the second-level cache where those of all thread blocks fit there together.
    """
    size = _BYTES[confidence]
    resident = gpu.multiprocessors * vocabulary * size <= gpu.fit.stream.l2_share * gpu.l2_mib * 2**20
    reads = 1 if resident else _SOFTMAX_READS
    kernels = [] if confidence == "bf16" else [streamed(gpu, "confidence", f"to {confidence.upper()}", elements, 2 + size)]
    fp64 = 2 * FP64_OPERATIONS["exp"] + FP64_OPERATIONS["divide"] if confidence == "fp64" else 0
    return [*kernels, streamed(gpu, "confidence", f"softmax in {confidence.upper()}", elements, (reads + 1) * size, "reduce", fp64)]


def _commit(gpu: Gpu, policy: Policy, positions: int) -> list[Kernel]:
    """Everything whose tensors have one element per position: a launch each, hardly any data.

    Masked positions of the block, two `where` and the fill of confidences; then a stable sort and its mask, or compares and one arg-max;
    the new canvas, and the count of the masks that are left.
    """
    small = {"eligible": 4, "where": 3, "fill with -inf": 2, "new canvas": 2, "count masks": 2}
    small |= {"schedule": {"sort": 4, "mask of the best": 5}, "threshold": {"compare": 5}, "factor": {"sort": 4, "bars": 8}}[policy.commit]
    return [streamed(gpu, "commit", name, positions, 16).times(count) for name, count in small.items()]
