"""What the host sets for each step, and what sampling leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.compiler.emitter import Var


@dataclass(frozen=True)
class StepParameters:
    """What the host sets for each step.

    Attributes:
        block_start: register: canvas position of the block's first row, the same for all sequences.
        seed, step: registers.
        commits: integer SRAM address of one word per sequence, which the sequencer may read: how many candidates commit; for the scorer
            `origin` the bound of `unmask.quant.commit.due_word`.
    """

    block_start: Var
    seed: Var
    step: Var
    commits: int


@dataclass(frozen=True)
class Sampled:
    """Integer SRAM addresses of one word per row: the candidates, and 1 where they were committed."""

    tokens: int
    chosen: int
