"""The matrix engine computes what the functional reading does, in the cycles that its timing says."""

import numpy as np
import pytest

from unmask.machine.state import State
from unmask.numerics import bf16
from unmask.rtl.matrix.timing import matrix_cycles

from .matrix_bench import Bench, Run, machine_of
from .streaming import Simulation

MACHINES = {
    "int8": machine_of(4, 32, 1, weights="mxint8", activations="mxint8", kv="mxint8"),
    "fp4-fp8": machine_of(4, 64, 2, weights="mxfp4", activations="mxfp8", kv="mxint8"),
    "int4": machine_of(8, 32, 2, granule=8, weights="mxint4", activations="mxint8", kv="mxfp8"),
}


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
    m, n, k = int(rng.integers(1, 14)), int(rng.integers(1, 40)), int(rng.integers(1, 150))
    strides = -(-n // 32) + int(rng.integers(0, 2)), -(-k // 32) + int(rng.integers(0, 2))
    rows, cols = (k, n) if transposed else (n, k)
    blocks = rows * -(-cols // 32)

    def somewhere(size, most):
        return int(rng.integers(0, (most - size) // granule + 1)) * granule

    return {
        "dst": somewhere(m * strides[0] * 32, len(state.vector)),
        "a": somewhere(m * strides[1] * 32, len(state.vector)),
        "b": int(rng.integers(0, len(state.scales) - blocks + 1)),
        "m": m,
        "n": n,
        "k": k,
        "dst_stride": strides[0],
        "a_stride": strides[1],
        "transposed": int(transposed),
        "format": int(rng.integers(0, 2)),
    }


@pytest.mark.parametrize("name", MACHINES)
def test_products_and_cycles_are_those_of_the_readings(name):
    machine = MACHINES[name]
    simulation = Simulation(Bench(machine))
    rng = np.random.default_rng(6)
    for trial in range(6):
        state = filled(machine, rng, special=trial % 2 == 1)
        programs = [instruction(machine, rng, rng.random() < 0.5, state) for _ in range(8)]
        run = Run(simulation, machine, state, programs)
        assert (np.flatnonzero(run.out["fault"]) == []).all()
        assert np.flatnonzero(run.out["retire"]).tolist() == (run.ends - 1).tolist()
        assert (run.vector == run.wanted).all(), np.flatnonzero(run.vector != run.wanted)[:20]
