"""What was measured on a GPU: seconds of every kind of step, transformer and sampling apart, in a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmask.baselines.steps import StepKind
from unmask.errors import UnmaskError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MeasuredStep(_Part):
    """Medians of one kind of step; its sizes as in `StepKind`."""

    batch: int
    rows: int
    keys: int
    head_rows: int
    transformer_s: Seconds
    sampling_s: Seconds
    repeats: Annotated[int, Field(gt=0)]

    @property
    def kind(self) -> StepKind:
        return StepKind(self.batch, self.rows, self.keys, self.head_rows)


class MeasuredProfile(_Part):
    """A measurement of a model on a device.

    Attributes:
        device: as the driver names it.
        software: versions that matter.
        model: of the catalogue.
        policy: commit, remasking and cache, which decide the sampler's kernels.
        dtype: of weights and logits.
        power_w: mean board power while it ran, None where the driver does not say.
        steps: one per kind.
    """

    device: str
    software: dict[str, str]
    model: str
    policy: dict[str, str | float | int | bool | None]
    dtype: str
    power_w: float | None
    steps: tuple[MeasuredStep, ...]

    def step(self, kind: StepKind) -> MeasuredStep | None:
        """The measurement of a kind of step, None where there is none."""
        return next((step for step in self.steps if step.kind == kind), None)

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            UnmaskError: the file cannot be written.
        """
        try:
            path.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
        except OSError as error:
            raise UnmaskError(f"{path}: cannot write the profile: {error.strerror}") from None

    @classmethod
    def read(cls, path: Path) -> MeasuredProfile:
        """A file that `write` wrote.

        Raises:
            UnmaskError: a file that cannot be read or is no such profile.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except OSError as error:
            raise UnmaskError(f"{path}: cannot read the profile: {error.strerror}") from None
        except (ValidationError, UnicodeDecodeError):
            raise UnmaskError(f"{path}: not a profile of `unmask gpu measure`") from None
