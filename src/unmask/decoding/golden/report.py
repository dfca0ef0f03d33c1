"""What a replay found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CaseResult:
    """One case: its name (path below the replayed folder, without `.json`), the outcome, and why or what to note."""

    name: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class GoldenReport:
    """All cases found, in the order of their names."""

    results: tuple[CaseResult, ...]

    def names(self, outcome: Outcome) -> list[str]:
        return [result.name for result in self.results if result.outcome == outcome]

    def to_json(self) -> dict[str, int | list[str]]:
        """The summary that `unmask golden --json` prints."""
        return {
            "cases": len(self.results),
            "passed": len(self.names("passed")),
            "failed": self.names("failed"),
            "skipped": self.names("skipped"),
        }
