"""The units of single words, timed: FP32 scalars, what the sampler left of rows, masks."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.isa.row import Cost
from unmask.isa.table import BY_NAME
from unmask.numerics.noise import NO_TOKEN, TOKENS_PER_COUNTER
from unmask.rtl import scalar
from unmask.rtl.bits import saturated
from unmask.rtl.control import Control
from unmask.rtl.decode import places
from unmask.rtl.pipeline import Pipeline, delay
from unmask.rtl.reducer import Reducer
from unmask.rtl.threefry import THREEFRY_PLACES, added, drawn, key_groups, rounds
from unmask.rtl.topk import MASK_REGISTERS, Mask, MaskUnit
from unmask.rtl.word_ports import FLOAT_READS, FLOAT_WRITES, INTEGER_READS, INTEGER_WRITE, WordPorts

_WORD = 32
DRAW_PLACES = 1 + THREEFRY_PLACES
"""Of the random words of entries: the position and the token are summed up first."""


class Scalars:
    """Scalar unit, draws and mask unit, built into the vector engine's module."""

    def __init__(self, m: Module, control: Control, words: WordPorts, ports: Any, reducer: Reducer) -> None:
        """Build them, and connect the read ports of the float and the integer SRAM.

        Args:
            ports: the engine: has the ports of the memories.
            reducer: has the rows that V_SAMPLE_END reads.
        """
        self._m, self._control, self._words, self._ports = m, control, words, ports
        latency = control.latency[Cost.SCALAR_FUNCTION]
        # Draws and rows are there when the operands are.
        budget = latency - 2
        drawing = budget * DRAW_PLACES // (DRAW_PLACES + scalar.FUNCTION_PLACES)
        self._operand = 1 + max(drawing, reducer.read_registers)
        self._function = latency - 1 - self._operand
        functions = control.of(Cost.SCALAR_FUNCTION)
        prior = control.is_("V_RED_MAX", "V_RED_MAX_IDX")
        words.read(FLOAT_READS[0], [(functions, self._operand - 1), (prior, reducer.prior)])
        words.read(FLOAT_READS[1], [(functions, self._operand - 1)])
        words.read(INTEGER_READS[0], [(control.is_("V_RED_SUM_GE"), reducer.compared)])
        for port in INTEGER_READS[1:]:
            words.read(port, [])
        self._scalars(reducer)
        self._masks()

    def _scalars(self, reducer: Reducer) -> None:
        m, control, ports, rows = self._m, self._control, self._ports, reducer.rows
        given = reducer.given
        short = control.latency[Cost.SCALAR] - 2
        operations = [name for name in (*scalar.SHORT, *scalar.LONG) if name in control.names]
        m.submodules.scalar = unit = scalar.ScalarUnit(short, self._function, operations)
        ends = control.is_("V_SAMPLE_END")
        ahead = self._operand - 1 - reducer.read_registers
        with m.If(ends):
            valid, now = control.at(ahead + 1)
            m.d.comb += [
                given["row_ahead"].eq(control.held["first"] + control.at(ahead)[1].column),
                given["row"].eq(control.held["first"] + now.column),
                given["valid"].eq(valid),
                given["first"].eq(1),
                given["last"].eq(1),
            ]
        row_wait = self._operand - 1 - reducer.read_registers - ahead
        picked, total, level = (delay(m, value, row_wait, "row") for value in (rows.companion, rows.sum, rows.window_level))
        words_ = [Value.cast(getattr(ports, port).data[0]) for port in (*FLOAT_READS, INTEGER_READS[0])]
        first, second, integer = words_
        m.d.comb += [
            unit.op.eq(control.opcode),
            unit.a.eq(Mux(ends, Cat(Const(0, 16), picked), Mux(control.is_("F_FROM_INT"), integer, first))),
            unit.b.eq(Mux(ends, total, second)),
            unit.immediate.eq(control.held["value"]),
            unit.random.eq(self._random()),
            unit.level.eq(level),
        ]
        self._results(unit, short, rows, integer)

    def _random(self) -> Value:
        """32 bits of the position that an entry stands for."""
        m, held = self._m, self._control.held
        _, now = self._control.at(1)
        p = Pipeline(m, DRAW_PLACES, self._operand - 1, "draw")
        position = added(m, (held["position"] + now.column)[:_WORD], held["seed"][:_WORD])
        token = added(m, Const(NO_TOKEN // TOKENS_PER_COUNTER, _WORD), held["step"][:_WORD])
        position, token = p.cut(position, token)
        groups = key_groups(m, held["seed"][:_WORD], held["step"][:_WORD])
        pairs, _ = rounds(p, groups, [(added(m, position, token), token)])
        return drawn(pairs[0], NO_TOKEN % TOKENS_PER_COUNTER)

    def _results(self, unit: scalar.ScalarUnit, short: int, rows: Any, integer: Value) -> None:
        m, control, words = self._m, self._control, self._words
        always = Const(1, 1)
        words.write(FLOAT_WRITES[0], Cost.SCALAR, short + 1, control.is_(*_float_results(control)), unit.result)
        last = control.latency[Cost.SCALAR_FUNCTION] - 1
        words.write(FLOAT_WRITES[0], Cost.SCALAR_FUNCTION, last, always, unit.function_result)
        bit = Const(1, _WORD) << control.held["bit"][:5]
        old = delay(m, integer, short, "old_word")
        changed = Mux(control.is_("I_SET_BIT_GT"), old | Mux(unit.result[0], bit[:_WORD], 0), unit.result)
        words.write(INTEGER_WRITE, Cost.SCALAR, short + 1, control.is_("F_LT", "I_SET_BIT_GT"), changed)
        candidate = delay(m, rows.candidate, last - self._operand, "candidate")
        words.write(INTEGER_WRITE, Cost.SCALAR_FUNCTION, last, control.is_("V_SAMPLE_END"), candidate)

    def _masks(self) -> None:
        m, control, ports = self._m, self._control, self._ports
        vector = control.machine.vector
        field = places(BY_NAME["V_THRESHOLD_MASK"])["count"]
        longest = min(control.machine.sram.integer_words, (1 << (field.stop - field.start)) - 1)
        m.submodules.masks = masks = MaskUnit(vector.sorter, longest)
        valid, now = control.at(1)
        kind = Mux(control.is_("V_BARS_MASK"), Mask.BARS, Mux(control.is_("V_THRESHOLD_MASK"), Mask.THRESHOLD, Mask.TOPK))
        m.d.comb += [
            masks.valid.eq(valid & control.of(Cost.TOPK) & (now.row == 0)),
            masks.first.eq(now.first),
            masks.last.eq(now.last_of_row),
            masks.score.eq(ports.float_first.data[0]),
            masks.bar.eq(ports.float_second.data[0]),
            masks.eligible.eq(ports.integer_first.data[0] != 0),
            masks.kind.eq(kind),
            masks.k.eq(saturated(control.held["k"].as_signed(), _WORD)),
            masks.value.eq(control.held["value"]),
        ]
        last = control.latency[Cost.TOPK] - 1
        _, then = control.at(last)
        bit = delay(m, masks.mask, last - 1 - MASK_REGISTERS, "mask")
        self._words.write(INTEGER_WRITE, Cost.TOPK, last, then.row == 1, bit)


def _float_results(control: Control) -> list[str]:
    """The instructions of the scalar class that leave an FP32 word."""
    return [name for name in control.names if BY_NAME[name].cost is Cost.SCALAR and name not in ("F_LT", "I_SET_BIT_GT")]
