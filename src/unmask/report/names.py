"""What the parts of the energy and the blocks of a die are called where people read them."""

from __future__ import annotations


def part_title(name: str) -> str:
    """A part or block by its name in JSON: `vector_sram` is the vector SRAM."""
    return {"hbm": "HBM", "dma": "DMA"}.get(name, name.replace("_sram", " SRAM").replace("_", " "))
