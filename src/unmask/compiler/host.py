"""The host's side of a generation: what it writes before each denoising step, what it reads back, and what the steps cost."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.decoding.policy import Policy
from unmask.decoding.schedule import transfer_counts
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing, time_program
from unmask.machine.functional import FunctionalMachine


@dataclass(frozen=True)
class Step:
    """One denoising step on the machine.

    Attributes:
        step: counted over the whole generation.
        start, end: canvas positions [start, end) of the active block.
        positions: canvas positions committed, ascending.
        tokens: the tokens committed there.
        canvas: int64 [positions], before and after the step.
    """

    step: int
    start: int
    end: int
    positions: list[int]
    tokens: list[int]
    before: NDArray[np.int64]
    canvas: NDArray[np.int64]


@dataclass(frozen=True)
class Simulation:
    """A generation on the simulated machine.

    Attributes:
        machine, policy: what ran.
        prompt_length: where the new tokens begin.
        steps: one record per denoising step.
        step_timing: the cycle reading of one step's program; every step takes the same time, since no instruction's time depends on values.
    """

    machine: Machine
    policy: Policy
    prompt_length: int
    steps: tuple[Step, ...]
    step_timing: Timing

    @property
    def ids(self) -> NDArray[np.int64]:
        """The final canvas, int64 [positions]."""
        return self.steps[-1].canvas

    @property
    def new_tokens(self) -> list[int]:
        """The generated tokens, nothing cut."""
        return [int(token) for token in self.ids[self.prompt_length :]]

    @property
    def cycles(self) -> int:
        """Cycles of all steps; the host's own time between steps is not modelled."""
        return self.step_timing.cycles * len(self.steps)

    @property
    def seconds(self) -> float:
        """Time at the machine's clock."""
        return self.cycles / (self.machine.clock_ghz * 1e9)

    def total(self, per_step: dict[str, int]) -> dict[str, int]:
        """A per-step count over all steps."""
        return {name: count * len(self.steps) for name, count in per_step.items()}


def _compiled_for(program: Program) -> tuple[Machine, Policy, int, int, int]:
    """Machine, policy, positions, mask token and vocabulary of a program, which may come from a file."""
    try:
        machine, policy = Machine.model_validate(program.machine), Policy(**program.about["policy"])
        model = program.about["model"]
        return machine, policy, int(program.about["positions"]), int(model["mask_token_id"]), int(model["vocab_size"])
    except (KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise UnmaskError(f"the program is damaged or was compiled by another version of unmask: {what}") from None


def simulate(
    program: Program,
    prompt_ids: Sequence[int],
    *,
    seed: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Simulation:
    """Generate on the machine that a program was compiled for: values by the functional reading, time by the cycle reading.

    Args:
        program: of `compile_step`.
        prompt_ids: as many token ids as the program was compiled for.
        seed: of the noise, modulo 2^32; by default the policy's.
        on_step: called after every denoising step.

    Raises:
        UnmaskError: a prompt of another length or outside the vocabulary.
    """
    machine, policy, positions, mask_token, vocabulary = _compiled_for(program)
    prompt_length = positions - policy.gen_length
    if len(prompt_ids) != prompt_length:
        raise UnmaskError(f"the program was compiled for a prompt of {prompt_length} tokens, not {len(prompt_ids)}")
    canvas = np.full(positions, mask_token, np.int64)
    canvas[:prompt_length] = [operator.index(token) for token in prompt_ids]
    if mask_token in prompt_ids:
        raise UnmaskError(f"the prompt holds the mask token {mask_token}, which only generated positions may")
    if canvas.min() < 0 or canvas.max() >= vocabulary:
        raise UnmaskError(f"the prompt holds a token outside the vocabulary of {vocabulary}")
    seed = policy.seed if seed is None else seed
    npu = FunctionalMachine(program, machine)
    npu.write("canvas", canvas.astype("<i4"))
    counts = transfer_counts(policy.block_length, policy.steps_per_block)
    steps: list[Step] = []
    for block in range(policy.blocks):
        start = prompt_length + block * policy.block_length
        for count in counts:
            npu.write("parameters", np.array([start, count, seed % 2**32, len(steps)], "<u4"))
            npu.run()
            after = npu.read("canvas", "<i4")[: len(canvas)].astype(np.int64)
            changed = np.flatnonzero(after != canvas)
            record = Step(len(steps), start, start + policy.block_length, changed.tolist(), after[changed].tolist(), canvas, after)
            canvas = after
            steps.append(record)
            if on_step is not None:
                on_step(record)
    return Simulation(machine, policy, prompt_length, tuple(steps), time_program(program, machine))
