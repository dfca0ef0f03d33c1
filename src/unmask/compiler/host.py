"""The host's side of a generation: what it writes before each denoising step, what it reads back, and what the steps cost."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.compiler.guide import NpuGuide
from unmask.compiler.lower import fed_rows, head_row, step_kind
from unmask.compiler.memory import bf16_bytes
from unmask.compiler.routing import even_routing
from unmask.compiler.step import PARAMETERS_AT
from unmask.decoding.cache.base import Moment
from unmask.decoding.compose import acceptance_of, schedule_of, stop_of
from unmask.decoding.dream import Timesteps
from unmask.decoding.guided import GuidedSampler
from unmask.decoding.noise import TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing, time_program
from unmask.machine.executor import Executing
from unmask.machine.functional import FunctionalMachine
from unmask.models.layers import Architecture
from unmask.quant.commit import due_word

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One denoising step on the machine.

    Attributes:
        step: counted over the whole generation.
        start, end: canvas positions [start, end) of the active block.
        entry: which of the program's entries ran.
        before, canvas: int64 [batch, positions], before and after the step.
        parameters: what its S_LD instructions read, by address in the integer SRAM, as far as time depends on it.
        gathered: the rows that its L_GATHERs chose, int64, in the order of execution.
    """

    step: int
    start: int
    end: int
    entry: str
    before: Ids
    canvas: Ids
    parameters: dict[int, int] = field(default_factory=dict)
    gathered: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    def positions(self, row: int = 0) -> list[int]:
        """The canvas positions committed in one row of the batch, ascending."""
        return [int(position) for position in np.flatnonzero(self.before[row] != self.canvas[row])]

    def tokens(self, row: int = 0) -> list[int]:
        """The tokens committed at `positions(row)`."""
        return [int(token) for token in self.canvas[row, self.positions(row)]]


@dataclass(frozen=True)
class Simulation:
    """A generation on the simulated machine.

    Attributes:
        machine, policy: what ran.
        prompt_length: where the new tokens begin.
        start: int64 [batch, positions], the canvas before the first step.
        visible: bool [batch, positions], False at padding; None if there is none.
        ids: int64 [batch, positions], the final canvas; after an early stop, end-of-text tokens are in place of the masks left.
        steps: one record per denoising step.
        timings: the cycle reading of each entry that ran, with the addresses of its first run; values take no part in it.
        runs: how often each entry ran; those of a guide's program begin with "guide".
        sampling: the program that sampled.
    """

    machine: Machine
    policy: Policy
    prompt_length: int
    start: Ids
    visible: NDArray[np.bool_] | None
    ids: Ids
    steps: tuple[Step, ...]
    timings: dict[str, Timing]
    runs: dict[str, int]
    sampling: str = "general"

    def new_tokens(self, row: int = 0) -> list[int]:
        """The generated tokens of one row, nothing cut."""
        return [int(token) for token in self.ids[row, self.prompt_length :]]

    @property
    def cycles(self) -> int:
        """Cycles of all runs; the host's own time between them is not modelled."""
        return sum(self.timings[entry].cycles * count for entry, count in self.runs.items())

    @property
    def seconds(self) -> float:
        """Time at the machine's clock."""
        return self.cycles / (self.machine.clock_ghz * 1e9)

    @property
    def cycles_by_engine(self) -> dict[str, int]:
        """Busy cycles of every engine over all runs."""
        return self._total(lambda timing: timing.busy)

    @property
    def cycles_by_phase(self) -> dict[str, int]:
        """What every phase adds to the time; sums to `cycles`."""
        return self._total(lambda timing: timing.phases)

    @property
    def hbm_bytes(self) -> dict[str, int]:
        """Bytes that the load and the store engine moved."""
        return self._total(lambda timing: timing.hbm_bytes)

    def _total(self, part: Callable[[Timing], dict[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for entry, count in self.runs.items():
            total.update({name: value * count for name, value in part(self.timings[entry]).items()})
        return dict(total)


@dataclass(frozen=True)
class _Compiled:
    """What a program says of itself; it may come from a file."""

    machine: Machine
    policy: Policy
    shape: Architecture
    positions: int
    batch: int
    padded: bool
    sampling: str

    @classmethod
    def of(cls, program: Program) -> _Compiled:
        about: dict[str, Any] = program.about
        try:
            machine, policy = Machine.model_validate(program.machine), Policy(**about["policy"])
            numbers = int(about["positions"]), int(about["batch"]), bool(about["padded"])
            return cls(machine, policy, Architecture(**about["model"]), *numbers, str(about["sampling"]))
        except (KeyError, TypeError, ValueError) as error:
            what = " ".join(str(error).split())
            raise UnmaskError(f"the program is damaged or was compiled by another version of unmask: {what}") from None

    @property
    def prompt_length(self) -> int:
        return self.positions - self.policy.gen_length


def simulate(
    program: Program,
    prompt_ids: Sequence[int] | Sequence[Sequence[int]],
    *,
    template: Sequence[int] | Sequence[Sequence[int]] | None = None,
    attention_mask: Sequence[int] | Sequence[Sequence[int]] | None = None,
    seed: int | None = None,
    guide: NpuGuide | None = None,
    executing: Executing = FunctionalMachine,
    on_step: Callable[[Step], None] | None = None,
) -> Simulation:
    """Generate on the machine that a program was compiled for: values by the functional reading, time by the cycle reading.

    Args:
        program: of `compile_step`.
        prompt_ids: as many token ids as the program was compiled for; one row, or as many as its batch.
        template: as many ids per row as are generated, what these positions hold at first: mask tokens are gaps. None: all gaps.
        attention_mask: of the shape of the prompt, 0 or False at padding on the left, for a program compiled as `padded`.
        seed: of the noise, modulo 2^32; by default the policy's.
        guide: of the commit `guided`.
        executing: what runs the program in the functional reading's place.
        on_step: called after every denoising step.

    Raises:
        UnmaskError: a prompt, template or mask of another shape, tokens outside the vocabulary, a program that is not `padded` for a padded
            prompt, a guide missing or not asked for.
    """
    host = _Host(program, prompt_ids, template, attention_mask, seed, guide, executing)
    for step in host.run():
        if on_step is not None:
            on_step(step)
    return host.simulation()


class _Host:
    """One generation."""

    def __init__(
        self,
        program: Program,
        prompt: Any,
        template: Any,
        attention_mask: Any,
        seed: int | None,
        guide: NpuGuide | None,
        executing: Executing,
    ) -> None:
        self.program, self.about = program, _Compiled.of(program)
        self.policy, self.shape = self.about.policy, self.about.shape
        self.seed = (self.policy.seed if seed is None else seed) % 2**32
        self.start = self.canvas = self._first_canvas(prompt, template)
        self.visible = self._visible(attention_mask)
        self.npu = executing(program, self.about.machine)
        self.steps: list[Step] = []
        self.stopped = False
        self.guide, self.judge = guide, self._judge(guide)
        self._write_start()

    def _first_canvas(self, prompt: Any, template: Any) -> Ids:
        mask, vocabulary, about = self.shape.mask_token_id, self.shape.vocab_size, self.about
        rows = _rows(prompt, about.batch, about.prompt_length, "the prompt", "the program was compiled for a prompt of {} tokens, not {}")
        if mask in rows:
            raise UnmaskError(f"the prompt holds the mask token {mask}, which only generated positions may")
        if template is None and about.prompt_length == 0:
            raise UnmaskError("the prompt is empty; at least one token is needed")
        new = np.full((about.batch, self.policy.gen_length), mask, np.int64)
        if template is not None:
            new = _rows(template, about.batch, self.policy.gen_length, "the template", "the template needs {} tokens, not {}")
            if not (new == mask).any(axis=1).all():
                raise UnmaskError(f"the template has no gap: at least one position must hold the mask token {mask}")
            if self.policy.commit == "guided" and about.prompt_length == 0 and new[0, 0] == mask:
                raise UnmaskError("commit 'guided' needs a token before the first gap, for the guide to go on from")
        canvas = np.concatenate((rows, new), axis=1)
        if canvas.min() < 0 or canvas.max() >= vocabulary:
            raise UnmaskError(f"the prompt holds a token outside the vocabulary of {vocabulary}")
        return canvas

    def _visible(self, attention_mask: Any) -> NDArray[np.bool_] | None:
        if attention_mask is None:
            return None
        about = self.about
        mask = _rows(attention_mask, about.batch, about.prompt_length, "the attention mask", "the attention mask needs {} entries, not {}")
        if not self.policy.honour_padding or bool(mask.all()):
            return None
        if not about.padded:
            raise UnmaskError("the prompt is padded; the program was compiled for prompts without padding")
        return np.concatenate((mask != 0, np.ones((about.batch, self.policy.gen_length), bool)), axis=1)

    def _judge(self, guide: NpuGuide | None) -> GuidedSampler | None:
        if (self.policy.commit == "guided") != (guide is not None):
            raise UnmaskError(f"commit {self.policy.commit!r} {'takes no' if guide else 'needs a'} guide")
        if guide is None:
            return None
        if guide.vocab_size != self.shape.vocab_size:
            raise UnmaskError(f"the guide has a vocabulary of {guide.vocab_size}; the diffusion model has {self.shape.vocab_size}")
        return GuidedSampler(guide, self.shape.eos_token_id, acceptance_of(self.policy))

    def _write_start(self) -> None:
        """Canvas and padding, for guidance a second time with the prompt masked."""
        copies, canvas = 1, self.start
        if self.policy.cfg_scale:
            copies, canvas = 2, np.concatenate((self.start, np.full_like(self.start, self.shape.mask_token_id)))
        self.npu.write("canvas", canvas.astype("<i4"))
        if self.about.padded:
            visible = np.ones_like(self.start, bool) if self.visible is None else self.visible
            unseen = bf16_bytes(np.where(visible, np.float32(0), np.float32(-np.inf)))
            self.npu.write("unseen", np.concatenate([unseen] * copies))

    def run(self) -> Iterator[Step]:
        """Denoise; gives the steps as they are done."""
        policy, length, mask = self.policy, self.policy.block_length, self.shape.mask_token_id
        blocks = torch.from_numpy((self.start[:, self.about.prompt_length :] == mask).reshape(-1, policy.blocks, length).sum(axis=2))
        schedule, stop = schedule_of(policy, self.shape, blocks), stop_of(policy, self.shape)
        for number in range(policy.blocks):
            start = self.about.prompt_length + number * length
            block = range(start, start + length)
            masks_at_start = masks = blocks[:, number]
            index = 0
            while bool(masks_at_start.any()) and (counts := schedule(index, masks_at_start, masks)) is not None:
                step = self._step(block, index, counts)
                self.steps.append(step)
                masks = torch.from_numpy((self.canvas[:, block.start : block.stop] == mask).sum(axis=1))
                index += 1
                yield step
                if stop is not None and stop(step):
                    self.canvas = np.where(self.canvas == mask, self.shape.eos_token_id, self.canvas)
                    return

    def _step(self, block: range, index: int, counts: torch.Tensor) -> Step:
        shape, before = self.shape, self.canvas
        canvas = torch.from_numpy(before)
        now = Moment(canvas, self.about.prompt_length, block, index, len(self.steps), shape.mask_token_id, shape.shifted_logits)
        rows = fed_rows(self.policy, now)
        kind = step_kind(self.policy, shape, rows, block, index)
        commits = counts.tolist()
        if self.policy.remasking == "origin":
            fraction = float(Timesteps(self.policy.steps_per_block, self.policy.eps).fraction(index))
            commits = [due_word(fraction)] * self.about.batch
        words = [rows.start, block.start, head_row(shape, rows, block), self.seed, len(self.steps), *commits]
        given = {PARAMETERS_AT + index: word for index, word in enumerate(words)} | even_routing(self.program, kind.name)
        self.npu.write("parameters", np.array(words, "<u4"))
        self.npu.run(kind.name)
        if self.judge is not None:
            self._commit_accepted(block, index)
        after = self.npu.read("canvas", "<i4").astype(np.int64).reshape(-1, self.about.positions)
        self.canvas = after[: self.about.batch]
        return Step(len(self.steps), block.start, block.stop, kind.name, before, self.canvas, given, self.npu.gathered)

    def _commit_accepted(self, block: range, index: int) -> None:
        """Put the candidates that the guide accepts into the canvas."""
        assert self.judge is not None
        canvas = torch.from_numpy(self.canvas)
        tokens = torch.from_numpy(self.npu.read("candidates", "<i4").astype(np.int64).reshape(1, -1))
        eligible = canvas[:, block.start : block.stop] == self.shape.mask_token_id
        positions = torch.arange(block.start, block.stop)
        sampling = Sampling(len(self.steps), positions, 0.0, "low_confidence", (), (), TorchNoise(0), eligible, block, index, canvas)
        tokens, confidence = self.judge.judge(tokens, sampling)
        after = self.canvas.copy()
        after[:, block.start : block.stop] = torch.where(eligible & (confidence == 1), tokens, canvas[:, block.start : block.stop]).numpy()
        copies = [after]
        if self.policy.cfg_scale:
            given = self.start != self.shape.mask_token_id
            copies.append(np.where(given, self.shape.mask_token_id, after))
        self.npu.write("canvas", np.concatenate(copies).astype("<i4"))

    def simulation(self) -> Simulation:
        """The finished generation."""
        machine, runs = self.about.machine, Counter(step.entry for step in self.steps)
        first = {step.entry: step for step in reversed(self.steps)}
        timings = {entry: _timing(self.program, machine, first[entry]) for entry in runs}
        if self.guide is not None:
            timings |= self.guide.timings()
            runs.update(self.guide.runs)
        return Simulation(
            machine,
            self.policy,
            self.about.prompt_length,
            self.start,
            self.visible,
            self.canvas,
            tuple(self.steps),
            timings,
            dict(runs),
            self.about.sampling,
        )


def _timing(program: Program, machine: Machine, step: Step, gathered: Ids | None = None) -> Timing:
    return time_program(program.entry(step.entry), machine, parameters=step.parameters, gathered=gathered)


def cycles_of_steps(program: Program, simulation: Simulation) -> list[int]:
    """The cycle reading of every step, each with its own addresses and the rows that it gathered; without a guide's runs."""
    known: dict[tuple[str, tuple[tuple[int, int], ...], bytes], int] = {}
    cycles = []
    for step in simulation.steps:
        key = step.entry, tuple(sorted(step.parameters.items())), step.gathered.tobytes()
        if key not in known:
            known[key] = _timing(program, simulation.machine, step, step.gathered).cycles
        cycles.append(known[key])
    return cycles


def _rows(values: Any, batch: int, length: int, what: str, mismatch: str) -> Ids:
    """int64 [batch, length] of one row or of several."""
    listed = list(values)
    several = bool(listed) and not isinstance(listed[0], (int, np.integer))
    rows = [list(row) for row in listed] if several else [listed]
    if len(rows) != batch:
        raise UnmaskError(f"{what} has {len(rows)} rows; the program was compiled for {batch}")
    for row in rows:
        if len(row) != length:
            raise UnmaskError(mismatch.format(length, len(row)))
    return np.array([[operator.index(token) for token in row] for row in rows], np.int64).reshape(batch, length)
