"""The NPU and its matrix engine in gates: where their cells lie, and a tile of the shipped model's LM head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from unmask.cli.npu_run import fused_run, recording_of, tile_run
from unmask.machine.config import Machine
from unmask.machine.functional import FunctionalMachine
from unmask.silicon.gatesim import compare
from unmask.silicon.liberty import Library
from unmask.silicon.places import TREES, Places, part_of

TINY = Machine.preset("rtl-tiny")


def test_a_cell_lies_in_the_innermost_block_and_the_outermost_part(tmp_path: Path) -> None:
    texts = {
        "npu": "module \\npu\n  cell \\engine \\engine\n  end\n  cell \\unmask_sram_4x4_1r1w \\memory\n  end\nend\n",
        "engine": "module \\engine\n  cell \\lane \\lane_0.core\n  end\n  cell \\lane \\lane_1.core\n  end\nend\n",
        "lane": "module \\lane\nend\n",
    }
    blocks = [SimpleNamespace(name="unmask_sram_4x4_1r1w", path=None)]
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        blocks.append(SimpleNamespace(name=name, path=tmp_path / name))
    places = Places(cast(Any, SimpleNamespace(top="npu", blocks=blocks)))
    assert places.blocks == {"": "npu", "engine": "engine", "engine.lane_0.core": "lane", "engine.lane_1.core": "lane"}
    assert places.block_of("$flatten\\engine.\\lane_1.core.$abc$12$g") == "lane"
    assert places.block_of("engine.lane_1.other[3]$_DFF_") == "engine"
    assert places.block_of("$abc$7$g") == "npu"
    assert places.block_of("$flatten\\engine.\\lane_1.core.fanout_9") == TREES
    opened = {"", "engine"}
    assert part_of("$flatten\\engine.\\lane_1.core.$abc$12$g", opened) == "engine.lane_1"
    assert part_of("$flatten\\engine.$abc$12$g", opened) == "engine"
    assert part_of("$abc$7$g", opened) == ""
    assert part_of("engine.walk[2]$_DFF_", {""}) == "engine"


@pytest.mark.parametrize("run", [tile_run, lambda machine: fused_run(machine, 0.8)], ids=["a tile", "a sampling phase"])
def test_what_the_gates_run_leaves_what_pytorch_finds(run: Any) -> None:
    made = run(TINY)
    npu = FunctionalMachine(made.case.program, TINY)
    npu.run(next(iter(made.case.program.entries)))
    assert made.leaves
    for region, expected in made.leaves.items():
        np.testing.assert_array_equal(npu.read(region, "<i4"), expected)


@pytest.mark.slow
def test_a_tile_of_the_shipped_models_head_in_gates(osu018: Library, cache: Path, iverilog: None) -> None:
    recorded = recording_of("matrix", TINY, cache / "recording")
    found = compare("matrix", TINY, osu018, 100_000, cache, cycles=0, quick=True, recorded=recorded)
    assert found.mismatches == 0, found.first
    assert "a tile of the LM head" in found.inputs
    assert found.cycles > 1_000
