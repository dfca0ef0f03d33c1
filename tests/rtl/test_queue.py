"""A queue gives its items in order, `latency` cycles after they were pushed, and shows a cycle early what is to be seen early."""

from collections import deque

import numpy as np
import pytest
from amaranth.hdl import Module, Value
from amaranth.lib import data
from amaranth.sim import Simulator

from unmask.rtl.queue import Queue, Step

WORD = data.StructLayout({"wait0": 6, "wait1": 6})
ITEM = data.StructLayout({"pc": 4, "word": WORD})
DEPTH, CYCLES = 4, 400


def kept(m: Module, item: data.View) -> Value:
    """A step that leaves an item as it is."""
    return item.as_value()


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("latency", [1, 2, 4, 5])
def test_items_come_in_order_and_are_announced(latency, steps):
    queue = Queue(ITEM, DEPTH, latency=latency, steps=[Step(ITEM, kept)] * steps, ahead=WORD)
    draw = np.random.default_rng(latency)
    waiting, heads = deque(), 0

    async def bench(ctx):
        nonlocal heads
        announced, stayed = None, False
        for cycle in range(CYCLES):
            # Bursts of pushes, then of pops, so that the queue is full and empty by turns.
            likely = cycle // 25 % 2
            item = int(draw.integers(1 << ITEM.size))
            ctx.set(queue.item.as_value(), item)
            valid = bool(waiting) and cycle - waiting[0][0] >= latency
            assert bool(ctx.get(queue.valid)) == valid
            if valid:
                head = int(ctx.get(queue.head.as_value()))
                assert head == waiting[0][1]
                if not stayed:
                    assert announced == head >> 4
                    heads += 1
            pop = valid and draw.random() < (0.8 if likely else 0.3)
            ctx.set(queue.pop, pop)
            push = bool(ctx.get(queue.room)) and draw.random() < (0.3 if likely else 0.9)
            ctx.set(queue.push, push)
            announced, stayed = int(ctx.get(queue.coming.as_value())), valid and not pop
            if pop:
                waiting.popleft()
            if push:
                waiting.append((cycle, item))
            await ctx.tick()

    simulator = Simulator(queue)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert heads > CYCLES // 5
