"""Formats are compared step by step on the same canvas, and what is exact changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.decoding.generate import generate
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.errors import UnmaskError
from unmask.machine.config import Formats
from unmask.numerics import mx
from unmask.quality.beside import Beside
from unmask.quality.bounds import bound_of
from unmask.quality.candidates import candidate
from unmask.quality.measure import generate_float
from unmask.quality.precision import EXACT, PRECISIONS, PreciseSampler, Precision, rounded
from unmask.quality.sweep import FORMAT_SETS, FORMATS_POLICIES, expected_seconds, formats_row, logits_rows
from unmask.quant.noise import CounterNoise
from unmask.training.bound import diffusion_bound

from .conftest import Letters

MXINT8 = Formats(weights="mxint8", activations="mxint8", kv="mxint8")
COARSE = Formats(weights="mxint4", activations="mxint4", kv="mxint4", logits="mxint4")


@pytest.mark.parametrize("name", ["llada", "llada:temperature=0.7", "default"])
def test_fp64_changes_nothing_and_coarser_logits_no_less(model, judge, windows, name):
    rows = logits_rows(candidate(name), model, judge, windows, seed=1)
    assert [(row.logits, row.sampling) for row in rows] == [(p.logits, p.sampling) for p in PRECISIONS]
    assert {row.commits for row in rows} == {16}
    assert rows[0].changed == 0
    assert rows[0].agreement == 1
    for row in rows:
        assert row.changed == row.changed_tokens + row.changed_positions
        if row.changed == 0:
            assert row.bits_per_character == rows[0].bits_per_character
    if name == "default":
        assert all(row.changed_positions == 0 for row in rows), "positions are drawn without looking at the logits"


def test_logits_of_dream_and_guides_are_refused(model, judge, windows):
    for name in ("dream", "guided"):
        with pytest.raises(UnmaskError, match="LLaDA's scorers"):
            logits_rows(candidate(name), model, judge, windows, seed=0)


def test_logits_are_rounded_in_blocks_along_the_vocabulary():
    logits = torch.randn(1, 3, 40, generator=torch.Generator().manual_seed(0)) * 10
    assert torch.equal(rounded(logits, "fp64"), logits.double())
    assert torch.equal(rounded(logits, "fp32"), logits)
    assert torch.equal(rounded(logits, "bf16"), logits.bfloat16().float())
    for row in range(3):
        expected = mx.dequantize(mx.quantize(logits[0, row].numpy(), "mxfp8"))
        assert np.array_equal(rounded(logits, "mxfp8")[0, row].numpy(), expected)


def test_the_exact_sampler_is_the_float64_one():
    policy = Policy(gen_length=4, block_length=4, steps=4, temperature=0.7)
    logits = torch.randn(1, 4, 40, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(0, torch.arange(4), 0.7, "low_confidence", (39,), (), CounterNoise(0))
    for ours, theirs in zip(PreciseSampler(EXACT, policy)(logits, sampling), FloatSampler()(logits.double(), sampling), strict=True):
        assert torch.equal(ours, theirs)
    tokens, confidence = PreciseSampler(Precision("fp32", "float32"), policy)(logits, sampling)
    assert confidence.dtype == torch.float32
    assert tokens.shape == (1, 4)


class Wrong:
    """Always token 7, in reverse order of positions."""

    def __call__(self, logits, sampling):
        return torch.full(logits.shape[:2], 7), sampling.positions[None].float()


def test_a_changed_commit_is_counted_once_and_does_not_cascade(model, windows):
    policy = Policy(gen_length=8, block_length=8, steps=8)
    beside = Beside(FloatSampler(), [FloatSampler(), Wrong()], policy)
    plain = generate_float(model, windows[0].prompt, policy)
    done = generate(model, [windows[0].prompt], policy, sampler=beside, on_step=beside.on_step)
    assert torch.equal(done.ids, plain.ids), "those beside have no say"
    same, wrong = beside.commits
    assert (same.total, same.changed) == (8, 0)
    last = [max(p for p in range(4, 12) if int(before[0, p]) == 39) for before in _before(done)]
    at_last = [step.positions() == [place] for step, place in zip(done.steps, last, strict=True)]
    token = [step.tokens() != [7] for step in done.steps]
    assert wrong.positions == at_last.count(False)
    assert wrong.tokens == sum(place and other for place, other in zip(at_last, token, strict=True))


def _before(done):
    start = done.ids.clone()
    start[:, 4:] = 39
    return [start, *(step.canvas for step in done.steps[:-1])]


@pytest.mark.parametrize("name", [*FORMATS_POLICIES, "dream", "flashdlm"])
def test_float32_agrees_with_itself(model, judge, windows, name):
    row = formats_row(None, candidate(name), model, judge, windows, seed=2)
    assert row.agreement == 1
    assert row.formats is None


@pytest.mark.parametrize("name", ["llada", "default", "fast-dllm", "dream", "guided"])
def test_formats_change_commits_the_more_the_coarser(model, judge, windows, name):
    fine = formats_row(MXINT8, candidate(name), model, judge, windows, seed=2)
    coarse = formats_row(COARSE, candidate(name), model, judge, windows, seed=2)
    assert fine.commits == coarse.commits == 16
    assert 0 <= coarse.agreement <= fine.agreement <= 1
    assert fine.agreement > 0.5
    assert fine.formats == MXINT8.model_dump()


def test_every_declared_set_of_formats_runs_smoothed_or_not(model, judge, windows):
    for formats in FORMAT_SETS:
        row = formats_row(formats, candidate("fast-dllm:threshold=0.01"), model, judge, windows[:1], seed=2)
        assert row.commits == 8
        assert row.forwards <= 8


def test_the_bound_is_the_diffusion_bound_and_formats_see_the_same_masks(model):
    texts = [list(range(1, 31)), list(range(5, 35))]
    found = bound_of(model, Letters(), texts, windows=2, length=16, strata=4)  # type: ignore[arg-type]
    chosen = [text[7:23] for text in texts]
    expected = diffusion_bound(model, chosen, 32, length=16, strata=4)
    assert found.bits_per_character == pytest.approx(expected.bits_per_character)
    assert (found.tokens, found.characters, found.windows) == (32, 32, 2)
    wide, coarse = (
        bound_of(model, Letters(), texts, windows=2, length=16, strata=4, formats=formats)  # type: ignore[arg-type]
        for formats in (MXINT8, MXINT8.model_copy(update={"weights": "mxint4", "kv": "mxint4", "smoothing": "baos"}))
    )
    assert wide.bits_per_character == pytest.approx(found.bits_per_character, rel=0.03)
    assert coarse.bits_per_character != wide.bits_per_character


def test_a_sweep_says_how_long_it_takes(model, windows):
    one, two = (expected_seconds(model, windows, formats, 0) for formats in (1, 50))
    assert 0 < one < two
