"""A space of machines: a description that is given, and fields of it that are varied, within limits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmask.errors import UnmaskError
from unmask.explore.fields import Value, Varied
from unmask.machine.config import Machine

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class SpaceFile(BaseModel):
    """What a space's file may say.

    Attributes:
        machine: a preset, or a machine file beside this one: what is not varied.
        model: as of `unmask sim`.
        fields: the varied ones, by their dotted names in a machine file.
        limits: the most of a measure (`unmask.explore.measures`) that a point may have.
        workload: options of `unmask sim`, by their long names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str
    model: str | None = None
    fields: dict[str, Varied] = Field(min_length=1)
    limits: dict[str, Annotated[float, Field(gt=0)]] = {}
    workload: dict[str, str | bool | int | float] = {}


class Space:
    """Machines that differ in some fields.

    Attributes:
        base: the machine whose fields are varied.
        fields: what each varied field may be, by its dotted name.
    """

    def __init__(self, base: Machine, fields: Mapping[str, Varied]) -> None:
        """Check that the fields are there.

        Raises:
            UnmaskError: a name that is no field of the machine, or the same as something that does not vary by itself.
        """
        self.base, self.fields = base, dict(fields)
        for name, varied in fields.items():
            self._check(name)
            if varied.same_as is not None and (varied.same_as not in fields or fields[varied.same_as].same_as is not None):
                raise UnmaskError(f"fields.{name}: same_as {varied.same_as!r}: expected another varied field, with values of its own")

    def _check(self, name: str) -> None:
        at: Any = self.base.model_dump()
        *path, last = name.split(".")
        for part in path:
            at = at.get(part) if isinstance(at, dict) else None
        known = isinstance(at, dict) and (last in at or path == ["hbm", "overrides"])
        if not known or isinstance(at.get(last), dict):
            given = f"; there are {', '.join(at)}" if isinstance(at, dict) and path else ""
            raise UnmaskError(f"fields.{name}: no field of machine {self.base.name} that is one value{given}")

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The sampler's parameters by name."""
        return {_label(name, varied): varied.distribution() for name, varied in self.fields.items() if varied.same_as is None}

    def values(self, parameters: Mapping[str, Value]) -> dict[str, Value]:
        """The fields' values for the sampler's parameters."""
        own = {name: varied.value(parameters[_label(name, varied)]) for name, varied in self.fields.items() if varied.same_as is None}
        return {name: own[varied.same_as or name] for name, varied in self.fields.items()}

    @property
    def first(self) -> dict[str, Value] | None:
        """The sampler's parameters for the base machine; None: it is not in the space."""
        found: dict[str, Value] = {}
        for name, varied in self.fields.items():
            if varied.same_as is not None:
                if _at(self.base, name) != _at(self.base, varied.same_as):
                    return None
                continue
            parameter = varied.parameter(_at(self.base, name))
            if parameter is None:
                return None
            found[_label(name, varied)] = parameter
        return found

    def machine(self, values: Mapping[str, Value], name: str | None = None) -> Machine:
        """The base machine with some fields replaced, under another name if one is given.

        Raises:
            UnmaskError: these do not describe a machine.
        """
        described = self.base.model_dump()
        for field, value in values.items():
            *path, last = field.split(".")
            at = described
            for part in path:
                at = at[part]
            at[last] = value
        if name is not None:
            described["name"] = name
        try:
            return Machine.model_validate(described)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"] if part != "dram") or "machine"
            raise UnmaskError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _label(name: str, varied: Varied) -> str:
    return name if varied.scale == "as it is" else f"{varied.scale} {name}"


def _at(machine: Machine, name: str) -> Any:
    at: Any = machine.model_dump()
    for part in name.split("."):
        at = at.get(part)
    return at


def read_space(path: Path) -> SpaceFile:
    """What a space's file says; a machine file is named from where the space's is.

    Raises:
        UnmaskError: it cannot be read, or does not describe a space.
    """
    try:
        found = SpaceFile.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UnmaskError(f"{path}: cannot read the space: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnmaskError(f"{path}: not a text file") from None
    except tomllib.TOMLDecodeError as error:
        raise UnmaskError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UnmaskError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None
    if found.machine.endswith(".toml"):
        return found.model_copy(update={"machine": str(path.parent / found.machine)})
    return found
