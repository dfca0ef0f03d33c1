"""What a user chooses about decoding, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unmask.errors import UnmaskError

Remasking = Literal["low_confidence", "random"]


@dataclass(frozen=True)
class Policy:
    """LLaDA's plain and block-wise decoding (Nie et al., arXiv 2502.09992).

    Attributes:
        gen_length: new tokens, appended to the prompt as masks.
        block_length: the canvas is unmasked block by block, left to right; equal to `gen_length` for plain decoding.
        steps: denoising steps in total, the same number for every block.
        temperature: 0 takes the arg-max; above, Gumbel-max sampling.
        cfg_scale: classifier-free guidance: 0 is none, else `lu + (scale + 1) (lc - lu)` with `lu` from a masked prompt.
        remasking: what ranks the candidates of a step: their probability, or a uniform draw.
        exclude_mask: the mask token is no candidate, its logit is -inf. False is the reference's behaviour, where a mask can be
            "committed" and stay in the output.
        honour_padding: positions whose attention mask is False are invisible to attention. False is the reference's behaviour,
            which accepts the mask and disregards it.
        suppress_eos: the end-of-text token is no candidate, its logit is -inf.
        defer_eos: end-of-text tokens may win but with the confidence of a token that has no probability, so they commit last.
        eot_token_id: a second end token (LLaDA-8B: 126348) that `defer_eos` covers.
        seed: of the default noise source.

    Raises:
        UnmaskError: a value out of range, a block length that does not divide, or steps that do not spread over the blocks.
    """

    gen_length: int
    block_length: int
    steps: int
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: Remasking = "low_confidence"
    exclude_mask: bool = True
    honour_padding: bool = True
    suppress_eos: bool = False
    defer_eos: bool = False
    eot_token_id: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("gen_length", "block_length", "steps"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UnmaskError(f"{name} is {getattr(self, name)!r}; it must be an integer of at least 1")
        if self.gen_length % self.block_length:
            raise UnmaskError(f"block_length {self.block_length} does not divide gen_length {self.gen_length}")
        if self.steps % self.blocks:
            raise UnmaskError(f"steps {self.steps} is not a multiple of the {self.blocks} blocks (gen_length / block_length)")
        for name in ("temperature", "cfg_scale"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise UnmaskError(f"{name} is {value!r}; it must be a finite number of at least 0")
        if self.remasking not in get_args(Remasking):
            raise UnmaskError(f"remasking is {self.remasking!r}; supported: {', '.join(get_args(Remasking))}")

    def excluded(self, mask_token_id: int, eos_token_id: int) -> tuple[int, ...]:
        """Tokens that are no candidates."""
        return (mask_token_id,) * self.exclude_mask + (eos_token_id,) * self.suppress_eos

    @property
    def blocks(self) -> int:
        return self.gen_length // self.block_length

    @property
    def steps_per_block(self) -> int:
        return self.steps // self.blocks
