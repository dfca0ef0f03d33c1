"""L_GATHER in the load engine against the functional reading, and its times against the contract's rules."""

from functools import cache

import numpy as np
import pytest
from tests.rtl.dma_bench import Bench, GatheringLoad
from tests.rtl.dma_cases import HBM_BYTES, Request, Times, bare_state, random_request

from unmask.rtl.dma import Kind, Shape
from unmask.rtl.faults import Fault
from unmask.rtl.load import LOAD_OVERHEAD

WORDS = 1 << 9
NUMBERS = range(128)
"""Words of the integer SRAM that hold row numbers."""


@cache
def shape() -> Shape:
    sizes = {"beat_bytes": 8, "burst_beats": 8, "bursts": 64, "granule": 8, "lanes": 24, "formats": ()}
    return Shape(**sizes, vector_elements=1 << 15, integer_words=WORDS, tag_bits=16)


def gather(rng, state, tag, **changes):
    """A legal gather of random sizes, the numbers being those that the state holds."""
    rows, cols = int(rng.choice([1, 2, 3, 7, 20])), int(rng.choice([1, 4, 8, 9, 32, rng.integers(1, 100)]))
    ids, stride = int(rng.integers(0, len(NUMBERS) - rows)), 2 * cols + int(rng.integers(0, 4))
    room = HBM_BYTES - 16 * stride - 2 * cols
    places = {"sram": int(rng.integers(0, 1000)) * 8, "sram_stride": -(-cols // 32), "memory": int(rng.integers(0, room)), "scales": ids}
    numbers = tuple(state.integers[ids : ids + rows].tolist())
    return Request(
        Kind.GATHER, tag, **{"rows": rows, "cols": cols, **places, "memory_stride": stride, "limit": 16, "numbers": numbers, **changes}
    )


def cases(seed, count):
    """Gathers among other loads, which leave the numbers alone."""
    rng = np.random.default_rng(seed)
    state = bare_state(shape(), rng)
    state.integers[: len(NUMBERS)] = rng.integers(0, 16, len(NUMBERS))
    requests = [gather(rng, state, tag) if rng.random() < 0.6 else random_request(rng, shape(), tag) for tag in range(count)]
    for request in requests:
        if request.kind is Kind.INTEGER:
            request.sram = len(NUMBERS)
    return state, requests


@pytest.mark.parametrize("latency", [1, 40])
def test_values_and_cycles_are_those_of_the_readings(latency):
    state, requests = cases(latency, 80)
    bench = Bench(GatheringLoad, shape(), state, latency).run(requests)
    assert bench.fault is None
    times = Times(shape(), scales_first=True, latency=latency + LOAD_OVERHEAD)
    starts = [times.start(request, 0) for request in requests]
    assert list(bench.starts.values()) == starts
    assert [(cycle - 2, address, beats) for cycle, address, beats in bench.memory.asked] == times.asked
    assert list(bench.ends.values()) == times.ends
    bench.check(state, requests)


def test_values_do_not_depend_on_stalls():
    state, requests = cases(9, 40)
    bench = Bench(GatheringLoad, shape(), state, 30, np.random.default_rng(9)).run(requests)
    assert bench.fault is None
    bench.check(state, requests)


def _refused():
    rng, state = np.random.default_rng(3), cases(3, 0)[0]
    state.integers[200], state.integers[201] = 16, -1
    return {
        "a number of no row": (gather(rng, state, 7, scales=200, rows=1), Fault.ADDRESS),
        "a negative number": (gather(rng, state, 7, scales=201, rows=1), Fault.ADDRESS),
        "numbers beyond the integer SRAM": (gather(rng, state, 7, scales=WORDS - 2, rows=3, limit=(1 << 18) - 1), Fault.ADDRESS),
        "a negative place of the numbers": (gather(rng, state, 7, scales=2**48 - 1), Fault.ADDRESS),
        "a table beyond the memory": (gather(rng, state, 7, memory=HBM_BYTES - 1), Fault.ADDRESS),
        "a table beyond all addresses": (gather(rng, state, 7, memory=2**48 - 2), Fault.ADDRESS),
        "beyond the vector SRAM": (gather(rng, state, 7, sram=1 << 15), Fault.ADDRESS),
        "between granules": (gather(rng, state, 7, sram=4), Fault.ALIGNMENT),
        "no rows": (gather(rng, state, 7, rows=0), Fault.SIZE),
        "no columns": (gather(rng, state, 7, cols=0), Fault.SIZE),
    }


@pytest.mark.parametrize("name", _refused())
def test_a_fault_names_its_instruction_and_the_next_start_is_clean(name):
    refused, code = _refused()[name]
    state, before = cases(3, 3)
    state.integers[200], state.integers[201], state.integers[WORDS - 2 :] = 16, -1, 0
    state.vector[:], before = 0, [request for request in before if request.kind is Kind.GATHER]
    bench = Bench(GatheringLoad, shape(), state, 4).run([*before, refused, Request(Kind.SYNC, 8)])
    assert bench.fault == (code, 7)
    assert list(bench.ends) == [request.tag for request in before]
    bench.step(clear=1)
    seen = bench.step()
    assert seen["idle"]
    assert not seen["fault"]
    after = gather(np.random.default_rng(4), state, 9)
    bench.ends.clear()
    bench.fault = None
    assert bench.run([after]).fault is None
    assert list(bench.ends) == [9]
