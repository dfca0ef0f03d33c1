from __future__ import annotations

from pathlib import Path

import pytest

from unmask.errors import UnmaskError
from unmask.training.recipe import Recipe, load_recipe, shipped_recipes, with_defaults

from .conftest import TINY


def test_the_shipped_recipe_is_that_of_the_model() -> None:
    network = load_recipe().network
    assert (network.width, network.layers, network.vocabulary, network.context) == (256, 6, 4096, 512)


def test_the_guides_recipe_shares_text_tokenizer_and_vocabulary_with_the_models() -> None:
    guide, model = load_recipe("sotu-guide"), load_recipe("sotu")
    assert (guide.objective, guide.tokenizer, model.objective, model.tokenizer) == ("autoregressive", "sotu", "diffusion", None)
    assert guide.data == model.data
    assert guide.network.vocabulary == model.network.vocabulary
    assert shipped_recipes() == ["micro", "sotu", "sotu-guide"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bound_length = 64", "objective = 'both'\nbound_length = 64", "objective"),
        ("bound_length = 64", "objective = 'autoregressive'\nweighting = 'elbo'\nbound_length = 64", "weighting elbo is for the diffusion"),
        ("bound_length = 64", "tokenizer = 'sotu'\nbound_length = 64", "tokenizer sotu is for the autoregressive"),
        ("width = 16", "", r"network\.width: Field required"),
        ("width = 16", "width = 'wide'", r"network\.width: Input should be a valid integer"),
        ("width = 16", "width = 18", "network: width 18 is not an even multiple of heads 2"),
        ("width = 16", "width = 16\ndepth = 3", r"network\.depth: Extra inputs"),
        ("muon_momentum = 0.95", "muon_momentum = 1.0", r"optimiser\.muon_momentum"),
        ("[0.9, 0.98]", "[0.9, 2]", r"optimiser\.adamw_betas\.1"),
        ("gradient_norm = 1.0", "gradient_norm = inf", r"optimiser\.gradient_norm"),
        ("warmup = 2", "warmup = 0", r"schedule\.warmup"),
        ("decay_from = 3", "decay_from = 6", "schedule: decay_from 6 is not before the last step 6"),
        ("[[0, 16], [4, 32]]", "[[1, 16]]", "schedule: lengths must start at step 0"),
        ("[[0, 16], [4, 32]]", "[[0, 24]]", "schedule: tokens_per_step 128 is not a multiple of length 24"),
        ("bound_length = 64", "bound_length = 65", "65 tokens does not fit the network's context of 64"),
        ("bound_length = 64", "weighting = 'none'\nbound_length = 64", "weighting"),
        ("[data]", "[data", "is not TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(UnmaskError, match=message) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match=r"nowhere\.toml cannot be read: .*shipped recipes: micro, sotu, sotu-guide"):
        load_recipe(tmp_path / "nowhere.toml")


def test_the_learning_rate_rises_holds_and_falls_to_zero(recipe: Recipe) -> None:
    assert [round(recipe.schedule.rate_at(step), 3) for step in range(7)] == [0.5, 1, 1, 1, 0.667, 0.333, 0]


def test_lengths_change_at_their_steps(recipe: Recipe) -> None:
    assert [recipe.schedule.length_at(step) for step in range(6)] == [16, 16, 16, 16, 32, 32]


def test_scaling_moves_decay_and_stages_in_proportion() -> None:
    recipe = load_recipe()
    scaled = recipe.scaled_to(recipe.schedule.steps // 2)
    assert scaled.schedule.decay_from == recipe.schedule.decay_from // 2
    assert [start for start, _ in scaled.schedule.lengths] == [start // 2 for start, _ in recipe.schedule.lengths]


def test_scaling_to_too_few_steps_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UnmaskError, match="a recipe of 1 steps: schedule: lengths must start at step 0 and rise"):
        recipe.scaled_to(1)


def test_scaling_keeps_the_objective() -> None:
    guide = load_recipe("sotu-guide").scaled_to(400)
    assert (guide.schedule.steps, guide.objective, guide.weighting) == (400, "autoregressive", None)


def test_fields_of_an_earlier_version_are_completed_and_other_fields_left_alone() -> None:
    fields = load_recipe().model_dump(mode="json")
    earlier = {key: value for key, value in fields.items() if key not in ("objective", "tokenizer")}
    earlier["network"] = {key: value for key, value in fields["network"].items() if key != "weight_tying"}
    assert with_defaults(earlier) == fields
    assert with_defaults({"steps": 3}) == {"steps": 3}
