"""The matrix engine computes what the functional reading does, in the cycles that its timing says."""

from functools import cache

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.machine.semantics import SEMANTICS
from unmask.machine.state import MachineFault, State
from unmask.numerics import bf16
from unmask.rtl.faults import Fault
from unmask.rtl.matrix.timing import Timing, slack

from .matrix_bench import Bench, Run, machine_of
from .streaming import Simulation

MACHINES = {
    "int8": machine_of(4, 32, 1, weights="mxint8", activations="mxint8", kv="mxint8"),
    "fp4-fp8": machine_of(2, 64, 2, weights="mxfp4", activations="mxfp8", kv="mxint8"),
    "int4-fp8": machine_of(4, 32, 1, latency=9, weights="mxint4", activations="mxint8", kv="mxfp8"),
}
LEFT_ELEMENTS = 2560
"""Where left operands end and results begin: an instruction that overwrites its own operand has no defined result."""


@cache
def simulation_of(name):
    return Simulation(Bench(MACHINES[name]))


def filled(machine, rng, special):
    """A state with random memories; `special` adds NaN, infinities, zeros, extreme scales."""
    state = State(machine, 0)
    values = rng.normal(0, 1, len(state.vector)) * 2.0 ** rng.integers(-6, 7, len(state.vector))
    state.codes[:] = rng.integers(0, 1 << max(f.element.bits for f in state.formats[:2]), state.codes.shape)
    state.scales[:] = 127 + rng.integers(-6, 7, state.scales.shape)
    if special:
        odd = rng.random(len(values)) < 0.01
        values[odd] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-40, 0.0], odd.sum())
        values[(np.arange(len(values)) // 64) % 5 == 0] *= 2.0**30
        some = rng.random(state.scales.shape) < 0.1
        state.scales[some] = rng.choice([0, 1, 255, 200, 254, 150, 90], some.sum())
        state.codes[rng.random(state.scales.shape) < 0.2] = 0
    with np.errstate(over="ignore"):
        state.vector[:] = bf16.round(values.astype(np.float32))
    return state


def instruction(machine, rng, transposed, state):
    """Operands that stay inside the memories."""
    granule = machine.vector.granule
    m, n, k = int(rng.integers(1, 14)), int(rng.integers(1, 40)), int(rng.integers(1, 121))
    strides = -(-n // 32) + int(rng.integers(0, 2)), -(-k // 32) + int(rng.integers(0, 2))
    rows, cols = (k, n) if transposed else (n, k)

    def somewhere(size, first, end):
        return first + int(rng.integers(0, (end - first - size) // granule + 1)) * granule

    return {
        "dst": somewhere((m - 1) * strides[0] * 32 + n, LEFT_ELEMENTS, len(state.vector)),
        "a": somewhere((m - 1) * strides[1] * 32 + k, 0, LEFT_ELEMENTS),
        "b": int(rng.integers(0, len(state.scales) - rows * -(-cols // 32) + 1)),
        "m": m,
        "n": n,
        "k": k,
        "dst_stride": strides[0],
        "a_stride": strides[1],
        "transposed": int(transposed),
        "format": int(rng.integers(0, 2)),
    }


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "int8" else pytest.mark.slow) for name in MACHINES])
def test_products_and_cycles_are_those_of_the_readings(name):
    machine = MACHINES[name]
    simulation = simulation_of(name)
    rng = np.random.default_rng(6)
    for trial in range(6):
        state = filled(machine, rng, special=trial % 2 == 1)
        programs = [instruction(machine, rng, rng.random() < 0.5, state) for _ in range(8)]
        run = Run(simulation, machine, state, programs)
        assert not run.out["fault"].any()
        assert np.flatnonzero(run.out["retire"]).tolist() == (run.ends - 1).tolist()
        free = np.ones(len(run.out["ready"]), bool)
        for start, cost in zip(run.starts, run.costs, strict=True):
            free[start + 1 : start + cost.occupancy + cost.gap] = False
        free[run.starts] = True
        assert (run.out["ready"] == free).all(), "for one that is not transposed, and at a start for the one that starts"
        written = run.ends - 1 - Timing.of(machine).spare
        assert set(written) <= set(run.written) | {e for p, e in zip(programs, written, strict=True) if p["m"] % machine.matrix.blen}
        wanted = run.wanted()
        assert (run.vector == wanted).all(), np.flatnonzero(run.vector != wanted)[:20]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"a": 2}, Fault.ALIGNMENT),
        ({"dst": 3}, Fault.ALIGNMENT),
        ({"format": 2}, Fault.FORMAT),
        ({"k": 0}, Fault.SIZE),
        ({"a": 4064}, Fault.ADDRESS),
        ({"dst": 4092}, Fault.ADDRESS),
        ({"a": 1 << 40}, Fault.ADDRESS),
        ({"b": 240}, Fault.ADDRESS),
        ({"b": 1 << 40}, Fault.ADDRESS),
        ({"b": 240, "transposed": 1}, Fault.ADDRESS),
    ],
)
def test_what_the_functional_reading_refuses_is_a_fault(change, fault):
    machine = MACHINES["int8"]
    program = {"dst": 2560, "a": 0, "b": 0, "m": 5, "n": 9, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": 0, "format": 0}
    run = Run(simulation_of("int8"), machine, State(machine, 0), [program | change])
    assert run.out["fault"][-1] == fault
    assert not run.out["retire"].any()
    if fault is not Fault.SIZE:
        with pytest.raises(MachineFault):
            run.wanted()


PLAIN = {"dst": 2560, "a": 0, "b": 0, "m": 5, "n": 9, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": 0, "format": 0}


def test_what_comes_before_a_fault_ends_and_what_comes_after_it_does_not():
    machine = MACHINES["int8"]
    for transposed in (0, 1):
        state = filled(machine, np.random.default_rng(3), special=False)
        programs = [PLAIN | {"transposed": transposed}, PLAIN | {"dst": 2816}, PLAIN | {"dst": 3072, "format": 2}]
        run = Run(simulation_of("int8"), machine, state, programs)
        assert run.out["fault"][-1] == Fault.FORMAT
        assert np.flatnonzero(run.out["retire"]).tolist() == (run.ends[:2] - 1).tolist()
        assert not run.out["fault"][: run.ends[1]].any()
        for program in programs[:2]:
            SEMANTICS["M_MM"](state, **program)
        assert (run.vector == bf16.to_bits(state.vector)).all()


def test_the_fault_of_the_oldest_instruction_is_told_though_another_is_found_earlier():
    machine = MACHINES["int8"]
    outside = PLAIN | {"dst": 4096 - 64, "n": 32}
    run = Run(simulation_of("int8"), machine, State(machine, 0), [PLAIN, outside, PLAIN | {"format": 2}])
    assert run.out["fault"][-1] == Fault.ADDRESS
    assert np.flatnonzero(run.out["retire"]).tolist() == [run.ends[0] - 1]


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (machine_of(4, 48, 1), "matrix.mlen 48: expected a multiple of 32"),
        (machine_of(6, 96, 2), "matrix.blen 6: expected a power of two"),
        (machine_of(1, 32, 4), "matrix.blen 1: expected a power of two, 2 or more"),
        (machine_of(2, 32, 1), "blen x matrix.rows 2: expected a multiple of vector.granule, 4"),
    ],
)
def test_an_array_that_cannot_be_built_is_refused(machine, message):
    with pytest.raises(UnmaskError, match=message):
        slack(machine)
