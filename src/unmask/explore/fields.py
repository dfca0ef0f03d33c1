"""What of a machine is varied: one field of its description, by its dotted name, and the values that it may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = int | float | str
"""Of a machine's field."""


class Varied(BaseModel):
    """Values of one field, in one of four ways.

    Attributes:
        choices: these.
        powers_of_two: the powers of two from the first to the second.
        range: from the first to the second, in steps of `step`; without steps every integer or, if a bound has a fraction, every number.
        same_as: those of another varied field, by its dotted name: no choice of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: tuple[Value, ...] | None = Field(default=None, min_length=1)
    powers_of_two: tuple[int, int] | None = None
    range: tuple[int | float, int | float] | None = None
    step: int | float | None = Field(default=None, gt=0)
    same_as: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_list(cls, given: Any) -> Any:
        return {"choices": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _is_one(self) -> Varied:
        ways = [name for name in ("choices", "powers_of_two", "range", "same_as") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(f"expected one of choices, powers_of_two, range and same_as, not {' and '.join(ways) or 'none'}")
        if self.step is not None and self.range is None:
            raise ValueError("step belongs to range")
        if self.powers_of_two is not None and any(bound < 1 or bound & (bound - 1) for bound in self.powers_of_two):
            raise ValueError(f"powers_of_two {list(self.powers_of_two)}: expected two powers of two")
        for bounds in (self.powers_of_two, self.range):
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{list(bounds)}: expected the lower bound first")
        return self

    @property
    def scale(self) -> Literal["as it is", "log2"]:
        """How a parameter of the sampler stands for a value: powers of two by their exponents, so that neighbours are neighbours."""
        return "as it is" if self.powers_of_two is None else "log2"

    def distribution(self) -> BaseDistribution:
        """The sampler's parameter; of a field that is no other's (`same_as`)."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        if self.powers_of_two is not None:
            low, high = self.powers_of_two
            return IntDistribution(low.bit_length() - 1, high.bit_length() - 1)
        assert self.range is not None
        first, last = self.range
        if all(isinstance(number, int) for number in (first, last, self.step or 1)):
            return IntDistribution(int(first), int(last), step=int(self.step or 1))
        return FloatDistribution(float(first), float(last), step=None if self.step is None else float(self.step))

    def value(self, parameter: Value) -> Value:
        """The field's value for the sampler's parameter."""
        return 1 << int(parameter) if self.scale == "log2" else parameter

    def parameter(self, value: Value) -> Value | None:
        """The sampler's parameter for a value of the field; None: it is none of these."""
        if self.scale == "log2":
            if not isinstance(value, int) or value < 1 or value & (value - 1):
                return None
            value = value.bit_length() - 1
        if isinstance(value, str) and self.choices is None:
            return None
        distribution = self.distribution()
        try:
            return value if distribution._contains(distribution.to_internal_repr(value)) else None
        except ValueError:
            return None
