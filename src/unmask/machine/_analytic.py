"""The compiled loops of the analytic reading: where transfers lie, and a walk in program order, where a loop runs until it repeats itself.

`unmask.machine.analytic` says what it computes and calls it. Times are cycles. Without addresses, the time of an instruction depends on
nothing but the times before it, so what loops do to the machine's state is max-plus linear: it becomes periodic after a few iterations.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from unmask.isa.table import NO_SEMAPHORE, REGISTER_COUNT, Engine

I64 = NDArray[np.int64]

KIND, ENGINE, PHASE, WAIT0, WAIT1, SIGNAL0, SIGNAL1, TARGET, VALUE, RD, RS, RT, ADDRESS0, ADDRESS1 = range(14)
"""Columns of a program, what instructions say: ADDRESS0 and ADDRESS1 are a transfer's address registers."""
OCCUPANCY, LATENT, SERVICE, WINDOW, REACH, GAP, COLUMNS = range(14, 21)
"""And what they take. SERVICE: cycles of the shared memory's pins, 0 of instructions that it does not time; WINDOW: how many cycles before
its end a transfer has asked for everything; REACH: channels of the memory that it takes, over the square root of how many there are, times
`WHOLE`: the product of two is how many channels two transfers share on average, times WHOLE squared.
GAP: as of `unmask.machine.costs.Cycles`."""
WHOLE = 32
PLAIN, LOOP, END, SEM_SET, HALT, S_LI, S_ADDI, S_ADD, S_MULI, S_XORI, S_LD = range(11)
OK, DEADLOCK, RESET, OVERFLOW, NO_ROOM = range(5)
MAX_TOKENS = 2**16 - 1

LOAD, STORE = int(Engine.LOAD), int(Engine.STORE)
_LAGS = 4
"""Iterations after which the state of a loop may repeat."""


@njit(cache=True)
def places(program: I64, loop_depth: int, words: I64, found: I64) -> None:
    """Where transfers find their bytes; every loop runs twice, which says how far its registers move each time.

    Args:
        program: [instructions, COLUMNS].
        words: what S_LD finds in the integer SRAM; 0 beyond.
        found: out, [instructions, 4]: the two address registers the first time, and what they differ by the second time.
    """
    registers = np.zeros(REGISTER_COUNT, np.int64)
    before = np.zeros((loop_depth + 1, REGISTER_COUNT), np.int64)
    turn = np.zeros(loop_depth + 1, np.int64)
    visits = np.zeros(program.shape[0], np.int64)
    counts = np.zeros(loop_depth + 1, np.int64)
    level, pc = 0, 0
    while program[pc, KIND] != HALT:
        kind = program[pc, KIND]
        if program[pc, ADDRESS0] >= 0:
            for slot in range(2):
                value = registers[program[pc, ADDRESS0 + slot]]
                if visits[pc] == 0:
                    found[pc, slot] = value
                elif visits[pc] == 1:
                    found[pc, 2 + slot] = value - found[pc, slot]
            visits[pc] += 1
        elif kind == LOOP:
            counts[level], turn[level] = program[pc, VALUE], 0
            level += 1
        elif kind == END:
            this = level - 1
            turn[this] += 1
            if turn[this] == 1 and counts[this] > 1:
                before[this, :] = registers
                pc = program[pc, TARGET]
            else:
                if counts[this] > 2:
                    registers += (registers - before[this]) * (counts[this] - 2)
                level -= 1
        elif kind >= S_LI:
            value, source = program[pc, VALUE], registers[program[pc, RS]]
            if kind == S_LI:
                result = value
            elif kind == S_ADDI:
                result = source + value
            elif kind == S_ADD:
                result = source + registers[program[pc, RT]]
            elif kind == S_MULI:
                result = source * value
            elif kind == S_XORI:
                result = source ^ value
            else:
                result = words[source] if 0 <= source < words.shape[0] else 0
            registers[program[pc, RD]] = result
        pc += 1


@njit(cache=True)
def _relative(
    state: I64,
    now: int,
    frontier: int,
    ready: I64,
    turned: I64,
    last_end: I64,
    started: I64,
    tail: I64,
    used: I64,
    rings: I64,
    given: I64,
    taken: I64,
    busy: I64,
) -> int:
    """What the times to come depend on, as cycles after `now`; what lies before makes no difference. How many numbers that is."""
    engines, depth = started.shape
    room = rings.shape[1]
    state[0] = frontier - now
    at = 1
    for engine in range(1, engines):
        state[at] = max(ready[engine] - now, 0)
        state[at + 1] = max(last_end[engine] - now, 0)
        state[at + 2] = max(turned[engine] - now, 0)
        at += 3
        for k in range(depth):
            place = tail[engine] + k
            state[at] = max(started[engine, place if place < depth else place - depth] - now, 0)
            at += 1
    for k in range(4):
        state[at] = max(busy[k] - now, 0)
        at += 1
    for semaphore in used:
        count = given[semaphore] - taken[semaphore]
        if at + 1 + count > state.shape[0]:
            return -1
        state[at] = count
        at += 1
        for token in range(taken[semaphore], given[semaphore]):
            state[at] = max(rings[semaphore, token & (room - 1)] - now, 0)
            at += 1
    return at


@njit(cache=True)
def walk(
    program: I64, depth: int, dispatch: int, loop_depth: int, pipelined: NDArray[np.bool_], used: I64, room: int, phases: I64, totals: I64
) -> tuple[int, int, int]:
    """Time a program.

    Args:
        program: [instructions, COLUMNS].
        dispatch: cycles from an instruction's dispatch to the first in which its engine may start it.
        used: the semaphores that it names.
        room: a power of two: tokens that a semaphore may have outstanding.
        phases: out, cycles by phase.
        totals: out, [2, engines]: busy cycles; [1, 0] is the time.

    Returns:
        Status, instruction, semaphore. NO_ROOM: try again with more room.
    """
    engines = pipelined.shape[0]
    now, frontier = 0, 0
    ready = np.zeros(engines, np.int64)
    turned = np.zeros(engines, np.int64)
    last_end = np.zeros(engines, np.int64)
    started = np.zeros((engines, depth), np.int64)
    tail = np.zeros(engines, np.int64)
    rings = np.zeros((NO_SEMAPHORE + 1, room), np.int64)
    given = np.zeros(NO_SEMAPHORE + 1, np.int64)
    taken = np.zeros(NO_SEMAPHORE + 1, np.int64)
    busy = np.zeros(4, np.int64)  # when the memory last began to serve loads and stores, and until when
    reach = np.zeros(2, np.int64)
    left = np.zeros(loop_depth + 1, np.int64)
    size = 1 + engines * (depth + 3) + 4 + 9 * used.shape[0]
    states = np.zeros((loop_depth + 1, _LAGS, size), np.int64)
    lengths = np.zeros((loop_depth + 1, _LAGS), np.int64)
    nows = np.zeros((loop_depth + 1, _LAGS), np.int64)
    old_phases = np.zeros((loop_depth + 1, _LAGS, phases.shape[0]), np.int64)
    old_busy = np.zeros((loop_depth + 1, _LAGS, engines), np.int64)
    seen = np.zeros(loop_depth + 1, np.int64)
    state = np.zeros(size, np.int64)
    level, pc = 0, 0
    while True:
        engine, kind = program[pc, ENGINE], program[pc, KIND]
        earliest = 0
        for slot in (WAIT0, WAIT1):
            semaphore = program[pc, slot]
            if semaphore != NO_SEMAPHORE:
                if taken[semaphore] == given[semaphore]:
                    return DEADLOCK, pc, semaphore
                earliest = max(earliest, rings[semaphore, taken[semaphore] & (room - 1)])
                taken[semaphore] += 1
        if engine == 0:
            start = max(now, earliest)
            end = start + program[pc, OCCUPANCY]
            now = end
            totals[0, 0] += program[pc, OCCUPANCY]
        else:
            place = tail[engine]
            now = max(now, started[engine, place]) + 1
            totals[0, 0] += 1
            free = turned[engine] if program[pc, GAP] > 0 else ready[engine]
            start = max(max(now + dispatch - 1, free), earliest)
            following = start + program[pc, OCCUPANCY]
            end = following + program[pc, LATENT]
            service = program[pc, SERVICE]
            if service > 0:
                own, other = (0, 2) if engine == LOAD else (2, 0)
                begin = max(start, busy[own + 1])
                # Requests are served in the order in which transfers start: the later one waits, on the channels that both need.
                if busy[other + 1] > begin and busy[other] < start:
                    begin += (busy[other + 1] - begin) * min(WHOLE * WHOLE, reach[other // 2] * program[pc, REACH]) // (WHOLE * WHOLE)
                finish = begin + service
                if busy[other] >= start and busy[other] < finish:
                    # It starts first, although it is later in the program: what follows the other waits.
                    busy[other + 1] += service * min(WHOLE * WHOLE, reach[other // 2] * program[pc, REACH]) // (WHOLE * WHOLE)
                if begin > busy[own + 1]:
                    busy[own] = begin
                busy[own + 1] = finish
                reach[own // 2] = program[pc, REACH]
                end = max(end, finish + program[pc, LATENT])
                following = max(following, end - program[pc, WINDOW])
            if pipelined[engine]:
                end = max(end, last_end[engine] + 1)
            else:
                end = max(end, last_end[engine])
                following = end
            turned[engine], ready[engine] = following, following + program[pc, GAP]
            last_end[engine] = end
            totals[0, engine] += following - start
            started[engine, place] = start
            tail[engine] = place + 1 if place + 1 < depth else 0
        if kind == SEM_SET:
            semaphore = program[pc, TARGET]
            if taken[semaphore] != given[semaphore]:
                return RESET, pc, semaphore
            if program[pc, VALUE] > room:
                return NO_ROOM, pc, semaphore
            for _ in range(program[pc, VALUE]):
                rings[semaphore, given[semaphore] & (room - 1)] = end
                given[semaphore] += 1
        for slot in (SIGNAL0, SIGNAL1):
            semaphore = program[pc, slot]
            if semaphore != NO_SEMAPHORE:
                if given[semaphore] - taken[semaphore] == MAX_TOKENS:
                    return OVERFLOW, pc, semaphore
                if given[semaphore] - taken[semaphore] == room:
                    return NO_ROOM, pc, semaphore
                rings[semaphore, given[semaphore] & (room - 1)] = end
                given[semaphore] += 1
        if end > frontier:
            phases[program[pc, PHASE]] += end - frontier
            frontier = end
        if kind == LOOP:
            left[level] = program[pc, VALUE]
            seen[level] = 0
            level += 1
        elif kind == END:
            this = level - 1
            left[this] -= 1
            if left[this] > 1:
                length = _relative(state, now, frontier, ready, turned, last_end, started, tail, used, rings, given, taken, busy)
                count = seen[this]
                for lag in range(1, min(count, _LAGS) + 1):
                    old = (count - lag) % _LAGS
                    if length < 0 or lengths[this, old] != length or left[this] < lag:
                        continue
                    same = True
                    for k in range(length):
                        if states[this, old, k] != state[k]:
                            same = False
                            break
                    if not same:
                        continue
                    times = left[this] // lag
                    shift = times * (now - nows[this, old])
                    for k in range(phases.shape[0]):
                        phases[k] += times * (phases[k] - old_phases[this, old, k])
                    for k in range(engines):
                        totals[0, k] += times * (totals[0, k] - old_busy[this, old, k])
                    now += shift
                    frontier += shift
                    ready += shift
                    turned += shift
                    last_end += shift
                    started += shift
                    busy += shift
                    for semaphore in used:
                        for token in range(taken[semaphore], given[semaphore]):
                            rings[semaphore, token & (room - 1)] += shift
                    left[this] -= times * lag
                    count = -1
                    break
                if count >= 0:
                    new = count % _LAGS
                    lengths[this, new] = length
                    nows[this, new] = now
                    states[this, new, :] = state
                    old_phases[this, new, :] = phases
                    old_busy[this, new, :] = totals[0]
                    seen[this] = count + 1
                else:
                    seen[this] = 0
            if left[this] > 0:
                pc = program[pc, TARGET]
            else:
                level -= 1
        elif kind == HALT:
            break
        pc += 1
    totals[1, 0] = frontier
    return OK, 0, 0
