"""Energy and area: counted events times a table of prices."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from unmask import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.machine.config import PORT_USERS, Machine
from unmask.numerics import mx
from unmask.silicon.cost.area import area_of, port_bytes
from unmask.silicon.cost.energy import PARTS, energy_of, idle_of, leakage_of, prices_of
from unmask.silicon.cost.events import Counts, count_events
from unmask.silicon.cost.figures import cost_figures
from unmask.silicon.cost.peak import busiest, peak_power_of
from unmask.silicon.cost.sram import MEMORIES, PORTS, bank_of, largest_bank, memories_of
from unmask.silicon.cost.table import load_costs

SMALL, A6000, H100 = (Machine.preset(name) for name in ("small", "a6000-class", "h100-class"))
COSTS = load_costs()
MOVED = {"load": 640, "store": 64}


def program(*ops: Op, phases: list[str] | None = None) -> Program:
    listed = [*ops, Op("HALT")]
    return Program(encode(listed), [*(phases or ["all"] * len(ops)), "end"], 1 << 30, {}, {}, SMALL.model_dump())


def loop(count: int, *body: Op) -> list[Op]:
    return [Op("LOOP", {"count": count}), *body, Op("END")]


def add(rows: int = 3, cols: int = 64) -> Op:
    strides = dict.fromkeys(("dst_stride", "a_stride", "b_stride"), -(-cols // 32))
    return Op("V_ADD", {"dst": 0, "a": 0, "b": 0, "rows": rows, "cols": cols} | strides)


def product(m: int, n: int, k: int, form: int = 0) -> Op:
    sizes = {"m": m, "n": n, "k": k, "dst_stride": -(-n // 32), "a_stride": -(-k // 32)}
    return Op("M_MM", {"dst": 0, "a": 0, "b": 0, "transposed": 0, "format": form} | sizes)


def load(rows: int, cols: int) -> Op:
    return Op("L_VEC", {"dst": 0, "src": 1, "rows": rows, "cols": cols, "dst_stride": cols // 32, "src_stride": 2 * cols})


def store(rows: int, cols: int) -> Op:
    return Op("ST_VEC", {"src": 0, "dst": 1, "rows": rows, "cols": cols, "src_stride": cols // 32, "dst_stride": 2 * cols})


def maximum(rows: int = 2, cols: int = 64) -> Op:
    return Op("V_RED_MAX", {"dst": 0, "a": 0, "rows": rows, "cols": cols, "a_stride": -(-cols // 32), "running": 0})


def counted(*ops: Op, machine: Machine = SMALL, cycles: int = 1000, **options: list[str]) -> Counts:
    return count_events(program(*ops, **options), machine, cycles, {})


def test_elements_and_products_are_counted_by_trip_counts() -> None:
    found = counted(*loop(5, add(3, 64), *loop(7, product(2, 16, 96)), add(1, 10))).totals
    assert found["vector.lane"] == 5 * (3 * 64 + 10)
    assert found[f"matrix.mac.{SMALL.formats.weights}"] == 35 * 2 * 16 * 96
    assert found["matrix.round"] == 35 * 2 * 16
    assert found["sequencer.instruction"] == 1 + 5 * (1 + 1 + 7 * 2 + 1 + 1) + 1


def test_a_loop_counts_as_its_body_written_out() -> None:
    body = (add(), product(4, 8, 32), add(2, 20))
    looped, flat = counted(*loop(3, *body)).totals, counted(*body * 3).totals
    apart = {"sequencer.instruction", "program_sram.read"}
    assert {event: number for event, number in looped.items() if event not in apart} == {
        event: number for event, number in flat.items() if event not in apart
    }


def test_a_product_reads_its_operands_as_often_as_tiles_pass() -> None:
    array = SMALL.matrix
    once = counted(product(array.blen, array.blen * array.rows, 64)).totals
    taller = counted(product(2 * array.blen, array.blen * array.rows, 64)).totals
    wider = counted(product(array.blen, 2 * array.blen * array.rows, 64)).totals
    assert taller["matrix_sram.read"] == 2 * once["matrix_sram.read"]
    assert wider["matrix_sram.read"] == 2 * once["matrix_sram.read"]
    assert taller["vector_sram.read"] == wider["vector_sram.read"] == 2 * once["vector_sram.read"]


def test_bytes_moved_are_all_there_and_go_to_the_phases_that_ask() -> None:
    ops = (load(1, 64), load(3, 64), store(2, 64), add())
    found = count_events(program(*ops, phases=["a", "b", "b", "c"]), SMALL, 10, MOVED)
    assert found.totals["load.hbm_bytes"] == MOVED["load"]
    assert found.totals["store.hbm_bytes"] == MOVED["store"]
    assert found.events["b", "load.hbm_bytes"] == 3 * found.events["a", "load.hbm_bytes"]
    assert ("c", "load.hbm_bytes") not in found.events


def sample(temperature: int) -> Op:
    operands = dict.fromkeys(("a", "first", "token", "seed", "step", "position"), 0) | {"period": 1, "running": 0, "a_stride": 2}
    return Op("V_SAMPLE", operands | {"temperature": temperature, "rows": 2, "cols": 64})


def test_noise_that_a_constant_switches_off_is_not_counted() -> None:
    def li(value: int) -> Op:
        return Op("S_LI", {"rd": 4, "value": value})

    def noise(*ops: Op) -> int:
        return counted(*ops).totals.get("vector.noise", 0)

    step = Op("S_ADDI", {"rd": 4, "rs": 4, "value": 1})
    assert noise(li(0), sample(4)) == 0
    assert noise(li(0x3F80), sample(4)) == 2 * 64
    assert noise(li(0), *loop(3, sample(4), step)) == 3 * 2 * 64
    assert noise(li(0), step, sample(4)) == 2 * 64


def test_energy_is_additive_and_scales_with_counts() -> None:
    first = count_events(program(add(), product(4, 16, 64), load(1, 64)), SMALL, 700, {"load": 128, "store": 0})
    second = count_events(program(store(2, 64), maximum()), SMALL, 300, {"load": 0, "store": 256})
    apart, together = (energy_of(first, COSTS), energy_of(second, COSTS)), energy_of(first + second, COSTS)
    assert together.total_j == pytest.approx(sum(energy.total_j for energy in apart))
    assert together.seconds == pytest.approx(sum(energy.seconds for energy in apart))
    for part in PARTS:
        assert together.by_part[part] == pytest.approx(sum(energy.by_part[part] for energy in apart), rel=1e-9, abs=1e-30)
    assert energy_of(first * 9, COSTS).total_j == pytest.approx(9 * energy_of(first, COSTS).total_j)


def test_phases_sum_to_what_is_not_taken_by_time_alone() -> None:
    counts = count_events(program(add(), load(1, 64), store(1, 64), phases=["a", "b", "c"]), SMALL, 500, MOVED)
    energy = energy_of(counts, COSTS)
    assert set(energy.by_phase) == {"a", "b", "c", "end"}
    assert sum(energy.by_phase.values()) == pytest.approx(energy.total_j - energy.by_part["leakage"] - energy.by_part["idle_clock"])
    assert energy.power_w == pytest.approx(energy.total_j / 500e-9)


def test_waiting_costs_leakage_and_clock_alone() -> None:
    quick, slow = (energy_of(counted(add(), cycles=cycles), COSTS).by_part for cycles in (1000, 2000))
    assert {part for part in PARTS if quick[part] != slow[part]} == {"leakage", "idle_clock"}
    assert slow["leakage"] - quick["leakage"] == pytest.approx(leakage_of(SMALL, COSTS) * 1e-6)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_larger_memory_never_costs_less(memory: str) -> None:
    field = {"vector": "vector_kib", "matrix": "matrix_kib", "float": "float_words", "integer": "integer_words"}.get(memory)
    found = []
    for size in (64, 100, 128, 512, 1000, 4096, 20000):
        machine = SMALL.model_copy(update={"sram": SMALL.sram.model_copy(update={field: size})}) if field else SMALL
        if memory == "program":
            machine = SMALL.model_copy(update={"sequencer": SMALL.sequencer.model_copy(update={"program_words": size})})
        found.append(memories_of(machine, COSTS.sram)[memory])
    for smaller, larger in pairwise(found):
        assert all(less <= more * (1 + 1e-9) for less, more in zip(smaller, larger, strict=True))
    assert found[0].area_mm2 < found[-1].area_mm2


@pytest.mark.parametrize(("memory", "ports"), [(memory, ports) for memory in MEMORIES for ports in set(PORTS[memory])])
def test_a_bank_between_two_points_lies_between_them(memory: str, ports: tuple[int, int, int]) -> None:
    largest = largest_bank(memory)
    low, middle, high = (bank_of(memory, ports, 32, size) for size in (largest // 2, largest * 0.7, largest))
    assert all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))
    assert low.area_mm2 < middle.area_mm2 < high.area_mm2


def with_sram(**fields: int) -> Machine:
    return A6000.model_copy(update={"sram": A6000.sram.model_copy(update=fields)})


@pytest.mark.parametrize("memory", ["vector", "matrix", "float", "integer"])
def test_smaller_banks_take_less_energy_and_more_area(memory: str) -> None:
    whole, split = (memories_of(with_sram(**{f"{memory}_banks": banks}), COSTS.sram)[memory] for banks in (1, 8))
    assert split.read_fj < whole.read_fj
    assert split.leakage_w > whole.leakage_w
    # Of narrow banks CACTI has larger ones that take more than so many small ones.
    assert memory == "float" or split.area_mm2 > whole.area_mm2


@pytest.mark.parametrize(("memory", "users"), [("vector", 4), ("matrix", 2), ("integer", 3)])
def test_fewer_ports_never_take_more_area(memory: str, users: int) -> None:
    areas = [memories_of(with_sram(**{f"{memory}_ports": ports}), COSTS.sram)[memory].area_mm2 for ports in range(1, users + 1)]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]
    assert areas[-1] == memories_of(A6000, COSTS.sram)[memory].area_mm2
    assert len(PORTS[memory]) == users == len(PORT_USERS[memory])


def test_every_pair_of_formats_has_a_multiplier() -> None:
    for first in mx.FORMATS:
        for second in ("mxfp4", "mxint8", "mxfp8"):
            if "mxfp8_e5m2" not in (first, second):
                assert COSTS.multiplier(first, second) == COSTS.multiplier(second, first)
    with pytest.raises(UnmaskError, match="no multiplier of mxfp8_e5m2 and mxfp8_e5m2"):
        COSTS.multiplier("mxfp8_e5m2", "mxfp8_e5m2")


def test_wider_formats_take_more() -> None:
    def per_product(weights: str) -> float:
        machine = SMALL.with_formats(weights=weights, activations=weights)
        return prices_of(machine, COSTS)[f"matrix.mac.{weights}"]["matrix"]

    assert per_product("mxfp4") < per_product("mxfp8")
    assert per_product("mxint4") < per_product("mxint8")


def test_a_narrow_format_beside_a_wide_one_takes_as_much() -> None:
    mixed, narrow = (prices_of(SMALL.with_formats(weights="mxfp4", activations="mxint8", kv=kv), COSTS) for kv in ("mxint8", "mxfp4"))
    assert mixed["matrix.mac.mxfp4"] == mixed["matrix.mac.mxint8"]
    assert narrow["matrix.mac.mxfp4"]["matrix"] < mixed["matrix.mac.mxfp4"]["matrix"]


def changed(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = changed(tmp_path, "[vector.energy_fj]\nlane = 1\n[memory.gddr6]\ndevice_pj = 0\n")
    costs = load_costs(file)
    assert costs.vector.energy_fj.lane == 1
    assert costs.sources["vector.energy_fj.lane"] == str(file)
    assert costs.memory["gddr6"].device_pj == 0
    plain = costs.model_dump() | {"sources": {}}
    plain["vector"]["energy_fj"]["lane"] = COSTS.vector.energy_fj.lane
    plain["memory"]["gddr6"]["device_pj"] = COSTS.memory["gddr6"].device_pj
    assert plain == COSTS.model_dump() | {"sources": {}}
    counts = count_events(program(add(), load(1, 64)), A6000, 100, MOVED)
    assert energy_of(counts, costs).by_part["hbm"] == 0 < energy_of(counts, COSTS).by_part["hbm"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[vector.energy_fj]\nlanes = 1\n", "vector.energy_fj.lanes: unknown figure"),
        ("[gpu]\nx = 1\n", "gpu: unknown figure"),
        ("[layout]\nutilization = 2\n", "layout.utilization: Input should be less than or equal to 1"),
        ("[dma]\nbyte_fj = -1\n", "dma.byte_fj: Input should be greater than or equal to 0"),
        ("vector = 3\n", "vector: Input should be a valid dictionary"),
        ("[vector\n", "not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = changed(tmp_path, text)
    with pytest.raises(UnmaskError, match=said) as caught:
        load_costs(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="cannot read the cost file"):
        load_costs(tmp_path / "none.toml")


def test_every_figure_has_a_source() -> None:
    def names(table: dict[str, object], prefix: str = "") -> list[str]:
        found: list[str] = []
        for key, value in table.items():
            found += names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
        return found

    plain = {key: value for key, value in COSTS.model_dump().items() if key not in ("sources", "node_nm")}
    for name in names(plain):
        parents = [name.rsplit(".", up)[0] if up else name for up in range(name.count(".") + 1)]
        assert any(parent in COSTS.sources for parent in parents), name
    for source in COSTS.sources:
        assert any(name == source or name.startswith(f"{source}.") for name in names(plain)), f"source of nothing: {source}"


@pytest.mark.parametrize("machine", [A6000, H100], ids=lambda machine: machine.name)
def test_a_machine_is_set_against_its_gpu(machine: Machine) -> None:
    assert machine.gpu is not None
    area, power = sum(area_of(machine, COSTS).values()), peak_power_of(machine, COSTS)
    found = cost_figures(busiest(machine, COSTS), COSTS)
    gpu = found["against_gpu"]
    assert (gpu["area_ratio"], gpu["power_ratio"]) == (area / machine.gpu.area_mm2, power / machine.gpu.power_w)
    assert gpu["within"] == (area <= machine.gpu.area_mm2 and power <= machine.gpu.power_w)
    assert found["peak_power_w"] == pytest.approx(found["power_w"])
    assert gpu["within"], "a machine of a GPU's class takes no more than the GPU"
    small = machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"area_mm2": area / 2})})
    assert not cost_figures(busiest(small, COSTS), COSTS)["against_gpu"]["within"]


def test_a_machine_set_against_no_gpu_says_so() -> None:
    assert cost_figures(busiest(SMALL, COSTS), COSTS)["against_gpu"] is None


def test_every_event_of_a_busy_machine_has_a_price() -> None:
    for machine in (SMALL, A6000, H100):
        counts = busiest(machine, COSTS)
        energy = energy_of(counts, COSTS)
        assert idle_of(counts, COSTS)["matrix"] == 0, "no multiplier does nothing"
        clock, dma, vector = COSTS.vector.clock_fj, COSTS.dma, machine.vector
        once = clock.scalar + clock.control + vector.integer_lanes * clock.integer + vector.sorter * clock.sorter
        ports = dma.load_fj + dma.store_fj + port_bytes(machine) * (dma.load_byte_fj + dma.store_byte_fj)
        control = 1e-15 * counts.cycles * (once + ports + COSTS.sequencer.idle_fj)
        assert energy.by_part["idle_clock"] == pytest.approx(control * COSTS.layout.ungated)
        assert energy.total_j > 0


def test_area_grows_with_lanes_and_multipliers() -> None:
    wider = A6000.model_copy(update={"vector": A6000.vector.model_copy(update={"vlen": 2 * A6000.vector.vlen})})
    taller = A6000.model_copy(update={"matrix": A6000.matrix.model_copy(update={"rows": 2 * A6000.matrix.rows})})
    before, lanes, rows = (area_of(machine, COSTS) for machine in (A6000, wider, taller))
    assert before["vector"] < lanes["vector"]
    assert before["matrix"] < rows["matrix"]
    assert lanes["matrix"] == before["matrix"]


def test_clocks_that_nothing_stops_grow_with_what_they_clock_and_with_nothing_else() -> None:
    def clocks(**fields: int) -> dict[str, float]:
        machine = SMALL.model_copy(update={"vector": SMALL.vector.model_copy(update=fields)})
        return idle_of(counted(add(), machine=machine), COSTS)

    before, clock, ungated = clocks(), COSTS.vector.clock_fj, 1000e-15 * COSTS.layout.ungated
    for field, price in (("sorter", clock.sorter), ("integer_lanes", clock.integer)):
        more = clocks(**{field: 2 * getattr(SMALL.vector, field)})
        assert more["vector"] - before["vector"] == pytest.approx(getattr(SMALL.vector, field) * price * ungated)
        assert {name: joules for name, joules in more.items() if name != "vector"} == {
            name: joules for name, joules in before.items() if name != "vector"
        }
    twice = idle_of(counted(add(), cycles=2000), COSTS)
    assert twice["store"] == pytest.approx(2 * before["store"])
