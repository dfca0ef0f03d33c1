"""Named policies: the decodings of the field, as their papers or published code set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError


@dataclass(frozen=True)
class NamedPolicy:
    """A decoding with a name.

    Attributes:
        name: what a user calls it.
        summary: what it does, in a phrase.
        paper: where it comes from.
        settings: the fields of `Policy` in which it differs from the defaults there.
        one_block: the whole generated region is one block unless a block length is given.
    """

    name: str
    summary: str
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    one_block: bool = False

    def policy(self, *, gen_length: int = 64, block_length: int | None = None, steps: int | None = None, **settings: Any) -> Policy:
        """The policy itself, changed where something else is given.

        Args:
            gen_length: see `Policy`.
            block_length: see `Policy`; None: 32 or, if that is less or the policy is one of one block, `gen_length`.
            steps: see `Policy`; None: one per token.
            settings: other fields of `Policy`.

        Raises:
            UnmaskError: what `Policy` raises.
        """
        if block_length is None:
            block_length = gen_length if self.one_block else min(32, gen_length)
        sizes = {"gen_length": gen_length, "block_length": block_length, "steps": gen_length if steps is None else steps}
        return Policy(**{**sizes, **self.settings, **settings})


_LLADA = "Nie et al., arXiv 2502.09992"
_FAST_DLLM = "Wu et al., arXiv 2505.22618"
_DREAM = "Ye et al., arXiv 2508.15487"
_FLASH_DLM = "Hu et al., arXiv 2505.21467"

NAMED: Mapping[str, NamedPolicy] = {
    policy.name: policy
    for policy in (
        NamedPolicy("llada", "the most confident candidates, evenly many per step", _LLADA),
        NamedPolicy("llada-random", "candidates at random positions, evenly many per step", _LLADA, {"remasking": "random"}),
        NamedPolicy(
            "fast-dllm",
            "every candidate above a threshold, only the block is fed",
            _FAST_DLLM,
            {"cache": "dual", "commit": "threshold", "threshold": 0.9},
        ),
        NamedPolicy(
            "fast-dllm-prefix",
            "every candidate above a threshold, what precedes the block is cached",
            _FAST_DLLM,
            {"cache": "prefix", "commit": "threshold", "threshold": 0.9},
        ),
        NamedPolicy(
            "fast-dllm-factor",
            "candidates above a bar that rises with their rank, only the block is fed",
            _FAST_DLLM,
            {"cache": "dual", "commit": "factor", "factor": 1.0},
        ),
        NamedPolicy(
            "dream",
            "the candidates of least entropy, drawn from the likeliest tokens",
            _DREAM,
            {"remasking": "entropy", "schedule": "timesteps", "temperature": 0.2, "top_p": 0.95},
            one_block=True,
        ),
        NamedPolicy(
            "flashdlm",
            "the candidates of least entropy, finished blocks frozen, an end at end of text",
            _FLASH_DLM,
            {"cache": "freecache", "remasking": "entropy", "schedule": "shared_timesteps", "early_stop": 1},
        ),
        NamedPolicy(
            "guided",
            "as many drafts as an autoregressive guide accepts, the prompt frozen",
            _FLASH_DLM,
            {"cache": "prompt", "commit": "guided"},
            one_block=True,
        ),
    )
}

DEFAULT = NamedPolicy(
    "default", "candidates at random positions, drawn at temperature 0.7", _LLADA, {"temperature": 0.7, "remasking": "random"}
)
"""What text is drawn with unless something else is asked for: LLaDA's rules, and of these the ones that suit the shipped model."""


def named_policy(name: str, **settings: Any) -> Policy:
    """A named policy, changed where something else is given.

    Args:
        name: one of `NAMED`.
        settings: see `NamedPolicy.policy`.

    Raises:
        UnmaskError: an unknown name, or what `Policy` raises.
    """
    if name not in NAMED:
        raise UnmaskError(f"unknown policy {name!r}: expected one of {', '.join(NAMED)}")
    return NAMED[name].policy(**settings)
