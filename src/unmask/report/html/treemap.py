"""The die as a diagram: a rectangle for every block, in proportion to its area."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unmask.report.html import plots
from unmask.report.html.figures import number

_HEIGHT = 420.0
_LEAST = 0.002
"""Blocks below this share of the die are drawn as one."""


class _Rectangle(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def treemap(blocks: Mapping[str, float], unit: str) -> str:
    """Blocks, largest first, as SVG with their names where there is room."""
    whole = sum(blocks.values())
    large = {name: value for name, value in blocks.items() if value >= _LEAST * whole}
    if rest := whole - sum(large.values()):
        large["others"] = rest
    kinds, pieces = plots.colours(list(large)), []
    for name, place in _placed(list(large.items()), _Rectangle(0, 0, plots.WIDTH, _HEIGHT)):
        value = large[name]
        size = f"{number(value)} {unit}"
        hint = f"{name}: {size}, {value / whole:.1%}"
        pieces.append(plots.box(place.x + 1, place.y + 1, place.width - 2, place.height - 2, kinds[name], hint))
        if place.width > 8 * max(len(name), len(size)) + 8 and place.height > 40:
            x, y = place.x + place.width / 2, place.y + place.height / 2
            pieces.append(plots.text(x, y - 8, name, "middle", "on"))
            pieces.append(plots.text(x, y + 10, size, "middle", "on"))
    return plots.svg(_HEIGHT, "area by block", "".join(pieces)) + plots.legend(kinds)


def _placed(blocks: Sequence[tuple[str, float]], within: _Rectangle) -> Iterator[tuple[str, _Rectangle]]:
    """Blocks cut in two groups as alike as can be, across the longer side, and so on."""
    if len(blocks) == 1:
        yield blocks[0][0], within
        return
    whole, before, cut = sum(value for _, value in blocks), 0.0, 0
    while cut < len(blocks) - 1 and (cut == 0 or before + blocks[cut][1] <= whole / 2):
        before += blocks[cut][1]
        cut += 1
    share, (x, y, width, height) = before / whole, within
    if width >= height:
        first, second = _Rectangle(x, y, width * share, height), _Rectangle(x + width * share, y, width * (1 - share), height)
    else:
        first, second = _Rectangle(x, y, width, height * share), _Rectangle(x, y + height * share, width, height * (1 - share))
    yield from _placed(blocks[:cut], first)
    yield from _placed(blocks[cut:], second)
