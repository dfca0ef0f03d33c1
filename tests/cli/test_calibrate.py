"""`unmask calibrate` writes scales that the network can use, and says in one line what is wrong."""

from __future__ import annotations

from safetensors.torch import load_file

from unmask.quant.smoothing.static import FILE


def test_scales_are_written_and_depend_on_the_seed(unmask, tmp_path):
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    (texts / "speech.txt").write_text("The Government of the United States is at peace with all nations. " * 20)
    found = []
    for seed in (0, 0, 1):
        out.mkdir(exist_ok=True)
        done = unmask("calibrate", "--texts", texts, "-o", out, "--count", 2, "--length", 16, "--seed", seed)
        assert done.status == 0, done.stderr
        assert "6 layers of 4 heads of 64 channels" in done.stdout
        found.append(load_file(out / FILE)["keys"])
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_mistakes_are_named(unmask, tmp_path):
    (tmp_path / "speech.txt").write_text("Short.")
    assert "either --corpus or --texts" in unmask("calibrate").is_mistake()
    texts = ("calibrate", "--texts", tmp_path, "-o")
    assert "no folder" in unmask(*texts, tmp_path / "missing").is_mistake()
    assert "no text of at least 128 tokens" in unmask(*texts, tmp_path).is_mistake()
    assert "context of 512" in unmask(*texts, tmp_path, "--length", 513).is_mistake()
