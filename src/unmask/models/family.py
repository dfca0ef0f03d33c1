"""What a model family tells the checkpoint reader about itself.

A family is one file of this package that defines a network and a module constant `FAMILY`; it is found by looking, so adding one
edits nothing else.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from unmask.models.arithmetic import Arithmetic
from unmask.models.layers import LayerRunner, RMSNorm, Rows, TransformerBlock


@dataclass(frozen=True)
class NetworkParts:
    """A network's modules by what they do, whatever the checkpoint calls them; `head` is the LM head's weight [rows, width]."""

    embedding: nn.Embedding
    blocks: Sequence[TransformerBlock]
    final_norm: RMSNorm
    head: Tensor


class Network(nn.Module, ABC):
    """What every family's network offers; `unmask.models.llada.Llada` documents it."""

    config: Any
    arithmetic: Arithmetic

    @property
    @abstractmethod
    def parts(self) -> NetworkParts:
        """The modules, for those who place the weights elsewhere."""

    @abstractmethod
    def hidden(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: Rows | None = None,
        layers: LayerRunner | None = None,
    ) -> Tensor:
        """The final, normalised hidden states [batch, positions, width] of `ids` int64 [batch, positions]."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., width]."""

    def computed_in(self, arithmetic: Arithmetic) -> Self:
        """The same network, sharing its weights, computed in another arithmetic."""
        twin = copy.copy(self)
        twin.arithmetic = arithmetic
        return twin

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance of two tensors of logits, in the network's arithmetic."""
        return self.arithmetic.guidance(conditional, unconditional, scale)


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: the name under which messages speak of it.
        recognises: whether a `config.json` with these keys and this `model_type` (None if absent) describes this family.
        read_config: the validated configuration, from the parsed `config.json` and its path (for messages).
        build: the network with that configuration, its parameters not yet loaded.
    """

    name: str
    recognises: Callable[[Iterable[str], object], bool]
    read_config: Callable[[Mapping[str, Any], Path], Any]
    build: Callable[[Any], Network]


@cache
def families() -> tuple[Family, ...]:
    """Every family that this package knows, by name."""
    package = importlib.import_module("unmask.models")
    modules = (importlib.import_module(f"unmask.models.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    found = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return tuple(sorted(found, key=lambda family: family.name))
