"""Programs compiled from a network's sizes are those compiled from the network, and small enough at full size."""

import numpy as np
import pytest

from unmask import Policy, UnmaskError, compile, simulate
from unmask.compiler.lower import compile_step
from unmask.compiler.network import matrix_shapes
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.models.catalogue import architecture

from .cases import BASE, CASES, SMALL, Case, compiled, network, shrunk
from .test_policies import DREAM, dream

BIG = Machine.preset("published-2048")


def same(with_weights, by_shape) -> None:
    np.testing.assert_array_equal(by_shape.words, with_weights.words)
    for what in ("phases", "entries", "regions", "hbm_bytes", "machine"):
        assert getattr(by_shape, what) == getattr(with_weights, what), what
    assert {**by_shape.about, "weights": True} == with_weights.about
    assert by_shape.about["weights"] is False
    assert not by_shape.data


@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: case.name)
def test_without_weights_the_program_is_bit_identical(case: Case) -> None:
    same(compiled(case), compile_step(case.config.architecture, case.policy, case.machine, case.prompt_length))


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "freecache"])
def test_so_it_is_with_biases_caches_batches_and_guidance(cache: str) -> None:
    policy = Policy(8, 4, 4, cache=cache, schedule="timesteps", cfg_scale=0.5)
    arguments = (policy, SMALL, 5, 2)
    same(compile_step(dream(0), *arguments), compile_step(DREAM.architecture, *arguments))


def test_smoothing_by_calibrated_scales_needs_none_of_them() -> None:
    machine = SMALL.with_formats(smoothing="static")
    program = compile_step(BASE.architecture, Policy(8, 4, 4, cache="dual"), machine, 5)
    assert time_program(program.entry("rows-4"), machine).phases["smoothing"] > 0
    with pytest.raises(UnmaskError, match="needs scales that were calibrated"):
        compile(network(BASE), Policy(8, 4, 4, cache="dual"), machine, 5)


def test_a_program_without_weights_does_not_run() -> None:
    program = compile_step(BASE.architecture, Policy(8, 4, 4), SMALL, 3)
    with pytest.raises(UnmaskError, match="compiled from an architecture, without weights: it can be timed, not run") as error:
        simulate(program, [1, 2, 3])
    assert "\n" not in str(error.value)


def weight_bytes(name: str) -> float:
    """Bytes of all matrices of a network in the weights' format, LM head included, as MXFP4: 17 bytes for 32 elements."""
    shape = architecture(name)
    sizes = {name: rows * cols for name, (rows, cols) in matrix_shapes(shape).items()}
    sizes.pop("router", None)  # in the wider of two formats
    of_experts = max(shape.experts, 1) * sum(sizes.pop(name) for name in ("gate", "up", "down"))
    elements = shape.layers * (sum(sizes.values()) + of_experts) + shape.vocab_size * shape.width
    return elements * 17 / 32


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", ["llada-8b", "dream-7b", "llada-moe-7b-a1b"])
def test_full_size_programs_are_small_and_stream_every_weight_in_every_step(name: str, batch: int) -> None:
    policy = Policy(256, 32, 256, cache="dual", schedule="timesteps")
    program = compile_step(architecture(name), policy, BIG, 512, batch)
    assert program.words.nbytes < 300_000
    assert program.hbm_bytes > weight_bytes(name)
    for entry in program.entries:
        assert loaded_weights(program.entry(entry)) >= weight_bytes(name)


def loaded_weights(program) -> int:
    """Bytes of weights, MXFP4, that the loads of an entry ask for."""
    total, repeats = 0, [1]
    for op in program.ops:
        if op.name == "L_MAT" and not op.operands["format"]:
            total += repeats[-1] * int(op.operands["rows"]) * -(-int(op.operands["cols"]) // 32) * 17
        elif op.name == "LOOP":
            repeats.append(repeats[-1] * int(op.operands["count"]))
        elif op.name == "END":
            repeats.pop()
    return total


def test_a_machine_too_small_for_the_full_size_says_what_limits_it() -> None:
    shape, policy = architecture("llada-8b"), Policy(256, 32, 256)
    with pytest.raises(UnmaskError, match=r"machine small cannot run .*: the matrix SRAM cannot hold two tiles of 32 rows"):
        compile_step(shape, policy, SMALL, 512)
    with pytest.raises(UnmaskError, match="the vector SRAM cannot hold"):
        compile_step(shape, policy, shrunk(SMALL, sram={"matrix_kib": 4096, "vector_kib": 32}), 512)
    with pytest.raises(UnmaskError, match="bytes of HBM; machine small has 1 GiB"):
        compile_step(shape, policy, shrunk(SMALL, sram={"matrix_kib": 4096}), 512)
