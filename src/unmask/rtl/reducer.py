"""From vectors to rows: the trees and the row accumulators, timed for every instruction that uses them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.isa.row import Cost
from unmask.numerics import bf16
from unmask.numerics.window import BIN_BITS
from unmask.rtl.bf16 import ordered
from unmask.rtl.bits import wire
from unmask.rtl.control import COLUMNS, Control
from unmask.rtl.functions import WEIGHT_PLACES, weight, weight_level
from unmask.rtl.lane import Lane, key_of
from unmask.rtl.loads import loads
from unmask.rtl.pipeline import Pipeline, delay
from unmask.rtl.reduce import MaxTree
from unmask.rtl.sampler_rows import ROW_PLACES, RowOp, RowState
from unmask.rtl.window import Sum, WindowTree
from unmask.rtl.word_ports import FLOAT_WRITES, INTEGER_WRITE, WordPorts

_WORD = 32
MET_PLACES = 1
"""Between the trees and the rows, where what comes from either is chosen."""
_ABOVE = "V_RED_SUM_GE"


class Reducer:
    """Reductions and the sampler, built into the vector engine's module.

    A reduction's vectors reach the trees when they are read. The sampler's reach them twice: the scores when the noise is in them, the
    weights of the logits as soon as they are known. Both are in the rows at the same time: whichever is early waits behind its tree.

    Attributes:
        rows: the row accumulators, of which `Scalars` reads what the sampler left.
        given: their inputs, by name, before the register that all of them pass.
        compared: cycles from a step to the addresses of what V_RED_SUM_GE compares, and of the row's key.
        read_registers: cycles from a row's number, one after `RowState.row_ahead`, to what was read.
    """

    def __init__(self, m: Module, control: Control, words: WordPorts, ports: Any, lanes: list[Lane], leads: dict[Cost, int]) -> None:
        """Build trees and rows, and write their results.

        Args:
            ports: the engine: has the ports of the memories.
            lanes: have the noisy logits and the weights.
            leads: cycles from a step to the address of its operands, by cost class.

        Raises:
            UnmaskError: the weights are later than the rows can wait.
        """
        self._m, self._control, self._words, self._ports = m, control, words, ports
        vlen, latency = control.machine.vector.vlen, control.latency
        noise, reduce = latency[Cost.NOISE], latency[Cost.REDUCE]
        self.given: dict[str, Any] = {}
        self._operand = {cost: leads[cost] + 1 for cost in (Cost.REDUCE, Cost.SAMPLE)}
        # Elements are compared with a row's key in a cycle of their own, where there is one.
        self.compared = leads[Cost.REDUCE] - min(1, leads[Cost.REDUCE])
        budget = reduce - 1 - self._operand[Cost.REDUCE]
        places = max(MaxTree.places(vlen), WindowTree.places(vlen))
        # Between the trees and the rows a register waits for everything that a row is given.
        met = min(1, budget // (places + MET_PLACES + ROW_PLACES))
        kept = budget * ROW_PLACES // (places + MET_PLACES + ROW_PLACES)
        tree = budget - kept - met
        self.read_registers = met + kept

        # The score comes `adding` cycles after the logit. Its weight may take a few more, as far as the sampler's latency allows.
        self._score = noise - 1
        adding, weighing = self._score - self._operand[Cost.SAMPLE], lanes[0].weight
        if weighing > adding + self._operand[Cost.REDUCE]:
            name, most = control.machine.name, adding + self._operand[Cost.REDUCE]
            raise UnmaskError(f"machine {name}: weights of logits take {weighing} cycles: expected at most {most}; lower function_latency")
        late, early = max(0, weighing - adding), max(0, adding - weighing)
        self._row = {Cost.REDUCE: self._operand[Cost.REDUCE] + tree, Cost.SAMPLE: self._score + tree + late}

        self.rows = rows = RowState(control.machine.vector.accumulators, BIN_BITS + ceil_log2(vlen), kept)
        m.submodules.row_state = rows
        for name, member in rows.signature.members.items():
            if member.flow is In:
                self.given[name] = given = Signal(member.shape, name=f"row_given_{name}")
                m.d.comb += getattr(rows, name).eq(delay(m, given, met, f"met_{name}"))
        m.submodules.max_tree = maxima = MaxTree(vlen, tree)
        m.submodules.window_tree = sums = WindowTree(vlen, tree)
        self._samples = control.of(Cost.SAMPLE)
        self._maxima(maxima, lanes, adding)
        self._sums(sums, lanes, weighing)
        operand = self._operand
        largest, summed = control.is_("V_RED_MAX", "V_RED_MAX_IDX"), control.is_("V_RED_SUM", "V_RED_SUM_WIN", _ABOVE)
        weighed = operand[Cost.SAMPLE] + weighing
        m.d.comb += [
            maxima.loads.eq(loads(m, control, tree, [(largest, operand[Cost.REDUCE]), (self._samples, self._score)], "maxima")),
            sums.loads.eq(loads(m, control, tree, [(summed, operand[Cost.REDUCE]), (self._samples, weighed)], "sums")),
        ]
        found = delay(m, Cat(maxima.score, maxima.companion, maxima.lane), late, "found")
        apart = Cat(maxima.score, maxima.companion, maxima.lane)
        winner = Mux(self._samples, found, apart)
        total = Cat(sums.level, sums.upper, sums.lower, sums.invalid)
        waited = Mux(self._samples, delay(m, total, early, "total"), total)
        self._rows(winner, waited, tree)
        self._results(reduce - 1)

    def _mask(self, cycles: int) -> Value:
        valid, now = self._control.at(cycles)
        vlen = self._control.machine.vector.vlen
        return Mux(valid, ((Const(1, vlen + 1) << now.count) - 1)[:vlen], 0)

    def _maxima(self, tree: MaxTree, lanes: list[Lane], adding: int) -> None:
        m, ports, control = self._m, self._ports, self._control
        mask = Mux(self._samples, self._mask(self._score), self._mask(self._operand[Cost.REDUCE]))
        m.d.comb += tree.mask.eq(mask)
        waits = loads(m, control, adding, [(self._samples, self._operand[Cost.SAMPLE])], "logits")
        for lane in range(len(tree.mask)):
            logit = Value.cast(ports.a.data[lane])
            beside = Value.cast(ports.b.data[lane])
            m.d.comb += [
                tree.scores[lane].eq(Mux(self._samples, lanes[lane].result, logit)),
                tree.companions[lane].eq(Mux(self._samples, delay(m, logit, adding, f"logit_{lane}", waits), beside)),
            ]

    def _sums(self, tree: WindowTree, lanes: list[Lane], weighing: int) -> None:
        m, ports, control = self._m, self._ports, self._control
        at = self._operand
        mask = Mux(self._samples, self._mask(at[Cost.SAMPLE] + weighing), self._mask(at[Cost.REDUCE]) & self._above())
        kind = Mux(self._samples, Sum.WINDOW, Mux(control.is_("V_RED_SUM_WIN"), Sum.SCALED, Sum.FIXED))
        m.d.comb += [tree.mask.eq(mask), tree.kind.eq(kind)]
        for lane in range(len(tree.mask)):
            logit = Value.cast(ports.a.data[lane])
            # Of a sampler's logit the tree needs no more than its weight, and whether it has none.
            weighed = Mux(lanes[lane].invalid, bf16.NAN_BITS, 0)
            m.d.comb += [
                tree.values[lane].eq(Mux(self._samples, weighed, logit)),
                tree.significands[lane].eq(lanes[lane].significand),
                tree.exponents[lane].eq(lanes[lane].exponent),
            ]

    def _above(self) -> Value:
        """The lanes that a sum counts: of V_RED_SUM_GE those whose other operand reaches the row's key."""
        m, ports, control = self._m, self._ports, self._control
        lanes = control.machine.vector.vlen
        if _ABOVE not in control.names:
            return Const((1 << lanes) - 1, lanes)
        bit = (Const(1, _WORD) << control.held["bit"][: (_WORD - 1).bit_length()])[:_WORD]
        key = wire(m, key_of(Value.cast(ports.integer_first.data[0]) | bit))
        above = Cat(ordered(m, Value.cast(ports.b.data[lane])) >= key for lane in range(lanes))
        above = delay(m, above, self._operand[Cost.REDUCE] - 1 - self.compared, "above")
        return above | (~control.is_(_ABOVE)).replicate(lanes)

    def _rows(self, winner: Value, total: Value, tree: int) -> None:
        m, control, ports, rows = self._m, self._control, self._ports, self.given
        held = control.held
        first = held["first"]
        for cost, cycles in self._row.items():
            ahead, now = control.at(cycles - 1)[1], control.at(cycles)[1]
            valid = control.at(cycles)[0]
            base = first if cost is Cost.SAMPLE else Const(0, 1)
            named = held["token"] if cost is Cost.SAMPLE else held["base"]
            with m.If(control.of(cost)):
                m.d.comb += [
                    rows["row_ahead"].eq(base + ahead.row),
                    rows["row"].eq(base + now.row),
                    rows["valid"].eq(valid & ~control.is_(COLUMNS)),
                    rows["first"].eq(now.first),
                    rows["last"].eq(now.last_of_row),
                    rows["index"].eq(named + now.column + winner[_WORD:]),
                ]
        # The level of a row's maximum, which is read as early as the lanes' is.
        p = Pipeline(m, WEIGHT_PLACES, self._operand[Cost.REDUCE] - 1, "sum_level")
        level = delay(m, weight_level(m, weight(p, ports.float_first.data[0][16:])), tree, "row_level")
        scaled = control.is_("V_RED_SUM_WIN")
        op = Signal(RowOp)
        m.d.comb += op.eq(RowOp.FIXED)
        for condition, kind in (
            (self._samples, RowOp.SAMPLE),
            (scaled, RowOp.SCALED),
            (control.is_("V_RED_MAX", "V_RED_MAX_IDX"), RowOp.MAX),
            (control.is_("V_SAMPLE_END"), RowOp.READ),
        ):
            with m.If(condition):
                m.d.comb += op.eq(kind)
        level_bits, counter_bits = len(rows["level"]), len(rows["upper"])
        m.d.comb += [
            rows["op"].eq(op),
            rows["running"].eq(held["running"]),
            rows["prior"].eq(ports.float_first.data[0]),
            rows["score"].eq(winner[:16]),
            rows["picked"].eq(winner[16:_WORD]),
            rows["level"].eq(Mux(scaled, level, total[:level_bits].as_signed())),
            rows["upper"].eq(total[level_bits:]),
            rows["lower"].eq(total[level_bits + counter_bits :]),
            rows["invalid"].eq(total[-1]),
        ]

    @property
    def prior(self) -> int:
        """Cycles from a step to the address of the maximum that was there."""
        return self._row[Cost.REDUCE] - 1

    def _results(self, cycles: int) -> None:
        control, words, rows = self._control, self._words, self.rows
        _, now = control.at(cycles)
        indexed = control.is_("V_RED_MAX_IDX")
        largest = indexed | control.is_("V_RED_MAX")
        ends = now.last_of_row & ~control.is_(COLUMNS)
        found = ends & rows.replaced
        words.write(FLOAT_WRITES[0], Cost.REDUCE, cycles, Mux(indexed, found, ends), Mux(largest, rows.best, rows.sum))
        words.write(FLOAT_WRITES[1], Cost.REDUCE, cycles, indexed & found, Cat(Const(0, 16), rows.companion))
        words.write(INTEGER_WRITE, Cost.REDUCE, cycles, indexed & found, rows.candidate)
