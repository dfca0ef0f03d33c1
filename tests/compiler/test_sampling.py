"""The sampling program equals the sampler and the committer in the machine's formats, bit for bit, whatever the policy and the machine."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.compiler.context import Context
from unmask.compiler.kernels.head import project_logits
from unmask.compiler.memory import Hbm, MxMatrix, SramOverflow
from unmask.compiler.sampling.block import Logits
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.encoding import encode
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.machine.hazards import find_races
from unmask.numerics import accumulator, bf16, matmul, mx

from .sampling_cases import EOT, Case, machine

MACHINES = [
    machine("small"),
    machine("nano"),
    machine("nano", 1),
    machine("nano", 4),
    machine("small", 2, "mxfp8"),
    machine("nano", 3, "mxint8"),
    machine("small", logits="mxfp6_e2m3"),
]
SCORERS: list[dict] = [
    {},
    {"defer_eos": True, "eot_token_id": EOT},
    {"remasking": "random"},
    {"remasking": "maskgit_plus"},
    {"remasking": "topk_margin"},
    {"remasking": "entropy"},
    {"remasking": "origin", "schedule": "timesteps"},
]
CUTS: list[dict] = [{}, {"top_p": 0.8}, {"top_k": 5}, {"top_p": 0.95, "top_k": 9}]
COMMITS: list[dict] = [
    {},
    {"commit": "threshold", "threshold": 0.2},
    {"commit": "threshold", "threshold": 0.9},
    {"commit": "factor", "factor": 0.9},
    {"commit": "factor", "factor": 3.5},
    {"commit": "guided"},
    {"alg_temp": 0.2},
]


def policy(length: int, **fields) -> Policy | None:
    """The policy, or None where its parts do not go together."""
    try:
        return Policy(gen_length=length, block_length=length, steps=6, **fields)
    except UnmaskError:
        return None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    fields = {
        **draw(st.sampled_from(SCORERS)),
        **draw(st.sampled_from(CUTS)),
        **draw(st.sampled_from(COMMITS)),
        "temperature": draw(st.sampled_from([0.0, 0.0, 0.7, 1.0, 3.0])),
        "cfg_scale": draw(st.sampled_from([0.0, 0.0, 0.5, 2.0])),
        "suppress_eos": draw(st.booleans()),
        "exclude_mask": draw(st.booleans()),
    }
    length = draw(st.integers(6, 40))
    chosen = policy(length, **fields) or policy(length, temperature=fields["temperature"], remasking=fields.get("remasking", "random"))
    return Case(
        chosen or Policy(gen_length=length, block_length=length, steps=1),
        draw(st.sampled_from(MACHINES)),
        batch=draw(st.integers(1, 3)),
        vocabulary=draw(st.sampled_from([8, 31, 64, 65, 200, 333])),
        step=draw(st.integers(0, 5)),
        scale=draw(st.sampled_from([0.3, 3.0, 20.0])),
        seed=draw(st.integers(0, 2**31)),
        opening=draw(st.sampled_from([False, False, False, True])),
        special=draw(st.booleans()),
    )


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(cases())
def test_random_cases_equal_the_reference(case):
    case.check()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("scorer", SCORERS, ids=lambda fields: fields.get("remasking", "") + "deferred" * fields.get("defer_eos", False))
def test_every_combination_equals_the_reference(scorer, temperature):
    tried = 0
    for number, (cut, commit) in enumerate(product(CUTS, COMMITS)):
        chosen = policy(9, **{**scorer, **cut, **commit}, temperature=temperature, cfg_scale=number % 2)
        if chosen is not None:
            case = Case(chosen, MACHINES[number % len(MACHINES)], batch=1 + number % 3, vocabulary=70, step=2, seed=number)
            case.check()
            tried += 1
    assert tried >= (1 if scorer.get("remasking") == "random" else 4)


RACES = [
    Case(Policy(gen_length=9, block_length=9, steps=3, **fields), where, batch=2, vocabulary=100)
    for fields, where in (
        ({"temperature": 0.7}, machine("nano", 1)),
        ({"defer_eos": True, "cfg_scale": 1.0}, machine("small", 3, "mxfp8")),
        ({"remasking": "random", "temperature": 1.0}, machine("small")),
        ({"remasking": "entropy", "temperature": 0.7, "top_p": 0.9, "top_k": 4, "alg_temp": 0.3}, machine("nano", 4)),
        ({"remasking": "topk_margin", "commit": "factor", "temperature": 0.7}, machine("nano", 2)),
        ({"remasking": "maskgit_plus", "commit": "threshold", "cfg_scale": 1.0}, machine("nano", 3, "mxint8")),
        ({"remasking": "origin", "schedule": "timesteps", "top_k": 3}, machine("nano", 1)),
        ({"commit": "guided"}, machine("nano", 1)),
    )
]


@pytest.mark.parametrize("case", RACES)
def test_programs_are_free_of_races_and_deadlocks(case):
    program, words = case.program()
    assert find_races(program, case.machine, words) == []
    assert time_program(program, case.machine).cycles > 0


def test_every_instruction_of_sampling_is_used():
    used = {op.name for case in RACES for op in case.program()[0].ops}
    assert used >= {"L_MX", "V_DROP", "V_CUT", "V_GUMBEL", "V_XEXP", "V_RED_SUM_GE", "V_RED_MAX_IDX", "V_TOPK_MASK", "V_THRESHOLD_MASK"}
    assert used >= {
        "V_BARS_MASK",
        "V_SELECT_INT",
        "F_FILL",
        "F_LOG",
        "F_GUMBEL",
        "F_UNIFORM",
        "F_FROM_INT",
        "F_LT",
        "I_FILL",
        "I_SET_BIT_GT",
    }


def test_a_program_does_not_grow_with_vocabulary_rows_or_batch():
    def instructions(length: int, vocabulary: int, batch: int) -> int:
        small = Case(
            Policy(gen_length=length, block_length=length, steps=1, remasking="entropy", top_p=0.9, temperature=1.0),
            machine("nano", 4),
            batch=batch,
            vocabulary=vocabulary,
        )
        return len(small.program()[0].words)

    # Constants shared by chance aside.
    assert abs(instructions(32, 300, 2) - instructions(64, 5003, 3)) < 4


def test_a_cut_takes_sixteen_more_streams():
    def loads(**fields) -> int:
        """Loads of chunks that a step executes."""
        program, _ = Case(Policy(gen_length=8, block_length=8, steps=1, **fields), vocabulary=320).program()
        found, times, counts = 0, 1, []
        for op in program.ops:
            if op.name == "LOOP":
                counts.append(int(op.operands["count"]))
                times *= counts[-1]
            elif op.name == "END":
                times //= counts.pop()
            found += times * (op.name == "L_VEC")
        return found

    plain = loads(remasking="maskgit_plus", temperature=0.5)
    stream = plain // 2
    assert loads(remasking="random") == stream
    assert loads(remasking="maskgit_plus", temperature=0.5, top_k=5) == plain + 16 * stream
    assert loads(remasking="maskgit_plus", temperature=0.5, top_p=0.5) == plain + 17 * stream


@pytest.mark.parametrize(
    ("chosen", "where", "message"),
    [
        ({}, machine("nano"), None),
        ({"temperature": 1e39}, machine("nano"), "beyond BF16"),
        ({"cfg_scale": 1e39}, machine("nano"), "cfg_scale 1e.39 is beyond BF16"),
        ({"remasking": "entropy", "temperature": 1e-39}, machine("nano"), "inverse beyond BF16"),
    ],
)
def test_what_bf16_cannot_hold_is_an_error(chosen, where, message):
    case = Case(Policy(gen_length=8, block_length=8, steps=1, **(chosen | {"cfg_scale": 0.0})), where)
    case.policy = Policy(gen_length=8, block_length=8, steps=1, **chosen)
    if message is None:
        case.program()
        return
    case.logits = np.stack([case.logits[0]] * 2)
    with pytest.raises(UnmaskError, match=message):
        case.program()


@pytest.mark.parametrize(
    ("memory", "size", "message"),
    [
        ("float_words", 44, "the float SRAM cannot hold 6 words for a row of logits: 4 are left"),
        ("integer_words", 126, "the integer SRAM cannot hold 4 words for a row of logits: 2 are left"),
    ],
)
def test_a_memory_that_is_too_small_is_named(memory, size, message):
    preset = machine("nano")
    where = preset.model_copy(update={"sram": preset.sram.model_copy(update={memory: size})})
    with pytest.raises(SramOverflow, match=message):
        Case(Policy(gen_length=40, block_length=40, steps=1, remasking="entropy"), where).program()


def test_a_vector_memory_that_is_too_small_is_named():
    preset = machine("nano", 1)
    where = preset.model_copy(update={"vector": preset.vector.model_copy(update={"vlen": 512})})
    with pytest.raises(SramOverflow, match="the vector SRAM cannot hold 3 chunks of 512 logits of one row: 512 elements are left"):
        Case(Policy(gen_length=8, block_length=8, steps=1, temperature=1.0), where, vocabulary=600).program()


@pytest.mark.parametrize("where", [machine("small"), machine("nano", 4), machine("nano", 4, "mxint8"), machine("small", 4, "mxfp6_e3m2")])
@pytest.mark.parametrize("vocabulary", [40, 96, 203])
def test_the_head_stores_logits_in_their_format(where, vocabulary):
    rows, width, hbm = 5, 48, Hbm()
    rng = np.random.default_rng(0)
    x = bf16.round(rng.normal(size=(rows, width)).astype(np.float32))
    head = mx.quantize(rng.normal(size=(vocabulary, width)).astype(np.float32), where.formats.weights)
    matrix = MxMatrix(hbm.place("head", mx.pack(head)), hbm.place("scales", head.scales), vocabulary, width, head.format)
    x_at = hbm.place("x", bf16.to_bits(x).view(np.uint8))
    form = None if where.formats.logits == "bf16" else mx.format_named(where.formats.logits)
    pitch = 2 * vocabulary + 10 if form is None else (mx.padded(vocabulary) + 32) * form.element.bits // 8
    blocks = mx.padded(vocabulary) // 32 + 1
    total = rows + 2
    logits = Logits(hbm.reserve("logits", total * pitch), hbm.reserve("logit scales", total * blocks), pitch, vocabulary, form)
    c = Context(where, hbm)
    tile = c.tile(rows, width, "rows")
    c.load(tile, x_at, 2 * width)
    project_logits(c, tile, matrix, logits, 2)
    c.e.order(Engine.STORE, Engine.VECTOR)
    c.e.halt()
    program = Program(encode(c.e.ops), c.e.phases, hbm.size, hbm.regions, hbm.data, {})
    assert find_races(program, where) == []
    npu = FunctionalMachine(program, where)
    npu.run()
    sums, _ = matmul.mx_matmul(mx.quantize(x, where.formats.activations), head)
    expected = accumulator.to_bf16(sums, accumulator.MATRIX_FRACTION)
    stored = npu.read("logits", "u1").reshape(total, pitch)[2:]
    if form is None:
        np.testing.assert_array_equal(stored[:, : 2 * vocabulary].copy().view("<u2"), bf16.to_bits(expected))
    else:
        packed, scales = mx.quantize(expected, form), npu.read("logit scales", "u1").reshape(total, blocks)[2:, :-1]
        np.testing.assert_array_equal(scales, packed.scales)
        np.testing.assert_array_equal(stored[:, : mx.pack(packed).shape[1]], mx.pack(packed))
    assert not npu.read("logits", "u1").reshape(total, pitch)[:2].any()
