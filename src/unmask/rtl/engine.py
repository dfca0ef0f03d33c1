"""The engine as a whole: sequencer, queues, semaphores, load, store and vector engine, their memories, and the host's registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from unmask.errors import UnmaskError
from unmask.isa.routing import ROUTING
from unmask.isa.row import Engine
from unmask.isa.table import BY_NAME, INSTRUCTIONS
from unmask.machine.config import Machine
from unmask.machine.ports import require_all_ports
from unmask.rtl.bus import ADDRESS_BITS as MEMORY_BITS
from unmask.rtl.bus import ReadBus, WriteBus
from unmask.rtl.decode import SEMAPHORE_NAME_BITS, WAITS
from unmask.rtl.dma_steps import DmaSteps
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.host import ADDRESS_BITS, BUS_BITS, Host
from unmask.rtl.load import Load
from unmask.rtl.matrix.port import matrix_ports
from unmask.rtl.matrix.timing import most_under_way
from unmask.rtl.memories import dma_shape, memories_of
from unmask.rtl.queue import Queue, Step
from unmask.rtl.retire import Retirement
from unmask.rtl.semaphores import Semaphores
from unmask.rtl.sequencer import Sequencer
from unmask.rtl.store import Store
from unmask.rtl.vector import VectorEngine

_TRANSFORMER = frozenset({"L_GATHER", "V_SILU", "V_XEXP", "V_RECIP", "V_POW2", "V_CUT", "V_COL_ABSMAX", "V_RED_SUM_GE", "F_RSQRT"})
_NOT_BUILT = frozenset({"L_MAT", "M_MM", *(row.name for row in ROUTING)})
VECTOR_INSTRUCTIONS = frozenset(row.name for row in INSTRUCTIONS if row.name not in _NOT_BUILT)
"""What can run without a matrix engine."""
MATRIX_INSTRUCTIONS = frozenset({"L_MAT", "M_MM"})
"""What the matrix port adds."""
SAMPLER_INSTRUCTIONS = VECTOR_INSTRUCTIONS - _TRANSFORMER
"""What the sampling engine runs, if nothing else is asked for: not those that only the transformer needs."""

_REGISTER = ("register_write", "register_number", "register_value")


class SamplingEngine(wiring.Component):
    """The sampling engine of a machine.

    Ports:
        host_address, host_write, host_write_data, host_read_data: see `unmask.rtl.host`.
        busy: a program runs.
        read, write: the memory, see `unmask.rtl.bus`.
        memory_bytes: size of the memory; an address beyond is a fault.
        matrix_*: with `matrix_port`, see `unmask.rtl.matrix.port`.
        trace_E_start, trace_E_start_pc, trace_E_retire, trace_E_retire_pc: with `trace`, per engine E, the sequencer too: an instruction
            starts in this cycle; this is the last cycle before an instruction's end.
        trace_E_start_memory, trace_E_start_scales: with `trace`, of load and store, the addresses of its elements and its scales.
        trace_vector_dst_*, trace_vector_load_*: with `trace`, writes to the vector SRAM: address (granules), mask, data; so for the float
            (trace_float_0_*, trace_float_1_*) and the integer SRAM (trace_integer_vector_*, trace_integer_load_*).
        trace_register_*: with `trace`, what register instructions leave, a cycle after them: write, number, value.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        instructions: frozenset[str] = SAMPLER_INSTRUCTIONS,
        matrix_port: bool = False,
        trace: bool = False,
        black_box: bool = False,
    ) -> None:
        """Size it.

        Args:
            machine: with one memory port.
            instructions: what its engines run; nothing is built for the others. The sequencer runs all of its own.
            matrix_port: add the port of a matrix unit, and the instructions `MATRIX_INSTRUCTIONS`.
            trace: add the ports that a test bench looks at.
            black_box: leave the SRAMs to macros.

        Raises:
            UnmaskError: the machine asks for what no hardware of this design has; names the field. An instruction that it cannot run.
        """
        for name in sorted(instructions - VECTOR_INSTRUCTIONS):
            raise UnmaskError(f"instruction {name}: this hardware cannot run it; expected some of {', '.join(sorted(VECTOR_INSTRUCTIONS))}")
        require_all_ports(machine, "the hardware has a port for each")
        if matrix_port:
            instructions |= MATRIX_INSTRUCTIONS
        self.machine, self._trace, self._matrix_port = machine, trace, matrix_port
        self.engines = (Engine.LOAD, Engine.STORE, Engine.VECTOR, *([Engine.MATRIX] if matrix_port else []))
        names: dict[Engine, frozenset[str]] = {
            engine: frozenset(name for name in instructions if BY_NAME[name].engine is engine) for engine in self.engines
        }
        sequencer = machine.sequencer
        self._gathers = "L_GATHER" in instructions
        self.sequencer = Sequencer(names, sequencer.program_words, sequencer.loop_depth, machine.sram.integer_words)
        self.names, self.pc_bits = names, self.sequencer.pc_bits
        self.shape = dma_shape(machine, self.pc_bits)
        self.load_shape = dma_shape(machine, self.pc_bits, matrix=matrix_port)
        self.vector = VectorEngine(machine, names[Engine.VECTOR], self.pc_bits)
        self.host = Host(self.pc_bits, machine.sram.integer_words)
        ports: dict[str, Any] = {
            "host_address": In(ADDRESS_BITS),
            "host_write": In(1),
            "host_write_data": In(BUS_BITS),
            "host_read_data": Out(BUS_BITS),
            "busy": Out(1),
            "read": Out(ReadBus(self.shape.beat_bytes)),
            "write": Out(WriteBus(self.shape.beat_bytes)),
            "memory_bytes": In(MEMORY_BITS),
        }
        if matrix_port:
            ports |= matrix_ports(machine, self.sequencer.layouts[Engine.MATRIX], self.load_shape)
        if trace:
            for engine in (Engine.SEQUENCER, *self.engines):
                for event in ("start", "retire"):
                    ports |= {f"trace_{engine.name.lower()}_{event}{end}": Out(bits) for end, bits in (("", 1), ("_pc", self.pc_bits))}
            for name in ("load", "store"):
                ports |= {f"trace_{name}_start_{address}": Out(MEMORY_BITS) for address in ("memory", "scales")}
        self.memories = memories_of(machine, self.shape, matrix_port=matrix_port, gathers=self._gathers, black_box=black_box)
        if trace:
            for name, port in self._traced().items():
                for member, value in port.items():
                    ports[f"trace_{name}_{member}"] = Out(Value.cast(value).shape())
            for member in _REGISTER:
                ports[f"trace_{member}"] = Out(getattr(self.sequencer, member).shape())
        super().__init__(ports)

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """Where its engines are, by their names: names of submodules, from here."""
        return {name: (name,) for name in ("load", "store", "vector")}

    def _traced(self) -> dict[str, dict[str, Value]]:
        """Writes to the memories, by the name of their trace."""
        memories = self.memories
        ports = {
            "vector_dst": memories["vector"].dst,
            "vector_load": memories["vector"].load,
            "float_0": memories["float"].first_result,
            "float_1": memories["float"].second_result,
            "integer_vector": memories["integer"].result,
            "integer_load": memories["integer"].load,
        }
        if self._matrix_port:
            ports["vector_matrix"] = memories["vector"].matrix_dst
        return {name: {member: Value.cast(getattr(port, member)) for member in ("address", "mask", "data")} for name, port in ports.items()}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.machine.sequencer.queue_depth
        m.submodules.host, m.submodules.sequencer, m.submodules.vector = self.host, self.sequencer, self.vector
        m.submodules.semaphores = semaphores = Semaphores([engine.name.lower() for engine in self.engines], 2 * depth)
        m.submodules.load, m.submodules.store = load, store = Load(self.load_shape, gathers=self._gathers), Store(self.shape)
        for name, memory in self.memories.items():
            m.submodules[f"{name}_sram"] = memory
        host, sequencer, vector = self.host, self.sequencer, self.vector

        stopping, empty = Signal(), Signal()
        queues = {}
        for engine in self.engines:
            name = engine.name.lower()
            latency = self.machine.sequencer.dispatch_latency
            queue = Queue(sequencer.layouts[engine], depth, latency=latency, steps=self._steps(engine), ahead=WAITS)
            m.submodules[f"{name}_queue"] = queues[engine] = queue
            m.d.comb += [
                queue.push.eq(getattr(sequencer, f"{name}_push")),
                queue.item.eq(getattr(sequencer, f"{name}_item")),
                getattr(sequencer, f"{name}_room").eq(queue.room),
                queue.clear.eq(stopping | host.start),
                getattr(semaphores, f"{name}_wait0").eq(queue.coming.wait0),
                getattr(semaphores, f"{name}_wait1").eq(queue.coming.wait1),
                getattr(semaphores, f"{name}_valid").eq(queue.valid),
                getattr(semaphores, f"{name}_take").eq(queue.pop),
            ]

        # The vector engine takes an instruction at a time; those of the DMA engines come back with their tag.
        head = queues[Engine.VECTOR]
        m.d.comb += [
            head.pop.eq(head.valid & semaphores.vector_ready & vector.ready & ~stopping),
            vector.start.eq(head.pop),
            vector.entry.eq(head.head),
            vector.stop.eq(stopping | host.start),
            semaphores.vector_give.eq(vector.retire),
            semaphores.vector_signal0.eq(vector.retired.word.signal0),
            semaphores.vector_signal1.eq(vector.retired.word.signal1),
        ]
        for engine, unit in ((Engine.LOAD, load), (Engine.STORE, store)):
            self._dma(m, engine, unit, queues[engine], semaphores, stopping)
        failures = [
            (store.fault, store.code, store.tag[: self.pc_bits]),
            (load.fault, load.code, load.tag[: self.pc_bits]),
            (vector.fault != Fault.NONE, vector.fault, vector.retired.pc),
        ]
        resting = [vector.ready]
        if self._matrix_port:
            matrix = self._matrix(m, queues[Engine.MATRIX], semaphores, stopping)
            failures.append(((self.matrix_fault != Fault.NONE) & matrix.waits, self.matrix_fault, self._matrix_pc))
            resting.append(matrix.empty)

        word = sequencer.word
        m.d.comb += [
            semaphores.sequencer_take.eq(sequencer.take_own),
            semaphores.reserve.eq(sequencer.reserve),
            *(getattr(semaphores, f"reserve_{name}").eq(word[name]) for name in ("wait0", "wait1", "signal0", "signal1")),
            semaphores.set.eq(sequencer.set),
            semaphores.set_name.eq(sequencer.set_name),
            semaphores.set_value.eq(sequencer.set_value),
            semaphores.clear.eq(host.start),
            sequencer.ready.eq(semaphores.sequencer_ready),
            sequencer.underflow.eq(semaphores.underflow),
            sequencer.overflow.eq(semaphores.overflow),
            sequencer.set_fault.eq(semaphores.set_fault),
            sequencer.start.eq(host.start),
            sequencer.entry.eq(host.entry),
            sequencer.program_address.eq(host.program_address),
            sequencer.program_word.eq(host.program_word),
            sequencer.program_write.eq(host.program_write),
        ]

        # The first fault stops everything; an engine's comes before the sequencer's, whose instruction is a later one, and which runs in
        # its cycle. The host is told in the cycle after it.
        code, fault_pc = Signal(FAULT_BITS), Signal(self.pc_bits)
        m.d.comb += [code.eq(sequencer.fault), fault_pc.eq(sequencer.fault_pc)]
        m.d.sync += [host.fault.eq(Mux(host.busy & ~stopping, code, Fault.NONE)), host.fault_pc.eq(fault_pc)]
        for failed, cause, pc in failures:
            with m.If(failed):
                m.d.comb += [code.eq(cause), fault_pc.eq(pc)]
        m.d.comb += [
            sequencer.stop.eq(stopping),
            # What is on its way through a queue counts, too.
            empty.eq(Cat(queue.level for queue in queues.values()) == 0),
            host.idle.eq(
                ~sequencer.running
                & Cat(resting).all()
                & Mux(stopping, load.quiet & store.quiet, empty & load.idle & store.idle & ~Cat(failed for failed, *_ in failures).any())
            ),
            self.busy.eq(host.busy),
        ]
        with m.If(host.busy & (code != Fault.NONE)):
            m.d.sync += stopping.eq(1)
        with m.If(stopping & ~host.busy):
            m.d.sync += stopping.eq(0)
        m.d.comb += [unit.clear.eq(host.start) for unit in (load, store)]
        m.d.comb += [unit.memory_bytes.eq(self.memory_bytes) for unit in (load, store)]

        connect(m, flipped(self.read), load.bus)
        connect(m, flipped(self.write), store.bus)
        self._ports(m, load, store)
        m.d.comb += [
            host.address.eq(self.host_address),
            host.write.eq(self.host_write),
            host.write_data.eq(self.host_write_data),
            self.host_read_data.eq(host.read_data),
        ]
        if self._trace:
            self._trace_ports(m, queues, load, store)
        return m

    def _matrix(self, m: Module, queue: Queue, semaphores: Semaphores, stopping: Signal) -> Retirement:
        """Between the matrix unit, its queue and the semaphores. The unit sees none of the SYNCs."""
        instruction, word = self.matrix_instruction, queue.head.word
        tag = data.StructLayout({"pc": self.pc_bits, "signal0": SEMAPHORE_NAME_BITS, "signal1": SEMAPHORE_NAME_BITS})
        m.submodules.matrix_retirement = retirement = Retirement(tag.size, most_under_way(self.machine))
        sync, starts = word.opcode == BY_NAME["SYNC"].opcode, Signal()
        m.d.comb += [
            starts.eq(queue.valid & semaphores.matrix_ready & retirement.room & ~stopping),
            instruction.valid.eq(starts & ~sync),
            instruction.payload.eq(queue.head),
            queue.pop.eq(starts & instruction.ready),
            retirement.start.eq(queue.pop),
            retirement.sync.eq(sync),
            retirement.tag.eq(Cat(queue.head.pc, word.signal0, word.signal1)),
            retirement.done.eq(self.matrix_retire),
            retirement.clear.eq(self.matrix_stop),
            self.matrix_stop.eq(stopping | self.host.start),
            semaphores.matrix_give.eq(retirement.retire),
        ]
        retired = data.View(tag, retirement.retired)
        m.d.comb += [getattr(semaphores, f"matrix_{name}").eq(retired[name]) for name in ("signal0", "signal1")]
        self._matrix_pc = retired.pc
        self._matrix_events = queue.pop, queue.head.pc, retirement.retire, retired.pc
        return retirement

    def _dma(self, m: Module, engine: Engine, unit: Any, queue: Queue, semaphores: Semaphores, stopping: Signal) -> None:
        """Between a DMA engine, its queue and the semaphores."""
        name = engine.name.lower()
        m.d.comb += [
            unit.request.valid.eq(queue.valid & getattr(semaphores, f"{name}_ready") & ~stopping),
            queue.pop.eq(unit.request.valid & unit.request.ready),
            unit.request.payload.eq(queue.head.request),
        ]
        signals = unit.retired[self.pc_bits :]
        m.d.comb += [
            getattr(semaphores, f"{name}_give").eq(unit.retire),
            getattr(semaphores, f"{name}_signal0").eq(signals[:SEMAPHORE_NAME_BITS]),
            getattr(semaphores, f"{name}_signal1").eq(signals[SEMAPHORE_NAME_BITS:]),
        ]

    def _steps(self, engine: Engine) -> list[Step]:
        """What happens to an engine's instructions in its queue: those of the DMA engines become requests."""
        shapes = {Engine.LOAD: self.load_shape, Engine.STORE: self.shape}
        return DmaSteps(engine, self.names[engine], shapes[engine]).steps if engine in shapes else []

    def _ports(self, m: Module, load: Load, store: Store) -> None:
        """The users of the memories; the host shares the ports of engines that rest while it may use them."""
        vector, memories, host = self.vector, self.memories, self.host
        for user, memory, name in (
            (vector.a, "vector", "a"),
            (vector.b, "vector", "b"),
            (vector.dst, "vector", "dst"),
            (store.vector, "vector", "store"),
            (load.vector, "vector", "load"),
            (vector.float_first, "float", "first"),
            (vector.float_second, "float", "second"),
            (vector.float_first_result, "float", "first_result"),
            (vector.float_second_result, "float", "second_result"),
            (vector.integer_first, "integer", "first"),
            (vector.integer_second, "integer", "second"),
            (vector.integer_third, "integer", "third"),
            (store.integer, "integer", "store"),
            (load.integer, "integer", "load"),
        ):
            connect(m, user, getattr(memories[memory], name))
        if self._matrix_port:
            for name in ("matrix_a", "matrix_dst"):
                connect(m, flipped(getattr(self, name)), getattr(memories["vector"], name))
            connect(m, flipped(self.matrix_load), load.matrix)
        if self._gathers:
            connect(m, load.ids, memories["integer"].gather)
        result, sequencer = memories["integer"].result, memories["integer"].sequencer
        m.d.comb += [
            result.address.eq(Mux(host.integer_write, host.integer_address, vector.integer_result.address)),
            result.mask.eq(Mux(host.integer_write, 1, vector.integer_result.mask)),
            result.data.as_value().eq(Mux(host.integer_write, host.integer_write_data, vector.integer_result.data.as_value())),
            sequencer.enable.eq(1),
            sequencer.address.eq(Mux(host.busy, self.sequencer.integer_address, host.integer_address)),
            self.sequencer.integer_data.eq(sequencer.data[0]),
            host.integer_read_data.eq(sequencer.data[0]),
        ]

    def _trace_ports(self, m: Module, queues: Mapping[Engine, Queue], load: Load, store: Store) -> None:
        sequencer, vector = self.sequencer, self.vector
        events: dict[str, tuple[Value, Value, Value, Value]] = {
            "sequencer": (sequencer.start_own, sequencer.pc, sequencer.start_own, sequencer.pc),
            "vector": (queues[Engine.VECTOR].pop, queues[Engine.VECTOR].head.pc, vector.retire, vector.retired.pc),
        }
        for engine, unit in ((Engine.LOAD, load), (Engine.STORE, store)):
            queue = queues[engine]
            events[engine.name.lower()] = (queue.pop, unit.request.payload.tag[: self.pc_bits], unit.retire, unit.retired[: self.pc_bits])
            for address in ("memory", "scales"):
                port = getattr(self, f"trace_{engine.name.lower()}_start_{address}")
                m.d.comb += port.eq(getattr(unit.request.payload, address))
        if self._matrix_port:
            events["matrix"] = self._matrix_events
        for name, values in events.items():
            for end, value in zip(("start", "start_pc", "retire", "retire_pc"), values, strict=True):
                m.d.comb += getattr(self, f"trace_{name}_{end}").eq(value)
        for name, port in self._traced().items():
            for member, value in port.items():
                m.d.comb += getattr(self, f"trace_{name}_{member}").eq(value)
        for member in _REGISTER:
            m.d.comb += getattr(self, f"trace_{member}").eq(getattr(sequencer, member))
