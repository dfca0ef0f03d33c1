"""Whole generations whose sampling runs on the RTL: every step commits what PyTorch commits, in the cycles of the cycle reading."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unmask.compiler.context import Context
from unmask.compiler.lower import reserve_logits
from unmask.compiler.memory import Hbm
from unmask.compiler.sampling.block import StepParameters, sample_block
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.generate import StepRecord, generate
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.isa.encoding import encode
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.config import BF16, Machine
from unmask.machine.cycle import time_program
from unmask.models.checkpoint import load_model
from unmask.models.tokenizer import load_tokenizer
from unmask.numerics import bf16, mx
from unmask.quant.commit import machine_committer
from unmask.quant.sampler import MachineSampler
from unmask.quant.streaming import StreamingSampler
from unmask.rtl.lockstep import Case, run, simulate
from unmask.rtl.lockstep.bench import DONE
from unmask.rtl.lockstep.machines import bench_machine

GOLDEN = Path(os.environ.get("UNMASK_SHARED", Path(__file__).parents[3] / "shared")) / "golden" / "llada"
NANO = bench_machine(Machine.preset("nano"), 8)


def with_logits(form: str) -> Machine:
    """The small machine with another format of logits; the hardware stays the same where the format is stored anyway."""
    return NANO.model_copy(update={"formats": NANO.formats.model_copy(update={"logits": form})})


@dataclass(frozen=True)
class Step:
    """A denoising step as the host gives it to the machine.

    Attributes:
        logits: BF16-valued float32 [block, vocabulary], before the format of the machine's logits.
        canvas: int64 [block], before the step.
        start: canvas position of the block. number: of the step. commits: scheduled.
        tokens: int64 [block], candidates. after: int64 [block], the canvas after the step.
    """

    logits: np.ndarray
    canvas: np.ndarray
    start: int
    number: int
    commits: int
    tokens: np.ndarray
    after: np.ndarray


class Recorded:
    """A sampler that sees logits as the machine does, and keeps them."""

    def __init__(self, sampler: MachineSampler | StreamingSampler, form: str) -> None:
        self._sampler, self._form = sampler, form
        self.steps: list[np.ndarray] = []
        self.tokens: list[np.ndarray] = []

    def __call__(self, logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        raw = bf16.round(logits[0].to(torch.float32).numpy())
        seen = raw if self._form == BF16 else bf16.round(mx.dequantize(mx.quantize(raw, self._form)))
        tokens, confidence = self._sampler(torch.from_numpy(seen)[None], sampling)
        self.steps.append(raw)
        self.tokens.append(tokens[0].numpy())
        return tokens, confidence


def generation(policy: Policy, form: str, program: SamplingProgram, prompt: str) -> tuple[list[Step], int]:
    """The shipped model's steps in PyTorch, its sampling in the machine's formats; and the mask token."""
    model = load_model("sotu")
    ids = torch.tensor([load_tokenizer("sotu").encode(prompt)])
    sampler = Recorded((MachineSampler if program == "general" else StreamingSampler)(policy), form)
    records = generate(model, ids, policy, sampler=sampler, committer=machine_committer(policy)).steps
    mask = model.config.mask_token_id
    before = torch.cat((ids, torch.full((1, policy.gen_length), mask)), dim=1)
    steps = []
    for record, logits, tokens in zip(records, sampler.steps, sampler.tokens, strict=True):
        steps.append(_step(record, before, logits, tokens))
        before = record.canvas
    return steps, mask


def _step(record: StepRecord, before: torch.Tensor, logits: np.ndarray, tokens: np.ndarray) -> Step:
    block = slice(record.start, record.end)
    ids, after = (canvas[0, block].numpy() for canvas in (before, record.canvas))
    return Step(logits, ids, record.start, record.step, int(record.committed.sum()), tokens, after)


def sampling(policy: Policy, machine: Machine, program: SamplingProgram, vocabulary: int, mask: int) -> tuple[Program, int]:
    """A step's program, its HBM image without content; and the integer SRAM word of the first parameter."""
    hbm, length = Hbm(), policy.block_length
    logits = reserve_logits(hbm, "logits", length, vocabulary, machine.formats.logits)
    places = {name: hbm.reserve(name, 4 * count) for name, count in (("canvas", length), ("parameters", 4), ("tokens", length))}
    c = Context(machine, hbm)
    canvas, words = c.integers.take(length, "ids"), c.integers.take(4, "parameters")
    c.e.emit("L_INT", dst=canvas, src=places["canvas"], count=length)
    c.e.emit("L_INT", dst=words, src=places["parameters"], count=4)
    c.e.order(Engine.LOAD, Engine.VECTOR)
    c.e.order(Engine.LOAD, Engine.SEQUENCER)
    start, seed, step = (c.e.var() for _ in range(3))
    for number, register in enumerate((start, seed, step)):
        c.e.emit("S_LD", rd=register, a=words + number)
    p = StepParameters(start, seed, step, words + 3)
    sampled = sample_block(c, logits, None, policy, mask, mask, 1, length, canvas, p, program=program)
    c.e.order(Engine.VECTOR, Engine.STORE)
    c.e.emit("ST_INT", src=canvas, dst=places["canvas"], count=length)
    c.e.emit("ST_INT", src=sampled.tokens, dst=places["tokens"], count=length)
    c.e.halt()
    return Program(encode(c.e.ops), c.e.phases, hbm.size, hbm.regions, {}, machine.model_dump()), words


def content(step: Step, seed: int, program: Program, form: str) -> dict[str, np.ndarray]:
    """What HBM holds when a step begins, by region."""
    data = {
        "canvas": step.canvas.astype("<i4").view(np.uint8),
        "parameters": np.array([step.start, seed, step.number, step.commits], "<i4").view(np.uint8),
    }
    if form == BF16:
        padded = np.zeros((len(step.logits), program.regions["logits"].size // len(step.logits) // 2), "<u2")
        padded[:, : step.logits.shape[1]] = bf16.to_bits(step.logits)
        return data | {"logits": padded.view(np.uint8)}
    packed = mx.quantize(step.logits, form)
    for name, part in (("logits.elements", mx.pack(packed)), ("logits.scales", packed.scales)):
        rows = np.zeros((len(part), program.regions[name].size // len(part)), np.uint8)
        rows[:, : part.shape[1]] = part
        data[name] = rows
    return data


def check(steps: list[Step], mask: int, policy: Policy, machine: Machine, name: SamplingProgram) -> None:
    """Run each step on the RTL and compare candidates, canvas and cycles."""
    assert steps
    bare, words = sampling(policy, machine, name, steps[0].logits.shape[1], mask)
    for step in steps:
        data = content(step, policy.seed, bare, machine.formats.logits)
        program = Program(bare.words, bare.phases, bare.hbm_bytes, bare.regions, data, bare.machine)
        found = simulate(program, machine)
        assert found.outcome.status == DONE, step.number
        parameters = {words + n: int(word) for n, word in enumerate((step.start, policy.seed, step.number, step.commits))}
        assert found.outcome.cycles == time_program(program, machine, parameters=parameters).cycles, step.number
        for region, expected in (("tokens", step.tokens), ("canvas", step.after)):
            place = bare.regions[region]
            left = found.hbm[place.address : place.address + place.size].view("<i4")
            np.testing.assert_array_equal(left, expected, f"step {step.number}: {region}")


def recorded(case: str) -> list[Step]:
    """Steps of a recording of the published implementation in BF16: its logits, and what it committed."""
    about, logits = json.loads((GOLDEN / f"{case}.json").read_text()), load_file(GOLDEN / f"{case}.safetensors")
    forwards = [event for event in about["events"] if event["op"] == "forward"]
    commits = [event["k"] for event in about["events"] if event["op"] == "topk"]
    canvases = [np.array(ids[0]) for ids in (*(event["ids"] for event in forwards), about["output_ids"])]
    length, prompt = about["kwargs"]["block_length"], about["prompt_len"]
    per_block = about["kwargs"]["steps"] * length // about["kwargs"]["gen_length"]
    steps = []
    for number, (event, count) in enumerate(zip(forwards, commits, strict=True)):
        start = prompt + number // per_block * length
        block = slice(start, start + length)
        values = logits[event["logits_key"]][0, block].to(torch.float32).numpy()
        tokens = np.array(event["argmax"][0])[block]
        steps.append(Step(values, canvases[number][block], start, number, count, tokens, canvases[number + 1][block]))
    return steps


def test_a_step_of_the_shipped_model_agrees_instruction_by_instruction():
    policy = Policy(8, 8, 4, temperature=0.5, seed=11)
    steps, mask = generation(policy, BF16, "single-pass", "My fellow Americans, the state of our")
    bare, words = sampling(policy, NANO, "single-pass", steps[1].logits.shape[1], mask)
    data = content(steps[1], policy.seed, bare, BF16)
    program = Program(bare.words, bare.phases, bare.hbm_bytes, bare.regions, data, bare.machine)
    step = steps[1]
    parameters = {words + n: int(word) for n, word in enumerate((step.start, policy.seed, step.number, step.commits))}
    result = run([Case(program, parameters)], NANO)
    assert result.details == []
    assert result.passed
    check(steps[1:2], mask, policy, NANO, "single-pass")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["general", "four-phase", "single-pass"])
@pytest.mark.parametrize("form", [BF16, "mxint8"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_generation_of_the_shipped_model_is_pytorchs(name, form, temperature):
    machine, policy = with_logits(form), Policy(32, 16, 8, temperature=temperature, seed=5)
    steps, mask = generation(policy, form, name, "Mr. Speaker, Mr. Vice President, Members of")
    assert len(steps) == 8
    check(steps, mask, policy, machine, name)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the shared golden vectors are not at {GOLDEN}")
@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("general", "four-phase")), "single-pass"])
def test_the_published_implementation_commits_the_same(name):
    steps = recorded("bf16_orig_block16_8steps")
    assert len(steps) == 8
    check(steps, 500, Policy(32, 16, 8, exclude_mask=False), NANO, name)


def test_a_wrong_token_is_noticed():
    policy, logits = Policy(8, 8, 8, exclude_mask=False), np.zeros((8, 40), np.float32)
    logits[:, 7] = 2.0
    step = Step(logits, np.full(8, 39), 0, 0, 3, np.full(8, 7), np.array([7] * 3 + [39] * 5))
    check([step], 39, policy, NANO, "single-pass")
    with pytest.raises(AssertionError, match="canvas"):
        check([replace(step, after=np.array([7] * 2 + [39] * 6))], 39, policy, NANO, "single-pass")
