"""Methods by the names that a machine's formats give them."""

from __future__ import annotations

from collections.abc import Callable

from unmask.decoding.cache.smoothing import Smoothing
from unmask.errors import UnmaskError
from unmask.quant.smoothing.baos import Baos
from unmask.quant.smoothing.baos_bf16 import BaosBf16
from unmask.quant.smoothing.static import KvScales, Static
from unmask.quant.smoothing.tensor import PerTensor

_ONLINE: dict[str, Callable[[], Smoothing]] = {"tensor": PerTensor, "baos": Baos, "baos-bf16": BaosBf16}


def smoothing_named(name: str, calibrated: KvScales | None = None) -> Smoothing | None:
    """The method of that name; None for `none`.

    Args:
        name: one of `unmask.machine.config.Smoothing`.
        calibrated: the scales of `static`.

    Raises:
        UnmaskError: an unknown name, or `static` without scales.
    """
    if name == "none":
        return None
    if name == "static":
        if calibrated is None:
            raise UnmaskError("smoothing 'static' needs scales that were calibrated for the network")
        return Static(calibrated)
    if name not in _ONLINE:
        raise UnmaskError(f"unknown smoothing {name!r}: expected one of none, static, {', '.join(_ONLINE)}")
    return _ONLINE[name]()
