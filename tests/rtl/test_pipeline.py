"""Registers that load only when something passes by: what passes comes out as it would otherwise, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.rtl.pipeline import Pipeline, load_bits, loads_of


class _Sum(wiring.Component):
    """(a + 1) * 3, with a register or several at each of three places; a valid bit that goes along says which registers load."""

    def __init__(self, registers: int, held: bool) -> None:
        self._registers, self._held = registers, held
        super().__init__({"valid": In(1), "a": In(8), "result": Out(8), "ready": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        passed: list[Any] = [self.valid]
        for index in range(self._registers):
            later = Signal(name=f"valid_{index}")
            m.d.sync += later.eq(passed[-1])
            passed.append(later)
        p = Pipeline(m, 3, self._registers, loads=Cat(*passed[:-1]) if self._held else None)
        (a,) = p.cut(self.a)
        (more,) = p.cut((a + 1)[:8])
        (product,) = p.cut((more * 3)[:8])
        p.done()
        m.d.comb += [self.result.eq(product), self.ready.eq(passed[-1])]
        return m


def _run(unit: _Sum, values: list[int | None]) -> list[tuple[int, int]]:
    """(ready, result) of each cycle; None is a cycle without a value."""
    seen = []

    async def bench(context: Any) -> None:
        for value in values:
            context.set(unit.valid, value is not None)
            context.set(unit.a, 0xA5 if value is None else value)
            seen.append((context.get(unit.ready), context.get(unit.result)))
            await context.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.none() | st.integers(0, 255), min_size=8, max_size=40), registers=st.sampled_from([1, 2, 3, 5]))
def test_held_registers_never_change_what_is_valid(values: list[int | None], registers: int) -> None:
    free, held = (_run(_Sum(registers, way), values) for way in (False, True))
    expected = [(value + 1) * 3 % 256 for value in values if value is not None]
    for seen in (free, held):
        found = [result for ready, result in seen if ready]
        assert found == expected[: len(found)]
        assert len(found) >= len(expected) - registers
    assert [ready for ready, _ in free] == [ready for ready, _ in held]


def test_an_idle_pipeline_stands_still() -> None:
    seen = _run(_Sum(3, True), [17, *[None] * 12])
    results = [result for _, result in seen]
    assert results[3] == 54
    assert set(results[3:]) == {54}
    assert len({result for _, result in _run(_Sum(3, False), [17, *[None] * 12])[3:]}) > 1


@pytest.mark.parametrize("registers", [0, 1, 7])
def test_a_port_of_loads_has_a_bit_per_register_and_lets_all_run_by_default(registers: int) -> None:
    member = loads_of(registers)
    assert member.shape == load_bits(registers) == max(1, registers)
    assert member.init == 2 ** max(1, registers) - 1
