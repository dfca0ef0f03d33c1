"""What a training run leaves in its folder so that it can go on: one safetensors file, replaced whole."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.training.recipe import with_defaults

STATE_FILE = "training.safetensors"


@dataclass(frozen=True)
class RunState:
    """How far a run is, kept as JSON in the header of the tensors' file.

    Attributes:
        step: steps taken.
        seconds: wall time they took, over all sittings.
        recipe: the recipe's fields.
        tokens_digest: SHA-256 of the training tokens.
    """

    step: int
    seconds: float
    recipe: dict[str, object]
    tokens_digest: str


def tokens_digest(stream: Tensor) -> str:
    """SHA-256 of the training tokens, to notice that a corpus changed under a run."""
    return hashlib.sha256(stream.numpy().tobytes()).hexdigest()


def save_run(folder: Path, state: RunState, tensors: dict[str, Tensor]) -> None:
    """Write the state beside the old one and swap them, so that there is a whole one at any moment.

    Raises:
        UnmaskError: the folder cannot be written.
    """
    unfinished = folder / (STATE_FILE + ".unfinished")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(save(contiguous, metadata={"run": json.dumps(asdict(state))}))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / STATE_FILE)
    except OSError as error:
        raise UnmaskError(f"cannot write the training run to {folder}: {error.strerror}") from None


def load_run(folder: Path) -> tuple[RunState, dict[str, Tensor]] | None:
    """The state a run left in `folder`, or None if there is none.

    Raises:
        UnmaskError: the file is damaged or not a run's.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            state = RunState(**json.loads(file.metadata()["run"]))
            return state, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UnmaskError(f"{path} is not the state of a training run ({error}); remove it to start anew") from None


def check_same_run(folder: Path, found: RunState, recipe: dict[str, object], digest: str) -> None:
    """Refuse to continue another run.

    Raises:
        UnmaskError: the recipe (the first field that differs is named) or the training tokens differ.
    """
    difference = _first_difference(with_defaults(found.recipe), json.loads(json.dumps(recipe)))
    if difference:
        raise UnmaskError(f"{folder} holds a run of another recipe: {difference}; choose another folder, or remove {folder / STATE_FILE}")
    if found.tokens_digest != digest:
        raise UnmaskError(f"{folder} holds a run on another corpus; choose another folder, or remove {folder / STATE_FILE}")


def _first_difference(there: object, here: object, name: str = "") -> str | None:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*there, *here)):
            difference = _first_difference(there.get(key), here.get(key), f"{name}.{key}" if name else key)
            if difference:
                return difference
        return None
    return None if there == here else f"{name} is {there} there and {here} here"
