"""`unmask calibrate` writes scales that the network can use, and says in one line what is wrong."""

from __future__ import annotations

from safetensors.torch import load_file
from typer.testing import CliRunner

from unmask.cli.main import app
from unmask.quant.smoothing.static import FILE

RUN = CliRunner()


def test_scales_are_written_and_depend_on_the_seed(tmp_path):
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    (texts / "speech.txt").write_text("The Government of the United States is at peace with all nations. " * 20)
    found = []
    for seed in ("0", "0", "1"):
        out.mkdir(exist_ok=True)
        done = RUN.invoke(app, ["calibrate", "--texts", str(texts), "-o", str(out), "--count", "2", "--length", "16", "--seed", seed])
        assert done.exit_code == 0, done.output
        assert "6 layers of 4 heads of 64 channels" in " ".join(done.output.split())
        found.append(load_file(out / FILE)["keys"])
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_mistakes_are_named(tmp_path):
    (tmp_path / "speech.txt").write_text("Short.")
    assert "either --corpus or --texts" in str(RUN.invoke(app, ["calibrate"]).exception)
    texts = ["calibrate", "--texts", str(tmp_path), "-o"]
    assert "no folder" in str(RUN.invoke(app, [*texts, str(tmp_path / "missing")]).exception)
    assert "no text of at least 128 tokens" in str(RUN.invoke(app, [*texts, str(tmp_path)]).exception)
    assert "context of 512" in str(RUN.invoke(app, [*texts, str(tmp_path), "--length", "513"]).exception)
