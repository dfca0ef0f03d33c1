"""From a network, a policy and a machine to a program: the kinds of step that the policy takes, each an entry."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from unmask.compiler.assembly import Plan, assemble
from unmask.compiler.context import Context, Tiling
from unmask.compiler.kernels.cache import KvCache
from unmask.compiler.kernels.linear import mx_blocks
from unmask.compiler.kernels.smoothing_buffers import reserve_smoothing
from unmask.compiler.memory import Hbm, MxMatrix, ceil_to
from unmask.compiler.network import place_network
from unmask.compiler.sampling.logits import Logits
from unmask.compiler.sampling.streamed import SamplingProgram, check_served
from unmask.compiler.step import PARAMETERS, StepBuffers, StepEmitter, StepKind
from unmask.compiler.stream import StreamBuffers, Unseen
from unmask.decoding.cache.base import Moment
from unmask.decoding.cache.registry import caches
from unmask.decoding.compose import cache_of, opens_blocks
from unmask.decoding.evaluate import ModelConfig
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, INT32_BYTES
from unmask.machine.config import BF16, Formats, Machine
from unmask.machine.dma import CHUNK_BLOCKS
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.models.layers import Architecture
from unmask.numerics import bf16, mx
from unmask.quant.smoothing.static import KvScales

_LONG_ROW = 8 * CHUNK_BLOCKS
"""MX blocks; of a row that is longer, what fills the last chunk is little."""


def fed_rows(policy: Policy, now: Moment) -> range:
    """The canvas positions that a policy's cache, one of consecutive rows, feeds."""
    cache = cache_of(policy)
    rows = now.everything if cache is None else cache.rows(now)
    assert isinstance(rows, range)
    return rows


def step_kind(policy: Policy, config: ModelConfig, rows: range, block: range, step: int) -> StepKind:
    """Which kind a step is.

    Args:
        rows: what it feeds.
        block: the active block.
        step: counted from the start of the block.
    """
    own_first = config.shifted_logits and rows.start == block.start
    return StepKind(len(rows), own_first, opens_blocks(policy, config) and step == 0)


def head_row(config: ModelConfig, rows: range, block: range) -> int:
    """Which of the fed rows gives the logits of the active block's first position."""
    return max(block.start - rows.start - config.shifted_logits, 0)


def _kinds(policy: Policy, config: ModelConfig, prompt_length: int) -> dict[StepKind, None]:
    """The kinds of step that a generation may take, in the order of their first use."""
    canvas = torch.zeros((1, prompt_length + policy.gen_length), dtype=torch.int64)
    kinds: dict[StepKind, None] = {}
    for number in range(policy.blocks):
        start = prompt_length + number * policy.block_length
        block = range(start, start + policy.block_length)
        for step in range(2):
            index = 2 * number + step  # of which caches ask only whether it is 0
            rows = fed_rows(policy, Moment(canvas, prompt_length, block, step, index, config.mask_token_id, config.shifted_logits))
            kinds[step_kind(policy, config, rows, block, step)] = None
    return kinds


def compile_step(
    model: Network | Architecture,
    policy: Policy,
    machine: Machine,
    prompt_length: int,
    batch: int = 1,
    *,
    padded: bool = False,
    kv_scales: KvScales | None = None,
    sampling: SamplingProgram = "general",
) -> Program:
    """Lower the denoising steps of `model` under `policy` to a program for `machine`, one entry per kind of step.

    Of an architecture, the instructions and addresses are those of any network of that shape, but the image of HBM lacks the weights: the
    program can be timed, not run.

    The host writes the canvas (INT32 token ids) to the region `canvas` once and the words of `unmask.compiler.step.PARAMETERS`, followed by
    the commits of every sequence, to the region `parameters` before each run of an entry; each run commits candidates of the block that
    starts at `block_start` and leaves the new canvas in `canvas`. `unmask.compiler.host.simulate` is such a host.

    Args:
        prompt_length: positions before the generated ones.
        batch: sequences that are decoded side by side.
        padded: the host writes what every sequence must not see to the region `unseen`: BF16 [sequences, positions], -inf at padding.
        kv_scales: those that a machine with smoothing `static` divides K and V by.
        sampling: the program that samples: "general" serves every policy; "four-phase", "single-pass" and "fused" those of LLaDA's scorers,
            with confidences of their own (docs/sampling.md).

    Raises:
        UnmaskError: the canvas exceeds the model's context, the policy has no program, the machine's memories cannot hold a tile, or static
            smoothing has no scales, or not the network's.
    """
    return assemble(plan_step(model, policy, machine, prompt_length, batch, padded, kv_scales, sampling), machine)


def plan_step(
    model: Network | Architecture,
    policy: Policy,
    machine: Machine,
    prompt_length: int,
    batch: int,
    padded: bool,
    kv_scales: KvScales | None,
    sampling: SamplingProgram,
) -> Plan:
    """What `compile_step` assembles; arguments and errors as there, but for those of memories on the chip.

    Of the machine, only its formats enter here, and what its memories on the chip, its vector engine and, for experts, its array and memory
    say when an entry is emitted.
    """
    shape: Architecture = model if isinstance(model, Architecture) else model.config.architecture
    positions = prompt_length + policy.gen_length
    _check(shape, policy, prompt_length, batch, padded)
    if sampling != "general":
        check_served(policy, shape.eos_token_id)
    hbm = Hbm()
    if isinstance(model, GuideNetwork):
        raise UnmaskError("a guide sees only what precedes a position; expected a diffusion model (a guide is compiled by compile_guide)")
    weights, kv = (mx.format_named(name) for name in (machine.formats.weights, machine.formats.kv))
    network = place_network(hbm, model, positions, weights, kv)
    at = _reserve(hbm, shape, policy, machine, positions, batch, padded, kv_scales, filled=not isinstance(model, Architecture))
    kinds = _kinds(policy, shape, prompt_length)

    def emit(kind: StepKind, c: Context, tiling: Tiling) -> None:
        StepEmitter(c, network, policy, kind, batch, positions, tiling, at, sampling).build()

    return Plan(
        {kind.name: partial(emit, kind) for kind in kinds},
        {kind.name: kind.rows for kind in kinds},
        _sequences(policy, batch),
        hbm,
        {
            "model": asdict(shape),
            "weights": not isinstance(model, Architecture),
            "policy": asdict(policy),
            "positions": positions,
            "batch": batch,
            "padded": padded,
            "sampling": sampling,
        },
    )


def _sequences(policy: Policy, batch: int) -> int:
    """Sequences that are fed: guidance needs each once more, its prompt masked."""
    return batch * (2 if policy.cfg_scale else 1)


def _check(shape: Architecture, policy: Policy, prompt_length: int, batch: int, padded: bool) -> None:
    positions = prompt_length + policy.gen_length
    if prompt_length < 0 or batch < 1:
        raise UnmaskError(f"{batch} prompts of {prompt_length} tokens: expected at least one prompt, of at least no tokens")
    if positions > shape.max_sequence_length:
        raise UnmaskError(
            f"the prompt is too long: {prompt_length} tokens and {policy.gen_length} new ones exceed the model's context of "
            f"{shape.max_sequence_length}"
        )
    if policy.cache != "none" and not caches()[policy.cache].consecutive:
        raise UnmaskError(f"cache {policy.cache!r} has no program: it feeds rows that are not consecutive; expected --backend torch")
    if not policy.exclude_mask:
        raise UnmaskError("exclude_mask False: a program never commits the mask token; expected True, or --backend torch")
    for name in ("temperature", "cfg_scale"):
        if not np.isfinite(bf16.rounded(getattr(policy, name) + 1)):
            raise UnmaskError(f"{name} {getattr(policy, name):g} is beyond BF16; expected less than 3.4e38")
    if padded and shape.shifted_logits:
        raise UnmaskError("padding moves the positions of this network's rows, which has no program; expected prompts of one length")


def _reserve(
    hbm: Hbm,
    shape: Architecture,
    policy: Policy,
    machine: Machine,
    positions: int,
    batch: int,
    padded: bool,
    kv_scales: KvScales | None,
    *,
    filled: bool,
) -> StepBuffers:
    sequences, kept = _sequences(policy, batch), policy.cache != "none"
    row_bytes, smoothing = shape.width * BF16_BYTES, machine.formats.smoothing

    def logits(name: str) -> Logits:
        return reserve_logits(hbm, name, batch * policy.block_length, shape.vocab_size, machine.formats.logits)

    unseen = None
    if padded:
        unseen = Unseen(hbm.reserve("unseen", sequences * positions * BF16_BYTES), positions * BF16_BYTES, causal=False)
    stream = StreamBuffers(
        canvas=hbm.reserve("canvas", sequences * positions * INT32_BYTES),
        x=hbm.reserve("x", sequences * positions * row_bytes),
        queries=hbm.reserve("queries", sequences * positions * row_bytes),
        cache=reserve_cache(hbm, shape, machine.formats, sequences, positions, kept=kept),
        unseen=unseen,
        smoothing=reserve_smoothing(hbm, shape, smoothing, kv_scales, sequences, positions, kept=kept, filled=filled),
    )
    guided = policy.commit == "guided"
    return StepBuffers(
        parameters=hbm.reserve("parameters", (len(PARAMETERS) + batch) * INT32_BYTES),
        stream=stream,
        logits=logits("logits"),
        unconditional=logits("unconditional") if policy.cfg_scale else None,
        candidates=hbm.reserve("candidates", batch * policy.block_length * INT32_BYTES) if guided else None,
    )


def reserve_logits(hbm: Hbm, name: str, rows: int, vocabulary: int, form: str) -> Logits:
    """Room for rows of logits in a format of the machine's configuration.

    Long rows in MX are an odd number of chunks of blocks apart, as the load engine asks for them: its bursts are then whole ones, and rows
    at the same column do not all lie in one bank.
    """
    if form == BF16:
        row_bytes = ceil_to(vocabulary * BF16_BYTES, 64)
        return Logits(hbm.reserve(name, rows * row_bytes), 0, row_bytes, vocabulary, None)
    packed, blocks = mx.format_named(form), mx_blocks(vocabulary)
    if blocks > _LONG_ROW:
        blocks = (-(-blocks // CHUNK_BLOCKS) | 1) * CHUNK_BLOCKS
    row_bytes = blocks * mx.BLOCK * packed.element.bits // 8
    elements = hbm.reserve(f"{name}.elements", rows * row_bytes)
    return Logits(elements, hbm.reserve(f"{name}.scales", rows * blocks), row_bytes, vocabulary, packed)


def reserve_cache(hbm: Hbm, shape: Architecture, formats: Formats, sequences: int, positions: int, *, kept: bool) -> KvCache:
    """Room for K and V, and the ones that go with V where the machine's formats ask for them.

    Args:
        kept: from step to step, for all layers; otherwise the layers use the same room.
    """
    form, rows = mx.format_named(formats.kv), sequences * shape.kv_heads * positions
    head = MxMatrix(0, 0, rows, mx.padded(shape.head_dim), form)
    sizes = (rows * head.row_bytes, rows * head.blocks) * 2
    offsets = [0, *np.cumsum([ceil_to(size, 64) for size in sizes]).tolist()]
    layer_bytes = offsets.pop()
    base = hbm.reserve("cache", layer_bytes * (shape.layers if kept else 1))
    keys, values = (MxMatrix(base + offsets[i], base + offsets[i + 1], rows, head.cols, form) for i in (0, 2))
    ones = _ones(hbm, positions, head.cols, form) if formats.softmax_sums == "array" else None
    return KvCache(keys, values, positions, shape.kv_heads, shape.head_dim, layer_bytes if kept else 0, ones)


def _ones(hbm: Hbm, rows: int, cols: int, form: mx.MxFormat) -> MxMatrix:
    packed = mx.quantize(np.ones((rows, cols), np.float32), form)
    elements, scales = hbm.place("ones.elements", mx.pack(packed)), hbm.place("ones.scales", packed.scales)
    return MxMatrix(elements, scales, rows, cols, form)
