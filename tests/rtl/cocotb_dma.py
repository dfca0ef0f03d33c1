"""A DMA engine under cocotb: requests with pauses, stalls on every channel, random latency. Run by `test_dma_cocotb`."""

import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from tests.rtl.dma_bench import Surroundings
from tests.rtl.dma_cases import bare_state, random_request

from unmask.numerics import mx
from unmask.rtl.dma import Kind, Shape
from unmask.rtl.load import Load
from unmask.rtl.store import Store

ENGINES = {"load": Load, "store": Store}
LONGEST = 20_000


def shape_of(engine):
    """Small sizes that take data of any byte address."""
    return Shape(
        beat_bytes=8,
        burst_beats=4,
        bursts=4,
        granule=8,
        lanes=16 if engine is Load else 64,
        vector_elements=1 << 12,
        integer_words=1 << 9,
        formats=(mx.FORMATS["mxint8"],),
        tag_bits=8,
    )


def outputs(dut, engine):
    """Values of the engine's outputs by name; what is not yet known counts as 0."""
    names = [name for name in dir(dut) if name.startswith(("bus_", "vector_", "integer_"))]
    names += ["request_ready", "retire", "retired", "fault", "code", "tag", "quiet"]
    values = {name: getattr(dut, name).value for name in names}
    return {name: int(value) if value.is_resolvable else 0 for name, value in values.items()}


@cocotb.test()
@cocotb.parametrize(latency=[1, 20, 500])
async def values_do_not_depend_on_stalls(dut, latency):
    """Random requests leave the memories as the functional reading does, however slow the memory is."""
    engine = ENGINES[os.environ["UNMASK_ENGINE"]]
    shape, rng = shape_of(engine), np.random.default_rng(latency)
    state, requests = bare_state(shape, rng), [random_request(rng, shape, tag) for tag in range(15)]
    for request in requests:
        if request.kind is Kind.INTEGER:
            request.memory &= ~3
    around = Surroundings(engine, shape, state, latency, rng)
    Clock(dut.clk, 2, "ns").start()
    for name in ("request_valid", "clear", "restart"):
        getattr(dut, name).value = 0
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    waiting, pending = list(requests), None
    while len(around.ends) < len(requests):
        assert around.cycle < LONGEST, "the engine hangs"
        pending, given = around.request(waiting, pending)
        for name, value in around.inputs(**{"request_valid": 0, **given}).items():
            getattr(dut, name).value = value
        await ReadOnly()
        seen = outputs(dut, engine)
        around.observe(seen)
        if pending is not None and seen["request_ready"]:
            pending = None
        await FallingEdge(dut.clk)
    assert around.fault is None
    around.check(state, requests)
