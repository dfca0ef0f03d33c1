"""Before DRAM the RTL takes the cycles of the cycle reading: the model of the memory is the same, called as instructions start."""

from pathlib import Path

import numpy as np
import pytest

from unmask.isa.encoding import assemble
from unmask.machine.config import Machine
from unmask.rtl.lockstep import fuzz
from unmask.rtl.lockstep.dram import DramServer
from unmask.rtl.lockstep.machines import bench_machine

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


def bursts(text: str, *starts: tuple[int, int, int, int]) -> list[np.ndarray]:
    """What the memory says of instructions that start: their engine, their number, the cycle, their address."""
    server = DramServer(MACHINE)
    server.begin(assemble(text))
    return [server(engine, pc, cycle, address, 0) for engine, pc, cycle, address in starts]


def test_a_port_moves_a_beat_a_cycle_in_order() -> None:
    [served] = bursts("L_VEC dst=r0 src=r1 rows=1 cols=2048 dst_stride=0 src_stride=0\nHALT", (1, 0, 5, 0))
    address, asked, done = served.T
    assert address.tolist() == [512 * burst for burst in range(8)]
    assert asked[0] == 7
    assert (np.diff(asked) >= 16).all()
    assert (np.diff(done) >= 16).all()
    assert (done[:-4] < asked[4:]).all(), "four bursts under way"


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
