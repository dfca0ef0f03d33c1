"""Recordings of the other plain references: what the shared folder holds one case of, in many variants."""

from __future__ import annotations

import copy

import pytest
import torch

from models.small import small_dream, small_model
from unmask.decoding.golden import replay
from unmask.models.checkpoint import save_model

from .dream_references import record_fast_dream, record_flash
from .other_references import record_dream, record_fast
from .plain_reference import write_case

PROMPT = [[1, 2, 3, 4], [5, 6, 7, 8]]
FAST = {
    "fixed": {"steps": 6},
    "temperature": {"steps": 6, "temperature": 0.7},
    "random": {"steps": 6, "remasking": "random"},
    "threshold": {"steps": 6, "threshold": 0.2},
    "warm_threshold": {"steps": 6, "threshold": 0.1, "temperature": 0.5},
    "factor": {"steps": 6, "factor": 1.2},
}
DREAM = {
    "entropy": {"alg": "entropy"},
    "margin": {"alg": "topk_margin", "temperature": 0.6},
    "top_p": {"alg": "maskgit_plus", "temperature": 0.9, "top_p": 0.8},
    "top_k": {"alg": "entropy", "temperature": 0.9, "top_k": 5, "top_p": 0.9},
    "alg_temp": {"alg": "entropy", "alg_temp": 0.4},
    "warm_alg_temp": {"alg": "maskgit_plus", "alg_temp": 0.4, "temperature": 0.4},
    "origin": {"alg": "origin"},
    "warm_origin": {"alg": "origin", "temperature": 0.8, "top_p": 0.95},
}


def maskless(model):
    """The model with a mask token that is a poor candidate: committed, it would keep the references running for ever."""
    with torch.no_grad():
        model.head_weight[model.config.mask_token_id] = 0
        model.model.transformer.ln_f.weight.mul_(3)
    return model


def replayed(folder, model, case):
    save_model(model, folder)
    write_case(case, folder / "case.json")
    (result,) = replay(folder / "case.json").results
    return result.outcome, result.reason


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "prefix", "dual"])
@pytest.mark.parametrize("variant", FAST)
def test_fast_dllm_passes(tmp_path, kind, variant, rows):
    model = maskless(small_model())
    case = record_fast(model, PROMPT[:rows], 5, kind, gen_length=12, block_length=6, **FAST[variant])
    assert replayed(tmp_path, model, case) == ("passed", "")


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("variant", DREAM)
def test_dream_passes(tmp_path, variant, rows):
    model = small_dream()
    case = record_dream(model, PROMPT[:rows], 5, max_new_tokens=10, steps=7, **DREAM[variant])
    assert replayed(tmp_path, model, case) == ("passed", "")


@pytest.mark.parametrize("variant", ["entropy", "warm_alg_temp", "origin"])
def test_padded_dream_passes(tmp_path, variant):
    model, padding = small_dream(), [[0, 0, 1, 1], [1, 1, 1, 1]]
    case = record_dream(model, PROMPT, 5, max_new_tokens=10, steps=7, attention_mask=padding, **DREAM[variant])
    assert replayed(tmp_path, model, case) == ("passed", "")
    without = {name: value for name, value in case["kwargs"].items() if name != "attention_mask"}
    assert replayed(tmp_path, model, {**case, "kwargs": without})[0] == "failed"
    assert replayed(tmp_path, model, {**case, "kwargs": without, "attention_mask": padding}) == ("passed", "")


BLOCKS = {
    "entropy": {"alg": "entropy"},
    "warm": {"alg": "entropy", "temperature": 0.7},
    "alg_temp": {"alg": "maskgit_plus", "alg_temp": 0.5},
    "warm_alg_temp": {"alg": "entropy", "alg_temp": 0.5, "temperature": 0.5, "top_k": 7},
}
THRESHOLDS = {
    "threshold": {"alg": "confidence_threshold", "threshold": 0.3},
    "warm_threshold": {"alg": "confidence_threshold", "threshold": 0.2, "temperature": 0.6},
}


def dream_folder(folder):
    """A Dream network whose mask token is a poor candidate, and where FlashDLM's cases lie beside it."""
    model = small_dream()
    with torch.no_grad():
        model.lm_head.weight[model.config.mask_token_id] = 0
        model.model.norm.weight.mul_(3)
    (folder / "flashdlm").mkdir()
    save_model(model, folder / "dream")
    return model


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dual", [False, True], ids=["prefix", "dual"])
@pytest.mark.parametrize("variant", {**BLOCKS, **THRESHOLDS})
def test_fast_dllm_on_dream_passes(tmp_path, variant, dual, rows):
    if variant in THRESHOLDS and rows > 1:
        pytest.skip("as published, of one row")
    model = dream_folder(tmp_path)
    for length, steps in ((1, 12), (2, 12), (6, 2), (6, 24), (12, 7)):
        kwargs = {"max_new_tokens": 12, "steps": steps, "block_length": length, "dual_cache": dual, **(BLOCKS | THRESHOLDS)[variant]}
        write_case(record_fast_dream(model, PROMPT[:rows], 5, **kwargs), tmp_path / "dream" / "case.json")
        (result,) = replay(tmp_path / "dream" / "case.json").results
        assert (result.outcome, result.reason) == ("passed", ""), (length, steps)


@pytest.mark.parametrize("ends", [0, 1, 2])
@pytest.mark.parametrize("variant", BLOCKS)
def test_freecache_passes(tmp_path, variant, ends):
    model = dream_folder(tmp_path)
    with torch.no_grad():
        model.lm_head.weight[: model.config.eos_token_id] *= 0.2 if ends else 1  # end tokens are likely
    save_model(model, tmp_path / "dream")
    stop, saved = {"early_stop": ends > 0, "early_stop_consecutive": max(ends, 1)}, 0
    for length, steps in ((1, 24), (3, 12), (6, 24), (12, 7)):
        kwargs = {"max_new_tokens": 12, "steps": steps, "block_size": length, **stop, **BLOCKS[variant]}
        case = record_flash(model, PROMPT[0], 5, **kwargs)
        write_case(case, tmp_path / "flashdlm" / "case.json")
        (result,) = replay(tmp_path / "flashdlm" / "case.json").results
        assert (result.outcome, result.reason) == ("passed", ""), (length, steps)
        saved += steps - case["n_forward"]
    assert ends == 2 or (saved > 0) == (ends == 1)  # two end tokens in a row are rarer


def test_tampering_is_found(tmp_path):
    model = maskless(small_model())
    case = record_fast(model, PROMPT[:1], 5, "dual", gen_length=12, block_length=6, steps=6)
    window = next(i for i, event in enumerate(case["events"]) if "past_len" in event)
    for field, value in (("past_len", 3), ("replace_positions", list(range(5, 11)))):
        wrong = copy.deepcopy(case)
        wrong["events"][window][field] = value
        outcome, reason = replayed(tmp_path, model, wrong)
        assert outcome == "failed"
        assert reason
