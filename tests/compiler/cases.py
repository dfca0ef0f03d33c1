"""Networks, policies and machines that together make every kernel tile, and one denoising step of each both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.compiler.check import in_formats
from unmask.compiler.lower import compile_step
from unmask.decoding.commit import TopK
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.functional import FunctionalMachine
from unmask.models.config import LladaConfig
from unmask.models.llada import Llada
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler

Ids = NDArray[np.int64]

BASE = LladaConfig(
    d_model=64,
    n_heads=2,
    n_kv_heads=1,
    n_layers=2,
    mlp_hidden_size=70,
    vocab_size=331,
    embedding_size=336,
    max_sequence_length=96,
    mask_token_id=330,
    eos_token_id=0,
)
TINY = replace(
    BASE,
    d_model=32,
    n_heads=2,
    n_kv_heads=None,
    n_layers=1,
    mlp_hidden_size=33,
    vocab_size=45,
    embedding_size=45,
    mask_token_id=0,
    eos_token_id=7,
)
NARROW_HEADS = replace(
    BASE, d_model=48, n_heads=3, n_kv_heads=1, mlp_hidden_size=50, vocab_size=97, embedding_size=97, mask_token_id=13, eos_token_id=96
)
WIDE = replace(
    BASE, d_model=96, n_heads=3, n_kv_heads=3, mlp_hidden_size=130, vocab_size=203, embedding_size=208, mask_token_id=101, weight_tying=True
)
ONE_HEAD = replace(
    BASE, d_model=64, n_heads=1, n_kv_heads=None, n_layers=1, mlp_hidden_size=90, vocab_size=650, embedding_size=650, mask_token_id=1
)
ODD_HEADS = replace(
    BASE,
    d_model=80,
    n_heads=5,
    n_kv_heads=5,
    n_layers=1,
    mlp_hidden_size=41,
    vocab_size=64,
    embedding_size=64,
    mask_token_id=63,
    eos_token_id=62,
)
GROUPED = replace(
    BASE, d_model=96, n_heads=6, n_kv_heads=2, n_layers=3, mlp_hidden_size=64, vocab_size=130, embedding_size=131, mask_token_id=129
)
SHORT_VOCABULARY = replace(TINY, vocab_size=9, embedding_size=9, mask_token_id=4, n_layers=2)


@cache
def network(config: LladaConfig, seed: int = 0) -> Llada:
    """Random weights, large enough that logits differ and small enough that nothing overflows."""
    generator = torch.Generator().manual_seed(seed)
    model = Llada(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2 if parameter.ndim > 1 else 0.3, generator=generator)
            if "norm" in name or "ln_f" in name:
                parameter += 1
    return model


def shrunk(machine: Machine, **parts: dict[str, Any]) -> Machine:
    """A machine with some fields of some parts replaced, validated again."""
    values = machine.model_dump()
    for part, fields in parts.items():
        values[part] |= fields
    return Machine.model_validate(values)


def with_formats(machine: Machine, weights: str, activations: str, kv: str) -> Machine:
    return shrunk(machine, formats={"weights": weights, "activations": activations, "kv": kv})


SMALL, NANO = Machine.preset("small"), Machine.preset("nano")
# Two slots of 96 MX blocks: weights in tiles of 32 rows.
TILES = shrunk(NANO, vector={"accumulators": 7}, sram={"vector_kib": 8, "matrix_kib": 7})
# A vector SRAM that decides the height of the row tiles.
FLAT = shrunk(
    NANO, matrix={"blen": 4, "mlen": 16}, vector={"vlen": 8}, sram={"vector_kib": 12, "matrix_kib": 12}, sequencer={"queue_depth": 1}
)
# So small that a tile is one row.
LINE = shrunk(NANO, sram={"vector_kib": 1, "matrix_kib": 7})
# A power of two only where it has to be.
ODD = shrunk(
    SMALL,
    matrix={"blen": 3, "mlen": 33, "rows": 5},
    vector={"vlen": 8, "integer_lanes": 2, "accumulators": 11},
    sram={"vector_kib": 23, "matrix_kib": 13, "float_words": 150, "integer_words": 200},
    hbm={"bytes_per_cycle": 12, "beat_bytes": 24},
    sequencer={"queue_depth": 3, "loop_depth": 5},
)


@dataclass(frozen=True)
class Case:
    """One program: a network under a policy on a machine, for prompts of one length."""

    name: str
    config: LladaConfig
    policy: Policy
    machine: Machine
    prompt_length: int

    @property
    def model(self) -> Llada:
        return network(self.config)


def _policy(gen_length: int, block_length: int, **fields: Any) -> Policy:
    return Policy(gen_length, block_length, fields.pop("steps", gen_length), **fields)


INT8 = ("mxint8", "mxint8", "mxint8")
_ROWS: list[tuple[LladaConfig, Policy, Machine, tuple[str, str, str], int]] = [
    (BASE, _policy(24, 8), SMALL, INT8, 13),
    (BASE, _policy(24, 12, temperature=0.7), NANO, INT8, 21),
    (BASE, _policy(30, 15), TILES, INT8, 17),
    (BASE, _policy(20, 20, temperature=1.0, suppress_eos=True), TILES, ("mxint4", "mxint8", "mxint8"), 5),
    (BASE, _policy(16, 16, remasking="random"), FLAT, ("mxfp8", "mxfp8", "mxfp8"), 29),
    (TINY, _policy(8, 4, temperature=0.3), SMALL, ("mxfp4", "mxfp8", "mxfp8"), 1),
    (TINY, _policy(9, 3, suppress_eos=True), TILES, ("mxint8", "mxint4", "mxint4"), 31),
    (TINY, _policy(33, 33, temperature=2.0), FLAT, ("mxfp6_e2m3", "mxfp6_e3m2", "mxint8"), 7),
    (TINY, _policy(6, 1), ODD, ("mxint8", "mxint8", "mxfp4"), 3),
    (NARROW_HEADS, _policy(20, 10), NANO, ("mxint4", "mxint4", "mxint4"), 19),
    (NARROW_HEADS, _policy(14, 7, temperature=0.5), TILES, ("mxfp8", "mxint8", "mxfp6_e3m2"), 11),
    (NARROW_HEADS, _policy(12, 12, remasking="random", suppress_eos=True), ODD, INT8, 9),
    (WIDE, _policy(32, 16, temperature=1.0), SMALL, ("mxint8", "mxfp8", "mxint4"), 33),
    (WIDE, _policy(22, 11), FLAT, ("mxfp6_e3m2", "mxfp8", "mxfp8"), 15),
    (WIDE, _policy(18, 9, temperature=0.9, remasking="random"), ODD, ("mxfp4", "mxfp4", "mxfp4"), 23),
    (ONE_HEAD, _policy(25, 25), TILES, INT8, 20),
    (ONE_HEAD, _policy(28, 14, temperature=0.6), TILES, ("mxint8", "mxint8", "mxint4"), 12),
    (ONE_HEAD, _policy(10, 5), SMALL, ("mxfp8", "mxfp6_e2m3", "mxfp8"), 6),
    (ODD_HEADS, _policy(16, 8, temperature=1.5), NANO, ("mxint8", "mxfp4", "mxfp6_e2m3"), 27),
    (ODD_HEADS, _policy(21, 7), ODD, ("mxfp6_e2m3", "mxint8", "mxint8"), 2),
    (GROUPED, _policy(16, 16, temperature=0.8), SMALL, INT8, 16),
    (GROUPED, _policy(24, 6), ODD, ("mxint4", "mxfp8", "mxint8"), 25),
    (GROUPED, _policy(15, 5, remasking="random", temperature=0.4, suppress_eos=True), FLAT, ("mxint8", "mxint8", "mxfp8"), 8),
    (SHORT_VOCABULARY, _policy(12, 6, temperature=1.0), NANO, ("mxfp4", "mxint4", "mxfp6_e2m3"), 4),
    (SHORT_VOCABULARY, _policy(10, 10), TILES, ("mxint4", "mxfp4", "mxint4"), 22),
    (TINY, _policy(9, 3, temperature=0.8), LINE, INT8, 6),
]
_NETWORKS = {
    BASE: "base",
    TINY: "tiny",
    NARROW_HEADS: "narrow-heads",
    WIDE: "wide",
    ONE_HEAD: "one-head",
    ODD_HEADS: "odd-heads",
    GROUPED: "grouped",
    SHORT_VOCABULARY: "short-vocabulary",
}
_MACHINES = {"small": SMALL, "nano": NANO, "tiles": TILES, "flat": FLAT, "line": LINE, "odd": ODD}


def _name(number: int, config: LladaConfig, policy: Policy, machine: Machine) -> str:
    [where] = [name for name, known in _MACHINES.items() if known is machine]
    return f"{number}-{_NETWORKS[config]}-{where}-{policy.gen_length}/{policy.block_length}-T{policy.temperature}"


CASES = [
    Case(_name(number, config, policy, machine), config, policy, with_formats(machine, *formats), prompt)
    for number, (config, policy, machine, formats, prompt) in enumerate(_ROWS)
]


@cache
def _compiled(number: int) -> Program:
    case = CASES[number]
    return compile_step(case.model, case.policy, case.machine, case.prompt_length)


def compiled(case: Case) -> Program:
    """The case's program; nobody modifies it."""
    return _compiled(CASES.index(case))


@dataclass(frozen=True)
class Start:
    """What one step starts from."""

    canvas: Ids
    block_start: int
    commits: int
    seed: int
    step: int


def starts(model: Llada, policy: Policy, prompt_length: int, count: int, seed: int) -> Iterator[Start]:
    """Random prompts and canvases: any block, any part of it clean, any number of commits from none to all."""
    rng, config = np.random.default_rng(seed), model.config
    clean_tokens = np.delete(np.arange(config.vocab_size), config.mask_token_id)
    for number in range(count):
        canvas = np.full(prompt_length + policy.gen_length, config.mask_token_id, np.int64)
        block = prompt_length + policy.block_length * int(rng.integers(policy.blocks))
        clean = np.arange(len(canvas)) < block
        if number % 3:
            clean |= rng.random(len(canvas)) < rng.random()
        canvas[clean] = rng.choice(clean_tokens, clean.sum())
        commits = (0, policy.block_length, int(rng.integers(policy.block_length + 1)), 1)[number % 4]
        yield Start(canvas, block, commits, int(rng.integers(2**31)), int(rng.integers(1000)))


class Npu:
    """Steps of one program on the functional machine."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.machine = FunctionalMachine(program, machine)

    def step(self, start: Start) -> Ids:
        """The canvas after one run."""
        self.machine.write("canvas", start.canvas.astype("<i4"))
        words = [0, start.block_start, start.block_start, start.seed, start.step, start.commits]
        self.machine.write("parameters", np.array(words).astype("<u4"))
        self.machine.run(f"rows-{len(start.canvas)}")
        return self.machine.read("canvas", "<i4")[: len(start.canvas)].astype(np.int64)


class Reference:
    """Steps of the PyTorch reference in a machine's number formats."""

    def __init__(self, model: Llada, policy: Policy, machine: Machine) -> None:
        self.model, self.policy = in_formats(model, machine.formats), policy
        config = model.config
        self._excluded = (config.mask_token_id, *((config.eos_token_id,) * policy.suppress_eos))

    @torch.no_grad()
    def step(self, start: Start) -> Ids:
        """The canvas after one step."""
        policy, canvas = self.policy, torch.from_numpy(start.canvas.copy())
        positions = torch.arange(start.block_start, start.block_start + policy.block_length)
        logits = self.model.logits(self.model.hidden(canvas[None])[:, positions])
        sampling = Sampling(start.step, positions, policy.temperature, policy.remasking, self._excluded, (), CounterNoise(start.seed))
        tokens, confidence = MachineSampler(policy, seed=start.seed)(logits, sampling)
        masked = canvas[positions] == self.model.config.mask_token_id
        chosen = TopK()(confidence.masked_fill(~masked, -torch.inf), torch.tensor([start.commits]))[0]
        canvas[positions[chosen]] = tokens[0][chosen]
        return canvas.numpy()
