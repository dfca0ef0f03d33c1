"""The RTL does, instruction by instruction, what the functional reading says, when the cycle reading says."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from unmask.cli.main import app
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.row import Cost
from unmask.machine.config import Machine
from unmask.rtl.latency import SHORTEST, shortest
from unmask.rtl.lockstep import fuzz, generate, run, simulate
from unmask.rtl.lockstep.bench import DONE
from unmask.rtl.lockstep.campaign import missing, replay, save_failure
from unmask.rtl.lockstep.machines import bench_machine
from unmask.rtl.lockstep.names import instructions_of

MACHINE = bench_machine(Machine.preset("nano"), 8)


def test_three_hundred_random_programs_agree_in_three_readings() -> None:
    result = fuzz(300, 0, MACHINE, jobs=2)
    assert result.details == []
    assert result.passed
    assert result.programs == 300
    assert result.instructions > 20_000
    assert not [point for point in missing(result, MACHINE) if ":" not in point]


@pytest.mark.slow
def test_ten_thousand_random_programs_agree_and_cover_everything() -> None:
    result = fuzz(10_000, 1, MACHINE, jobs=2)
    assert result.details == []
    assert result.passed
    assert missing(result, MACHINE) == []


@pytest.mark.slow
def test_everything_that_needs_no_matrix_engine_agrees_too() -> None:
    result = fuzz(1000, 2, MACHINE, "vector", jobs=2)
    assert result.details == []
    assert result.passed
    assert not [point for point in missing(result, MACHINE, "vector") if ":" not in point]


@pytest.mark.slow
def test_a_vector_engine_without_registers_to_spare_agrees() -> None:
    latencies = {name: SHORTEST for name in type(MACHINE.vector).model_fields if name.endswith("latency")}
    # Masks have the first of these, too, and noise takes no less.
    latencies |= dict.fromkeys(("latency", "noise_latency"), shortest(Cost.TOPK))
    machine = MACHINE.model_copy(update={"vector": MACHINE.vector.model_copy(update=latencies)})
    result = fuzz(200, 5, machine, "vector", jobs=2)
    assert result.details == []
    assert result.passed


def test_a_latency_that_no_hardware_has_is_refused() -> None:
    vector = MACHINE.vector.model_copy(update={"latency": SHORTEST})
    with pytest.raises(UnmaskError, match="topk latency 3: expected at least 4 for hardware"):
        fuzz(1, 5, MACHINE.model_copy(update={"vector": vector}))


def test_one_program_leaves_the_memory_that_the_functional_reading_leaves() -> None:
    from unmask.machine.functional import FunctionalMachine

    case = next(
        c for c in (generate(5, i, MACHINE, instructions_of("sampler")) for i in range(50)) if "ST_VEC" in {o.name for o in c.program.ops}
    )
    there = simulate(case.program, MACHINE)
    reading = FunctionalMachine(case.program, MACHINE)
    reading.run()
    assert there.outcome.status == DONE
    assert np.array_equal(there.hbm, reading.state.hbm)
    assert np.array_equal(there.floats, reading.state.floats.view(np.uint32))
    assert np.array_equal(there.integers, reading.state.integers)
    assert np.array_equal(there.vector, reading.state.vector.view(np.uint32) >> 16)


def test_a_saved_program_is_replayed(tmp_path: Path) -> None:
    path = save_failure(3, 2, MACHINE, "sampler", tmp_path)
    assert Program.load(path).about["number"] == 2
    assert replay(path).passed


def test_programs_run_one_after_the_other_without_reset() -> None:
    names = instructions_of("sampler")
    assert run([generate(9, index, MACHINE, names) for index in range(5)], MACHINE, stalls=(1, 3)).passed


def test_the_command_reports_counts_as_json() -> None:
    done = CliRunner().invoke(app, ["fuzz", "--programs", "20", "--seed", "4", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["programs"], found["value_mismatches"], found["cycle_mismatches"]) == (20, 0, 0)
    assert found["coverage"]["points"]["L_VEC"] > 0


@pytest.mark.parametrize(("machine", "vlen", "message"), [("h100-class", 8, "hbm.ports 128: expected 1"), ("nano", 7, "vlen 7")])
def test_a_machine_that_cannot_be_built_is_refused(machine: str, vlen: int, message: str) -> None:
    with pytest.raises(UnmaskError, match=message):
        bench_machine(Machine.preset(machine), vlen)


def test_a_file_that_is_no_failed_program_is_refused(tmp_path: Path) -> None:
    case = generate(5, 0, MACHINE, instructions_of("sampler"))
    case.program.save(tmp_path / "other.unmask")
    with pytest.raises(UnmaskError, match="not a program that `unmask fuzz` saved"):
        replay(tmp_path / "other.unmask")
