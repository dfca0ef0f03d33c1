"""The row accumulators: whose sums and maxima they hold, which only instructions of the same kind may continue or read."""

from __future__ import annotations

from random import Random

from unmask.isa.encoding import Operand
from unmask.rtl.lockstep.nodes import Address

_OWNER = {"V_RED_SUM": "sum", "V_RED_SUM_GE": "sum", "V_RED_SUM_WIN": "window", "V_SAMPLE": "sample", "V_SAMPLE_END": "sample"}
"""What an instruction's row accumulators hold: only the same may continue from it or read it."""


class Unavailable(Exception):
    """There is nothing an operand could be: choose another instruction."""


class Accumulators:
    """Who has used each row last."""

    def __init__(self, rng: Random, rows: int) -> None:
        self._rng = rng
        self._owner: list[str | None] = [None] * rows

    def claim(self, name: str, constants: dict[str, Operand], addresses: dict[str, Address], looped: bool) -> tuple[range, str | None]:
        """Rows of accumulators: `first`, and whether it may be a running reduction; what to `keep` once the instruction is in the program.

        Raises:
            Unavailable: no rows hold what it must read.
        """
        kind = _OWNER.get(name)
        if kind is None:
            return range(0), None
        rows, total = int(constants.get("rows", constants.get("count", 1))), len(self._owner)
        if rows > total:
            raise Unavailable
        reads = name == "V_SAMPLE_END"
        first = 0
        if kind == "sample":
            starts = range(total - rows + 1)
            good = [s for s in starts if all(o == kind for o in self._owner[s : s + rows])]
            if reads or (constants["running"] and good):
                if not good:
                    raise Unavailable
                first = self._rng.choice(good)
            else:
                first = self._rng.choice((starts[-1], self._rng.choice(starts)))
            if "first" in addresses:
                first = addresses["first"].base
            addresses["first"] = Address(first)
        held = self._owner[first : first + rows]
        if reads and any(o != kind for o in held):
            raise Unavailable
        if not reads and constants["running"] and any(o != kind for o in held):
            constants["running"] = 0
        if looped and any(o not in (None, kind) for o in held):
            raise Unavailable
        return range(first, first + rows), kind

    def keep(self, rows: range, kind: str | None) -> None:
        """These rows were used by an instruction of the program."""
        self._owner[rows.start : rows.stop] = [kind] * len(rows)
