"""The load and the store engine against the functional reading, and their times against the contract's rules."""

from functools import cache

import numpy as np
import pytest
from amaranth.back import rtlil
from tests.rtl.dma_bench import Bench
from tests.rtl.dma_cases import HBM_BYTES, Request, Times, bare_state, random_request

from unmask.errors import UnmaskError
from unmask.numerics import mx
from unmask.rtl.dma import CHUNK, Kind, Shape
from unmask.rtl.faults import Fault
from unmask.rtl.load import LOAD_OVERHEAD, Load
from unmask.rtl.store import STORE_OVERHEAD, Store

CAPACITIES = {"vector_elements": 1 << 15, "integer_words": 1 << 9, "tag_bits": 16}
LATENCY = {Load: LOAD_OVERHEAD, Store: STORE_OVERHEAD}
both = pytest.mark.parametrize("engine", [Load, Store])


@cache
def any_address(engine):
    """Sizes that take data of any byte address, but for words that are stored."""
    formats = tuple(mx.FORMATS[name] for name in ("mxint8", "mxfp6_e2m3", "mxfp4"))
    lanes = 24 if engine is Load else 64
    return Shape(beat_bytes=8, burst_beats=8, bursts=64, granule=8, lanes=lanes, formats=formats, **CAPACITIES)


@cache
def narrow():
    """Sizes that take only data that begin with a beat, or at least with a granule and a block."""
    return Shape(beat_bytes=32, burst_beats=4, bursts=8, granule=32, lanes=32, formats=(mx.FORMATS["mxfp8_e5m2"],), **CAPACITIES)


def cases(engine, shape, seed, count, **options):
    """Memories with anything in them and random requests; words are stored at multiples of their size, as the engine wants them."""
    rng = np.random.default_rng(seed)
    state, requests = bare_state(shape, rng), [random_request(rng, shape, tag, **options) for tag in range(count)]
    for request in requests:
        if engine is Store and request.kind is Kind.INTEGER:
            request.memory &= ~3
    return state, requests


def check_times(bench, engine, shape, requests, latency):
    """Every start, every burst and every end is where the contract has it."""
    times = Times(shape, scales_first=engine is Load, latency=latency)
    starts = [times.start(request, 0) for request in requests]
    assert list(bench.starts.values()) == starts
    assert [(cycle - 2, address, beats) for cycle, address, beats in bench.memory.asked] == times.asked
    assert list(bench.ends.values()) == times.ends


@both
@pytest.mark.parametrize("latency", [1, 5, 40])
def test_values_and_cycles_are_those_of_the_readings(engine, latency):
    shape = any_address(engine)
    state, requests = cases(engine, shape, latency, 60)
    bench = Bench(engine, shape, state, latency).run(requests)
    assert bench.fault is None
    check_times(bench, engine, shape, requests, latency + LATENCY[engine])
    bench.check(state, requests)


@both
@pytest.mark.parametrize("contiguous", [True, False])
def test_long_rows_go_in_chunks(engine, contiguous):
    shape, cols = any_address(engine), CHUNK * mx.BLOCK + (32 if contiguous else 40)
    state, _ = cases(engine, shape, 0, 0)
    blocks = -(-cols // 32)
    request = Request(Kind.MX, 3, 2, cols, 64, blocks, 5, HBM_BYTES - 1500, blocks + (not contiguous), 2)
    bench = Bench(engine, shape, state, 4).run([request])
    check_times(bench, engine, shape, [request], 4 + LATENCY[engine])
    bench.check(state, [request])


@both
@pytest.mark.parametrize("latency", [1, 30, 500])
def test_values_do_not_depend_on_stalls(engine, latency):
    shape = any_address(engine)
    state, requests = cases(engine, shape, latency, 20)
    rng = np.random.default_rng(latency)
    bench = Bench(engine, shape, state, latency, rng).run(requests)
    assert bench.fault is None
    bench.check(state, requests)


@both
def test_lanes_of_a_beat_suffice_for_data_that_begin_with_one(engine):
    shape = narrow()
    state, requests = cases(engine, shape, 3, 60, aligned=True)
    bench = Bench(engine, shape, state, 3, np.random.default_rng(3)).run(requests)
    assert bench.fault is None
    bench.check(state, requests)
    assert bench.run([Request(Kind.VECTOR, 99, cols=320, memory=2)]).fault == (Fault.ALIGNMENT, 99)


REFUSED = {
    "no columns": (Request(Kind.VECTOR, 7, cols=0), Fault.SIZE),
    "no rows": (Request(Kind.VECTOR, 7, rows=0), Fault.SIZE),
    "between granules": (Request(Kind.VECTOR, 7, cols=8, sram=4), Fault.ALIGNMENT),
    "beyond the vector SRAM": (Request(Kind.VECTOR, 7, cols=8, sram=1 << 15), Fault.ADDRESS),
    "a negative address": (Request(Kind.VECTOR, 7, cols=8, sram=2**48 - 8), Fault.ADDRESS),
    "beyond the memory": (Request(Kind.VECTOR, 7, cols=8, memory=HBM_BYTES - 15), Fault.ADDRESS),
    "beyond the integer SRAM": (Request(Kind.INTEGER, 7, cols=2, sram=511), Fault.ADDRESS),
    "scales beyond the memory": (Request(Kind.MX, 7, cols=64, scales=HBM_BYTES - 1), Fault.ADDRESS),
    "no such format": (Request(Kind.MX, 7, cols=64, format=3), Fault.FORMAT),
}


@both
@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_names_its_instruction_and_the_next_start_is_clean(engine, name):
    shape, (refused, code) = any_address(engine), REFUSED[name]
    state, _ = cases(engine, shape, 0, 0)
    before = [Request(Kind.VECTOR, 1, cols=40, memory=64), Request(Kind.SYNC, 2)]
    bench = Bench(engine, shape, state, 4).run([*before, refused])
    assert bench.fault == (code, 7)
    assert list(bench.ends) == [1, 2]
    bench.step(clear=1)
    seen = bench.step()
    assert seen["idle"]
    assert not seen["fault"]
    # Of a store, the elements before the scales have been written.
    if name != "scales beyond the memory" or engine is Load:
        after = [Request(Kind.MX, 3, 2, 96, 128, 4, 1024, 512, 3, 0), Request(Kind.INTEGER, 4, 1, 99)]
        bench.run(after).check(state, [*before, *after])


@both
def test_a_later_row_beyond_the_end_is_a_fault_too(engine):
    shape = any_address(engine)
    state, _ = cases(engine, shape, 0, 0)
    bench = Bench(engine, shape, state, 4)
    assert bench.run([Request(Kind.VECTOR, 7, rows=3, cols=8, sram_stride=1023)]).fault == (Fault.ADDRESS, 7)


@both
def test_an_error_of_the_memory_is_a_fault_of_its_instruction(engine):
    shape = any_address(engine)
    state, _ = cases(engine, shape, 0, 0)
    requests = [Request(Kind.VECTOR, tag, cols=40, memory=256 * tag, sram=64 * tag) for tag in range(4)]
    bench = Bench(engine, shape, state, 4)
    bench.memory.errors.add(2 * 256 + 16)
    bench.run(requests)
    assert bench.fault == (Fault.MEMORY, 2)
    assert list(bench.ends) == [0, 1]
    bench.step(clear=1)
    bench.run([Request(Kind.VECTOR, 9, cols=8)])
    assert list(bench.ends) == [0, 1, 9]


def test_words_that_are_stored_between_words_are_a_fault_and_what_came_before_ends():
    shape = any_address(Store)
    state, _ = cases(Store, shape, 0, 0)
    before = [Request(Kind.VECTOR, 1, cols=40, memory=64), Request(Kind.SYNC, 2)]
    bench = Bench(Store, shape, state, 20).run([*before, Request(Kind.INTEGER, 7, cols=16, memory=1024 + 3), Request(Kind.SYNC, 8)])
    assert bench.fault == (Fault.ALIGNMENT, 7)
    assert list(bench.ends) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beat_bytes": 24}, "beat_bytes 24"),
        ({"burst_beats": 512}, "burst_beats 512"),
        ({"granule": 4}, "granule 4"),
        ({"lanes": 16}, "16 lanes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    sizes = {"beat_bytes": 16, "burst_beats": 8, "bursts": 4, "granule": 8, "lanes": 32, "formats": (mx.FORMATS["mxfp4"],)}
    with pytest.raises(UnmaskError, match=message):
        Shape(**{**sizes, **changes}, **CAPACITIES)


@both
def test_an_engine_may_be_without_mx(engine):
    shape = Shape(beat_bytes=16, burst_beats=8, bursts=4, granule=8, lanes=16, formats=(), **CAPACITIES)
    assert "walker" in rtlil.convert(engine(shape))
