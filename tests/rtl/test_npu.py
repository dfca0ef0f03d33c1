"""The whole NPU in RTL, instruction by instruction: matrix programs by hand, random programs, and denoising steps of a network."""

from dataclasses import replace

import numpy as np
import pytest
from tests.compiler.cases import BASE, Reference, network, starts

from unmask.compiler.lower import compile_step
from unmask.compiler.step import PARAMETERS_AT
from unmask.decoding.policy import Policy
from unmask.isa.encoding import assemble
from unmask.isa.program import Program, Region
from unmask.machine.config import Machine
from unmask.rtl.lockstep import Case, fuzz, run, simulate
from unmask.rtl.lockstep.bench import DONE
from unmask.rtl.lockstep.campaign import missing
from unmask.rtl.lockstep.machines import bench_machine

TINY = bench_machine(Machine.preset("rtl-tiny"))
BY_HAND = """
S_LI rd=r1 value=0
S_LI rd=r2 value=4096
S_LI rd=r3 value=12288
S_LI rd=r4 value=1536
S_LI rd=r5 value=2560
S_LI rd=r6 value=14000
S_LI rd=r7 value=512
L_VEC dst=r1 src=r1 rows=11 cols=70 dst_stride=3 src_stride=192 signal=0
L_MAT dst=r1 src=r2 scales=r3 rows=40 cols=70 src_stride=3 format=0 signal=1
L_MAT dst=r7 src=r2 scales=r3 rows=70 cols=33 src_stride=2 format=1 signal=2
M_MM dst=r4 a=r1 b=r1 m=11 n=40 k=70 dst_stride=2 a_stride=3 transposed=0 format=0 wait=0,1 signal=3
M_MM dst=r5 a=r1 b=r7 m=11 n=33 k=70 dst_stride=2 a_stride=3 transposed=1 format=1 wait=2 signal=4
SYNC engine=3 signal=5
V_ADD dst=r4 a=r4 b=r5 rows=11 cols=33 dst_stride=2 a_stride=2 b_stride=2 wait=3,4 signal=6
ST_VEC src=r4 dst=r6 rows=11 cols=40 src_stride=2 dst_stride=80 wait=5,6
HALT
"""
POLICY = Policy(8, 4, 8)
PROMPT = 8


def by_hand() -> Program:
    words = assemble(BY_HAND)
    rng = np.random.default_rng(1)
    image = np.zeros(1 << 14, np.uint8)
    values = (rng.normal(0, 1, 2048).astype(np.float32).view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    image[: values.size] = values
    image[4096:12288] = rng.integers(0, 256, 8192)
    image[12288:14000] = rng.integers(122, 132, 14000 - 12288)
    return Program(words, ["test"] * len(words), image.size, {"hbm": Region(0, image.size)}, {"hbm": image}, TINY.model_dump())


def test_products_by_hand():
    result = run([Case(by_hand())], TINY, "npu")
    assert result.details == []
    assert result.passed


def step(sampling: str, temperature: float, number: int, machine: Machine = TINY) -> tuple[Case, np.ndarray, str]:
    """A denoising step of a random network, the canvas that PyTorch leaves (of the program "general"), and its entry."""
    policy, model = replace(POLICY, temperature=temperature), network(BASE)
    program = compile_step(model, policy, machine, PROMPT, sampling=sampling)
    start = list(starts(model, policy, PROMPT, number + 1, seed=5))[number]
    words = [0, start.block_start, start.block_start, start.seed, start.step, start.commits]
    [entry] = program.entries
    data = program.data | {"canvas": start.canvas.astype("<i4").view(np.uint8), "parameters": np.array(words, "<u4").view(np.uint8)}
    parameters = {PARAMETERS_AT + index: int(np.uint32(word).view(np.int32)) for index, word in enumerate(words)}
    return Case(replace(program.entry(entry), data=data), parameters), Reference(model, policy, machine).step(start), entry


@pytest.mark.parametrize(
    ("sampling", "temperature"), [("general", 0.0), ("general", 0.7), ("four-phase", 0.0), ("single-pass", 0.5), ("fused", 0.5)]
)
def test_a_denoising_step_agrees_instruction_by_instruction(sampling, temperature):
    case, canvas, _ = step(sampling, temperature, 3)
    result = run([case], TINY, "npu")
    assert result.details == []
    assert result.passed
    if sampling == "general":
        found = simulate(case.program, TINY, "npu")
        assert found.outcome.status == DONE
        place = case.program.regions["canvas"]
        assert found.hbm[place.address : place.address + place.size].view("<i4")[: len(canvas)].tolist() == canvas.tolist()


def test_a_hundred_random_programs_agree():
    result = fuzz(100, 0, TINY, "npu", jobs=2)
    assert result.details == []
    assert result.passed
    assert not [point for point in missing(result, TINY, "npu") if ":" not in point]


@pytest.mark.slow
def test_two_thousand_random_programs_agree_and_cover_everything():
    result = fuzz(2000, 1, TINY, "npu", jobs=2)
    assert result.details == []
    assert result.passed
    wanted = [point for point in missing(result, TINY, "npu") if point.startswith(("M_MM", "L_MAT", "hazard", "fault"))]
    assert not [point for point in wanted if "store" not in point]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "formats"),
    [
        ((4, 64, 2), {"weights": "mxfp4", "activations": "mxfp8", "kv": "mxint8", "logits": "mxfp8"}),
        ((16, 32, 1), {"weights": "mxint4", "activations": "mxint8", "kv": "mxfp8"}),
        ((8, 96, 1), {"weights": "mxfp6_e2m3", "activations": "mxfp6_e3m2", "kv": "mxint4"}),
    ],
    ids=str,
)
def test_random_programs_agree_on_other_arrays_and_formats(array, formats):
    blen, mlen, rows = array
    matrix = TINY.matrix.model_copy(update={"blen": blen, "mlen": mlen, "rows": rows})
    machine = bench_machine(TINY.with_formats(**formats).model_copy(update={"matrix": matrix}), 8)
    result = fuzz(200, 2, machine, "npu", jobs=2)
    assert result.details == []
    assert result.passed
