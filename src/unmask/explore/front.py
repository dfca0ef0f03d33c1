"""The points that no other beats: at least as good in everything and better in something."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.explore.store import Point


def front_of(points: Sequence[Point], objectives: tuple[str, ...]) -> list[Point]:
    """The feasible points that none dominates, each place once, by the first objective."""
    feasible = sorted(
        (point for point in points if not point.outcome.reason), key=lambda point: (point.objectives(objectives), point.number)
    )
    found: list[tuple[list[float], Point]] = []
    for point in feasible:
        # In this order a point can only be dominated by an earlier one, and equal points follow each other.
        place = point.objectives(objectives)
        if not any(all(have <= want for have, want in zip(other, place, strict=True)) for other, _ in found):
            found.append((place, point))
    return [point for _, point in found]
