"""The timing against a machine stepped cycle by cycle, and the errors it must raise."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, encode
from unmask.isa.program import Program
from unmask.isa.table import REGISTER_COUNT, Engine
from unmask.machine.access import accesses
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of
from unmask.machine.cycle import engine_of, time_program
from unmask.machine.dma import GATHER_LEAD
from unmask.machine.memory import Dram
from unmask.machine.sequencer import REGISTER_INSTRUCTIONS, execute

from .dram_reference import SlowDma, gathered

SMALL = Machine.preset("small")
EXP = "V_EXP dst=r1 a=r1 rows=4 cols=64 dst_stride=2 a_stride=2"  # 4 + 8 cycles
LOAD = "L_VEC dst=r1 src=r2 rows=4 cols=64 dst_stride=2 src_stride=128"  # 8 + 100 cycles


def shallow(depth: int, ports: dict[str, int] | None = None, dispatch: int = 1) -> Machine:
    sequencer = SMALL.sequencer.model_copy(update={"queue_depth": depth, "dispatch_latency": dispatch})
    sram = SMALL.sram.model_copy(update=ports or {})
    return SMALL.model_copy(update={"sequencer": sequencer, "sram": sram})


def program(text: str, phases: list[str] | None = None) -> Program:
    words = assemble(text)
    return Program(words, phases or ["all"] * len(words), 0, {}, {}, {})


def unrolled(ops: list[Op]) -> list[tuple[int, Op]]:
    def block(index: int) -> tuple[list[tuple[int, Op]], int]:
        out: list[tuple[int, Op]] = []
        while index < len(ops) and ops[index].name != "END":
            out.append((index, ops[index]))
            if ops[index].name == "LOOP":
                body, end = block(index + 1)
                out += [*body, (end, ops[end])] * int(ops[index].operands["count"])
                index = end
            index += 1
        return out, index

    return block(0)[0]


def ranges(op: Op, registers: list[int], machine: Machine) -> list[tuple[int, int]]:
    """Address and size of every range of HBM that a DMA instruction moves, in order; nothing for others."""
    touched = accesses(op, registers, machine)
    hbm, sram = ([access for access in touched if (access.space == "hbm") == there] for there in (True, False))
    if not hbm:
        return []
    if op.name == "L_GATHER":
        [table], ids, rows = hbm, registers[int(op.operands["ids"])], int(op.operands["rows"])
        return [(table.start + gathered(ids, row, table.rows) * table.row_stride, table.cols) for row in range(rows)]
    if all(access.row_stride == access.cols for access in (hbm[0], sram[0])):
        hbm = [access._replace(rows=1, cols=access.rows * access.cols) for access in hbm]
    elements, scales = hbm[0], hbm[1] if len(hbm) > 1 else None
    found = []
    for row in range(elements.rows):
        start = elements.start + row * elements.row_stride
        if scales is None:
            found.append((start, elements.cols))
            continue
        for block in range(0, scales.cols, 256):
            count, size = min(256, scales.cols - block), elements.cols // scales.cols
            part = [(scales.start + row * scales.row_stride + block, count), (start + block * size, count * size)]
            found += part if op.name.startswith("L_") else part[::-1]
    return found


def stepped(ops: list[Op], machine: Machine, words: dict[int, int] | None = None) -> list[tuple[int, int, int, int]]:
    """(pc, engine, start, end) in program order, by stepping the whole machine one cycle at a time.

    Independent of the kernel on purpose: counting semaphores, real queues, no program-order reasoning; memory asked in the order of time;
    ports of the on-chip memories counted in every cycle.
    """
    stream = unrolled(ops)
    dma = SlowDma(machine.hbm, machine.clock_ghz)
    registers = [0] * REGISTER_COUNT
    moves: dict[int, list[tuple[int, int]]] = {}
    result: list[list[int] | None] = [None] * len(stream)
    semaphores = [0] * 64
    queues: dict[Engine, deque[int]] = {engine: deque() for engine in Engine}
    free_at = dict.fromkeys(Engine, 0)
    last_end = dict.fromkeys(Engine, 0)
    gaps = dict.fromkeys(Engine, 0)
    gives: dict[int, list[int]] = {}
    position, sequencer_free, now = 0, 0, 0
    under_way: list[tuple[Engine, set[str], int]] = []
    ports = {"vector": machine.sram.vector_ports, "matrix": machine.sram.matrix_ports, "integer": machine.sram.integer_ports}

    def room(engine: Engine, op: Op) -> bool:
        touched = {access.space for access in accesses(op, [0] * REGISTER_COUNT, machine)} & ports.keys()
        users = {space: {other for other, spaces, end in under_way if space in spaces and end > now} | {engine} for space in touched}
        return all(len(users[space]) <= ports[space] for space in touched)

    def take(op: Op) -> bool:
        if any(semaphores[name] < op.wait.count(name) for name in op.wait):
            return False
        for name in op.wait:
            semaphores[name] -= 1
        return True

    def give(end: int, op: Op) -> None:
        for name in op.signal:
            gives.setdefault(end, []).append(name)

    dispatched_at: dict[int, int] = {}
    while position < len(stream) or any(queues.values()):
        for name in gives.pop(now, []):
            semaphores[name] += 1
        for engine, queue in queues.items():
            if not queue or dispatched_at[queue[0]] + machine.sequencer.dispatch_latency > now or not room(engine, stream[queue[0]][1]):
                continue
            if free_at[engine] + (0 if stream[queue[0]][1].operands.get("transposed") else gaps[engine]) > now:
                continue
            if take(stream[queue[0]][1]):
                index = queue.popleft()
                pc, op = stream[index]
                if moves[index]:
                    ready, end, _ = dma.transfer(moves[index], engine is Engine.STORE, now + GATHER_LEAD * (op.name == "L_GATHER"))
                    gap = 0
                else:
                    cycles = cost_of(op, machine)
                    ready, end, gap = now + cycles.occupancy, now + cycles.occupancy + cycles.latency, cycles.gap
                in_order = engine is not Engine.VECTOR
                end = max(last_end[engine] + in_order, end)
                last_end[engine] = end
                free_at[engine] = ready if in_order else end
                gaps[engine] = gap
                give(end, op)
                under_way.append((engine, {access.space for access in accesses(op, [0] * REGISTER_COUNT, machine)}, end))
                result[index] = [pc, engine, now, end]
        while position < len(stream) and sequencer_free <= now:
            pc, op = stream[position]
            engine = engine_of(op)
            if engine is Engine.SEQUENCER:
                if not take(op):
                    break
                end = now + 1
                if op.name in REGISTER_INSTRUCTIONS:
                    execute(op, registers, lambda address: (words or {}).get(address, 0))
                if op.name == "SEM_SET":
                    semaphores[int(op.operands["semaphore"])] = int(op.operands["value"])
                give(end, op)
                result[position] = [pc, engine, now, end]
                sequencer_free = end
            else:
                if len(queues[engine]) == machine.sequencer.queue_depth:
                    break
                queues[engine].append(position)
                moves[position] = ranges(op, registers, machine)
                dispatched_at[position] = now
                sequencer_free = now + 1
            position += 1
        now += 1
        assert now < 10**6
    return [tuple(entry) for entry in result if entry is not None]


RANDOM = {
    Engine.SEQUENCER: [
        "S_LI rd=r1 value=0",
        "S_LI rd=r2 value=777",
        "S_ADDI rd=r1 rs=r2 value=4096",
        "S_ADD rd=r2 rs=r1 rt=r3",
        "S_MULI rd=r3 rs=r3 value=-3",
        "S_XORI rd=r2 rs=r2 value=512",
        "S_LD rd=r3 a=r4",
        "S_LD rd=r1 a=r0",
        "S_LI rd=r4 value=3",
        "SYNC engine=0",
    ],
    Engine.LOAD: [
        LOAD,
        "L_INT dst=r0 src=r0 count=3",
        "L_MAT dst=r0 src=r1 scales=r2 rows=3 cols=64 src_stride=9 format=0",
        "L_MX dst=r0 src=r2 scales=r1 rows=2 cols=96 dst_stride=3 src_stride=3 format=1",
        "L_VEC dst=r1 src=r2 rows=3 cols=32 dst_stride=1 src_stride=64",
        "L_VEC dst=r1 src=r2 rows=3 cols=31 dst_stride=1 src_stride=62",
        "L_MAT dst=r0 src=r2 scales=r1 rows=5 cols=2000 src_stride=63 format=1",
        "L_GATHER dst=r0 table=r1 ids=r4 rows=4 cols=40 dst_stride=2 table_stride=80 limit=100",
        "SYNC engine=1",
    ],
    Engine.STORE: [
        "ST_INT src=r0 dst=r0 count=40",
        "ST_VEC src=r0 dst=r2 rows=2 cols=300 src_stride=10 dst_stride=1024",
        "ST_MX src=r0 dst=r1 scales=r2 rows=2 cols=64 src_stride=2 dst_stride=2 format=0",
        "ST_MX src=r0 dst=r1 scales=r2 rows=2 cols=8300 src_stride=260 dst_stride=300 format=1",
        "SYNC engine=2",
    ],
    Engine.MATRIX: [
        "M_MM dst=r0 a=r0 b=r0 m=16 n=32 k=64 dst_stride=1 a_stride=2 transposed=0 format=0",
        "M_MM dst=r0 a=r0 b=r0 m=16 n=32 k=64 dst_stride=1 a_stride=2 transposed=1 format=0",
        "SYNC engine=3",
    ],
    Engine.VECTOR: [EXP, "F_RECIP dst=r0 a=r0 count=3", "I_EQ_I dst=r0 a=r0 count=8 value=0", "SYNC engine=4"],
}


FEW = st.integers(1, 4)


@st.composite
def programs(draw, counts=FEW, instructions=RANDOM) -> str:
    """Random programs with nested loops whose every iteration takes the tokens it was given, and credits set beforehand."""
    lines: list[str] = []
    owners: dict[int, tuple[Engine, Engine]] = {}  # of each semaphore: who signals, who waits
    for name in range(draw(st.integers(0, 5))):
        owners[name] = (draw(st.sampled_from(Engine)), draw(st.sampled_from(Engine)))
    credits = {name: draw(st.integers(0, 3)) for name in owners}
    lines += [f"SEM_SET semaphore={name} value={value}" for name, value in credits.items() if value]

    def body(depth: int, spare: dict[int, int]) -> None:
        """Instructions that leave at least as many tokens as they found."""
        start = dict(spare)
        for _ in range(draw(st.integers(1, 6))):
            if depth < 2 and draw(st.integers(0, 4)) == 0:
                lines.append(f"LOOP count={draw(counts)}")
                # The first iteration may take what is there only if it gives it back.
                body(depth + 1, dict(spare))
                lines.append("END")
                continue
            engine = draw(st.sampled_from(Engine))
            line = draw(st.sampled_from(instructions[engine]))
            waits = [n for n, (_, waiter) in owners.items() if waiter is engine and spare[n] > 0 and draw(st.booleans())][:2]
            signals = [n for n, (signaller, _) in owners.items() if signaller is engine and draw(st.booleans())][:2]
            for name in waits:
                spare[name] -= 1
            for name in signals:
                spare[name] += 1
            lines.append(line + "".join(f" {k}={','.join(map(str, v))}" for k, v in (("wait", waits), ("signal", signals)) if v))
        for name, (signaller, _) in owners.items():
            for _ in range(start[name] - spare[name]):
                lines.append(f"SYNC engine={int(signaller)} signal={name}")
            spare[name] = max(spare[name], start[name])

    body(0, dict(credits))
    return "\n".join([*lines, "HALT"])


PORTS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"vector_ports": st.integers(1, 4), "matrix_ports": st.integers(1, 2), "integer_ports": st.integers(1, 3)}),
)
WORDS = {0: 1 << 20, 3: 7}
# So small, so slow and so often refreshed that loads and stores stand in each other's way.
TIGHT = {
    "device": "hbm2e",
    "devices": 1,
    "interleave_bytes": 64,
    "latency": 9,
    "ports": 2,
    "beat_bytes": 16,
    "burst_beats": 8,
    "outstanding_reads": 2,
    "outstanding_writes": 1,
    "overrides": {"channels": 2, "banks": 2, "row_bytes": 128, "pin_gbps": 1, "trefi": 600, "trfc": 100},
}


@pytest.mark.parametrize(
    "memory",
    [None, TIGHT | {"refresh": "all"}, TIGHT | {"refresh": "bank"}, TIGHT | {"refresh": "bank", "ports": 1}],
    ids=["ideal", "all", "bank", "port"],
)
@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(1, 4), PORTS, st.integers(1, 4))
def test_the_walk_equals_the_stepped_machine(memory, text, depth, ports, dispatch):
    machine, prog = shallow(depth, ports, dispatch), program(text)
    if memory is not None:
        machine = machine.model_copy(update={"hbm": Dram.model_validate(memory)})
    timing = time_program(prog, machine, parameters=WORDS, trace=True)
    expected = stepped(prog.ops, machine, WORDS)
    assert timing.trace is not None
    found = [
        tuple(map(int, entry)) for entry in zip(timing.trace.pc, timing.trace.engine, timing.trace.start, timing.trace.end, strict=True)
    ]
    assert found == expected
    assert timing.cycles == max(end for *_, end in expected)
    assert timing.busy["vector"] == sum(end - start for _, e, start, end in expected if e == Engine.VECTOR)
    assert timing.busy["matrix"] == sum(cost_of(prog.ops[pc], machine).occupancy for pc, e, *_ in expected if e == Engine.MATRIX)
    assert timing.instructions == {e.name.lower(): sum(entry[1] == e for entry in expected) for e in Engine}


@settings(max_examples=50, deadline=None)
@given(programs(), st.data())
def test_phases_sum_to_the_time(text, data):
    words = assemble(text)
    phases = [data.draw(st.sampled_from(["load", "attention", "sampling"])) for _ in words]
    timing = time_program(Program(words, phases, 0, {}, {}, {}), SMALL)
    assert sum(timing.phases.values()) == timing.cycles
    assert all(value >= 0 for value in timing.phases.values())


def test_loads_are_pipelined_and_vectors_drain():
    timing = time_program(program(f"{LOAD}\n{LOAD}\n{EXP}\n{EXP}\nHALT"), SMALL, trace=True)
    assert timing.trace is not None
    assert timing.trace.start.tolist() == [1, 9, 3, 15, 4]
    assert timing.trace.end.tolist() == [109, 117, 15, 27, 5]
    assert timing.cycles == 117
    assert timing.busy == {"sequencer": 5, "load": 16, "store": 0, "matrix": 0, "vector": 24}
    assert timing.hbm_bytes == {"load": 1024, "store": 0}


def test_products_follow_each_other_without_a_pause_but_after_a_transposed_one():
    product = "M_MM dst=r0 a=r0 b=r0 m=16 n=64 k=64 dst_stride=2 a_stride=2 format=0 transposed="
    timing = time_program(program("\n".join(f"{product}{transposed}" for transposed in (0, 0, 1, 1, 0)) + "\nHALT"), SMALL, trace=True)
    assert timing.trace is not None
    # 16 cycles each, 32 if transposed; 42 to drain, 74 if transposed; and 32 before what is not transposed follows what is.
    assert timing.trace.start.tolist()[:5] == [1, 17, 33, 65, 129]
    assert timing.trace.end.tolist()[:5] == [59, 75, 139, 171, 187]
    assert timing.trace.ready.tolist()[:5] == [17, 33, 65, 97, 145]
    assert timing.busy["matrix"] == 3 * 16 + 2 * 32


def test_a_full_queue_stalls_the_sequencer():
    timing = time_program(program(f"{EXP}\n{EXP}\n{EXP}\nHALT"), shallow(1), trace=True)
    assert timing.trace is not None
    # The third is dispatched when the second leaves the queue.
    assert timing.trace.start.tolist() == [1, 13, 25, 14]


def test_a_load_ends_a_cycle_after_its_predecessor_at_the_earliest():
    timing = time_program(program(f"{LOAD}\nSYNC engine=1 signal=3\n{EXP} wait=3\nHALT"), SMALL, trace=True)
    assert timing.trace is not None
    assert timing.trace.end.tolist()[:2] == [109, 110]
    assert timing.trace.start.tolist()[2] == 110


def test_phase_is_credited_with_what_it_adds():
    timing = time_program(program(f"{LOAD} signal=1\n{EXP} wait=1\nHALT", ["load", "exp", "end"]), SMALL)
    assert timing.phases == {"load": 109, "exp": 12, "end": 0}


def test_many_outstanding_tokens_keep_their_order():
    text = f"LOOP count=300\n{LOAD} signal=1\nEND\nLOOP count=300\n{EXP} wait=1\nEND\nHALT"
    timing = time_program(program(text), SMALL, trace=True)
    assert timing.trace is not None
    loads, vectors = (timing.trace.engine == int(engine) for engine in (Engine.LOAD, Engine.VECTOR))
    assert np.all(timing.trace.start[vectors] >= timing.trace.end[loads])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{EXP} wait=7\nHALT", "instruction 0: waits for semaphore 7, .*deadlock"),
        (f"SEM_SET semaphore=7 value=2\nLOOP count=3\n{EXP} wait=7\nEND\nHALT", "instruction 2: waits for semaphore 7"),
        (f"{LOAD} signal=7\n{EXP} signal=7\nHALT", "instruction 1: semaphore 7 is signalled by two engines, load and vector"),
        (f"{LOAD} signal=7\n{EXP} wait=7\nSYNC engine=0 wait=7\nHALT", "instruction 2: semaphore 7 is waited for by two engines"),
        (f"{LOAD} signal=7\nSEM_SET semaphore=7 value=1\nHALT", "instruction 1: sets semaphore 7 while"),
        (f"{LOAD} signal=7\n{EXP} wait=7\nSEM_SET semaphore=7 value=1\nHALT", "instruction 2: sets semaphore 7 while"),
        ("LOOP count=65536\nSYNC engine=1 signal=7\nEND\nHALT", "semaphore 7 may exceed 65535"),
        ("LOOP count=2\n" * 9 + "END\n" * 9 + "HALT", "instruction 8: 9 nested loops; machine small allows 8 .sequencer.loop_depth"),
        ("SYNC engine=5\nHALT", "SYNC: engine 5"),
        ("F_RECIP dst=r0 a=r0 count=0\nHALT", "instruction 0: F_RECIP: count is 0"),
    ],
)
def test_errors_name_the_instruction(text, message):
    with pytest.raises(UnmaskError, match=message):
        time_program(program(text), SMALL)


def test_halt_may_come_early():
    ops = program("HALT\nHALT").ops
    assert time_program(Program(encode(ops), ["a", "b"], 0, {}, {}, {}), SMALL).cycles == 1
