"""Sampling alone as a program: three programs, the same tokens and canvas; and what they cost on the published machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.compiler.memory import ceil_to
from unmask.compiler.sampling.measure import latency_ms, measure
from unmask.compiler.sampling.published import BATCH, BLOCK, BY_VLEN, VOCABULARY
from unmask.compiler.sampling.streamed import PROGRAMS, SamplingProgram
from unmask.compiler.sampling.workload import Workload, breakdown, head_program, sampling_program
from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.machine.hazards import find_races
from unmask.numerics import accumulator, bf16, matmul, mx
from unmask.quant.streaming import probabilities

from .sampling_cases import machine

STREAMING: list[SamplingProgram] = ["four-phase", "single-pass", "fused"]
FULL = Workload(BATCH, BLOCK, VOCABULARY)


def run(w: Workload, where: Machine, name: SamplingProgram, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and canvas that a program leaves, and the logits that it was given, all of the same random hidden states."""
    rng = np.random.default_rng(seed)
    x = bf16.round(rng.normal(size=(w.rows, w.width)).astype(np.float32))
    head = mx.quantize(rng.normal(size=(w.vocabulary, w.width)).astype(np.float32), where.formats.weights)
    sums, _ = matmul.mx_matmul(mx.quantize(x, where.formats.activations), head)
    logits = accumulator.to_bf16(sums, accumulator.MATRIX_FRACTION)
    program = sampling_program(w, where, name, None)
    npu = FunctionalMachine(program, where)
    npu.write("canvas", np.where(rng.random(w.rows) < 0.8, -1, 7).astype("<i4"))
    npu.write("parameters", np.array([11, seed % 1000, 3, *rng.integers(1, w.block, w.batch)], "<i4"))
    if name == "fused":
        npu.write("x", bf16.to_bits(x).astype("<u2"))
        npu.write("head.elements", mx.pack(head))
        npu.write("head.scales", head.scales)
    else:
        pitch = program.regions["logits"].size // w.rows // 2
        padded = np.zeros((w.rows, pitch), "<u2")
        padded[:, : w.vocabulary] = bf16.to_bits(logits)
        npu.write("logits", padded)
    npu.run()
    return npu.read("tokens", "<i4"), npu.read("canvas", "<i4"), logits


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 3),
    st.integers(2, 9),
    st.sampled_from([33, 96, 200, 451]),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([machine("small"), machine("nano"), machine("nano", 12)]),
    st.integers(0, 2**20),
)
def test_all_programs_commit_the_same_tokens(batch, block, vocabulary, temperature, where, seed):
    w = Workload(batch, block, vocabulary, temperature, 64)
    tokens, canvas, logits = run(w, where, "four-phase", seed)
    for name in ("single-pass", "fused"):
        found = run(w, where, name, seed)
        np.testing.assert_array_equal(found[0], tokens, name)
        np.testing.assert_array_equal(found[1], canvas, name)
    if not temperature:
        np.testing.assert_array_equal(tokens, logits.argmax(axis=1))
        assert (canvas != -1).sum() > 0
        assert (probabilities(logits, tokens) <= 1).all()


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_programs_are_free_of_races(name, temperature):
    where, w = machine("nano"), Workload(2, 5, 150, temperature, 64)
    program = sampling_program(w, where, name)
    words = {w.rows + number: number for number in range(3 + w.batch)}
    assert find_races(program, where, words) == []
    assert find_races(head_program(w, where), where) == []


def test_the_parts_of_the_breakdown_sum_to_the_cycles():
    for name in PROGRAMS:
        program = sampling_program(Workload(2, 8, 500, 0.0, 64), machine("small"), name)
        timing = time_program(program, machine("small"), trace=True)
        assert sum(breakdown(program, timing).values()) == timing.cycles


@pytest.mark.parametrize("vlen", BY_VLEN)
def test_the_published_latencies_within_ten_percent(vlen):
    found = latency_ms(FULL, Machine.preset(f"published-{vlen}"), "four-phase")
    assert found == pytest.approx(BY_VLEN[vlen].ms, rel=0.1)


def test_the_published_breakdown_and_its_order():
    theirs = BY_VLEN[2048].breakdown
    found = measure(FULL, Machine.preset("published-2048"), "four-phase")
    parts = found["breakdown"]
    assert parts["vector"] > parts["memory"] > parts["scalar"] > parts["control"]
    for part, within in (("vector", 0.02), ("memory", 0.1), ("scalar", 0.02)):
        assert parts[part] == pytest.approx(theirs[part], rel=within)
    assert found["sram_bytes"]["vector"] < 64 * 1024


def test_a_single_pass_is_bound_by_memory_and_noise_is_nearly_free():
    where = Machine.preset("published-2048")
    greedy = measure(FULL, where, "single-pass")
    assert greedy["ms"] <= 0.090
    assert greedy["bound_ms"] == pytest.approx(0.0815, abs=1e-4)
    noisy = latency_ms(Workload(BATCH, BLOCK, VOCABULARY, 1.0), where, "single-pass")
    assert noisy <= 1.1 * greedy["ms"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_fused_sampling_adds_less_than_two_percent_to_the_head(temperature):
    found = measure(Workload(BATCH, BLOCK, VOCABULARY, temperature), Machine.preset("published-2048"), "fused")
    assert found["added"] <= 0.02
    assert found["hbm_bytes"] < 1.05 * FULL.head_bytes("mxfp4")


@pytest.mark.parametrize("name", ["four-phase", "single-pass"])
def test_time_grows_by_the_same_for_every_sequence_and_token(name):
    where = Machine.preset("published-1024")
    for grow in (lambda n: Workload(5 * n, 32, 36_864), lambda n: Workload(8, 32, 36_864 * n)):
        first, second, third = (latency_ms(grow(n), where, name) for n in (1, 2, 3))
        # Rows of another length lie otherwise in the DRAM.
        assert third - second == pytest.approx(second - first, rel=0.2)


def test_latency_no_longer_depends_on_chunks_from_about_four_thousand_logits_on():
    where, w = Machine.preset("published-2048"), Workload(1, 32, VOCABULARY)
    chunks = (1024, 2048, 4096, 8192, 16_384, 32_768)
    found = {chunk: measure(w, where, "four-phase", chunk) for chunk in chunks}
    least = min(each["ms"] for each in found.values())
    assert found[1024]["ms"] > 3.5 * least
    assert found[2048]["ms"] > 1.9 * least
    assert all(found[chunk]["ms"] < 1.25 * least for chunk in chunks[2:])
    assert all(found[chunk]["ms"] < 1.1 * least for chunk in chunks[3:])
    assert [each["sram_bytes"]["vector"] for each in found.values()] == [4 * chunk for chunk in chunks]


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 900), st.sampled_from([None, 32, 64, 96, 160, 288]), st.sampled_from([0.0, 0.7]))
def test_chunks_of_any_size_find_the_same_tokens(vocabulary, chunk, temperature):
    where, w = machine("nano"), Workload(1, 3, vocabulary, temperature, 64)
    rng = np.random.default_rng(vocabulary)
    logits = bf16.round(rng.normal(size=(w.rows, vocabulary)).astype(np.float32))

    def tokens(size: int | None) -> list[int]:
        program = sampling_program(w, where, "four-phase", size)
        words = {w.rows + number: number for number in range(3 + w.batch)}
        assert find_races(program, where, words) == []
        npu = FunctionalMachine(program, where)
        padded = np.zeros((w.rows, program.regions["logits"].size // w.rows // 2), "<u2")
        padded[:, :vocabulary] = bf16.to_bits(logits)
        npu.write("logits", padded)
        npu.write("canvas", np.full(w.rows, -1, "<i4"))
        npu.write("parameters", np.array([11, 5, 3, 2], "<i4"))
        npu.run()
        return npu.read("tokens", "<i4").tolist()

    found = tokens(chunk)
    if not temperature:
        assert found == logits.argmax(axis=1).tolist()
    assert found == tokens(ceil_to(vocabulary, 32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda where: measure(FULL, where, "two-phase"), "sampling program 'two-phase': expected one of general, four-phase"),
        (lambda where: measure(FULL, where, "fused", 64), "a chunk belongs to the program 'four-phase'"),
        (lambda where: Workload(0, 1, 1), "batch is 0: expected at least 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UnmaskError, match=message):
        call(machine("small"))
