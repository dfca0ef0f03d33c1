"""A denoising step as one program: embedding, transformer, LM head, sampling."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import KvCache, attend, store_heads
from unmask.compiler.kernels.feed_forward import feed_forward
from unmask.compiler.kernels.head import head_logits, suppress
from unmask.compiler.kernels.linear import mx_blocks, product
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.kernels.rotary import rotate
from unmask.compiler.kernels.sampling import Logits, StepParameters, candidates, choose_positions, confidences
from unmask.compiler.memory import Hbm, MxMatrix, SramOverflow, ceil_to
from unmask.compiler.network import NetworkImage, place_network
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.encoding import encode
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, INT32_BYTES, Engine
from unmask.machine.config import Machine
from unmask.machine.cycle import check_depth
from unmask.machine.state import check_hbm
from unmask.models.llada import Llada
from unmask.numerics import bf16, mx

PARAMETERS = ("block_start", "commits", "seed", "step")
"""INT32 words of the region `parameters`, which the host writes before each step."""


@dataclass(frozen=True)
class _Buffers:
    """HBM addresses of what a step leaves behind for its later parts."""

    canvas: int
    parameters: int
    x: int
    queries: int
    cache: KvCache
    logits: Logits


def compile_step(model: Llada, policy: Policy, machine: Machine, prompt_length: int) -> Program:
    """Lower one denoising step of `model` under `policy` to a program for `machine`.

    The host writes the canvas (INT32 token ids) to the region `canvas` once and the words of `PARAMETERS` to the region `parameters` before
    each run; each run commits `commits` positions of the block that starts at `block_start` and leaves the new canvas in `canvas`.

    Args:
        prompt_length: positions before the generated ones.

    Raises:
        UnmaskError: the canvas exceeds the model's context, the policy has no program, or the machine's memories cannot hold a tile.
    """
    if not isinstance(model, Llada):
        raise UnmaskError(f"a {type(model).__name__} network has no program; expected a llada one")
    config, positions = model.config, prompt_length + policy.gen_length
    if prompt_length < 1:
        raise UnmaskError("the prompt is empty: expected at least one token")
    if positions > config.max_sequence_length:
        raise UnmaskError(
            f"the prompt is too long: {prompt_length} tokens and {policy.gen_length} new ones exceed the model's context of "
            f"{config.max_sequence_length}"
        )
    if not policy.exclude_mask:
        raise UnmaskError("exclude_mask False: a program never commits the mask token; expected True, or --backend torch")
    if not np.isfinite(bf16.rounded(policy.temperature)):
        raise UnmaskError(f"temperature {policy.temperature:g} is beyond BF16; expected less than 3.4e38")
    if policy.defer_eos:
        raise UnmaskError("defer_eos has no program; expected False, or --backend torch")
    if policy.cfg_scale:
        raise UnmaskError(f"cfg_scale {policy.cfg_scale}: classifier-free guidance has no program; expected 0, or --backend torch")
    hbm = Hbm()
    network = place_network(hbm, model, 2 * positions, mx.format_named(machine.formats.weights))
    overflow: SramOverflow | None = None
    for tiles in range(1, positions + 1):
        rows = -(-positions // tiles)
        if rows > machine.vector.accumulators or (tiles > 1 and rows == -(-positions // (tiles - 1))):
            continue
        try:
            return _Step(hbm.fork(), network, policy, machine, positions, rows).build()
        except SramOverflow as error:
            overflow = error
    raise UnmaskError(f"machine {machine.name} cannot run this model and policy: {overflow}")


class _Step:
    """One attempt at a program, with row tiles of a given height."""

    def __init__(self, hbm: Hbm, network: NetworkImage, policy: Policy, machine: Machine, positions: int, rows: int) -> None:
        self.c = Context(machine, hbm)
        self.network, self.config, self.policy = network, network.config, policy
        self.positions, self.rows, self.tiles = positions, rows, -(-positions // rows)
        self.width = self.config.d_model
        self.row_bytes = self.width * BF16_BYTES
        self.at = self._reserve()

    def _reserve(self) -> _Buffers:
        hbm, config, height = self.c.hbm, self.config, self.rows * self.tiles
        blocks = config.kv_heads * mx_blocks(config.head_dim)

        def cache(name: str) -> MxMatrix:
            cols, form = blocks * mx.BLOCK, self.c.kv
            elements = hbm.reserve(f"{name}.elements", height * cols * form.element.bits // 8)
            return MxMatrix(elements, hbm.reserve(f"{name}.scales", height * blocks), self.positions, cols, form)

        logit_bytes = ceil_to(config.vocab_size * BF16_BYTES, 64)
        return _Buffers(
            canvas=hbm.reserve("canvas", height * INT32_BYTES),
            parameters=hbm.reserve("parameters", len(PARAMETERS) * INT32_BYTES),
            x=hbm.reserve("x", height * self.row_bytes),
            queries=hbm.reserve("queries", height * self.row_bytes),
            cache=KvCache(cache("keys"), cache("values"), config.kv_heads, config.head_dim),
            logits=Logits(hbm.reserve("logits", self.policy.block_length * logit_bytes), logit_bytes, config.vocab_size),
        )

    def build(self) -> Program:
        """Emit everything."""
        c = self.c
        canvas = c.integers.take(self.rows * self.tiles, "the canvas")
        with c.e.phase("embedding"):
            self._embed(canvas)
        layer = c.e.var(0)
        with c.e.loop(self.config.n_layers, {layer: self.network.layer_bytes}):
            with c.e.phase("attention"):
                self._keys_and_values(layer)
            self._attention_and_feed_forward(layer)
        c.e.release(layer)
        parameters = self._parameters()
        with c.e.phase("lm-head"):
            self._head(parameters)
        self._sample(parameters, canvas)
        c.e.halt()
        check_depth(c.e.ops, c.machine)
        check_hbm(c.hbm.size, c.machine)
        return Program(
            words=encode(c.e.ops),
            phases=c.e.phases,
            hbm_bytes=c.hbm.size,
            regions=c.hbm.regions,
            data=c.hbm.data,
            machine=c.machine.model_dump(),
            about={
                "model": asdict(self.config),
                "policy": asdict(self.policy),
                "positions": self.positions,
                "row_tile": self.rows,
                "parameter_words": self.parameter_words,
                "sram_high_water": {
                    "vector_elements": c.vector.high_water,
                    "matrix_blocks": c.matrix.high_water,
                    "float_words": c.floats.high_water,
                    "integer_words": c.integers.high_water,
                },
            },
        )

    def _embed(self, canvas: int) -> None:
        c = self.c
        c.e.emit("L_INT", dst=canvas, src=self.at.canvas, count=self.rows * self.tiles)
        c.e.order(Engine.LOAD, Engine.LOAD)
        c.e.order(Engine.LOAD, Engine.VECTOR)
        ids, x = c.e.var(canvas), c.e.var(self.at.x)
        with c.vector.scope():
            tile = c.tile(self.rows, self.width, "a tile of embeddings")
            with c.e.loop(self.tiles, {ids: self.rows, x: self.rows * self.row_bytes}):
                c.e.order(Engine.VECTOR, Engine.LOAD)
                c.e.emit(
                    "L_GATHER",
                    dst=tile.at,
                    table=self.network.embedding,
                    ids=ids,
                    rows=self.rows,
                    cols=self.width,
                    dst_stride=tile.stride,
                    table_stride=self.row_bytes,
                    limit=self.config.embedding_size,
                )
                c.e.order(Engine.LOAD, Engine.VECTOR)
                c.store(tile, x, self.row_bytes)
        c.e.release(ids, x)

    def _norm_weight(self, name: str, layer: Var) -> Tile:
        tile = self.c.tile(1, self.width, "a norm's weight")
        self.c.load(tile, Address(layer, self.network.norms[name]), self.row_bytes)
        return tile

    def _keys_and_values(self, layer: Var) -> None:
        """Norm, projections and rotary embedding of every row; queries, keys and values go to HBM."""
        c, config, cache, matrices = self.c, self.config, self.at.cache, self.network.layer
        half, kv_width = config.head_dim // 2, config.kv_heads * config.head_dim
        x, q, angle = c.e.var(self.at.x), c.e.var(self.at.queries), c.e.var(0)
        k_e, k_s = c.e.var(cache.keys.elements), c.e.var(cache.keys.scales)
        v_e, v_s = c.e.var(cache.values.elements), c.e.var(cache.values.scales)
        element_step, scale_step = self.rows * cache.keys.row_bytes, self.rows * cache.keys.blocks
        steps = {
            x: self.rows * self.row_bytes,
            q: self.rows * self.row_bytes,
            angle: self.rows * half * BF16_BYTES,
            k_e: element_step,
            k_s: scale_step,
            v_e: element_step,
            v_s: scale_step,
        }
        with c.vector.scope():
            weight = self._norm_weight("attn_norm", layer)
            rows, normed = (c.tile(self.rows, self.width, "a tile of activations") for _ in range(2))
            cos, sin = (c.tile(self.rows, half, "rotary tables") for _ in range(2))
            projected = c.tile(self.rows, max(self.width, kv_width), "a projection")
            keys = Tile(projected.at, self.rows, kv_width, projected.stride)
            queries = Tile(projected.at, self.rows, self.width, projected.stride)
            with c.e.loop(self.tiles, steps):
                c.e.order(Engine.STORE, Engine.LOAD)
                c.load(rows, x, self.row_bytes)
                c.load(cos, Address(angle, self.network.cos), half * BF16_BYTES)
                c.load(sin, Address(angle, self.network.sin), half * BF16_BYTES)
                rms_norm(c, normed, rows, weight, config.rms_norm_eps)
                product(c, queries, normed, matrices["q_proj"], layer)
                rotate(c, queries, cos, sin, config.head_dim)
                c.store(queries, q, self.row_bytes)
                product(c, keys, normed, matrices["k_proj"], layer)
                rotate(c, keys, cos, sin, config.head_dim)
                store_heads(c, cache, cache.keys, keys, Address(k_e, 0), Address(k_s, 0))
                product(c, keys, normed, matrices["v_proj"], layer)
                store_heads(c, cache, cache.values, keys, Address(v_e, 0), Address(v_s, 0))
        c.e.release(x, q, angle, k_e, k_s, v_e, v_s)

    def _attention_and_feed_forward(self, layer: Var) -> None:
        c, config, matrices = self.c, self.config, self.network.layer
        x, q = c.e.var(self.at.x), c.e.var(self.at.queries)
        step = self.rows * self.row_bytes
        with c.vector.scope():
            weight = self._norm_weight("ff_norm", layer)
            rows, other = (c.tile(self.rows, self.width, "a tile of activations") for _ in range(2))
            with c.e.loop(self.tiles, {x: step, q: step}):
                with c.e.phase("attention"), c.vector.scope():
                    c.e.order(Engine.STORE, Engine.LOAD)
                    queries = c.tile(self.rows, self.width, "a tile of queries")
                    c.load(queries, q, self.row_bytes)
                    c.load(rows, x, self.row_bytes)
                    attend(c, other, queries, self.at.cache, self.positions)
                    product(c, queries, other, matrices["attn_out"], layer)
                    c.binary("V_ADD", rows, rows, queries)
                with c.e.phase("feed-forward"):
                    rms_norm(c, other, rows, weight, config.rms_norm_eps)
                    feed_forward(c, other, other, matrices["ff_proj"], matrices["up_proj"], matrices["ff_out"], layer)
                    c.binary("V_ADD", rows, rows, other)
                    c.store(rows, x, self.row_bytes)
        c.e.release(x, q)

    def _parameters(self) -> StepParameters:
        c = self.c
        with c.e.phase("lm-head"):
            words = self.parameter_words = c.integers.take(len(PARAMETERS), "the step's parameters")
            c.e.emit("L_INT", dst=words, src=self.at.parameters, count=len(PARAMETERS))
            c.e.order(Engine.LOAD, Engine.SEQUENCER)
            registers = [c.e.var() for _ in PARAMETERS]
            for index, register in enumerate(registers):
                c.e.emit("S_LD", rd=register, a=words + index)
        return StepParameters(*registers)

    def _row_tiles(self) -> list[tuple[int, int]]:
        """First row and height of every tile of the active block."""
        length = self.policy.block_length
        return [(first, min(self.rows, length - first)) for first in range(0, length, self.rows)]

    def _head(self, p: StepParameters) -> None:
        c, logits = self.c, self.at.logits
        block = c.e.multiply_add(p.block_start, self.row_bytes, self.at.x)
        with c.vector.scope():
            weight = c.tile(1, self.width, "a norm's weight")
            c.load(weight, self.network.final_norm, self.row_bytes)
            for first, count in self._row_tiles():
                with c.vector.scope():
                    rows, normed = (c.tile(count, self.width, "a tile of the active block") for _ in range(2))
                    c.e.order(Engine.STORE, Engine.LOAD)
                    c.load(rows, Address(block, first * self.row_bytes), self.row_bytes)
                    rms_norm(c, normed, rows, weight, self.config.rms_norm_eps)
                    at = logits.at + first * logits.row_bytes
                    head_logits(c, normed, self.network.head, at, logits.row_bytes)
                    for token in self.policy.excluded(self.config.mask_token_id, self.config.eos_token_id):
                        suppress(c, token, count, at, logits.row_bytes)
        c.e.release(block)

    def _sample(self, p: StepParameters, canvas: int) -> None:
        c, length = self.c, self.policy.block_length
        block = f"a block of {length} positions"
        confidence, total = c.scalars(length, f"confidences of {block}"), c.scalars(length, f"sums of {block}")
        tokens = c.integers.take(length, f"candidates of {block}")
        chosen = c.integers.take(length, f"the transfer mask of {block}")
        with c.e.phase("sampling-1-confidence"):
            for first, rows in self._row_tiles():
                candidates(
                    c,
                    self.at.logits,
                    first,
                    rows,
                    bf16.rounded(self.policy.temperature),
                    p,
                    tokens + first,
                    confidence + first,
                    total + first,
                )
        with c.e.phase("sampling-2-scalars"):
            confidences(c, length, confidence, total)
            if self.policy.remasking == "random":
                c.e.emit("F_UNIFORM", dst=confidence, seed=p.seed, step=p.step, position=p.block_start, count=length)
        active = Address(p.block_start, canvas)
        with c.e.phase("sampling-3-topk"):
            choose_positions(c, active, length, self.config.mask_token_id, confidence, p, chosen)
        with c.e.phase("sampling-4-select"):
            c.e.emit("V_SELECT_INT", dst=active, mask=chosen, a=tokens, b=active, count=length)
            c.e.order(Engine.VECTOR, Engine.STORE)
            c.e.emit("ST_INT", src=canvas, dst=self.at.canvas, count=self.positions)
