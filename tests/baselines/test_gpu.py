"""GPUs by name and from one's own data sheet."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.baselines.gpu import Gpu, gpus
from unmask.errors import UnmaskError

OWN = """
name = "mine"
description = "a board"
process = "3 nm"
sources = ["its data sheet"]
area_mm2 = 500
multiprocessors = 100
l2_mib = 64
memory_gbps = 1000
memory_gib = 24
bf16_tflops = 200
fp32_tflops = 50
fp64_tflops = 1
board_w = 350
idle_w = 30
like = "a6000"
[fit.stream]
dram = 0.8
"""


def test_shipped_gpus_cite_their_data_sheets_and_their_fit() -> None:
    assert {"a6000", "a100", "h100"} <= set(gpus())
    for name in gpus():
        gpu = Gpu.load(name)
        assert gpu.sources
        assert gpu.fit.source
        assert gpu.fit.command


def test_ones_own_data_sheet_takes_over_what_it_does_not_state(tmp_path: Path, a6000: Gpu) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    mine = Gpu.load(str(path))
    assert mine.fit.stream.dram == 0.8
    assert mine.fit.stream.strided == a6000.fit.stream.strided
    assert mine.fit.gemm == a6000.fit.gemm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OWN.replace('"a6000"', '"voodoo"'), "voodoo"),
        (OWN.replace("l2_mib = 64", "l2_mib = 0"), "l2_mib"),
        (OWN.replace("l2_mib = 64", "l3_mib = 64"), "l2_mib"),
        (OWN + "drum = 1", "fit.stream.drum"),
        ("= 3", "not TOML"),
    ],
)
def test_a_bad_data_sheet_is_refused_by_the_field(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UnmaskError, match=expected):
        Gpu.load(str(path))


def test_an_unknown_gpu_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnmaskError, match="a6000"):
        Gpu.load("voodoo")
    with pytest.raises(UnmaskError, match="cannot read"):
        Gpu.load("/nowhere/mine.toml")
