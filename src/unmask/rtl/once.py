"""What stands in a design many times is converted to RTLIL once: a lane, a generator of noise, a row of the array, a block of it.

Amaranth writes a module for every instance. At 128 lanes all else takes seconds, each lane for itself minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from unmask.numerics.formats import ElementFormat

_CLOCK = {"clk": ClockSignal, "rst": ResetSignal}


def _repeated() -> tuple[type[wiring.Component], ...]:
    from unmask.rtl.lane import Lane
    from unmask.rtl.matrix.dot import BlockDot
    from unmask.rtl.matrix.row import ArrayRow
    from unmask.rtl.noise import Gumbel
    from unmask.rtl.scaled_noise import Scale

    return (Lane, Gumbel, Scale, ArrayRow, BlockDot)


def _sizes(unit: wiring.Component) -> tuple[Any, ...]:
    """What makes the hardware of a unit: its own attributes, without Amaranth's (they have two underscores) and the ports, which follow."""
    own = {name: value for name, value in vars(unit).items() if "__" not in name and name not in unit.signature.members}
    return type(unit), *((name, _size(value)) for name, value in sorted(own.items()))


def _size(value: Any) -> Any:
    if isinstance(value, int | str | frozenset | ElementFormat):
        return value
    if isinstance(value, list | tuple):
        return tuple(_size(each) for each in value)
    if isinstance(value, data.Layout):
        return repr(value)
    if isinstance(value, wiring.Component):
        return _sizes(value)
    raise TypeError(f"{value!r}: a repeated unit is made of numbers, names, formats, layouts and other units")


@contextmanager
def once_each(top: wiring.Component, prefix: str = "once", apart: Collection[wiring.Component] = ()) -> Iterator[dict[str, str]]:
    """While it is open, repeated units but `top` elaborate to an instance of a module.

    Args:
        prefix: of the modules' names.
        apart: other units within it that become instances too, whose ports then have the names of their signatures.

    Yields:
        The RTLIL of these modules and of their parts, by name.
    """
    texts: dict[str, str] = {}
    names: dict[Any, str] = {}
    open_units = [top]
    kinds: set[type[wiring.Component]] = {*_repeated(), *(type(unit) for unit in apart)}
    originals: dict[type[wiring.Component], Callable[[Any, Any], Module]] = {kind: kind.elaborate for kind in kinds}

    def elaborate(unit: Any, platform: Any) -> Module | Instance:
        kind = type(unit)
        if any(unit is other for other in open_units):
            return originals[kind](unit, platform)
        key = id(unit) if any(unit is other for other in apart) else _sizes(unit)
        if key not in names:
            names[key] = name = f"{prefix}.{kind.__name__.lower()}_{len(names)}"
            open_units.append(unit)
            texts[name] = str(rtlil.convert(unit, name=name, emit_src=False))
            open_units.pop()
        ports: dict[str, Any] = {
            f"{'i' if of.flow is In else 'o'}_{'__'.join(map(str, path))}": Value.cast(value)
            for path, of, value in unit.signature.flatten(unit)
        }
        clocks = set(re.findall(r"^  wire width 1 input \d+\s+\\(\S+)$", texts[names[key]], re.MULTILINE)) & _CLOCK.keys()
        ports |= {f"i_{name}": _CLOCK[name]() for name in sorted(clocks)}
        return Instance(names[key], **ports)

    # The top itself may be one of them.
    try:
        for kind in originals:
            kind.elaborate = elaborate  # type: ignore[method-assign]
        yield texts
    finally:
        for kind, original in originals.items():
            kind.elaborate = original  # type: ignore[method-assign]
