"""A profile beside the model: errors over lengths that the fit saw, and over lengths that it did not."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from unmask.baselines.fit import cross_validate, fit_gpu
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import seconds_of
from unmask.baselines.profile import COLUMNS, LAYERS, LLAMA_3_1_8B, Measured, check, layer_kernels, read_profile
from unmask.errors import UnmaskError

from .conftest import PUBLISHED

LENGTHS = (16, 48, 128, 144, 300, 512, 777, 1024, 1300, 2048)


@pytest.fixture(scope="module")
def synthetic(a6000: Gpu) -> list[Measured]:
    """What a GPU of exactly the model's coefficients would show."""

    def seconds(layer: str, tokens: int) -> float:
        return seconds_of(layer_kernels(a6000, LLAMA_3_1_8B, layer, tokens))

    return [Measured(layer, tokens, 0, 1, seconds(layer, tokens)) for tokens in LENGTHS for layer in LAYERS]


def written(path: Path, rows: list[Measured]) -> Path:
    lines = [",".join(COLUMNS), *(f"{row.layer},{row.tokens},{row.cached},{row.parallel},{row.seconds * 1e9}" for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_published_profile_is_predicted_within_4_percent(a6000: Gpu, published_profile: list[Measured]) -> None:
    found = check(a6000, published_profile)
    assert found.mape < 4
    assert set(found.mape_by_layer) == set(LAYERS)
    assert max(found.mape_by_layer.values()) < 7.5


@pytest.mark.slow
def test_lengths_that_are_left_out_are_predicted_nearly_as_well(a6000: Gpu, published_profile: list[Measured]) -> None:
    assert cross_validate(a6000, [row for row in published_profile if row.tokens >= 16], folds=2, trials=1500).mape < 4.5


def test_time_between_measured_lengths_is_between_theirs_or_a_tile_away(a6000: Gpu) -> None:
    for layer in LAYERS:
        times = [seconds_of(layer_kernels(a6000, LLAMA_3_1_8B, layer, tokens)) for tokens in range(1024, 1057, 4)]
        assert all(0.97 * before < after < 1.35 * before for before, after in pairwise(times)), layer


def test_a_model_has_no_error_on_its_own_predictions(a6000: Gpu, synthetic: list[Measured]) -> None:
    assert check(a6000, synthetic).mape == pytest.approx(0, abs=1e-9)
    scaled = [row._replace(seconds=row.seconds / 1.1) for row in synthetic]
    assert check(a6000, scaled).mape == pytest.approx(10)


def test_a_fit_finds_back_what_was_changed(a6000: Gpu, synthetic: list[Measured]) -> None:
    fit = a6000.fit
    off = a6000.model_copy(
        update={
            "fit": fit.model_copy(
                update={
                    "stream": fit.stream.model_copy(update={"dram": 0.8}),
                    "gemm": fit.gemm.model_copy(update={"math": 0.7}),
                    "attention": fit.attention.model_copy(update={"math": 0.5}),
                }
            )
        }
    )
    before, after = check(off, synthetic).mape, check(fit_gpu(off, synthetic, trials=400), synthetic).mape
    assert before > 5
    assert after < before / 4


def test_tensor_parallel_layers_do_a_share_of_the_work(a6000: Gpu) -> None:
    for layer, gain in (("q_proj", 1.5), ("down_proj", 1.5), ("attn", 1.3), ("act_fn", 1.5)):
        one, two = (seconds_of(layer_kernels(a6000, LLAMA_3_1_8B, layer, 2048, parallel=parallel)) for parallel in (1, 2))
        assert one / two > gain, layer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "columns"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS) + "\nq_proj,16,0,1,fast\n", ":2: expected numbers"),
        (",".join(COLUMNS) + "\nq_proj,16,0,1,-3\n", "positive"),
        (",".join(COLUMNS) + "\nq_proj,16,0,1,nan\n", ":2: expected numbers"),
        (",".join(COLUMNS) + "\nq_proj,16,0,1,inf\n", ":2: expected numbers"),
        ("layer_name,input,kv_cache,latency(ns)\nq_proj,16,0,3\n", "without tp_size: expected the columns"),
        (",".join(COLUMNS) + "\nz_proj,16,0,1,3\n", "z_proj"),
        (",".join(COLUMNS) + "\nq_proj,16\n", ":2: expected numbers"),
    ],
)
def test_a_bad_profile_is_refused_by_line_and_value(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "profile.csv"
    path.write_text(text)
    with pytest.raises(UnmaskError, match=expected):
        read_profile(path)


def test_columns_may_be_in_any_order_and_among_others(tmp_path: Path, a6000: Gpu, synthetic: list[Measured]) -> None:
    lines = ["latency(ns),note,input,layer_name, tp_size,kv_cache"]
    lines += [f'{row.seconds * 1e9},"a, b",{row.tokens},{row.layer},{row.parallel},{row.cached}' for row in synthetic]
    path = tmp_path / "profile.csv"
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert check(a6000, read_profile(path)).mape == pytest.approx(0, abs=1e-9)


def test_a_profile_without_a_layer_says_so(tmp_path: Path, synthetic: list[Measured], unmask) -> None:
    path = written(tmp_path / "profile.csv", [row for row in synthetic if row.layer not in ("rope", "attn")])
    found = json.loads(unmask("gpu", "check", path, "--json")[1])
    assert found["layers_missing"] == ["rope", "attn"]
    assert found["mape_by_layer"].keys() == set(LAYERS) - {"rope", "attn"}
    assert "Without rope, attn" in unmask("gpu", "check", path)[1]


def test_gpu_check_prints_errors_and_published_figures(tmp_path: Path, synthetic: list[Measured], unmask) -> None:
    path = written(tmp_path / "profile.csv", [row._replace(seconds=row.seconds / 1.02) for row in synthetic])
    status, out, _ = unmask("gpu", "check", path, "--gpu", "a6000", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["mape"] == pytest.approx(2, rel=1e-3)
    assert found["mape_by_layer"].keys() == set(LAYERS)
    assert {"source", "published", "predicted", "error"} <= found["published"][0].keys()
    status, out, _ = unmask("gpu", "check", path, "--gpu", "h100", "--most", 512)
    assert status == 0
    assert "lm_head" in out
    assert "2.51 ms" in out


def test_gpu_check_says_what_is_wrong_in_a_line(tmp_path: Path, unmask) -> None:
    status, out, err = unmask("gpu", "check", tmp_path / "none.csv")
    assert (status, out) == (2, "")
    assert err == f"unmask: {tmp_path}/none.csv: cannot read the profile: No such file or directory\n"
    status, _, err = unmask("gpu", "check", PUBLISHED, "--gpu", "voodoo")
    assert (status, err.count("\n")) == (2, 1)
