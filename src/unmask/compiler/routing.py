"""What the cycle reading takes for the words by which a program finds its experts: values decide, and time asks for addresses alone."""

from __future__ import annotations

from unmask.isa.program import Program

WORDS_PER_TILE = 2
"""In the integer SRAM: the tile's expert, and how many of the expert's rows other tiles hold."""


def even_routing(program: Program, entry: str) -> dict[int, int]:
    """The words of an entry's lists of tiles, by address, if all experts had equally many; empty where there is no list."""
    words: dict[int, int] = {}
    for address, tiles in sorted(program.about.get("expert_lists", {}).get(entry, ()), key=lambda found: int(found[1])):
        experts = program.about["model"]["experts"]
        for tile in range(tiles):
            words[address + WORDS_PER_TILE * tile] = tile * experts // tiles
            words[address + WORDS_PER_TILE * tile + 1] = 0
    return words
