"""A recipe: every number that decides what a training run computes, read from a TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from unmask.errors import UnmaskError

_BYTES = 256
"""Entries of a byte-level vocabulary before the first merge."""

_RECIPES = resources.files("unmask.training") / "recipes"

_Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(_Section):
    """The network and its first weights."""

    width: PositiveInt
    heads: PositiveInt
    layers: PositiveInt
    feed_forward: PositiveInt
    vocabulary: int = Field(ge=_BYTES + 2)
    """Entries of the tokenizer, the end-of-text and mask tokens included: they are the last two ids."""
    context: PositiveInt
    """Longest canvas, tokens."""
    rope_theta: PositiveFloat = 10000.0
    weight_tying: bool = False
    """Whether the LM head is the embedding table."""
    embedding_std: PositiveFloat = 0.02
    """Standard deviation of the first embedding and LM head."""
    matrix_gain: PositiveFloat = 0.5
    """First matrices of a block have standard deviation `matrix_gain / sqrt(inputs)`; those that write to the residual stream are also
    divided by `sqrt(2 * layers)`."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not an even multiple of heads {self.heads}")
        return self


class Data(_Section):
    """Which speeches are held out."""

    held_out: PositiveInt
    split_seed: int = 0


class Optimiser(_Section):
    """Muon (Jordan et al., 2024) for the matrices inside blocks, AdamW (arXiv 1711.05101) for embeddings, LM head and norms."""

    muon_learning_rate: PositiveFloat
    muon_momentum: _Fraction
    muon_weight_decay: float = Field(ge=0)
    adamw_learning_rate: PositiveFloat
    adamw_betas: tuple[_Fraction, _Fraction]
    adamw_weight_decay: float = Field(ge=0)
    gradient_norm: PositiveFloat
    """Gradients are scaled down to this norm, all parameters together."""


class Schedule(_Section):
    """How long, how fast, on how long texts."""

    steps: PositiveInt
    warmup: PositiveInt
    """Steps over which the learning rate rises linearly from nearly zero."""
    decay_from: int = Field(ge=0)
    """Step from which the learning rate falls linearly to zero at `steps`."""
    tokens_per_step: PositiveInt
    lengths: tuple[tuple[int, PositiveInt], ...] = Field(min_length=1)
    """Stages `[step, length]`: from that step on, a batch holds `tokens_per_step / length` texts of `length` tokens."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.decay_from >= self.steps:
            raise ValueError(f"decay_from {self.decay_from} is not before the last step {self.steps}")
        starts = [start for start, _ in self.lengths]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"lengths must start at step 0 and rise, not {starts}")
        for _, length in self.lengths:
            if self.tokens_per_step % length:
                raise ValueError(f"tokens_per_step {self.tokens_per_step} is not a multiple of length {length}")
        return self

    def length_at(self, step: int) -> int:
        """Tokens per text at `step` (counted from 0)."""
        return next(length for start, length in reversed(self.lengths) if step >= start)

    def rate_at(self, step: int) -> float:
        """What the learning rates are multiplied by at `step`: linear rise, plateau, linear fall."""
        rise = (step + 1) / self.warmup
        fall = (self.steps - step) / (self.steps - self.decay_from)
        return min(1.0, rise) * min(1.0, max(0.0, fall))


class Recipe(_Section):
    """A whole training run; two equal recipes on the same corpus give the same model on the same machine."""

    network: Network
    data: Data
    optimiser: Optimiser
    schedule: Schedule
    objective: Literal["diffusion", "autoregressive"] = "diffusion"
    """What is trained: a LLaDA network that predicts masked tokens, or a causal one, a guide, that predicts the next token."""
    tokenizer: str | None = None
    """Name of the shipped checkpoint whose tokenizer the model shares; if left out, one is trained on the training speeches."""
    weighting: Literal["sqrt", "elbo"] | None = None
    """Of the diffusion objective, `sqrt` if left out. What a masked token's cross-entropy counts for when a fraction t of the text is
    masked, 1 / sqrt(t) or 1 / t. The latter is the likelihood bound itself; the former gives the noisy, nearly complete texts less of the
    gradient and reaches a lower bound sooner."""
    bound_length: PositiveInt
    """Tokens per window when the bound, or a guide's cross-entropy, is measured."""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_objective(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("objective", "diffusion") == "diffusion":
            return {**fields, "weighting": fields.get("weighting") or "sqrt"}
        return fields

    @model_validator(mode="after")
    def _fields_fit_the_objective(self) -> Self:
        if self.objective == "autoregressive" and self.weighting is not None:
            raise ValueError(f"weighting {self.weighting} is for the diffusion objective only")
        if self.objective == "diffusion" and self.tokenizer is not None:
            raise ValueError(f"tokenizer {self.tokenizer} is for the autoregressive objective only")
        return self

    @model_validator(mode="after")
    def _lengths_fit_the_context(self) -> Self:
        for length in (self.bound_length, *(length for _, length in self.schedule.lengths)):
            if length > self.network.context:
                raise ValueError(f"a length of {length} tokens does not fit the network's context of {self.network.context}")
        return self

    def scaled_to(self, steps: int) -> Recipe:
        """This recipe in `steps` steps: the start of the decay and of each length stage move in proportion.

        Raises:
            UnmaskError: too few steps to keep the stages apart.
        """
        schedule = self.schedule
        fraction = steps / schedule.steps
        scaled = schedule.model_dump() | {
            "steps": steps,
            "decay_from": int(schedule.decay_from * fraction),
            "lengths": [(int(start * fraction), length) for start, length in schedule.lengths],
        }
        return _checked(self.model_dump() | {"schedule": scaled}, f"a recipe of {steps} steps")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, each that of the shipped checkpoint of the same name."""
    return sorted(file.name.removesuffix(".toml") for file in _RECIPES.iterdir() if file.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path = "sotu") -> Recipe:
    """Read the recipe of a shipped model by its name, or one from a TOML file.

    Raises:
        UnmaskError: no such name or file, not TOML, or a field that is missing, unknown or out of range (the message names it).
    """
    shipped = str(name_or_path) in shipped_recipes()
    source = _RECIPES / f"{name_or_path}.toml" if shipped else Path(name_or_path)
    name = f"recipe {source.name if shipped else source}"
    try:
        fields = tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise UnmaskError(f"{name} cannot be read: {error.strerror} (shipped recipes: {', '.join(shipped_recipes())})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnmaskError(f"{name} is not TOML: {error}") from None
    return _checked(fields, name)


def with_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that an earlier version may have written, those that came since at their defaults."""
    try:
        return Recipe.model_validate(fields).model_dump(mode="json")
    except ValidationError:
        return fields


def _checked(fields: dict[str, object], name: str) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise UnmaskError(f"{name}: {where}: {reason}" if where else f"{name}: {reason}") from None
