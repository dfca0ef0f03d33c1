"""Windows are spread and deterministic; policies are named, changed and refused by name."""

from __future__ import annotations

import pytest

from unmask.decoding.policies import NAMED
from unmask.errors import UnmaskError
from unmask.quality.candidates import EVERY, candidate, candidates
from unmask.quality.windows import prompts, spread


def test_windows_lie_at_even_distances_and_within_one_text():
    texts = [list(range(10)), [99], list(range(100, 110))]
    assert spread(texts, 2, 10) == [texts[0], texts[2]]
    assert spread(texts, 4, 4) == [[1, 2, 3, 4], [5, 6, 7, 8], [101, 102, 103, 104], [105, 106, 107, 108]]
    assert spread(texts, 3, 1) == [[3], [99], [106]]


def test_a_prompt_and_its_continuation_are_a_window():
    (window,) = prompts([list(range(6))], 1, 2, 4)
    assert (window.prompt, window.continuation) == ([0, 1], [2, 3, 4, 5])


def test_too_little_text_is_named():
    with pytest.raises(UnmaskError, match="hold 2 windows of 3 tokens; expected at least 5"):
        spread([[1, 2, 3, 4]], 5, 3)


def test_every_named_policy_and_the_default_are_measured():
    assert {*NAMED, "default"} <= set(EVERY)
    assert len(candidates(EVERY)) == len(EVERY)


def test_settings_replace_those_of_the_name():
    policy = candidate("fast-dllm:threshold=0.25:block_length=4:suppress_eos=true:cache=prefix").policy(16, 5)
    assert (policy.threshold, policy.block_length, policy.suppress_eos, policy.cache) == (0.25, 4, True, "prefix")
    assert (policy.commit, policy.gen_length, policy.seed) == ("threshold", 16, 5)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lada"], "unknown policy 'lada': expected one of default, llada, .*guided"),
        (["llada:heat=1"], "unknown setting 'heat'; expected one of block_length, .*temperature"),
        (["llada:seed=1"], "unknown setting 'seed'"),
        (["llada:temperature"], "setting 'temperature' has no value"),
        (["llada", "llada"], "named twice"),
        ([], "at least one"),
    ],
)
def test_mistakes_are_named(names, message):
    with pytest.raises(UnmaskError, match=message):
        candidates(names)


def test_a_setting_that_policy_refuses_is_refused():
    with pytest.raises(UnmaskError, match="remasking is 7"):
        candidate("llada:remasking=7").policy(8, 0)
