"""A product alone: its values, and its time against what the machine could do at best."""

import numpy as np
import pytest

from unmask.compiler.gemm import compile_gemm, ideal_gemm
from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.numerics import accumulator, bf16, mx
from unmask.numerics.matmul import mx_matmul

from .cases import FLAT, NANO, SMALL, TILES

HBM = Machine.preset("published-2048")


@pytest.mark.parametrize("machine", [SMALL, NANO, TILES, FLAT], ids=["small", "nano", "tiles", "flat"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (7, 64, 33), (40, 70, 65), (9, 96, 300)])
def test_it_is_the_product(machine: Machine, m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m)
    a = bf16.round(rng.normal(size=(m, k)).astype(np.float32))
    b = mx.quantize(rng.normal(size=(n, k)).astype(np.float32), machine.formats.weights)
    program = compile_gemm(m, k, n, machine)
    npu = FunctionalMachine(program, machine)
    npu.write("a", bf16.to_bits(a).astype("<u2"))
    npu.write("b.elements", mx.pack(b))
    npu.write("b.scales", b.scales)
    npu.run("gemm")
    sums, invalid = mx_matmul(mx.quantize(a, machine.formats.activations), b)
    assert not invalid.any()
    expected = bf16.to_bits(accumulator.to_bf16(sums, accumulator.MATRIX_FRACTION))
    np.testing.assert_array_equal(npu.read("c", "<u2").reshape(m, n), expected)


@pytest.mark.parametrize("machine", [SMALL, NANO, HBM], ids=lambda machine: machine.name)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 32, 32), (32, 256, 2048), (100, 200, 1000), (256, 1024, 512)])
def test_it_takes_no_less_than_the_ideal(machine: Machine, m: int, k: int, n: int) -> None:
    cycles = time_program(compile_gemm(m, k, n, machine), machine).cycles
    ideal = ideal_gemm(m, k, n, machine)
    assert cycles >= ideal.cycles == max(ideal.compute, ideal.memory) > 0


@pytest.mark.parametrize(("m", "k", "n"), [(256, 4096, 4096), (512, 4096, 4096), (32, 4096, 126464)])
def test_large_products_come_near_it(m: int, k: int, n: int) -> None:
    program = compile_gemm(m, k, n, HBM)
    assert program.words.nbytes < 10_000
    assert time_program(program, HBM).cycles < 1.3 * ideal_gemm(m, k, n, HBM).cycles


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UnmaskError, match="k is 0: expected at least 1"):
        compile_gemm(1, 0, 1, SMALL)
    with pytest.raises(UnmaskError, match="machine nano cannot run this product: the vector SRAM cannot hold rows of a"):
        compile_gemm(1, 100_000, 64, NANO)
