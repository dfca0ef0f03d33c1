"""The vector clocks of `find_races` against the definition: a graph of starts and ends, and sets of locations."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.isa.encoding import Op, assemble
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.cycle import PIPELINED, engine_of
from unmask.machine.hazards import find_races

SMALL = Machine.preset("small")
REGISTERS = [0, 8, 24, 64, *[0] * 28]
SETUP = "".join(f"S_LI rd=r{number} value={value}\n" for number, value in enumerate(REGISTERS[:4]))
LINES = {
    Engine.SEQUENCER: ["S_LD rd=r9 a=r{a}", "SYNC engine=0"],
    Engine.LOAD: [
        "L_VEC dst=r{a} src=r{b} rows=2 cols=32 dst_stride=2 src_stride=64",
        "L_INT dst=r{a} src=r{b} count=48",
        "L_GATHER dst=r{a} table=r{b} ids=r{c} rows=2 cols=32 dst_stride=1 table_stride=64 limit=2",
    ],
    Engine.STORE: ["ST_VEC src=r{a} dst=r{b} rows=2 cols=24 src_stride=2 dst_stride=64", "ST_INT src=r{a} dst=r{b} count=8"],
    Engine.MATRIX: ["M_MM dst=r{a} a=r{b} b=r{c} m=2 n=32 k=32 dst_stride=2 a_stride=1 transposed=0 format=0"],
    Engine.VECTOR: [
        "V_ADD dst=r{a} a=r{b} b=r{c} rows=2 cols=32 dst_stride=2 a_stride=2 b_stride=0",
        "V_RED_SUM dst=r{a} a=r{b} rows=2 cols=32 a_stride=1 running=1",
        "V_SELECT_INT dst=r{a} mask=r{b} a=r{c} b=r{a} count=16",
    ],
}


@st.composite
def programs(draw) -> str:
    owners = {name: (draw(st.sampled_from(Engine)), draw(st.sampled_from(Engine))) for name in range(draw(st.integers(0, 6)))}
    tokens = {name: draw(st.integers(0, 2)) for name in owners}
    lines = [f"SEM_SET semaphore={name} value={value}" for name, value in tokens.items()]
    for _ in range(draw(st.integers(2, 12))):
        engine = draw(st.sampled_from([*Engine, Engine.LOAD, Engine.LOAD, Engine.VECTOR]))
        line = draw(st.sampled_from(LINES[engine])).format(**{name: draw(st.integers(0, 3)) for name in "abc"})
        for what, side, step in (("wait", 1, -1), ("signal", 0, 1)):
            names = [n for n in owners if owners[n][side] is engine and (step > 0 or tokens[n] > 0) and draw(st.booleans())][:2]
            for name in names:
                tokens[name] += step
            line += f" {what}={','.join(map(str, names))}" if names else ""
        lines.append(line)
    return SETUP + "\n".join([*lines, "HALT"])


def surely_before(ops: list[Op]) -> list[list[bool]]:
    """[i][j]: instruction i has ended when j starts, in every timing. Node 2i is the start of i, 2i + 1 its end."""
    nodes = 2 * len(ops)
    reach = [[False] * nodes for _ in range(nodes)]
    latest: dict[Engine, int] = {}
    given_by: dict[int, list[int | None]] = {}
    for index, op in enumerate(ops):
        engine, start, end = engine_of(op), 2 * index, 2 * index + 1
        reach[start][end] = True
        if engine in latest:
            reach[2 * latest[engine]][start] = True
            reach[2 * latest[engine] + 1][end] = True
            if engine not in PIPELINED:
                reach[2 * latest[engine] + 1][start] = True
        if Engine.SEQUENCER in latest:
            reach[2 * latest[Engine.SEQUENCER] + 1][start] = True
        for name in op.wait:
            giver = given_by[name].pop(0)
            if giver is not None:
                reach[2 * giver + 1][start] = True
        if op.name == "SEM_SET":
            given_by[int(op.operands["semaphore"])] = [None] * int(op.operands["value"])
        for name in op.signal:
            given_by.setdefault(name, []).append(index)
        latest[engine] = index
    for k, i in product(range(nodes), repeat=2):
        if reach[i][k]:
            reach[i] = [a or b for a, b in zip(reach[i], reach[k], strict=True)]
    return [[reach[2 * i + 1][2 * j] for j in range(len(ops))] for i in range(len(ops))]


def locations(access: Access) -> set[tuple[str, int]]:
    rows, cols = range(access.rows), range(access.cols)
    return {(access.space, access.start + row * access.row_stride + col) for row in rows for col in cols}


def conflict(ops: list[Op], i: int, j: int) -> bool:
    first, second = accesses(ops[i], REGISTERS, SMALL), accesses(ops[j], REGISTERS, SMALL)
    pipelined = engine_of(ops[i]) is engine_of(ops[j]) and engine_of(ops[i]) in PIPELINED
    in_conflict = [(a, b) for a in first for b in second if (a.write or b.write) and not (pipelined and b.write)]
    return any(locations(a) & locations(b) for a, b in in_conflict)


@settings(max_examples=200, deadline=None)
@given(programs())
def test_races_are_those_of_the_definition(text):
    words = assemble(text)
    program = Program(words, ["all"] * len(words), 0, {}, {}, {})
    ops = program.ops
    before = surely_before(ops)
    expected = {(i, j) for j in range(len(ops)) for i in range(j) if not before[i][j] and conflict(ops, i, j)}
    races = find_races(program, SMALL, dict.fromkeys(range(256), 0))
    found = {(race.first, race.second) for race in races if race.first != race.second}
    assert found <= expected
    # Of several earlier instructions of one engine only the latest at a location is reported, so not every pair need appear.
    engines = [engine_of(op) for op in ops]
    assert {(engines[first], second) for first, second in found} == {(engines[first], second) for first, second in expected}
