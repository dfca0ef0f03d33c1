"""Before DRAM the RTL takes the cycles of the cycle reading: the model of the memory is the same, called as instructions start."""

from pathlib import Path

import numpy as np
import pytest

from unmask.isa.encoding import assemble
from unmask.machine.config import Machine
from unmask.machine.dma import GATHER_LEAD
from unmask.rtl.lockstep import fuzz
from unmask.rtl.lockstep.dram import DramServer
from unmask.rtl.lockstep.machines import bench_machine
from unmask.rtl.walker import ASKING

MACHINE = bench_machine(Machine.load(str(Path(__file__).parents[2] / "examples" / "machines" / "sampler-hbm2e.toml")), 8)


def test_random_programs_take_the_cycles_of_the_cycle_reading() -> None:
    result = fuzz(40, 0, MACHINE)
    assert result.details == []
    assert result.passed
    assert result.instructions > 5_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{}, {"refresh": "all", "overrides": {"trefi": 800.0}}, {"outstanding_reads": 1, "outstanding_writes": 1, "burst_beats": 4}],
    ids=["four bursts", "refreshes", "one burst"],
)
def test_many_random_programs_do(fields: dict) -> None:
    machine = MACHINE.model_copy(update={"hbm": MACHINE.hbm.model_copy(update=fields)})
    result = fuzz(600, 1, machine, jobs=2)
    assert result.details == []
    assert result.passed


INTEGERS = np.array([9, 9, 9, 2, 0, 5, 1 << 20], np.int32)


def bursts(text: str, *starts: tuple[int, int, int, int]) -> list[np.ndarray]:
    """What the memory says of instructions that start: their engine, their number, the cycle, their address."""
    server = DramServer(MACHINE)
    server.begin(assemble(text))
    return [server(engine, pc, cycle, address, 3, INTEGERS) for engine, pc, cycle, address in starts]


def test_a_port_moves_a_beat_a_cycle_in_order() -> None:
    [served] = bursts("L_VEC dst=r0 src=r1 rows=1 cols=2048 dst_stride=0 src_stride=0\nHALT", (1, 0, 5, 0))
    address, asked, done = served.T
    assert address.tolist() == [512 * burst for burst in range(8)]
    assert asked[0] == 7
    assert (np.diff(asked) >= 16).all()
    assert (np.diff(done) >= 16).all()
    assert (done[:-4] < asked[4:]).all(), "four bursts under way"


def test_rows_of_a_table_are_those_of_the_integer_sram() -> None:
    text = "L_GATHER dst=r0 table=r1 ids=r2 rows=3 cols=16 dst_stride=1 table_stride=1024 limit=6\nHALT"
    [served] = bursts(text, (1, 0, 5, 4096))
    assert served[:, 0].tolist() == [4096 + 1024 * row for row in (2, 0, 5)]
    assert served[0, 1] == 5 + ASKING + GATHER_LEAD


@pytest.mark.slow
def test_random_programs_that_gather_do() -> None:
    result = fuzz(200, 3, MACHINE, "vector", jobs=2)
    assert result.details == []
    assert result.passed


def test_an_instruction_is_served_whole_before_a_later_one() -> None:
    load, store = (
        "L_VEC dst=r0 src=r1 rows=1 cols=4096 dst_stride=0 src_stride=0",
        "ST_VEC src=r0 dst=r1 rows=1 cols=16 src_stride=0 dst_stride=0",
    )
    text = f"{load}\n{store}\nHALT"
    alone = bursts(text, (2, 1, 6, 1 << 20))[0]
    after = bursts(text, (1, 0, 5, 0), (2, 1, 6, 1 << 20))[1]
    assert after[0, 1] == alone[0, 1]
    assert after[0, 2] > alone[0, 2]
