"""What holds a generation on a machine back: units that are busy, and energy of moving bytes and multiplying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEAST_SHARE = 0.02
"""A phase, or a part of the energy, below this share bounds nothing."""


def bounds(sim: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation on the machine waits for.

    Args:
        sim: figures of `unmask sim`.

    Returns:
        `phases`, the longest first: `share` of the time, the busiest unit `by` and the share of the phase in which it is `busy`;
        `speedup_if_busy`: how many times faster the run would be if every phase took no longer than its busiest unit works;
        `energy`: the largest parts' shares.
    """
    phases = [
        {"phase": name, "share": work["share"], "by": work["bound"]["by"], "busy": min(work["bound"]["share"], 1.0)}
        for name, work in sorted(sim["by_phase"].items(), key=lambda item: -item[1]["cycles"])
    ]
    least = sum(phase["share"] * phase["busy"] for phase in phases)
    energy = sim["energy"]
    parts = {name: joules / energy["total_j"] for name, joules in sorted(energy["by_part"].items(), key=lambda item: -item[1])}
    return {
        "phases": [phase for phase in phases if phase["share"] >= _LEAST_SHARE],
        "speedup_if_busy": 1 / least,
        "energy": {name: share for name, share in parts.items() if share >= _LEAST_SHARE},
    }


def fixed_energy(
    sim: Mapping[str, Any], yardstick: Mapping[str, float], target: float | None, least_bytes: float | None
) -> dict[str, float | None]:
    """What moving bytes and multiplying takes by itself, as it is and with room for all rows, beside what a target leaves for everything.

    Args:
        sim: figures of `unmask sim`.
        yardstick: the GPU's `tokens_per_j`.
        target: tokens per joule aimed at, over the GPU's; None if there is none.
        least_bytes: moved by a machine that holds all rows at once, so that weights pass once a step; None where no target is missed.

    Returns:
        Joules of `moving`, the `moved_bytes` between DRAM and die at both sides, and of `products`, with quantizing and rounding; `ratio`,
        tokens per joule over the GPU's if they were all; `least_bytes`, and `least_ratio`, the same with no more moved than these, or None;
        `allowed_j`, all that the machine may take to reach the target, or None.
    """
    by_part = sim["energy"]["by_part"]
    moving, products = by_part["hbm"] + by_part["memory_interface"], by_part["matrix"]
    moved, of_gpu = sum(sim["hbm_bytes"].values()), sim["tokens"] / yardstick["tokens_per_j"]
    return {
        "moving": moving,
        "moved_bytes": moved,
        "products": products,
        "ratio": of_gpu / (moving + products),
        "least_bytes": least_bytes,
        "least_ratio": None if least_bytes is None else of_gpu / (moving * least_bytes / moved + products),
        "allowed_j": None if target is None else of_gpu / target,
    }
