"""Draws the NPU of `rtl-tiny` with the area of its blocks: docs/rtl-tiny.svg, of what `unmask synth` measured.

unmask synth --unit npu --liberty asap7 --json > docs/rtl-tiny.json
python docs/npu_figure.py

Prints the same as a table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from unmask.machine.config import Machine

HERE = Path(__file__).parent
DATA, PICTURE = HERE / "rtl-tiny.json", HERE / "rtl-tiny.svg"
WIDTH, HEIGHT, MARGIN, GAP, LINE = 1040.0, 470.0, 16.0, 10.0, 15.0
# Parts by engine, in the order in which they are drawn: the engine's name and colour, and a pattern for the instances that belong to it.
ENGINES = (
    ("load engine", "#df8a2c", r"engine\.load(_queue|_retirement)?$"),
    ("store engine", "#b8722b", r"engine\.store(_queue|_retirement)?$"),
    ("matrix engine", "#3a9a6d", r"array"),
    ("vector engine", "#3e7fd1", r"engine\.(vector|reducer)(?!_sram|_queue)"),
    ("control", "#8964b8", r""),
)
# What the parts of an engine are called; a part that is none of these goes to the engine's own logic.
PARTS = (
    (r"array\..*(column|block|dot)", "block products"),
    (r"array\.array_row.*feeder", "transposed blocks"),
    (r"array\.array_row", "adder tree, accumulators, rounding"),
    (r"array\.quantizer", "quantizer of left rows"),
    (r"vector\.lane", "lanes"),
    (r"vector\.scaled_noise", "Gumbel noise"),
    (r"vector\.scalar", "scalar unit"),
    (r"vector\.masks", "sorter"),
    (r"vector\.window_tree", "tree of sums"),
    (r"vector\.max_tree", "tree of maxima"),
    (r"vector\.row_state", "row accumulators"),
    (r"vector\.integer", "integer unit"),
    (r"semaphores", "semaphores"),
    (r"sequencer", "sequencer"),
    (r"vector_sram|integer_sram|float_sram|matrix_sram", "switches at the SRAMs"),
    (r"queue|retirement", "queues"),
)
OWN = "walks and control"
LEAST = 13.0
"""Pixels below which a part is drawn together with the others."""


class Box(NamedTuple):
    """A rectangle and what stands in it."""

    x: float
    y: float
    width: float
    height: float
    text: str
    colour: str = "none"


def areas(measured: dict[str, Any], key: str = "area_um2") -> dict[str, Counter[str]]:
    """Square micrometres, or milliwatts, of the parts of each engine."""
    found: dict[str, Counter[str]] = {name: Counter() for name, _, _ in ENGINES}
    for part in measured["parts"]:
        engine = next(name for name, _, pattern in ENGINES if re.match(pattern, part["name"]))
        single = engine in ("load engine", "store engine")
        name = next((name for pattern, name in PARTS if re.search(pattern, part["name"]) and not single), engine if single else OWN)
        found[engine][name] += part[key]
    return found


def columns(of: dict[str, Counter[str]]) -> list[list[tuple[str, str, Counter[str]]]]:
    """The engines as columns: load and store above each other, the others alone; of each its name, colour and parts."""
    drawn = [(name, colour, of[name]) for name, colour, _ in ENGINES]
    return [drawn[:2], *([each] for each in drawn[2:])]


def boxes(of: dict[str, Counter[str]]) -> list[Box]:
    """Rectangles in proportion to areas."""
    shown = columns(of)
    whole = sum(sum(parts.values()) for parts in of.values())
    scale = (WIDTH - 2 * MARGIN - GAP * (len(shown) - 1)) * HEIGHT / whole
    found, x = [], MARGIN
    for column in shown:
        area = sum(sum(parts.values()) for _, _, parts in column)
        width, y = area * scale / HEIGHT, 0.0
        for _, colour, parts in column:
            small = [name for name, value in parts.items() if value * scale / width < LEAST]
            kept = {name: value for name, value in parts.most_common() if name not in small}
            if small:
                kept[small[0] if len(small) == 1 else "others"] = sum(parts[name] for name in small)
            for name, value in kept.items():
                height = value * scale / width
                found.append(Box(x, y, width, height, f"{name} {value:,.0f}", colour))
                y += height
        x += width + GAP
    return found


def svg(measured: dict[str, Any]) -> str:
    """The picture."""
    of, machine = areas(measured), Machine.preset("rtl-tiny")
    top, pieces = 118.0, []
    pieces.append(_frame(MARGIN, 10, WIDTH - 2 * MARGIN, 30, "HBM: ids, weights in MX, the cache, the canvas", "#999"))
    pieces.append(_label(WIDTH / 2, 62, "load engine: in   ·   store engine: out   ·   one AXI port", "#555", "middle"))
    placed = boxes(of)
    starts = sorted({box.x for box in placed})
    for x, column in zip(starts, columns(of), strict=True):
        for line, (name, _, parts) in enumerate(column, 2 - len(column)):
            pieces.append(_label(x, 94 + LINE * line, f"{name} {sum(parts.values()):,.0f}", "#111", weight="bold"))
    for box in placed:
        place = f'x="{box.x:.1f}" y="{top + box.y:.1f}" width="{box.width:.1f}" height="{max(box.height - 1, 0.5):.1f}"'
        pieces.append(f'<rect {place} fill="{box.colour}"/>')
        pieces += _written(box, top)
    y = top + HEIGHT + 14
    pieces.append(_label(MARGIN, y + 10, "SRAM macros, in none of these areas:", "#555"))
    sram = machine.sram
    memories = (
        f"vector SRAM {sram.vector_kib} KiB",
        f"matrix SRAM {sram.matrix_kib} KiB",
        f"float SRAM {sram.float_words} words",
        f"integer SRAM {sram.integer_words:,} words",
        f"program {machine.sequencer.program_words:,} words",
    )
    each = (WIDTH - 2 * MARGIN - GAP * (len(memories) - 1)) / len(memories)
    pieces += [_frame(MARGIN + index * (each + GAP), y + 18, each, 30, text, "#999") for index, text in enumerate(memories)]
    whole = y + 62
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {whole:.0f}" font-family="sans-serif" font-size="12">'
    ground = f'<rect width="{WIDTH:.0f}" height="{whole:.0f}" fill="white"/>'
    return "\n".join([head, ground, *pieces, "</svg>", ""])


def _written(box: Box, top: float) -> list[str]:
    """A box's text, in as many lines as it needs and has room for."""
    most = int((box.width - 8) / 6.3)
    lines = [""]
    for word in box.text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) * LINE > box.height + 4 or max(map(len, lines)) > most + 2:
        return []
    start = top + box.y + box.height / 2 - (len(lines) - 1) * LINE / 2 + 4
    return [_label(box.x + box.width / 2, start + index * LINE, line, "white", "middle") for index, line in enumerate(lines)]


def _label(x: float, y: float, text: str, colour: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _frame(x: float, y: float, width: float, height: float, text: str, colour: str) -> str:
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="none" stroke="{colour}" stroke-dasharray="5 3"/>'
    return box + _label(x + width / 2, y + height / 2 + 4, text, "#333", "middle")


def main() -> None:
    """Draw and print."""
    measured = json.loads(DATA.read_text())
    PICTURE.write_text(svg(measured))
    of, watts = areas(measured), areas(measured, "power_mw")
    whole = sum(sum(parts.values()) for parts in of.values())
    print(f"{measured['cells']:,} cells, {measured['area_um2']:,.0f} um2, {measured['power_mw']:.1f} mW, slack {measured['wns_ps']:.0f} ps")
    print("| part | um2 | share | mW |\n|---|---|---|---|")
    for engine, parts in of.items():
        total = sum(parts.values())
        print(f"| **{engine}** | {total:,.0f} | {total / whole:.1%} | {sum(watts[engine].values()):.1f} |")
        for name, value in parts.most_common():
            if len(parts) > 1:
                print(f"| {name} | {value:,.0f} | {value / whole:.1%} | {watts[engine][name]:.1f} |")


if __name__ == "__main__":
    main()
