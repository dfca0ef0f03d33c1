from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_model
from unmask.models.guide import load_guide
from unmask.models.tokenizer import load_tokenizer
from unmask.training.corpus import Corpus, Speech
from unmask.training.evaluation import evaluate
from unmask.training.recipe import Recipe, load_recipe
from unmask.training.run import train
from unmask.training.run_state import STATE_FILE, load_run, save_run
from unmask.training.trainer import Trainer, first_weights

QUIET = Console(quiet=True)

# Drawn by the script that trained the shipped model.
FIRST_OF_EMBEDDING = [-0.0027263, -0.0078511, 0.0072796]
LAST_OF_LAST_BLOCK = [0.0066653, -0.0055397, 0.0078107]


def run(recipe: Recipe, corpus: Corpus, folder: Path, **options: bool) -> int:
    return train(recipe, corpus, folder, checkpoint_every=2, bound_every=3, compiled=False, console=QUIET, **options).steps


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C in the middle of a step."""
    take_step = Trainer.take_step

    def interrupted(self: Trainer) -> float:
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return take_step(self)

    monkeypatch.setattr(Trainer, "take_step", interrupted)


def start(recipe: Recipe, corpus: Corpus, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run of one step."""
    with monkeypatch.context() as patch:
        interrupt_at(0, patch)
        assert run(recipe, corpus, folder) == 1


@pytest.fixture(params=["recipe", "guide_recipe"])
def either(request: pytest.FixtureRequest) -> Recipe:
    """A recipe of each objective."""
    chosen: Recipe = request.getfixturevalue(request.param)
    return chosen


def test_an_interrupted_run_goes_on_bit_identically(
    either: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(either, corpus, tmp_path / "whole") == 6
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        assert run(either, corpus, tmp_path / "parts") == 3
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    assert run(either, corpus, tmp_path / "parts", must_resume=True) == 6
    whole, parts = (load_file(tmp_path / name / STATE_FILE) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_finished_folder_is_a_checkpoint_with_a_card(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    result = train(recipe, corpus, tmp_path, compiled=False, console=QUIET)
    assert result.evaluation is not None
    model, tokenizer = load_model(tmp_path, torch.bfloat16), load_tokenizer(tmp_path)
    master = load_file(tmp_path / STATE_FILE)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, master[f"master/{name}"].bfloat16())
    assert (model.config.mask_token_id, model.config.eos_token_id, model.config.max_sequence_length) == (299, 298, 64)
    assert tokenizer.decode(tokenizer.encode(corpus.held_out[0].text)) == corpus.held_out[0].text
    card = (tmp_path / "README.md").read_text()
    assert f"{result.evaluation.bits_per_character:.3f} ± " in card
    assert f"{result.evaluation.kneser_ney_bigram:.3f}" in card
    assert corpus.held_out[0].name in card


def test_a_finished_guide_is_a_checkpoint_with_a_card(guide_recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    evaluation = train(guide_recipe, corpus, tmp_path, compiled=False, console=QUIET).evaluation
    assert evaluation is not None
    model, tokenizer = load_guide(tmp_path, tmp_path, torch.bfloat16), load_tokenizer(tmp_path)
    master = load_file(tmp_path / STATE_FILE)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, master[f"master/{name}"].bfloat16())
    again = evaluate(model, tokenizer, [corpus.held_out[0].text], length=64)
    assert (again.bits_per_character, again.standard_error, again.strata) == (evaluation.bits_per_character, None, None)
    card = (tmp_path / "README.md").read_text()
    assert f"| cross-entropy, windows of 64 tokens | {evaluation.bits_per_character:.3f} |" in card
    assert "unmask train --recipe sotu-guide" in card


def test_a_shared_tokenizer_is_read_from_its_checkpoint(guide_recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    network = guide_recipe.network.model_copy(update={"vocabulary": 4096})
    train(guide_recipe.model_copy(update={"tokenizer": "sotu", "network": network}), corpus, tmp_path, compiled=False, console=QUIET)
    assert not (tmp_path / "tokenizer.json").exists()
    load_guide(tmp_path, "sotu")


def test_a_shared_tokenizer_of_another_size_is_refused(guide_recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match=r"network\.vocabulary is 300; the tokenizer of sotu has 4096 entries"):
        run(guide_recipe.model_copy(update={"tokenizer": "sotu"}), corpus, tmp_path)


def test_a_run_of_an_earlier_version_goes_on(recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(recipe, corpus, tmp_path, monkeypatch)
    found = load_run(tmp_path)
    assert found is not None
    state, tensors = found
    earlier = {key: value for key, value in state.recipe.items() if key not in ("objective", "tokenizer")}
    save_run(tmp_path, dataclasses.replace(state, recipe=earlier), tensors)
    assert run(recipe, corpus, tmp_path, must_resume=True) == 6


def test_training_lowers_the_loss(either: Recipe) -> None:
    longer = either.scaled_to(60)
    trainer = Trainer(longer, torch.arange(2000) % 7)
    losses = [trainer.take_step() for _ in range(60)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_another_recipe_in_the_same_folder_is_refused_by_field(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(recipe, corpus, tmp_path, monkeypatch)
    with pytest.raises(UnmaskError, match=r"another recipe: seed is 0 there and 1 here"):
        run(recipe.model_copy(update={"seed": 1}), corpus, tmp_path)


def test_another_corpus_in_the_same_folder_is_refused(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(recipe, corpus, tmp_path, monkeypatch)
    with pytest.raises(UnmaskError, match="on another corpus"):
        run(recipe, Corpus((*corpus.training, Speech("z.txt", "One more.")), corpus.held_out), tmp_path)


def test_a_damaged_state_is_refused(recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(recipe, corpus, tmp_path, monkeypatch)
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(UnmaskError, match="is not the state of a training run"):
        run(recipe, corpus, tmp_path)


def test_resuming_without_a_run_is_refused(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="holds no training run to resume"):
        run(recipe, corpus, tmp_path, must_resume=True)


def test_a_folder_that_cannot_be_written_is_named(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnmaskError, match="cannot write the training run"):
        run(recipe, corpus, tmp_path / "file" / "folder")


def test_a_diverging_run_stops_and_keeps_its_checkpoint(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "take_step", lambda self: float("nan"))
    with pytest.raises(UnmaskError, match="the loss is nan"):
        run(recipe, corpus, tmp_path)
    assert not (tmp_path / STATE_FILE).exists()


def test_first_weights_are_those_the_shipped_model_started_from() -> None:
    weights = {name: weight.detach() for name, weight in first_weights(load_recipe()).named_parameters()}
    # The tolerance covers torch's vectorised and plain generators.
    near = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(weights["model.transformer.wte.weight"][0, :3], torch.tensor(FIRST_OF_EMBEDDING), **near)
    torch.testing.assert_close(weights["model.transformer.blocks.5.ff_out.weight"][-1, -3:], torch.tensor(LAST_OF_LAST_BLOCK), **near)


def test_drawing_weights_leaves_the_global_generator_alone(recipe: Recipe) -> None:
    before = torch.get_rng_state()
    first_weights(recipe)
    assert torch.equal(before, torch.get_rng_state())
