"""How to decode: the options that `generate` and `compile` share, and the policy that they choose."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from unmask.decoding.policies import DEFAULT, NAMED, NamedPolicy
from unmask.decoding.policy import CommitName, Policy, Remasking, ScheduleName
from unmask.errors import UnmaskError

DEFAULT_SEED = 17
"""Of the seeds from 0 to 20, one whose text of the shipped model reads well after "My fellow citizens,"."""

_PART_OF = {"threshold": "threshold", "factor": "factor", "accept_top_k": "guided", "accept_ratio": "guided", "schedule": "schedule"}
"""Options that only one commit looks at."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(name: str, kind: Any, text: str, *, off: bool = False, **limits: Any) -> tuple[str, Any]:
    flag = f"{_flag(name)}/{_flag(f'no-{name}')}" if off else _flag(name)
    return name, Annotated[kind | None, typer.Option(flag, help=text, rich_help_panel="Decoding", **limits)]


_OPTIONS: Mapping[str, Any] = dict(
    (
        _option("policy", str, "A named policy (see `unmask policies`); the options below change it."),
        _option("gen_length", int, "New tokens; 64 by default.", min=1),
        _option("block_length", int, "Tokens per block, unmasked left to right; divides --gen-length. By default 32.", min=1),
        _option("steps", int, "Denoising steps in all, as many for every block; by default one per token.", min=1),
        _option(
            "temperature",
            float,
            "0 takes the likeliest token; above, Gumbel noise of that strength. By default the named policy's, or 0.7.",
            min=0.0,
        ),
        _option("remasking", Remasking, "What ranks a step's candidates; by default the named policy's, or random: a uniform draw."),
        _option("schedule", ScheduleName, "How many candidates commit in a step: LLaDA's, Dream's or FlashDLM's count."),
        _option("commit", CommitName, "Which do: the scheduled number; by a threshold or factor; or those that a guide accepts."),
        _option("cache", str, "Which rows a step feeds: none (all of them), prefix, dual, freecache, prompt or dkv."),
        _option("threshold", float, "Of --commit threshold: the least confidence, in (0, 1]; by default 0.9."),
        _option("factor", float, "Of --commit factor: larger commits more; by default 1."),
        _option("top_p", float, "Of Dream's scorers: keep the likeliest tokens up to this probability."),
        _option("top_k", int, "Of Dream's scorers: keep so many tokens.", min=1),
        _option("alg_temp", float, "Of Dream's scorers: draw the positions, the less by confidence the higher.", min=0.0),
        _option("accept_top_k", int, "Of --commit guided: let a draft pass that is among the guide's best so many.", min=1),
        _option("accept_ratio", float, "Of --commit guided: and at least so many times as probable as its best."),
        _option("early_stop", int, "End at so many end-of-text tokens in a row with nothing masked before them; 0: never.", min=0),
        _option("cfg_scale", float, "Classifier-free guidance; 0: none."),
        _option("suppress_eos", bool, "Never take the end-of-text token; the default with a template.", off=True),
        _option("defer_eos", bool, "Commit end-of-text tokens last.", off=True),
        _option("eot_token_id", int, "A second end token that --defer-eos covers.", min=0),
        _option("seed", int, f"Seed of the noise; the same seed gives the same text. By default {DEFAULT_SEED}.", min=0, max=2**32 - 1),
    )
)


def takes_policy(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a policy; it gets them as keyword arguments for `policy_from`, None where not given. Those that the
    command declares itself are its own.
    """
    declared = inspect.signature(command, eval_str=True).parameters
    own = declared.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in _OPTIONS.items() if name not in declared
    ]
    signature = inspect.Signature([*(parameter for parameter in own if parameter.kind != inspect.Parameter.VAR_KEYWORD), *options])
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def policy_from(chosen: Mapping[str, Any], gaps: Sequence[bool] | None = None) -> Policy:
    """The policy that the options choose: what is given, then the named policy's settings, then the defaults.

    Args:
        chosen: the options by name, None where not given.
        gaps: for every generated position of a template, whether it is to be filled; None: there is no template.

    Raises:
        UnmaskError: an unknown policy, an option that nothing would look at, or what `Policy` raises.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    named = _named(given.pop("policy", None), given)
    if gaps is not None:
        given = {"suppress_eos": True, **given, **_sizes(given, gaps)}
    policy = named.policy(**{"seed": DEFAULT_SEED, **given})
    for name, commit in _PART_OF.items():
        if name in given and policy.commit != commit:
            raise UnmaskError(f"{_flag(name)} belongs to --commit {commit}; commit is {policy.commit!r}")
    if policy.eot_token_id is not None and not policy.defer_eos:
        raise UnmaskError("--eot-token-id belongs to --defer-eos")
    if policy.defer_eos and policy.remasking == "random":
        raise UnmaskError("--defer-eos takes confidence from end-of-text tokens; expected --remasking low_confidence, not 'random'")
    return policy


def _named(name: str | None, given: Mapping[str, Any]) -> NamedPolicy:
    if name is None:
        if given.get("commit", "schedule") == "schedule":
            return DEFAULT
        return NamedPolicy("other", "", "", one_block=given["commit"] == "guided")
    if name not in NAMED:
        raise UnmaskError(f"unknown policy {name!r}: expected one of {', '.join(NAMED)}")
    return NAMED[name]


def _sizes(given: Mapping[str, Any], gaps: Sequence[bool]) -> dict[str, int]:
    """The lengths that a template decides: one block and one step per gap token, unless given."""
    if "gen_length" in given:
        raise UnmaskError("the template decides how many tokens are new: expected no --gen-length")
    length = len(gaps)
    block = given.get("block_length", length)
    sizes = {"gen_length": length, "block_length": block}
    if "steps" not in given:
        sizes["steps"] = -(-length // block) * max(sum(gaps[first : first + block]) for first in range(0, length, block))
    return sizes
