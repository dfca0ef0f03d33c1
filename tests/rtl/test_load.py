"""The load engine against the functional reading, and its times against the contract's rules."""

from functools import partial

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.rtl.dma_cases import HBM_BYTES, LOADS, Request, Times, bare_state, execute, random_request
from tests.rtl.memory import ReadMemory
from unmask.numerics import bf16, mx
from unmask.rtl.dma import Kind, Shape
from unmask.rtl.faults import Fault
from unmask.rtl.load import LOAD_OVERHEAD, Load

ALL = tuple(mx.FORMATS.values())


def small_shape(**changes):
    """A shape for tests: any byte address will do."""
    sizes = {"beat_bytes": 16, "burst_beats": 8, "bursts": 64, "granule": 8, "lanes": 40, "vector_elements": 1 << 12}
    sizes |= {"integer_words": 1 << 9, "formats": ALL[:1] + ALL[4:5] + ALL[6:], "tag_bits": 16}
    return Shape(**{**sizes, **changes})


class Bench:
    """A load engine, its memory and its SRAMs.

    Attributes:
        vector: uint16 bits, integers: what the engine writes. starts, ends: cycles by tag. fault: (code, tag) once there is one.
    """

    def __init__(self, shape, state, latency, rng=None):
        self.shape, self.engine = shape, Load(shape)
        self.vector, self.integers = bf16.to_bits(state.vector), state.integers.copy()
        self.memory = ReadMemory(state.hbm, shape.beat_bytes, latency, rng)
        self.starts, self.ends, self.fault = {}, {}, None

    def run(self, requests, limit=20000, rng=None):
        """Hand requests over as fast as the engine takes them (`rng`: with pauses), until all have retired or it stops."""
        simulator = Simulator(self.engine)
        simulator.add_clock(1e-6)
        simulator.add_testbench(partial(self._drive, requests=list(requests), limit=limit, rng=rng))
        simulator.run()
        return self

    async def _drive(self, ctx, requests, limit, rng):
        e, bus = self.engine, self.engine.bus
        seen = (bus.arvalid, bus.araddr, bus.arlen, bus.rready, e.request.ready, e.retire, e.retired, e.fault, e.code, e.tag, e.quiet)
        writes = (e.vector.mask, e.vector.address, e.vector.data.as_value(), e.integer.mask, e.integer.address, e.integer.data.as_value())
        ctx.set(e.memory_bytes, HBM_BYTES)
        for name, value in self.memory.outputs.items():
            ctx.set(getattr(bus, name), value)
        wanted, cycle, pending = len(requests), 0, None
        while len(self.ends) < wanted and cycle < limit:
            if pending is None and requests and (rng is None or rng.random() < 0.5):
                pending = requests.pop(0)
                ctx.set(e.request.payload, pending.fields)
            ctx.set(e.request.valid, pending is not None)
            *_, arvalid, araddr, arlen, rready, ready, retire, retired, fault, code, tag, quiet, vm, va, vd, im, ia, idata = (
                await ctx.tick().sample(*seen, *writes)
            )
            self._write(self.vector, vm, va * self.shape.granule, vd, 16)
            self._write(self.integers.view(np.uint32), im, ia, idata, 32)
            if pending is not None and ready:
                self.starts[pending.tag] = cycle
                pending = None
            if retire:
                self.ends[retired] = cycle + 1
            if fault:
                self.fault = (Fault(code), tag)
                if quiet:
                    return
            for name, value in self.memory.step(arvalid, araddr, arlen, rready).items():
                ctx.set(getattr(bus, name), value)
            cycle += 1

    @staticmethod
    def _write(memory, mask, address, words, bits):
        while mask:
            lane = (mask & -mask).bit_length() - 1
            memory[address + lane] = words >> bits * lane & (1 << bits) - 1
            mask &= mask - 1


def check(bench, state, requests):
    """All retired in order, and the memories as the functional reading leaves them."""
    for request in requests:
        execute(state, request, LOADS)
    assert bench.fault is None
    assert list(bench.ends) == [request.tag for request in requests]
    assert (bench.integers == state.integers).all()
    assert (bench.vector == bf16.to_bits(state.vector)).all()


@pytest.mark.parametrize("seed", range(3))
def test_values_and_cycles_are_those_of_the_readings(seed):
    rng, latency = np.random.default_rng(seed), LOAD_OVERHEAD + 5
    shape = small_shape()
    state = bare_state(shape, rng)
    requests = [random_request(rng, shape, tag) for tag in range(60)]
    bench = Bench(shape, state, latency - LOAD_OVERHEAD).run(requests)
    times = Times(shape, scales_first=True, latency=latency)
    starts = [times.start(request, 0) for request in requests]
    assert list(bench.starts.values()) == starts
    assert [(cycle - 2, address, beats) for cycle, address, beats in bench.memory.asked] == times.asked
    assert list(bench.ends.values()) == times.ends
    check(bench, state, requests)


@pytest.mark.parametrize("latency", [1, 30, 500])
def test_values_do_not_depend_on_stalls(latency):
    rng = np.random.default_rng(latency)
    shape = small_shape(bursts=4, formats=ALL[1:3], granule=32, lanes=64, beat_bytes=8, burst_beats=4)
    state = bare_state(shape, rng)
    requests = [random_request(rng, shape, tag) for tag in range(12)]
    bench = Bench(shape, state, latency, rng).run(requests, rng=rng, limit=200000)
    check(bench, state, requests)


def test_a_beat_of_elements_suffices_for_data_that_begin_with_a_beat():
    rng = np.random.default_rng(3)
    shape = small_shape(lanes=32, formats=ALL[:2], beat_bytes=16)
    state = bare_state(shape, rng)
    requests = [random_request(rng, shape, tag, aligned=True) for tag in range(40)]
    check(Bench(shape, state, 3).run(requests), state, requests)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(Kind.VECTOR, 7, cols=0), Fault.SIZE),
        (Request(Kind.VECTOR, 7, rows=0), Fault.SIZE),
        (Request(Kind.VECTOR, 7, cols=8, sram=4), Fault.ALIGNMENT),
        (Request(Kind.VECTOR, 7, cols=8, sram=4096), Fault.ADDRESS),
        (Request(Kind.VECTOR, 7, cols=8, sram=2**48 - 8), Fault.ADDRESS),
        (Request(Kind.VECTOR, 7, rows=3, cols=8, sram_stride=127), Fault.ADDRESS),
        (Request(Kind.VECTOR, 7, cols=8, memory=HBM_BYTES - 15), Fault.ADDRESS),
        (Request(Kind.INTEGER, 7, cols=2, sram=511), Fault.ADDRESS),
        (Request(Kind.MX, 7, cols=64, scales=HBM_BYTES - 1), Fault.ADDRESS),
        (Request(Kind.MX, 7, cols=64, format=3), Fault.FORMAT),
    ],
)
def test_what_no_program_may_ask_for_is_a_fault_and_what_came_before_ends(request_, code):
    shape = small_shape()
    state = bare_state(shape, np.random.default_rng(0))
    before = [Request(Kind.VECTOR, 1, cols=40, memory=64), Request(Kind.SYNC, 2)]
    bench = Bench(shape, state, 4).run([*before, request_])
    assert bench.fault == (code, 7)
    bench.fault = None
    check(bench, state, before) if code is not Fault.ADDRESS or request_.rows == 1 else None
    assert list(bench.ends) == [1, 2]


def test_an_error_of_the_memory_is_a_fault_of_its_instruction():
    shape = small_shape()
    state = bare_state(shape, np.random.default_rng(0))
    requests = [Request(Kind.VECTOR, tag, cols=40, memory=256 * tag, sram=64 * tag) for tag in range(4)]
    bench = Bench(shape, state, 4)
    bench.memory.errors.add(2 * 256 + 16)
    bench.run(requests)
    assert bench.fault == (Fault.MEMORY, 2)
    assert list(bench.ends) == [0, 1]
