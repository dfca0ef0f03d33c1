"""Energy, power and area as figures with stable names, as the commands print them."""

from __future__ import annotations

from typing import Any

from unmask.machine.config import Machine
from unmask.silicon.cost.area import area_of
from unmask.silicon.cost.energy import energy_of
from unmask.silicon.cost.events import Counts
from unmask.silicon.cost.peak import peak_power_of
from unmask.silicon.cost.table import Costs

MODELLED = "modelled, before layout: counted events times the prices of docs/energy.md"


def cost_figures(counts: Counts, costs: Costs, tokens: int | None = None) -> dict[str, Any]:
    """What a run takes and what the machine is.

    Args:
        counts: of the run.
        costs: the table of prices.
        tokens: that the run made.

    Returns:
        `energy` (`total_j`, `by_part`, `by_phase`, joules, and `basis`), `power_w` on average, `peak_power_w` at the most, `area`
        (`total_mm2`, `by_block`, `node_nm`); with tokens, `tokens_per_joule`; `against_gpu`, of the GPU that the machine is set
        against, if any: its name, die area and board power, and the machine's area and peak power as parts of them.
    """
    energy = energy_of(counts, costs)
    areas = area_of(counts.machine, costs)
    total = sum(areas.values())
    peak = peak_power_of(counts.machine, costs)
    found: dict[str, Any] = {
        "energy": {
            "total_j": energy.total_j,
            "by_part": dict(energy.by_part),
            "by_phase": dict(energy.by_phase),
            "basis": MODELLED,
        },
        "power_w": energy.power_w,
        "peak_power_w": peak,
        "area": {"total_mm2": total, "by_block": areas, "node_nm": costs.node_nm},
    }
    if tokens is not None:
        found["tokens_per_joule"] = tokens / energy.total_j
    return found | {"against_gpu": _against_gpu(counts.machine, total, peak)}


def _against_gpu(machine: Machine, area_mm2: float, power_w: float) -> dict[str, Any] | None:
    """A die and the most that it takes beside the GPU's; None where the machine names no GPU."""
    gpu = machine.gpu
    if gpu is None:
        return None
    return {
        "name": gpu.name,
        "gpu_area_mm2": gpu.area_mm2,
        "area_ratio": area_mm2 / gpu.area_mm2,
        "gpu_power_w": gpu.power_w,
        "power_ratio": power_w / gpu.power_w,
        "within": area_mm2 <= gpu.area_mm2 and power_w <= gpu.power_w,
    }
