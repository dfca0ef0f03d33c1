"""A stand-in for the RTL: the log of hardware that does exactly what it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.rtl.lockstep.bench import RECORD, RETIRE, START, Outcome
from unmask.rtl.lockstep.reference import Expected


def perfect_log(expected: Sequence[Expected]) -> tuple[NDArray[Any], list[Outcome]]:
    """Every start, every end, and every value in the last cycle before its instruction's end."""
    parts = []
    for number, e in enumerate(expected):
        count, writes = len(e.trace.pc), len(e.instruction)
        log = np.zeros(2 * count + writes, RECORD)
        log["program"] = number
        for part, kind, cycle in ((slice(0, count), START, e.trace.start), (slice(count, 2 * count), RETIRE, e.trace.end - 1)):
            log["kind"][part], log["cycle"][part], log["engine"][part], log["address"][part] = kind, cycle, e.trace.engine, e.trace.pc
        tail = log[2 * count :]
        tail["kind"], tail["address"], tail["value"] = e.space, e.address, e.value
        tail["cycle"], tail["engine"] = e.trace.end[e.instruction] - 1, e.trace.engine[e.instruction]
        parts.append(log[np.argsort(log["cycle"], kind="stable")])
    return np.concatenate(parts), [Outcome(1, 0, 0, e.cycles) for e in expected]
