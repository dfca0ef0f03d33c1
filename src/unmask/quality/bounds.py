"""The masked-diffusion bound on a few windows, in float32 or in a machine's number formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from unmask.decoding.cache.base import Moment
from unmask.decoding.cache.smoothing import Smoothing
from unmask.decoding.cache.whole import WholeCanvas
from unmask.errors import UnmaskError
from unmask.machine.config import Formats
from unmask.models.family import Network
from unmask.models.llada import Llada
from unmask.models.tokenizer import Tokenizer
from unmask.quality.windows import spread
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.smoothing.registry import smoothing_named
from unmask.training.bound import diffusion_bound

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


@dataclass(frozen=True)
class MeasuredBound:
    """The bound, in bits per character of the windows.

    Attributes:
        bits_per_character: see `unmask.training.bound`.
        standard_error: from the draw of masks.
        windows: how many windows of text.
        length: tokens per window.
        strata: forward passes per window.
        tokens: of all windows.
        characters: of all windows.
    """

    bits_per_character: float
    standard_error: float
    windows: int
    length: int
    strata: int
    tokens: int
    characters: int


class _Smoothed:
    """A network whose keys and values are smoothed in every forward pass."""

    def __init__(self, model: Network, smoothing: Smoothing | None) -> None:
        self._model, self._smoothing = model, smoothing

    @property
    def config(self) -> Any:
        return self._model.config

    def hidden(self, ids: Tensor) -> Tensor:
        everything, cache = range(ids.shape[1]), WholeCanvas(self._smoothing)
        now = Moment(ids, 0, everything, 0, 0)
        return self._model.hidden(ids, positions=everything, layers=cache.runner(now, everything))

    def logits(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden)


def in_formats(model: AnyNetwork, formats: Formats) -> AnyNetwork:
    """The same network, sharing its weights, computed in a machine's number formats."""
    return model.computed_in(
        MachineArithmetic(formats.weights, formats.activations, formats.kv, formats.logits, softmax_sums=formats.softmax_sums)
    )


def bound_of(
    model: Network,
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[int]],
    *,
    windows: int,
    length: int,
    strata: int,
    formats: Formats | None = None,
    report: Callable[[float], None] = lambda fraction: None,
) -> MeasuredBound:
    """Measure the bound. Windows and masks depend on nothing but the texts and the sizes, so formats are compared on the same masks.

    Args:
        model: the float32 network, of LLaDA's family.
        tokenizer: says how many characters a window has.
        texts: token ids of each text.
        windows: how many windows, spread over the texts.
        length: tokens per window.
        strata: forward passes per window; even.
        formats: what the network is computed in, smoothing included (not `static`); None: in float32.
        report: called after each forward pass with the fraction that is done.

    Raises:
        UnmaskError: a network of another family; what `spread` and `diffusion_bound` raise.
    """
    if not isinstance(model, Llada):
        raise UnmaskError(f"no bound is implemented for a {type(model).__name__} network, only for LLaDA's; leave it out with --no-bound")
    chosen = spread(texts, windows, length)
    characters = sum(len(tokenizer.decode(window)) for window in chosen)
    network = _Smoothed(model if formats is None else in_formats(model, formats), smoothing_named(formats.smoothing if formats else "none"))
    batch = 16 if formats is None else 1
    found = diffusion_bound(network, chosen, characters, length=length, strata=strata, batch=batch, report=report)
    return MeasuredBound(found.bits_per_character, found.standard_error, windows, length, strata, found.tokens, found.characters)
