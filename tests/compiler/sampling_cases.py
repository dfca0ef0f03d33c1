"""A program that does nothing but sample, and the reference that it must equal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from unmask.compiler.context import Context
from unmask.compiler.emitter import Var
from unmask.compiler.memory import Hbm
from unmask.compiler.sampling.block import Logits, StepParameters, sample_block
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.isa.encoding import encode
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.config import BF16, Machine
from unmask.machine.functional import FunctionalMachine
from unmask.numerics import bf16, mx
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.commit import due_word, machine_committer
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import LAST, MachineSampler
from unmask.quant.streaming import StreamingSampler

EOS, EOT, MASK, SEED = 1, 2, 3, 7
ARITHMETIC = MachineArithmetic("mxint8", "mxint8", "mxint8")
START = 5
"""The canvas position of the block's first row."""


def machine(name: str = "small", vector_kib: int | None = None, logits: str = BF16) -> Machine:
    """A preset with another vector SRAM or another format of logits."""
    preset = Machine.preset(name)
    sram = preset.sram if vector_kib is None else preset.sram.model_copy(update={"vector_kib": vector_kib})
    return preset.model_copy(update={"sram": sram, "formats": preset.formats.model_copy(update={"logits": logits})})


@dataclass
class Case:
    """Logits of a block under a policy: what is sampled, on what, in which step."""

    policy: Policy
    machine: Machine = field(default_factory=machine)
    batch: int = 1
    vocabulary: int = 50
    step: int = 0
    scale: float = 3.0
    seed: int = 0
    opening: bool = False
    special: bool = False
    sampling: SamplingProgram = "general"
    chunk: int | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.length = self.policy.block_length
        form = self.machine.formats.logits
        self.form = None if form == BF16 else mx.format_named(form)
        halves = 2 if self.policy.cfg_scale else 1
        shape = (halves, self.batch * self.length, self.vocabulary)
        raw = bf16.round(rng.normal(size=shape).astype(np.float32) * np.float32(self.scale))
        # Few different values, so that rows hold ties.
        raw[:, ::3] = np.round(raw[:, ::3])
        if self.special:
            raw[0, 1, 4], raw[0, 2, :] = np.nan, -np.inf
            raw[0, 4, 5] = np.inf
        self.packed = None if self.form is None else [mx.quantize(half, self.form) for half in raw]
        self.logits = raw if self.packed is None else np.stack([bf16.round(mx.dequantize(half)) for half in self.packed])
        self.canvas = np.where(
            rng.random((self.batch, self.length)) < 0.7, MASK, rng.integers(4, self.vocabulary, (self.batch, self.length))
        )
        self.counts = rng.integers(0, self.length, self.batch)

    def program(self) -> tuple[Program, dict[int, int]]:
        """The program, and the integer SRAM words that its S_LD read."""
        hbm = Hbm()
        logits = [self._place(hbm, number) for number in range(len(self.logits))]
        count = self.batch * self.length
        canvas_at = hbm.place("canvas", self.canvas.astype("<i4").view(np.uint8))
        words = np.array([START, SEED, self.step, *self._commits()], "<i4")
        words_at = hbm.place("parameters", words.view(np.uint8))
        tokens_at, chosen_at = (hbm.reserve(name, 4 * count) for name in ("tokens", "chosen"))
        c = Context(self.machine, hbm)
        canvas, parameters = c.integers.take(count, "ids"), c.integers.take(len(words), "parameters")
        c.e.emit("L_INT", dst=canvas, src=canvas_at, count=count)
        c.e.emit("L_INT", dst=parameters, src=words_at, count=len(words))
        c.e.order(Engine.LOAD, Engine.VECTOR)
        c.e.order(Engine.LOAD, Engine.SEQUENCER)
        start, seed, step = (self._register(c, parameters + number) for number in range(3))
        p = StepParameters(start, seed, step, parameters + 3)
        sampled = sample_block(
            c,
            logits[0],
            logits[1] if self.policy.cfg_scale else None,
            self.policy,
            MASK,
            EOS,
            self.batch,
            self.length,
            canvas,
            p,
            opening=self.opening,
            program=self.sampling,
            chunk=self.chunk,
        )
        c.e.order(Engine.VECTOR, Engine.STORE)
        for source, target in ((canvas, canvas_at), (sampled.tokens, tokens_at), (sampled.chosen, chosen_at)):
            c.e.emit("ST_INT", src=source, dst=target, count=count)
        c.e.halt()
        program = Program(encode(c.e.ops), c.e.phases, hbm.size, hbm.regions, hbm.data, {})
        return program, {parameters + number: int(word) for number, word in enumerate(words)}

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The machine's tokens, choice and canvas, [batch, length], and the confidences of the last sequence."""
        npu = FunctionalMachine(self.program()[0], self.machine)
        npu.run()
        shape = (self.batch, self.length)
        tokens, chosen, canvas = (npu.read(name, "<i4").reshape(shape) for name in ("tokens", "chosen", "canvas"))
        return tokens, chosen, canvas, npu.state.floats[: self.length].copy()

    def reference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same by `MachineSampler` and `machine_committer`."""
        shape = (self.batch, self.length, self.vocabulary)
        logits = torch.from_numpy(self.logits[0].reshape(shape))
        if self.policy.cfg_scale:
            logits = ARITHMETIC.guidance(logits, torch.from_numpy(self.logits[1].reshape(shape)), self.policy.cfg_scale)
        canvas = torch.from_numpy(self.canvas.astype(np.int64))
        sampler = MachineSampler(self.policy, seed=SEED) if self.sampling == "general" else StreamingSampler(self.policy, seed=SEED)
        tokens, confidence = sampler(logits, self.state())
        masked = canvas == MASK
        if self.policy.commit == "guided":
            chosen = torch.zeros_like(masked)
        elif self.opening:
            chosen = masked & (masked.cumsum(dim=1) == 1)
        else:
            committer = machine_committer(self.policy, seed=SEED)
            whole = torch.full((self.batch, START + self.length), -torch.inf)
            whole[:, START:] = confidence.masked_fill(~masked, -torch.inf)
            for _ in range(self.step):
                committer(whole, torch.from_numpy(self.counts))
            chosen = committer(whole, torch.from_numpy(self.counts))[:, START:]
        after = torch.where(chosen, tokens, canvas)
        return tokens.numpy(), chosen.numpy().astype(np.int64), after.numpy(), confidence[-1].numpy()

    def state(self) -> Sampling:
        """The step as a sampler sees it."""
        return Sampling(
            self.step,
            torch.arange(START, START + self.length),
            self.policy.temperature,
            self.policy.remasking,
            self.policy.excluded(MASK, EOS),
            self.policy.deferred(EOS),
            CounterNoise(SEED),
            block_step=self.step,
        )

    def check(self) -> None:
        """Run both, and compare every bit."""
        found, expected = self.run(), self.reference()
        for name, ours, theirs in zip(("tokens", "chosen", "canvas"), found, expected, strict=False):
            np.testing.assert_array_equal(ours, theirs, name)
        if not (self.opening or self.policy.alg_temp or self.policy.remasking == "origin" or self.policy.commit == "guided"):
            ours = np.where(np.isnan(found[3]), np.float32(LAST), found[3])
            np.testing.assert_array_equal(ours, expected[3], "confidences")

    def _commits(self) -> list[int]:
        if self.policy.remasking == "origin":
            fraction = float(MachineSampler(self.policy)._timesteps.fraction(self.step))
            return [due_word(fraction)] * self.batch
        return [int(count) for count in self.counts]

    def _place(self, hbm: Hbm, number: int) -> Logits:
        rows = self.batch * self.length
        if self.packed is None:
            pitch = -(-self.vocabulary * 2 // 64) * 64
            padded = np.zeros((rows, pitch // 2), "<u2")
            padded[:, : self.vocabulary] = bf16.to_bits(self.logits[number])
            return Logits(hbm.place(f"logits{number}", padded.view(np.uint8)), 0, pitch, self.vocabulary, None)
        tensor = self.packed[number]
        elements = mx.pack(tensor)
        at = hbm.place(f"logits{number}", elements)
        return Logits(at, hbm.place(f"scales{number}", tensor.scales), elements.shape[-1], self.vocabulary, self.form)

    @staticmethod
    def _register(c: Context, address: int) -> Var:
        register = c.e.var()
        c.e.emit("S_LD", rd=register, a=address)
        return register
