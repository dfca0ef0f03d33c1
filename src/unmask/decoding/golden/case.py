"""A case file: one recorded call, with everything that went through the network, `torch.topk` and the generators."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field, ValidationError, field_validator
from torch import Tensor

_DTYPES = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}


class MismatchError(Exception):
    """The replay differs from the recording, or the recording makes no sense; the message is one line."""


class Forward(BaseModel):
    """A forward pass: the ids fed, and per row the arg-max and the largest probability of the logits; with a cache, how many positions
    it holds and, if it is written in place, which of them are replaced.
    """

    op: Literal["forward"]
    ids: list[list[int]]
    argmax: list[list[int]]
    max_prob_f64: list[list[float]]
    logits_key: str | None = None
    past_len: int | None = None
    replace_positions: list[int] | None = Field(default=None, min_length=1)


class TopK(BaseModel):
    """A call of `torch.topk`, on one row of the batch or on all of them: what it was handed and what it chose, per row."""

    op: Literal["topk"]
    k: int
    dtype: str
    indices: list[list[int]]
    conf: list[list[float]]

    @field_validator("indices", "conf", mode="before")
    @classmethod
    def _rows(cls, values: Any) -> Any:
        """One row is recorded without the outer list."""
        return values if isinstance(values, list) and values and isinstance(values[0], list) else [values]


class Draw(BaseModel):
    """A draw of random numbers; `sha` is the beginning of the SHA-256 of their bytes."""

    op: Literal["rand", "rand_like", "multinomial"]
    shape: list[int]
    dtype: str
    sha: str | None = None

    def check(self, values: Tensor) -> None:
        """Raise `MismatchError` unless `values` are of the recorded shape, dtype and content."""
        values = values.reshape(self.shape) if self.op == "multinomial" and values.numel() == math.prod(self.shape) else values
        if list(values.shape) != self.shape or str(values.dtype) != self.dtype:
            raise MismatchError(f"{self.op} draws {list(values.shape)} {values.dtype}; recorded {self.shape} {self.dtype}")
        if self.sha is not None and not hashlib.sha256(values.numpy().tobytes()).hexdigest().startswith(self.sha):
            raise MismatchError(f"{self.op} draws other numbers than recorded")


Event = Annotated[Forward | TopK | Draw, Field(discriminator="op")]
AnyEvent = TypeVar("AnyEvent", Forward, TopK, Draw)


class Case(BaseModel):
    """The content of `NAME.json`, as the README of the golden vectors describes it; other keys are ignored."""

    kwargs: dict[str, Any]
    prompt_ids: list[list[int]] = Field(min_length=1)
    output_ids: list[list[int]]
    events: list[Event]
    n_forward: int
    seed: int = 0
    dtype: str = "float32"
    attention_mask: list[list[int]] | None = None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Case:
        """Check the types of a parsed JSON object.

        Raises:
            MismatchError: a key is missing or of another type.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise MismatchError(f"corrupt case: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
        name = f"torch.{self.dtype.removeprefix('torch.')}"
        if name not in _DTYPES:
            raise MismatchError(f"corrupt case: dtype {self.dtype!r}")
        return _DTYPES[name]


class Events:
    """The recorded events in call order, taken one by one."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events, self._next = events, 0

    def take(self, kind: type[AnyEvent]) -> AnyEvent:
        """The next event, which must be of this kind."""
        wanted = kind.model_fields["op"].annotation
        if self._next == len(self._events):
            raise MismatchError(f"the replay goes on with {_ops(wanted)} where the recording ends")
        event = self._events[self._next]
        if not isinstance(event, kind):
            raise MismatchError(f"event {self._next} is {event.op}; the replay calls {_ops(wanted)}")
        self._next += 1
        return event

    def finish(self) -> None:
        """Every event must have been taken."""
        if self._next != len(self._events):
            raise MismatchError(f"the replay ends where the recording goes on with {self._events[self._next].op}")


def _ops(annotation: Any) -> str:
    return " or ".join(annotation.__args__)


def rectangle(rows: Sequence[Sequence[float]], what: str) -> Tensor:
    """Nested lists as a float64 tensor (exact for token ids), or a `MismatchError` where the rows differ in length."""
    if len({len(row) for row in rows}) > 1:
        raise MismatchError(f"corrupt case: the rows of {what} differ in length")
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class Runner:
    """How one kind of case is replayed.

    Attributes:
        recognises: whether this runner is for a case with this `source`.
        run: replay the case of a file, given its content; returns a note, or raises `MismatchError` or `UnmaskError` if it fails and
            `NotReplayableError` if it asks for what is not implemented.
    """

    recognises: Callable[[str], bool]
    run: Callable[[Path, dict[str, Any]], str]


class NotReplayableError(Exception):
    """The case asks for something that this version does not implement; the message says what."""
