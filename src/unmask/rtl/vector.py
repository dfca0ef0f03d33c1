"""The vector engine: one instruction at a time, a step of it per cycle, through the lanes, the trees, and the units of single words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.isa.routing import ROUTING
from unmask.isa.row import Cost, Engine
from unmask.isa.table import BY_NAME, INSTRUCTIONS
from unmask.machine.config import Machine
from unmask.numerics import bf16
from unmask.rtl import lane as lanes
from unmask.rtl.bf16 import round_fp32
from unmask.rtl.columns import Columns
from unmask.rtl.control import COLUMNS, Control
from unmask.rtl.decode import dispatch_layout
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.functions import WEIGHT_PLACES, weight, weight_level
from unmask.rtl.integer import IntegerUnit
from unmask.rtl.loads import loads
from unmask.rtl.pipeline import Pipeline, delay
from unmask.rtl.reducer import Reducer
from unmask.rtl.scalars import Scalars
from unmask.rtl.scaled_noise import ScaledNoise
from unmask.rtl.sram import SramRead, SramWrite
from unmask.rtl.word_ports import FLOAT_READS, FLOAT_WRITES, INTEGER_READS, INTEGER_WRITE, WordPorts

RUNS = frozenset(row.name for row in INSTRUCTIONS if row.engine is Engine.VECTOR) - {row.name for row in ROUTING}
"""The instructions that the engine can be built for."""
_MINUS_INFINITY = bf16.SIGN_BIT | bf16.INFINITY_BITS


def lead(latency: int, most: int) -> int:
    """Cycles by which the word of a row is read before the row, to make of it what the lanes need, where the latency has room for them."""
    return min(most, max(0, latency - 4) // 2)


class VectorEngine(wiring.Component):
    """The vector engine of a machine.

    An instruction that starts in cycle s issues its steps from s + 1 on and writes the last result in the cycle before its end, as many
    cycles later as its cost class has latency.

    Ports:
        start, entry: an instruction starts in this cycle; only while `ready`.
        retire, retired: strobe in the last cycle before its end, and the instruction.
        fault: of the instruction `retired`, until `stop`. stop: forget it.
        a, b, dst: of the vector SRAM; float_*, integer_*: of the others.
    """

    def __init__(self, machine: Machine, names: Iterable[str], pc_bits: int) -> None:
        """Build what some instructions need.

        Raises:
            UnmaskError: an instruction that it cannot run.
        """
        self.machine, self.names = machine, frozenset(names)
        for name in sorted(self.names - RUNS):
            raise UnmaskError(f"instruction {name}: the vector engine cannot run it; expected some of {', '.join(sorted(RUNS))}")
        vector, sram = machine.vector, machine.sram
        layout = dispatch_layout(self.names, pc_bits)
        elements = ceil_log2(machine.vector_elements // vector.granule)
        floats, integers = ceil_log2(sram.float_words), ceil_log2(sram.integer_words)
        super().__init__(
            {
                "start": In(1),
                "entry": In(layout),
                "ready": Out(1),
                "retire": Out(1),
                "retired": Out(layout),
                "fault": Out(FAULT_BITS),
                "stop": In(1),
                "a": Out(SramRead(elements, 16, vector.vlen)),
                "b": Out(SramRead(elements, 16, vector.vlen)),
                "dst": Out(SramWrite(elements, 16, vector.vlen)),
                **dict.fromkeys(FLOAT_READS, Out(SramRead(floats, 32, 1))),
                **dict.fromkeys(FLOAT_WRITES, Out(SramWrite(floats, 32, 1))),
                **dict.fromkeys(INTEGER_READS, Out(SramRead(integers, 32, vector.integer_lanes))),
                INTEGER_WRITE: Out(SramWrite(integers, 32, vector.integer_lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        begin, busy, sync, ends = Signal(), Signal(), Signal(), Signal()
        held = Signal.like(self.entry, name="instruction")
        self._control = control = Control(m, self.machine, self.names, self.entry, begin, self.stop)
        self._words = words = WordPorts(m, control, self)
        m.d.comb += [
            ends.eq(control.ends() & ~self.stop & (self.fault == Fault.NONE)),
            sync.eq(self.entry.word.opcode == BY_NAME["SYNC"].opcode),
            begin.eq(self.start & ~sync),
            self.ready.eq(~busy),
            self.retire.eq((self.start & sync) | ends),
            self.retired.eq(Mux(busy, held.as_value(), self.entry.as_value())),
        ]
        with m.If(begin):
            m.d.sync += [held.eq(self.entry), busy.eq(1)]
        with m.Elif(ends | self.stop):
            m.d.sync += busy.eq(0)
        with m.If(self.stop):
            m.d.sync += self.fault.eq(Fault.NONE)
        with m.Elif(self.fault == Fault.NONE):
            m.d.sync += self.fault.eq(control.faults(words.outside))

        latency = control.latency
        reduces = lead(latency[Cost.REDUCE], WEIGHT_PLACES)
        leads = {Cost.LANES: lead(latency[Cost.LANES], 1), Cost.FUNCTION: lead(latency[Cost.FUNCTION], WEIGHT_PLACES), Cost.REDUCE: reduces}
        # Noise needs no operand, so its generators start first, and the operand is read when they are done.
        generating = latency[Cost.NOISE] - 2 - self._short(leads)
        if generating < 0:
            least = latency[Cost.NOISE] - generating
            raise UnmaskError(f"machine {self.machine.name}: noise latency {latency[Cost.NOISE]}: expected at least {least} for hardware")
        leads |= dict.fromkeys((Cost.NOISE, Cost.SAMPLE), generating)
        self._tile_reads(m, leads)
        lanes_ = self._lanes(m, leads, self._noise(m, generating))
        self._tile_writes(m, lanes_)
        if COLUMNS in self.names:
            Columns(m, control, self)
        reducer = Reducer(m, control, words, self, lanes_, leads)
        with m.If(control.is_("V_RED_SUM_GE")):
            m.d.comb += self.b.address.eq(self._granule(control.at(reducer.compared)[1].b))
        Scalars(m, control, words, self, reducer)
        self._integers(m)
        return m

    def _granule(self, address: Value) -> Value:
        return address >> ceil_log2(self.machine.vector.granule)

    def _tile_reads(self, m: Module, leads: dict[Cost, int]) -> None:
        for name in ("a", "b"):
            port = getattr(self, name)
            m.d.comb += port.enable.eq(1)
            for cost, later in leads.items():
                _, now = self._control.at(later)
                with m.If(self._control.of(cost)):
                    m.d.comb += port.address.eq(self._granule(now[name]))

    def _short(self, leads: dict[Cost, int]) -> int:
        """Cycles through a lane's adder."""
        return self._control.latency[Cost.LANES] - 2 - leads[Cost.LANES]

    def _lanes(self, m: Module, leads: dict[Cost, int], noise: list[Value]) -> list[lanes.Lane]:
        """The lanes, fed; noise: what is added to logits, as late as they are read."""
        control = self._control
        function = control.latency[Cost.FUNCTION] - 2 - leads[Cost.FUNCTION]
        operations = [name for name in lanes.OPERATIONS if name in self.names]
        scalar = delay(m, round_fp32(m, self.float_first.data[0]), leads[Cost.LANES], "row_scalar")
        constant = control.held.get("value", Const(0, 16))
        factor, by_row = Signal(16), control.is_("V_SUB_F", "V_MUL_F")
        m.d.comb += factor.eq(Mux(by_row, scalar, constant))
        own, noisy = control.is_("V_ADD", "V_SUB", "V_MUL"), control.of(Cost.NOISE, Cost.SAMPLE)
        # Lanes stand still while none of their results is used.
        computes = control.of(Cost.LANES, Cost.FUNCTION, Cost.NOISE, Cost.SAMPLE).replicate(16)
        built = [lanes.Lane(self._short(leads), function, operations) for _ in range(self.machine.vector.vlen)]
        key = delay(m, lanes.key_of(self.integer_first.data[0]), leads[Cost.LANES] + built[0].key_later, "row_key")
        short_loads, function_loads = self._lane_loads(m, leads, built[0].weight, function)
        level = delay(m, self._level(m, leads[Cost.FUNCTION], "lanes"), built[0].level_later, "lanes_level")
        for index, lane in enumerate(built):
            m.submodules[f"lane_{index}"] = lane
            m.d.comb += [
                lane.op.eq(Cat(control.is_(name) for name in lanes.OPERATIONS)),
                lane.a.eq(self.a.data[index] & computes),
                lane.b.eq(Mux(noisy, noise[index], Mux(own, self.b.data[index], factor))),
                lane.key.eq(key),
                lane.level.eq(level),
                lane.short_loads.eq(short_loads),
                lane.function_loads.eq(function_loads),
            ]
        return built

    def _lane_loads(self, m: Module, leads: dict[Cost, int], weight: int, function: int) -> tuple[Value, Value]:
        """Which registers of a lane load, on its short road and on that of the functions, whose first `weight` ones V_SAMPLE uses too."""
        control = self._control

        def users(costs: tuple[Cost, ...], ahead: int = 0) -> list[tuple[Value, int]]:
            return [(control.of(cost), leads[cost] + 1 + ahead) for cost in costs]

        short = loads(m, control, self._short(leads), users((Cost.LANES, Cost.NOISE, Cost.SAMPLE)), "short")
        first = loads(m, control, weight, users((Cost.FUNCTION, Cost.SAMPLE)), "weight")
        rest = loads(m, control, function - weight, users((Cost.FUNCTION,), weight), "function")
        return short, Cat(first, rest)

    def _level(self, m: Module, cycles: int, user: str) -> Value:
        """The window's level of a row, of the maximum that is read in the cycle before, so many cycles after."""
        p = Pipeline(m, WEIGHT_PLACES, cycles, f"{user}_level")
        return weight_level(m, weight(p, self.float_first.data[0][16:]))

    def _noise(self, m: Module, registers: int) -> list[Value]:
        """Temperature x noise of the lanes, so many cycles after their position and token."""
        m.submodules.scaled_noise = noise = ScaledNoise(self.machine.vector.vlen, registers)
        control = self._control
        valid, now = control.at(0)
        phase = Signal.like(now.row)
        with m.If(self.start):
            m.d.sync += phase.eq(0)
        with m.Elif(valid & now.last_of_row):
            again = control.is_("V_SAMPLE") & (phase + 1 == control.held["period"])
            m.d.sync += phase.eq(Mux(again, 0, phase + 1))
        held = control.held
        # Generators stand still while no noise is used.
        noisy = control.of(Cost.NOISE, Cost.SAMPLE) & held["temperature"][:15].any()
        with m.If(noisy & valid):
            m.d.sync += [noise.position.eq(held["position"] + phase), noise.token.eq(held["token"] + now.column)]
        m.d.comb += [noise.seed.eq(held["seed"]), noise.step.eq(held["step"]), noise.temperature.eq(held["temperature"])]
        m.d.comb += noise.loads.eq(loads(m, control, registers, [(noisy, 1)], "noise"))
        return [Value.cast(noise.scaled[index]) for index in range(self.machine.vector.vlen)]

    def _tile_writes(self, m: Module, built: list[lanes.Lane]) -> None:
        control, vector = self._control, self.machine.vector
        m.d.comb += Cat(self.dst.data).eq(Cat(lane.result for lane in built))
        with m.If(control.of(Cost.FUNCTION)):
            m.d.comb += Cat(self.dst.data).eq(Cat(lane.function_result for lane in built))
        for cost in (Cost.LANES, Cost.FUNCTION, Cost.NOISE):
            valid, now = control.at(control.latency[cost] - 1)
            writes = control.of(cost)
            with m.If(writes):
                m.d.comb += [
                    self.dst.address.eq(self._granule(now.dst)),
                    self.dst.mask.eq(Mux(valid, (Const(1, vector.vlen + 1) << now.count) - 1, 0)),
                ]
        # V_DROP: a word names the column of a row that becomes minus infinity.
        base, columns = control.held["base"], control.held["cols"]
        column = Signal(len(base) + 1)
        rest = control.latency[Cost.ROWS] - 2
        read = min(1, rest // 2)
        rest -= read
        _, first = control.at(1 + read)
        word = delay(m, self.integer_first.data[0], read, "dropped_word")
        m.d.comb += column.eq(word.as_signed() - base.as_signed())
        inside = delay(m, (column < columns) & ~column[-1], rest, "dropped")
        element = delay(m, first.dst + column[: len(columns)], rest, "dropped_element")
        valid, _ = control.at(control.latency[Cost.ROWS] - 1)
        bits = ceil_log2(vector.granule)
        with m.If(control.of(Cost.ROWS)):
            m.d.comb += [
                self.dst.address.eq(self._granule(element)),
                self.dst.mask.eq(Mux(valid & inside, Const(1, vector.granule) << element[:bits], 0)),
                Cat(self.dst.data).eq(Cat(Const(_MINUS_INFINITY, 16) for _ in range(vector.vlen))),
            ]

    def _integers(self, m: Module) -> None:
        control, lanes_ = self._control, self.machine.vector.integer_lanes
        latency = control.latency[Cost.INTEGER]
        m.submodules.integer = unit = IntegerUnit(lanes_, latency - 2)
        m.d.comb += [
            unit.opcode.eq(control.opcode),
            unit.value.eq(control.held["value"]),
            unit.first.eq(self.integer_first.data),
            unit.second.eq(self.integer_second.data),
            unit.third.eq(self.integer_third.data),
        ]
        self._words.write(INTEGER_WRITE, Cost.INTEGER, latency - 1, Const(1, 1), unit.result.as_value())
