from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unmask.cli.main import app
from unmask.errors import UnmaskError

from .conftest import SPEECHES, TINY, TINY_GUIDE

FIELDS = {
    "bits_per_character",
    "standard_error",
    "xz_alone",
    "xz_after_training_text",
    "kneser_ney_bigram",
    "tokens",
    "characters",
    "length",
    "strata",
}


@pytest.mark.parametrize("text", [TINY, TINY_GUIDE], ids=["diffusion", "autoregressive"])
def test_train_and_bound_print_the_same_measures(text: str, tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.toml", tmp_path / "out"
    recipe.write_text(text)
    options = ["--corpus", str(SPEECHES), "--recipe", str(recipe), "--out", str(out), "--no-compile", "--json"]
    trained = CliRunner().invoke(app, ["train", *options], catch_exceptions=False)
    assert trained.exit_code == 0
    result = json.loads(trained.stdout)
    assert result["steps"] == 6
    assert result["evaluation"].keys() == FIELDS

    (tmp_path / "held").mkdir()
    held_out = SPEECHES / "1920_woodrow_wilson_d.txt"
    assert held_out.name in (out / "README.md").read_text()
    (tmp_path / "held" / held_out.name).write_bytes(held_out.read_bytes())
    measured = CliRunner().invoke(
        app, ["bound", str(out), "--speeches", str(tmp_path / "held"), "--length", "64", "--json"], catch_exceptions=False
    )
    bound = json.loads(measured.stdout)
    assert bound.keys() == FIELDS
    assert bound["kneser_ney_bigram"] is bound["xz_after_training_text"] is None
    for field in ("bits_per_character", "standard_error", "xz_alone", "characters"):
        assert bound[field] == pytest.approx(result["evaluation"][field])


def test_bound_wants_one_text() -> None:
    with pytest.raises(UnmaskError, match="either --corpus or --speeches"):
        CliRunner().invoke(app, ["bound", str(SPEECHES)], catch_exceptions=False)
