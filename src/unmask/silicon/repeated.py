"""What stands in the engine once per lane is converted to RTLIL once: at 128 lanes all else takes seconds, each lane for itself minutes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

_CLOCK = {"clk": ClockSignal, "rst": ResetSignal}


def _repeated() -> tuple[type[wiring.Component], ...]:
    from unmask.rtl.lane import Lane
    from unmask.rtl.noise import Gumbel
    from unmask.rtl.scaled_noise import Scale

    return (Lane, Gumbel, Scale)


@contextmanager
def once_per_lane(top: wiring.Component) -> Iterator[dict[str, str]]:
    """While it is open, units of lanes but `top` elaborate to an instance of a module; yields the RTLIL of these modules, by name."""
    texts: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    open_units = [top]
    originals: dict[type[wiring.Component], Callable[[Any, Any], Module]] = {kind: kind.elaborate for kind in _repeated()}

    def elaborate(unit: Any, platform: Any) -> Module:
        kind = type(unit)
        if any(unit is other for other in open_units):
            return originals[kind](unit, platform)
        key = (kind, *((name, value) for name, value in sorted(vars(unit).items()) if isinstance(value, int | frozenset)))
        if key not in names:
            names[key] = name = f"once.{kind.__name__.lower()}_{len(names)}"
            open_units.append(unit)
            texts[name] = str(rtlil.convert(unit, name=name, emit_src=False))
            open_units.pop()
        text = texts[names[key]]
        members = unit.signature.members.items()
        ports: dict[str, Any] = {f"{'i' if of.flow is In else 'o'}_{name}": Value.cast(getattr(unit, name)) for name, of in members}
        ports |= {f"i_{name}": signal() for name, signal in _CLOCK.items() if re.search(rf" input \d+\s+\\{name}$", text, re.MULTILINE)}
        m = Module()
        m.submodules.core = Instance(names[key], **ports)
        return m

    # The top itself may be one of them.
    try:
        for kind in originals:
            kind.elaborate = elaborate  # type: ignore[method-assign]
        yield texts
    finally:
        for kind, original in originals.items():
            kind.elaborate = original  # type: ignore[method-assign]
