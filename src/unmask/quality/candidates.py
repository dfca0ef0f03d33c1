"""Which policies are measured: named ones, changed where a user says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from unmask.decoding.policies import DEFAULT, NAMED, NamedPolicy
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError

YARDSTICK = "llada"
"""Plain decoding: one token a step, the most confident one, at temperature 0."""

EVERY = (
    YARDSTICK,
    DEFAULT.name,
    *(name for name in NAMED if name != YARDSTICK),
    "fast-dllm:threshold=0.1",
    "guided:accept_top_k=10",
)
"""What is measured unless policies are named. Published thresholds are set for models that are surer than the shipped one, so two policies
are measured with lower bars too.
"""

_KNOWN = {DEFAULT.name: DEFAULT, **NAMED}
_ELSEWHERE = ("gen_length", "seed")


@dataclass(frozen=True)
class Candidate:
    """A policy to be measured.

    Attributes:
        name: as the user wrote it, such as `fast-dllm:threshold=0.3`.
        named: what it starts from.
        settings: fields of `Policy` that replace those of `named`.
    """

    name: str
    named: NamedPolicy
    settings: Mapping[str, Any]

    def policy(self, gen_length: int, seed: int) -> Policy:
        """The policy itself.

        Raises:
            UnmaskError: what `Policy` raises.
        """
        return self.named.policy(gen_length=gen_length, seed=seed, **self.settings)


def candidate(text: str) -> Candidate:
    """What `NAME` or `NAME:SETTING=VALUE:...` means: a policy of `unmask policies`, or `default`, with fields of `Policy` replaced.

    Raises:
        UnmaskError: an unknown policy or setting, or one without a value.
    """
    name, *changes = text.split(":")
    if name not in _KNOWN:
        raise UnmaskError(f"unknown policy {name!r}: expected one of {', '.join(_KNOWN)}")
    known = [field.name for field in fields(Policy) if field.name not in _ELSEWHERE]
    settings = {}
    for change in changes:
        setting, equals, value = change.partition("=")
        if setting not in known:
            raise UnmaskError(f"policy {text!r}: unknown setting {setting!r}; expected one of {', '.join(known)}")
        if not equals or not value:
            raise UnmaskError(f"policy {text!r}: setting {setting!r} has no value; expected {setting}=VALUE")
        settings[setting] = _value(value)
    return Candidate(text, _KNOWN[name], settings)


def candidates(texts: Sequence[str]) -> list[Candidate]:
    """Every candidate, in the order given.

    Raises:
        UnmaskError: what `candidate` raises; one that is named twice, or none.
    """
    if not texts:
        raise UnmaskError("no policy is named; expected at least one")
    for text in texts:
        if list(texts).count(text) > 1:
            raise UnmaskError(f"policy {text!r} is named twice")
    return [candidate(text) for text in texts]


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
