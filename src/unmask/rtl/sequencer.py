"""The sequencer: fetches, runs loops and register arithmetic, and hands every other instruction to its engine's queue, one a cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.isa.row import REGISTER_COUNT, Engine
from unmask.isa.table import BY_NAME, INSTRUCTIONS
from unmask.machine.sequencer import REGISTER_BITS
from unmask.rtl.decode import HEADER, SEMAPHORE_NAME_BITS, WORD_BITS, dispatch_layout, places, register_operands
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.products import carry_save, reaches, recoded_product
from unmask.rtl.semaphores import COUNT_BITS

OWN = tuple(row.name for row in INSTRUCTIONS if row.engine is Engine.SEQUENCER)
_NUMBER_BITS = (REGISTER_COUNT - 1).bit_length()


def _field(word: Any, name: str, operand: str) -> Value:
    """An operand of instruction `name` in an instruction word."""
    return word.operands[places(BY_NAME[name])[operand]]


class Sequencer(wiring.Component):
    """One instruction a cycle, from an instruction memory of its own.

    Ports, per engine E:
        E_push, E_item, E_room: its queue.

    Other ports:
        start, entry: begin at this word; only while not `running`. The first instruction is executed in the next cycle.
        running: between start and HALT, or a fault.
        stop: an engine has failed: do nothing more.
        fault, fault_pc: strobe with `Fault`, or 0, and the instruction it belongs to.
        program_address, program_word, program_write: the instruction memory, to be written while not running.
        integer_address, integer_data: a read port of the integer SRAM, data one cycle later.
        reserve, own, set: to the semaphores; see `Semaphores`. `word` names the semaphores meant.
        ready, underflow, overflow, set_fault: their answer.
        take_own: strobe: one of its own instructions takes and gives its semaphores.
        start_own: and is executed in this cycle, and ends with it: unless it is a fault.
        pc: of the instruction in `word`.
        register_write, register_number, register_value: what a register instruction leaves, a cycle after it.

    An instruction that is a fault may still reach a queue and the semaphores in the cycle of its fault: that is known too late in it to
    keep it away. Nothing starts after that cycle, and the next start clears both.
    """

    def __init__(self, engines: Mapping[Engine, frozenset[str]], program_words: int, loop_depth: int, integer_words: int) -> None:
        """Build for some engines.

        Args:
            engines: the instructions of each engine that there is, SYNC excepted.
            program_words: instructions that fit the instruction memory.
            loop_depth: nested loops.
            integer_words: size of the integer SRAM.
        """
        self.engines = dict(engines)
        self._program_words, self._loop_depth, self._integer_words = program_words, loop_depth, integer_words
        self.pc_bits = max(1, (program_words - 1).bit_length())
        names = [name for group in self.engines.values() for name in sorted(group)]
        self.layouts = {engine: dispatch_layout(group, self.pc_bits) for engine, group in self.engines.items()}
        self._slots = max((len(register_operands(BY_NAME[name])) for name in (*names, *OWN)), default=0)
        self._instructions = [BY_NAME[name] for name in (*OWN, *names)]
        ports: dict[str, Any] = {
            "start": In(1),
            "entry": In(self.pc_bits),
            "running": Out(1),
            "stop": In(1),
            "fault": Out(FAULT_BITS),
            "fault_pc": Out(self.pc_bits),
            "program_address": In(self.pc_bits),
            "program_word": In(WORD_BITS),
            "program_write": In(1),
            "integer_address": Out(range(integer_words)),
            "integer_data": In(32),
            "word": Out(HEADER),
            "reserve": Out(1),
            "set": Out(1),
            "set_name": Out(SEMAPHORE_NAME_BITS),
            "set_value": Out(COUNT_BITS),
            "ready": In(1),
            "underflow": In(1),
            "overflow": In(1),
            "set_fault": In(1),
            "take_own": Out(1),
            "start_own": Out(1),
            "pc": Out(self.pc_bits),
            "register_write": Out(1),
            "register_number": Out(_NUMBER_BITS),
            "register_value": Out(signed(REGISTER_BITS)),
        }
        for engine, layout in self.layouts.items():
            name = engine.name.lower()
            ports |= {f"{name}_push": Out(1), f"{name}_item": Out(layout), f"{name}_room": In(1)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.program = program = Memory(shape=WORD_BITS, depth=self._program_words, init=[])
        write, fetch = program.write_port(), program.read_port()
        next_pc = Signal(self.pc_bits)
        m.d.comb += [
            write.addr.eq(self.program_address),
            write.data.eq(self.program_word),
            write.en.eq(self.program_write),
            fetch.addr.eq(Mux(self.running, next_pc, self.entry)),
            self.word.eq(fetch.data),
        ]
        opcode = self.word.opcode

        def is_(name: str) -> Value:
            return opcode == BY_NAME[name].opcode

        executes = Signal()
        values, parts = self._registers(m)
        to, known, room = self._route(m, opcode)
        own, reached, passes, advance, wrong = Signal(), Signal(), Signal(), Signal(), Signal(FAULT_BITS)
        bad_loop, past_end, outside = Signal(), Signal(), Signal()
        m.d.comb += [
            own.eq(to == 0),
            reached.eq(self.running & ~self.stop & known & ~(bad_loop | past_end)),
            executes.eq(reached & own & self.ready),
            self.take_own.eq(executes),
            passes.eq(reached & ~own & room),
            advance.eq(executes | passes),
            self.reserve.eq(advance),
            self.start_own.eq(executes & ~(self.underflow | self.overflow | outside | (self.set & self.set_fault))),
            self.set.eq(executes & is_("SEM_SET")),
            self.set_name.eq(_field(self.word, "SEM_SET", "semaphore")),
            self.set_value.eq(_field(self.word, "SEM_SET", "value")),
        ]
        for engine, layout in self.layouts.items():
            name = engine.name.lower()
            item = getattr(self, f"{name}_item")
            m.d.comb += [getattr(self, f"{name}_push").eq(passes & (to == engine)), item.pc.eq(self.pc), item.word.eq(self.word)]
            m.d.comb += [item.registers[index].eq(values[index]) for index in range(layout["registers"].shape.length)]
        no_loop, no_next = self._flow(m, is_, advance, executes, next_pc)
        m.d.comb += [
            bad_loop.eq(no_loop),
            past_end.eq(no_next),
            outside.eq(is_("S_LD") & reaches(m, *parts[1], self._integer_words)),
        ]
        for condition, code in (
            (self.set & self.set_fault, Fault.RESET),
            (past_end, Fault.PROGRAM),
            (outside, Fault.ADDRESS),
            (bad_loop, Fault.LOOP),
            (self.overflow, Fault.OVERFLOW),
            (self.underflow, Fault.UNDERFLOW),
            (~known, Fault.OPCODE),
        ):
            with m.If(condition):
                m.d.comb += wrong.eq(code)
        with m.If(self.running & ~self.stop):
            m.d.comb += self.fault.eq(wrong)
        m.d.comb += self.fault_pc.eq(self.pc)
        with m.If(self.running & (self.stop | (self.fault != Fault.NONE) | (executes & is_("HALT")))):
            m.d.sync += self.running.eq(0)
        with m.If(self.start & ~self.running):
            m.d.sync += [self.running.eq(1), self.pc.eq(self.entry)]
        return m

    def _route(self, m: Module, opcode: Value) -> tuple[Signal, Signal, Signal]:
        """The engine of an instruction (0 for the sequencer), whether there is such an instruction, and room in the engine's queue."""
        to, known, room = Signal(Engine), Signal(), Signal()
        sync_engine = _field(self.word, "SYNC", "engine")
        with m.Switch(opcode):
            for name in OWN:
                if name != "SYNC":
                    with m.Case(BY_NAME[name].opcode):
                        m.d.comb += known.eq(1)
            with m.Case(BY_NAME["SYNC"].opcode), m.Switch(sync_engine):
                for engine in (Engine.SEQUENCER, *self.engines):
                    with m.Case(engine):
                        m.d.comb += [known.eq(1), to.eq(engine)]
            for engine, names in self.engines.items():
                with m.Case(*(BY_NAME[name].opcode for name in sorted(names))):
                    m.d.comb += [known.eq(1), to.eq(engine)]
        with m.Switch(to):
            for engine in self.engines:
                with m.Case(engine):
                    m.d.comb += room.eq(getattr(self, f"{engine.name.lower()}_room"))
        return to, known, room

    def _registers(self, m: Module) -> tuple[list[Signal], list[tuple[Signal, Signal]]]:
        """The register file; the values of the word's register operands, and pairs that add up to them.

        What the instruction just before it leaves is two words, whose sum is this cycle's work: the register's value, and that of an
        operand. Sums, products and comparisons take the words.
        """
        registers = [Signal(signed(REGISTER_BITS), name=f"register_{index}") for index in range(REGISTER_COUNT)]
        loaded = Signal()
        words = [Signal(REGISTER_BITS, name=f"word_{index}", reset_less=True) for index in range(2)]
        values: list[Signal] = []
        parts: list[tuple[Signal, Signal]] = []
        for slot in range(self._slots):
            number, value = Signal(_NUMBER_BITS, name=f"number_{slot}"), Signal(signed(REGISTER_BITS), name=f"value_{slot}")
            by_place: dict[int, list[int]] = {}
            for row in self._instructions:
                operands = register_operands(row)
                if slot < len(operands):
                    by_place.setdefault(places(row)[operands[slot]].start, []).append(row.opcode)
            usual = max(by_place, key=lambda place: len(by_place[place]))
            m.d.comb += number.eq(self.word.operands[usual : usual + _NUMBER_BITS])
            with m.Switch(self.word.opcode):
                for place, opcodes in by_place.items():
                    if place != usual:
                        with m.Case(*opcodes):
                            m.d.comb += number.eq(self.word.operands[place : place + _NUMBER_BITS])
            kept, arrives = Array(registers)[number], Signal(name=f"arrives_{slot}")
            m.d.comb += [
                arrives.eq(self.register_write & (self.register_number == number)),
                value.eq(Mux(arrives, self.register_value, kept)),
            ]
            values.append(value)
            first, second = Signal(REGISTER_BITS, name=f"first_{slot}"), Signal(REGISTER_BITS, name=f"second_{slot}")
            m.d.comb += [
                first.eq(Mux(arrives, Mux(loaded, self.integer_data.as_signed(), words[0].as_signed()), kept)),
                second.eq(words[1] & arrives.replicate(REGISTER_BITS)),
            ]
            parts.append((first, second))
        m.d.sync += [
            self.register_write.eq(self.start_own & self._arithmetic(m, values, parts, words)),
            self.register_number.eq(self.word.operands[:_NUMBER_BITS]),
            loaded.eq(self.word.opcode == BY_NAME["S_LD"].opcode),
        ]
        m.d.comb += [
            self.integer_address.eq(values[1]),
            self.register_value.eq(Mux(loaded, self.integer_data.as_signed(), (words[0] + words[1])[:REGISTER_BITS].as_signed())),
        ]
        for index, register in enumerate(registers):
            with m.If(self.register_write & (self.register_number == index)):
                m.d.sync += register.eq(self.register_value)
            with m.If(self.start & ~self.running):
                m.d.sync += register.eq(0)
        return values, parts

    def _arithmetic(self, m: Module, values: list[Signal], parts: list[tuple[Signal, Signal]], words: list[Signal]) -> Signal:
        """Give `words` what a register instruction leaves in rd, and say whether the instruction is one.

        rs and rt are the second and the third register operand: `values`, or `parts` where the sum of these is wanted no earlier.
        """
        first, second, writes = parts[1], parts[2], Signal()

        def constant(name: str) -> Value:
            return _field(self.word, name, "value")

        none = Const(0, REGISTER_BITS)
        results = {
            "S_LI": (constant("S_LI"), none),
            "S_ADDI": carry_save(m, [*first, constant("S_ADDI")], REGISTER_BITS),
            "S_ADD": carry_save(m, [*first, *second], REGISTER_BITS),
            "S_XORI": (values[1] ^ constant("S_XORI"), none),
            "S_MULI": recoded_product(m, first, constant("S_MULI").as_signed(), REGISTER_BITS),
            "S_LD": (none, none),
        }
        with m.Switch(self.word.opcode):
            for name, result in results.items():
                with m.Case(BY_NAME[name].opcode):
                    m.d.comb += writes.eq(1)
                    m.d.sync += [word.eq(part) for word, part in zip(words, result, strict=True)]
        return writes

    def _flow(self, m: Module, is_: Any, advance: Signal, executes: Signal, next_pc: Signal) -> tuple[Value, Value]:
        """The program counter and the loop stack; faults: no loop to open or close, no next instruction."""
        count_bits = BY_NAME["LOOP"].fields[0].bits
        starts = Array(Signal(self.pc_bits, name=f"loop_start_{index}") for index in range(self._loop_depth))
        left = Array(Signal(count_bits, name=f"loop_left_{index}") for index in range(self._loop_depth))
        level = Signal(range(self._loop_depth + 1))
        inner = Signal(range(self._loop_depth))
        again = Signal()
        m.d.comb += [
            inner.eq(level - 1),
            again.eq(is_("END") & (left[inner] != 1)),
            next_pc.eq(Mux(advance, Mux(again, starts[inner], self.pc + 1), self.pc)),
        ]
        with m.If(self.running):
            m.d.sync += self.pc.eq(next_pc)
        with m.If(executes & is_("LOOP")):
            m.d.sync += [starts[level].eq(self.pc + 1), left[level].eq(_field(self.word, "LOOP", "count")), level.eq(level + 1)]
        with m.If(executes & is_("END")):
            m.d.sync += left[inner].eq(left[inner] - 1)
            with m.If(~again):
                m.d.sync += level.eq(level - 1)
        with m.If(self.start & ~self.running):
            m.d.sync += level.eq(0)
        bad = (is_("LOOP") & (level == self._loop_depth)) | (is_("END") & (level == 0))
        past = (self.pc == self._program_words - 1) & ~is_("HALT") & ~again
        return bad, past
