"""Recordings of the other plain references: what the shared folder holds one case of, in many variants."""

from __future__ import annotations

import copy

import pytest
import torch

from models.small import small_dream, small_model
from unmask.decoding.golden import replay
from unmask.models.checkpoint import save_model

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
