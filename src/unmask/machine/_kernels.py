"""The compiled loops of the cycle reading: DRAM, DMA transfers and the walk over a program.

`unmask.machine.dram` and `unmask.machine.cycle` say what they compute and call them. They are one module because numba, which caches what
it compiles by file, would not notice that a function of another file has changed.

Times of the memory are in ticks, `TICKS` to a cycle of the machine's clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from unmask.isa.table import NO_SEMAPHORE, REGISTER_COUNT, Engine
from unmask.machine.sequencer import REGISTER_BITS

I64 = NDArray[np.int64]

TICKS = 1024
MAX_TOKENS = 2**16 - 1
"""A semaphore is a 16-bit counter."""
POSTPONED = 8
"""Refreshes of a bank that may be put off while its row stays open, as JEDEC's standards allow."""

LOAD, STORE = int(Engine.LOAD), int(Engine.STORE)
_LAST_ENGINE = int(max(Engine))
_SIGN, _MASK = 1 << (REGISTER_BITS - 1), (1 << REGISTER_BITS) - 1
_NEVER = 2**62
_CLOSED = -_NEVER
"""In the place of an open row's number."""

# The memory's parameters, int64: organisation, then times in ticks.
CHANNELS, BANKS, INTERLEAVE, PIECES, BURST_BYTES, FULL, ALL_BANKS, PORTS, BEAT, REQUEST, READS, WRITES = range(12)
BURST, RCD, RP, CL, RAS, WR, TURN, RRD, REFI, RFC, RFC_BANK, LATENCY = range(12, 24)
# Bytes per cycle of an ideal memory, of which only BEAT, BURST_BYTES and LATENCY are set beside it; 0 for DRAM.
PACE, PARAMETERS = 24, 25
# Columns of the static program.
KIND, ENGINE, OCCUPANCY, LATENT, WAIT0, WAIT1, SIGNAL0, SIGNAL1, TARGET, VALUE, PHASE, RD, RS, RT = range(14)
# Of a DMA instruction (`unmask.machine.dma`): registers of the addresses of its elements and scales; rows; bytes of a row and between rows,
# elements and scales; the most bytes of a range, elements and scales; of L_GATHER, rows of its table, and cycles before it asks.
ADDRESS0, ADDRESS1, ROWS, BYTES0, BYTES1, STRIDE0, STRIDE1, CHUNK0, CHUNK1, LIMIT, LEAD = range(14, 25)
# Of an END (`unmask.machine.loops`): whether iterations may be skipped, and the registers, a bit each, on which their time depends.
SKIPS, NEEDS = 25, 26
# The memories with fewer ports than engines that an instruction touches, a bit each (`unmask.machine.ports`).
TOUCHES = 27
# Cycles after its occupancy in which its engine takes none but another instruction with such cycles (`unmask.machine.costs.Cycles`).
GAP, COLUMNS = 28, 29
PLAIN, LOOP, END, SEM_SET, HALT, S_LI, S_ADDI, S_ADD, S_MULI, S_XORI, S_LD = range(11)
OK, DEADLOCK, RESET, OVERFLOW, NO_ROOM, UNGATHERED = range(6)
# What an engine's queue holds of an instruction.
_PC, _NUMBER, _AT, _TOKEN0, _TOKEN1, _GIVE0, _GIVE1, _FROM0, _FROM1, _ENTRY = range(10)
_PICTURE = 2048
"""Room in a picture of the machine for what is not in a queue: tokens and instructions under way."""


class Memory(NamedTuple):
    """State of a memory; int64 arrays, times in ticks.

    Attributes:
        bus, activated, due, wrote: per channel: end of the last burst, the last activate, the next refresh of all banks, whether the last
            burst was a write.
        row, opened, closable, ready, refreshed: per bank, channel by channel: the open row or `_CLOSED`, its activate, when it may be
            precharged, when a closed bank may be activated, up to when refreshes are paid.
        ring, slots: [2, bursts], [2], reads first: when the AXI bursts under way are done, and which is the oldest.
        served, bursts: [n, 3], [1]: address of the AXI bursts that were asked for, when, and when they are done; only while there is room.
    """

    bus: I64
    activated: I64
    due: I64
    wrote: I64
    row: I64
    opened: I64
    closable: I64
    ready: I64
    refreshed: I64
    ring: I64
    slots: I64
    served: I64
    bursts: I64


@njit(cache=True)
def idle(t: I64, room: int = 0) -> Memory:
    """A memory that has not been asked for anything, with room to write down so many AXI bursts."""
    channels, banks = t[CHANNELS], t[CHANNELS] * t[BANKS]
    zero = np.zeros(banks, np.int64)
    return Memory(
        np.full(channels, -t[TURN]),
        np.full(channels, -t[RRD]),
        np.full(channels, t[REFI] if t[ALL_BANKS] != 0 else _NEVER),
        np.zeros(channels, np.int64),
        np.full(banks, _CLOSED),
        zero,
        zero.copy(),
        zero.copy(),
        zero.copy(),
        np.zeros((2, max(t[READS], t[WRITES])), np.int64),
        np.zeros(2, np.int64),
        np.zeros((room, 3), np.int64),
        np.zeros(1, np.int64),
    )


@njit(cache=True)
def _refresh_channel(t: I64, memory: Memory, channel: int, time: int) -> None:
    """Refresh all banks of a channel; the refresh is due at `time`."""
    memory.due[channel] = time + t[REFI]
    for bank in range(channel * t[BANKS], (channel + 1) * t[BANKS]):
        memory.row[bank] = _CLOSED
        memory.ready[bank] = time + t[RP] + t[RFC]


@njit(cache=True, error_model="numpy", inline="always")
def serve(t: I64, memory: Memory, address: int, size: int, write: bool, at: int) -> tuple[int, int]:
    """Serve the bytes [address, address + size), asked for at tick `at`: the tick at which the last has passed its bus, and the bursts."""
    # Locals, one array per field, unsigned indices and no divisions in the loop: five times as fast as the obvious code.
    bus, activated, due, wrote = memory.bus, memory.activated, memory.due, memory.wrote
    rows, opened_at, closable, ready, refreshed = memory.row, memory.opened, memory.closable, memory.ready, memory.refreshed
    t_burst, t_rcd, t_rp, t_cl, t_ras, t_turn, t_rrd = t[BURST], t[RCD], t[RP], t[CL], t[RAS], t[TURN], t[RRD]
    t_refi, t_rfc_bank, t_wr, by_bank = t[REFI], t[RFC_BANK], t[WR] if write else 0, t[ALL_BANKS] == 0
    interleave, full, burst = t[INTERLEAVE], t[FULL], t[BURST_BYTES]
    count, pieces, per_channel = t[CHANNELS], t[PIECES], t[BANKS]
    end = address + size
    block = address // interleave
    line = block // count
    position, turn, rounds = block % count, (line + line // count) % count, line % count
    part, row, column = line % pieces, line // pieces // per_channel, line // pieces % per_channel
    border = (block + 1) * interleave
    latest, total = 0, 0
    while address < end:
        upto = min(end, border)
        bursts = full if upto - address == interleave else (upto - 1) // burst - address // burst + 1
        total += bursts
        number = position + turn if position + turn < count else position + turn - count
        channel, bank = np.uint64(number), np.uint64(number * per_channel + column)
        if by_bank:
            late = max(at, bus[channel]) - refreshed[bank]
            if late >= t_refi and (rows[bank] != row or late >= (POSTPONED + 1) * t_refi):
                owed = late // t_refi
                ready[bank] = (ready[bank] if rows[bank] == _CLOSED else closable[bank] + t_rp) + owed * t_rfc_bank
                rows[bank] = _CLOSED
                refreshed[bank] += owed * t_refi
        elif at >= due[channel]:
            _refresh_channel(t, memory, number, at - at % t_refi)
        while bursts > 0:
            open_row, opened, free = rows[bank], opened_at[bank], bus[channel]
            if open_row != row:
                opened = max(at, ready[bank]) if open_row == _CLOSED else max(at, closable[bank]) + t_rp
                opened = max(opened, activated[channel] + t_rrd)
            if wrote[channel] != write:
                free += t_turn
            data = max(max(at, opened + t_rcd) + t_cl, free)
            now = bursts
            if data + bursts * t_burst > due[channel]:
                now = (due[channel] - data) // t_burst
                if now <= 0:
                    _refresh_channel(t, memory, number, due[channel])
                    continue
            if open_row != row:
                rows[bank], opened_at[bank], activated[channel] = row, opened, opened
            done = data + now * t_burst
            bus[channel], wrote[channel] = done, write
            closable[bank] = max(opened + t_ras, done + t_wr)
            latest = max(latest, done)
            bursts -= now
        address = border
        border += interleave
        position += 1
        if position == count:
            position = 0
            rounds = rounds + 1 if rounds + 1 < count else 0
            turn = (turn + (1 if rounds > 0 else 2)) % count
            part += 1
            if part == pieces:
                part = 0
                column += 1
                if column == per_channel:
                    column = 0
                    row += 1
    return latest, total


@njit(cache=True, error_model="numpy", inline="always")
def _range(t: I64, memory: Memory, address: int, size: int, write: bool, at: int) -> tuple[int, int, int]:
    """Ask for consecutive bytes from tick `at` on: of DRAM as AXI bursts, of an ideal memory beat after beat.

    Returns:
        Ticks at which the last beat has been asked for and at which all is done, bursts of memory or, if it is ideal, beats.
    """
    if t[PACE] > 0:
        beats = (address + size - 1) // t[BEAT] - address // t[BEAT] + 1
        at += (beats * t[BEAT] + t[PACE] - 1) // t[PACE] * TICKS
        return at, at + t[LATENCY], beats
    ring, slots = memory.ring, memory.slots
    port = 1 if write else 0
    window = t[WRITES] if write else t[READS]
    end = address + size
    latest, total = 0, 0
    while address < end:
        upto = min(end, (address // t[REQUEST] + 1) * t[REQUEST])
        slot = slots[port]
        at = max(at, ring[port, slot])
        done, bursts = serve(t, memory, address, upto - address, write, at)
        done = -(-(done + t[LATENCY]) // TICKS) * TICKS
        beats = (upto - 1) // t[BEAT] - address // t[BEAT] + 1
        if t[PORTS] == 1:
            # One port moves a beat a cycle, in order, and responses one a cycle; no sooner than an ideal memory would.
            before = ring[port, slot - 1 if slot > 0 else window - 1]
            done = max(done, at + beats * TICKS + t[LATENCY], before + (1 if write else beats) * TICKS)
        ring[port, slot] = done
        slots[port] = slot + 1 if slot + 1 < window else 0
        if memory.bursts[0] < memory.served.shape[0]:
            asked = memory.served[memory.bursts[0]]
            asked[0], asked[1], asked[2] = address, at, done
            memory.bursts[0] += 1
        latest = max(latest, done)
        total += bursts
        at += (beats * TICKS + t[PORTS] - 1) // t[PORTS]
        address = upto
    return at, latest, total


@njit(cache=True, error_model="numpy")
def transfer(t: I64, memory: Memory, op: I64, address0: int, address1: int, write: bool, start: int, gathered: I64) -> tuple[int, int, int]:
    """A DMA instruction that starts in cycle `start`.

    Args:
        t: the memory's parameters.
        memory: its state, changed.
        op: the instruction's row of the static program.
        address0, address1: what its two address registers hold: of the elements and, in MX, of the scales.
        gathered: the rows that L_GATHER's ids choose, or nothing where they are not known.

    Returns:
        Cycle in which the engine may start the next one, cycle in which the last byte is in place, bytes that crossed the memory's pins.
    """
    at = (start + op[LEAD]) * TICKS
    latest, total = 0, 0
    for row in range(op[ROWS]):
        elements, scales = address0 + row * op[STRIDE0], address1 + row * op[STRIDE1]
        if gathered.shape[0] > 0:
            elements = address0 + gathered[row] * op[STRIDE0]
        elif op[LIMIT] > 0:
            elements = address0 + ((((address1 + row) * 0x9E3779B1) & 0xFFFFFFFF) * op[LIMIT] >> 32) * op[STRIDE0]
        last = elements + op[BYTES0]
        last_scale = scales + op[BYTES1]
        while elements < last:
            for turn in range(2):
                # A load needs the scales first; a store has them last.
                if (turn == 0) == write:
                    where, size = elements, min(op[CHUNK0], last - elements)
                else:
                    where, size = scales, min(op[CHUNK1], last_scale - scales)
                if size > 0:
                    at, done, bursts = _range(t, memory, where, size, write, at)
                    latest = max(latest, done)
                    total += bursts
            elements += op[CHUNK0]
            scales += op[CHUNK1]
    return -(-at // TICKS), latest // TICKS, total * t[BURST_BYTES]


@njit(cache=True)
def _register(kind: int, value: int, rd: int, rs: int, rt: int, registers: I64, words: I64) -> None:
    """A register instruction; registers hold 48 bits, so that products may wrap at 64."""
    if kind == S_LI:
        result = value
    elif kind == S_ADDI:
        result = registers[rs] + value
    elif kind == S_ADD:
        result = registers[rs] + registers[rt]
    elif kind == S_MULI:
        result = registers[rs] * value
    elif kind == S_XORI:
        result = registers[rs] ^ value
    else:
        at = registers[rs]
        result = words[at] if 0 <= at < words.shape[0] else 0
    registers[rd] = ((result + _SIGN) & _MASK) - _SIGN


@njit(cache=True)
def _retire(log: I64, retired: int, executed: int, program: I64, phases: I64, totals: I64) -> int:
    """Credit phases with the ends of instructions in program order, up to the first that has not started; how many are done."""
    room = log.shape[0]
    frontier = totals[3, 0]
    while retired < executed and log[retired & (room - 1), 1] >= 0:
        end = log[retired & (room - 1), 1]
        if end > frontier:
            phases[program[log[retired & (room - 1), 0], PHASE]] += end - frontier
            frontier = end
        retired += 1
    totals[3, 0] = frontier
    return retired


class Run(NamedTuple):
    """State of a walk but for a few numbers; int64 arrays. Sizes: `engines`, `depth` of a queue, `room` of a semaphore.

    Attributes:
        ready, last_end, head, tail, queued: [engines].
        turned: [engines], when an instruction with GAP may start; `ready` holds for those without.
        queue: [engines * depth, _ENTRY], instructions that wait.
        started: [engines, depth], when the latest `depth` instructions started.
        rings: [semaphores, room], when tokens are given, -1 while unknown.
        given, taken, consumed, last_take: [semaphores]; tokens given and taken at dispatch, taken by instructions that have started.
        log: [16 * room, 2], instruction and end of those not yet retired.
        held: [memories with fewer ports than engines, engines], until when an engine holds a port.
    """

    ready: I64
    last_end: I64
    head: I64
    tail: I64
    queued: I64
    queue: I64
    started: I64
    rings: I64
    given: I64
    taken: I64
    consumed: I64
    last_take: I64
    log: I64
    held: I64
    turned: I64


@njit(cache=True)
def _free(program: I64, run: Run, engine: int, place: int) -> int:
    """When an engine may start the instruction at a place of its queue, but for its tokens."""
    free: int = run.turned[engine] if program[run.queue[place, _PC], GAP] > 0 else run.ready[engine]
    at: int = run.queue[place, _AT]
    return max(at, free)


@njit(cache=True)
def _earliest(program: I64, run: Run, now: int) -> int:
    """A time before which nothing can start or end any more: instructions that wait for unknown tokens come after one that can start."""
    depth, room = run.started.shape[1], run.rings.shape[1]
    least = now
    for engine in range(1, run.ready.shape[0]):
        if run.queued[engine] == 0:
            continue
        place = engine * depth + run.head[engine]
        at = _free(program, run, engine, place)
        for slot, token in ((WAIT0, _TOKEN0), (WAIT1, _TOKEN1)):
            semaphore = program[run.queue[place, _PC], slot]
            if semaphore != NO_SEMAPHORE:
                given_at = run.rings[semaphore, run.queue[place, token] & (room - 1)]
                at = max(at, given_at) if given_at >= 0 else _NEVER
        least = min(least, at)
    return least


@njit(cache=True)
def _picture(
    out: I64, program: I64, run: Run, now: int, frontier: int, retired: int, executed: int, registers: I64, needs: int, low: int
) -> int:
    """Write all on which the rest of a loop's time depends, relative to `now`, to `out`: its length, or 0 if there is no room."""
    depth, room = run.started.shape[1], run.rings.shape[1]
    least = _earliest(program, run, now)
    out[0], out[1] = now - least, frontier - now
    n = 2
    for engine in range(1, run.ready.shape[0]):
        queued, tail, head = run.queued[engine], run.tail[engine], run.head[engine]
        out[n], out[n + 1], out[n + 2] = queued, max(run.ready[engine], least) - now, max(run.last_end[engine], least) - now
        out[n + 3] = max(run.turned[engine], least) - now
        n += 4
        for j in range(depth - queued):
            out[n] = max(run.started[engine, (tail + j) % depth], least) - now
            n += 1
        for j in range(queued):
            place = engine * depth + (head + j) % depth
            pc = run.queue[place, _PC]
            out[n], out[n + 1], out[n + 2] = pc, executed - run.queue[place, _NUMBER], max(run.queue[place, _AT], least) - now
            n += 3
            for slot, field in ((WAIT0, _TOKEN0), (WAIT1, _TOKEN1), (SIGNAL0, _GIVE0), (SIGNAL1, _GIVE1)):
                semaphore = program[pc, slot]
                out[n] = run.given[semaphore] - run.queue[place, field] if semaphore != NO_SEMAPHORE else 0
                n += 1
            moves = program[pc, ROWS] > 0
            out[n] = run.queue[place, _FROM0] & low if moves else 0
            out[n + 1] = run.queue[place, _FROM1] & low if moves else 0
            n += 2
    for memory in range(run.held.shape[0]):
        for engine in range(1, run.held.shape[1]):
            out[n] = max(run.held[memory, engine], least) - now
            n += 1
    for semaphore in range(NO_SEMAPHORE):
        given, consumed = run.given[semaphore], run.consumed[semaphore]
        if given == 0:
            continue
        if n + 5 + given - consumed > out.shape[0]:
            return 0
        out[n], out[n + 1], out[n + 2] = semaphore, given - run.taken[semaphore], given - consumed
        out[n + 3] = max(run.last_take[semaphore], least) - now
        n += 4
        for token in range(consumed, given):
            given_at = run.rings[semaphore, token & (room - 1)]
            out[n] = max(given_at, least) - now if given_at >= 0 else _NEVER
            n += 1
    if n + 2 * (executed - retired) + REGISTER_COUNT > out.shape[0]:
        return 0
    for number in range(retired, executed):
        entry = number & (run.log.shape[0] - 1)
        out[n] = run.log[entry, 0]
        out[n + 1] = run.log[entry, 1] - now if run.log[entry, 1] >= 0 else _NEVER
        n += 2
    for register in range(REGISTER_COUNT):
        if needs >> register & 1:
            out[n] = registers[register] & low
            n += 1
    return n


@njit(cache=True)
def _alike(one: I64, other: I64, size: int) -> bool:
    return not (one[:size] != other[:size]).any()


@njit(cache=True)
def _repeat(totals: I64, before: I64, times: int) -> None:
    """Add what has come to `totals` since `before` so many times more."""
    for row in range(totals.shape[0]):
        for column in range(totals.shape[1]):
            totals[row, column] += times * (totals[row, column] - before[row, column])


@njit(cache=True)
def _shift(run: Run, time: int, retired: int, executed: int) -> None:
    """Let the machine be `time` cycles later than it is."""
    depth, room = run.started.shape[1], run.rings.shape[1]
    run.ready[:] += time
    run.turned[:] += time
    run.last_end[:] += time
    run.started[:] += time
    run.last_take[:] += time
    run.held[:] += time
    for engine in range(1, run.ready.shape[0]):
        for j in range(run.queued[engine]):
            run.queue[engine * depth + (run.head[engine] + j) % depth, _AT] += time
    for semaphore in range(NO_SEMAPHORE):
        for token in range(run.consumed[semaphore], run.given[semaphore]):
            if run.rings[semaphore, token & (room - 1)] >= 0:
                run.rings[semaphore, token & (room - 1)] += time
    for number in range(retired, executed):
        if run.log[number & (run.log.shape[0] - 1), 1] >= 0:
            run.log[number & (run.log.shape[0] - 1), 1] += time


@njit(cache=True)
def _calculate(program: I64, first: int, end: int, times: int, registers: I64, words: I64) -> None:
    """The register instructions of the body of a loop, from `first` to its END at `end`, so many times."""
    left = np.zeros(end - first + 1, np.int64)
    for _ in range(times):
        pc, level = first, 0
        while pc != end:
            kind = program[pc, KIND]
            if kind >= S_LI:
                _register(kind, program[pc, VALUE], program[pc, RD], program[pc, RS], program[pc, RT], registers, words)
            elif kind == LOOP:
                left[level] = program[pc, VALUE]
                level += 1
            elif kind == END:
                left[level - 1] -= 1
                if left[level - 1] > 0:
                    pc = program[pc, TARGET]
                else:
                    level -= 1
            pc += 1


@njit(cache=True)
def _port(touches: int, engine: int, at: int, ports: I64, held: I64) -> int:
    """The first cycle from `at` on in which an engine can have a port of every memory that it touches, if no other engine starts before."""
    for memory in range(held.shape[0]):
        while touches >> memory & 1:
            others, soonest = 0, _NEVER
            for other in range(1, held.shape[1]):
                if other != engine and held[memory, other] > at:
                    others += 1
                    soonest = min(soonest, held[memory, other])
            if others < ports[memory]:
                break
            at = soonest
    return at


@njit(cache=True)
def walk(
    program: I64,
    depth: int,
    dispatch: int,
    loop_depth: int,
    pipelined: NDArray[np.bool_],
    t: I64,
    ports: I64,
    words: I64,
    gathered: I64,
    room: int,
    phases: I64,
    totals: I64,
    trace: I64,
    skipped: I64,
) -> tuple[int, int, int]:
    """Time a program.

    The sequencer runs ahead as far as it can, then the engines whose next instruction's start is known. Load and store share the memory:
    the one that starts first, load on a tie, goes first, and only when nobody else can go on, so that no other can come before it. Where
    ports are scarce, so do all engines: the one that starts first goes first, on a tie that of the lowest number. Whatever waits for an
    unknown token, or for room in a queue, starts after the one that is chosen.

    At an END whose loop may skip, all that the loop's time depends on is compared, relative to the time, with a picture of an earlier
    iteration. If nothing differs, the iterations between repeat: the rest of them is added up. Pictures are taken after 1, 2, 4, ...
    iterations, so that a period of any length is found.

    Args:
        program: [instructions, COLUMNS].
        dispatch: cycles from an instruction's dispatch to the first in which its engine may start it.
        t: the memory's parameters.
        ports: of the on-chip memories that have fewer of them than engines.
        words: what S_LD finds in the integer SRAM; 0 beyond.
        gathered: the rows that all executions of L_GATHER choose, in order, or nothing; with them, no loop may skip.
        room: a power of two: tokens that a semaphore may have outstanding, and a sixteenth of the instructions that may be under way.
        phases: out, cycles by phase.
        totals: out, [4, engines]: busy cycles, instructions, HBM bytes; [3, 0] is the time.
        trace: out, [n, 6]; only the first n instructions are traced, and nothing is skipped before.
        skipped: out, [1]: instructions that were not walked.

    Returns:
        Status, instruction, semaphore. NO_ROOM: try again with more room. UNGATHERED: `gathered` ends too early.
    """
    engines = pipelined.shape[0]
    registers = np.zeros(REGISTER_COUNT, np.int64)
    memory = idle(t)
    now = 0  # the sequencer's next free cycle
    ready = np.zeros(engines, np.int64)
    turned = np.zeros(engines, np.int64)
    last_end = np.zeros(engines, np.int64)
    queue = np.zeros((engines * depth, _ENTRY), np.int64)
    started = np.zeros((engines, depth), np.int64)  # when the latest `depth` instructions started
    head = np.zeros(engines, np.int64)
    tail = np.zeros(engines, np.int64)
    queued = np.zeros(engines, np.int64)
    rings = np.zeros((NO_SEMAPHORE + 1, room), np.int64)  # when tokens are given, -1 while unknown
    given = np.zeros(NO_SEMAPHORE + 1, np.int64)
    taken = np.zeros(NO_SEMAPHORE + 1, np.int64)
    consumed = np.zeros(NO_SEMAPHORE + 1, np.int64)  # by instructions that have started
    last_take = np.zeros(NO_SEMAPHORE + 1, np.int64)
    left = np.zeros(loop_depth + 1, np.int64)
    log = np.zeros((16 * room, 2), np.int64)  # instruction and end of those not yet retired
    held = np.zeros((ports.shape[0], engines), np.int64)
    scarce = ports.shape[0] > 0
    run = Run(ready, last_end, head, tail, queued, queue, started, rings, given, taken, consumed, last_take, log, held, turned)
    pictures = np.zeros((loop_depth + 1, _PICTURE + engines * depth * _ENTRY), np.int64)  # the last row is the present
    sizes = np.zeros(loop_depth + 1, np.int64)
    ages = np.zeros((loop_depth + 1, 2), np.int64)  # iterations since the picture was taken, and after how many the next is
    then = np.zeros((loop_depth + 1, 2), np.int64)  # time, and iterations left
    old_totals = np.zeros((loop_depth + 1, 4, engines), np.int64)
    old_phases = np.zeros((loop_depth + 1, phases.shape[0]), np.int64)
    level, executed, retired, pc = 0, 0, 0, 0
    rows_gathered = 0
    halted = False
    while True:
        while not halted:
            engine, kind = program[pc, ENGINE], program[pc, KIND]
            if engine != 0 and queued[engine] == depth:
                break
            first, second = program[pc, WAIT0], program[pc, WAIT1]
            token0, token1 = taken[first], taken[second] + (1 if first == second else 0)
            if first != NO_SEMAPHORE and token0 >= given[first]:
                return DEADLOCK, pc, first
            if second != NO_SEMAPHORE and token1 >= given[second]:
                return DEADLOCK, pc, second
            start = now
            if engine == 0:
                if kind == SEM_SET and consumed[program[pc, TARGET]] != taken[program[pc, TARGET]]:
                    break
                known = True
                if first != NO_SEMAPHORE:
                    known = rings[first, token0 & (room - 1)] >= 0
                    start = max(start, rings[first, token0 & (room - 1)])
                if second != NO_SEMAPHORE:
                    known = known and rings[second, token1 & (room - 1)] >= 0
                    start = max(start, rings[second, token1 & (room - 1)])
                if not known:
                    break
            for semaphore in (first, second):
                if semaphore != NO_SEMAPHORE:
                    taken[semaphore] += 1
                    if engine == 0:
                        consumed[semaphore] += 1
                        last_take[semaphore] = start
            end = -1
            if engine == 0:
                end = start + program[pc, OCCUPANCY]
                now = end
                totals[0, 0] += program[pc, OCCUPANCY]
                if kind >= S_LI:
                    _register(kind, program[pc, VALUE], program[pc, RD], program[pc, RS], program[pc, RT], registers, words)
                if executed < trace.shape[0]:
                    trace[executed, 0] = pc
                    trace[executed, 2] = start
                    trace[executed, 3] = end
                    trace[executed, 4] = end
            else:
                now = max(now, started[engine, tail[engine]]) + 1
                totals[0, 0] += 1
            totals[1, engine] += 1
            if kind == SEM_SET:
                semaphore = program[pc, TARGET]
                if taken[semaphore] != given[semaphore] or last_take[semaphore] > start:
                    return RESET, pc, semaphore
                if program[pc, VALUE] > room:
                    return NO_ROOM, pc, semaphore
                for _ in range(program[pc, VALUE]):
                    rings[semaphore, given[semaphore] & (room - 1)] = end
                    given[semaphore] += 1
            give0, give1 = 0, 0
            for slot in (SIGNAL0, SIGNAL1):
                semaphore = program[pc, slot]
                if semaphore != NO_SEMAPHORE:
                    if given[semaphore] - taken[semaphore] == MAX_TOKENS:
                        return OVERFLOW, pc, semaphore
                    if given[semaphore] - consumed[semaphore] == room:
                        return NO_ROOM, pc, semaphore
                    rings[semaphore, given[semaphore] & (room - 1)] = end
                    if slot == SIGNAL0:
                        give0 = given[semaphore]
                    else:
                        give1 = given[semaphore]
                    given[semaphore] += 1
            if executed - retired == log.shape[0]:
                retired = _retire(log, retired, executed, program, phases, totals)
                if executed - retired == log.shape[0]:
                    return NO_ROOM, pc, NO_SEMAPHORE
            log[executed & (log.shape[0] - 1), 0] = pc
            log[executed & (log.shape[0] - 1), 1] = end
            if engine != 0:
                place = engine * depth + tail[engine]
                queue[place, _PC], queue[place, _NUMBER], queue[place, _AT] = pc, executed, now + dispatch - 1
                queue[place, _TOKEN0], queue[place, _TOKEN1] = token0, token1
                queue[place, _GIVE0], queue[place, _GIVE1] = give0, give1
                queue[place, _FROM0], queue[place, _FROM1] = registers[program[pc, ADDRESS0]], registers[program[pc, ADDRESS1]]
                tail[engine] = tail[engine] + 1 if tail[engine] + 1 < depth else 0
                queued[engine] += 1
            executed += 1
            if kind == LOOP:
                left[level] = program[pc, VALUE]
                sizes[level], ages[level, 0], ages[level, 1] = 0, 0, 1
                level += 1
            elif kind == END:
                left[level - 1] -= 1
                if left[level - 1] > 1 and program[pc, SKIPS] != 0:
                    retired = _retire(log, retired, executed, program, phases, totals)
                if left[level - 1] > 1 and program[pc, SKIPS] != 0 and retired >= trace.shape[0]:
                    at, low, needs = level - 1, max(t[BEAT] - 1, 0), program[pc, NEEDS]
                    present = pictures[loop_depth]
                    size = _picture(present, program, run, now, totals[3, 0], retired, executed, registers, needs, low)
                    ages[at, 0] += 1
                    if size > 0 and size == sizes[at] and _alike(present, pictures[at], size):
                        period = then[at, 1] - left[at]
                        times, later = (left[at] - 1) // period, now - then[at, 0]
                        for each in range(engines):
                            skipped[0] += times * (totals[1, each] - old_totals[at, 1, each])
                        _repeat(totals, old_totals[at], times)
                        _repeat(phases.reshape(1, -1), old_phases[at].reshape(1, -1), times)
                        _shift(run, times * later, retired, executed)
                        now += times * later
                        _calculate(program, program[pc, TARGET] + 1, pc, times * period, registers, words)
                        left[at] -= times * period
                        sizes[at] = 0
                    elif ages[at, 0] == ages[at, 1]:
                        pictures[at, :size] = present[:size]
                        sizes[at], ages[at, 0], ages[at, 1] = size, 0, 2 * ages[at, 1]
                        then[at, 0], then[at, 1] = now, left[at]
                        old_totals[at], old_phases[at] = totals, phases
                if left[level - 1] > 0:
                    pc = program[pc, TARGET]
                else:
                    level -= 1
            elif kind == HALT:
                halted = True
            pc += 1
        chosen, start = 0, _NEVER
        for engine in range(_LAST_ENGINE, 0, -1):
            if queued[engine] == 0:
                continue
            place = engine * depth + head[engine]
            first, second = program[queue[place, _PC], WAIT0], program[queue[place, _PC], WAIT1]
            at = _free(program, run, engine, place)
            if first != NO_SEMAPHORE:
                given_at = rings[first, queue[place, _TOKEN0] & (room - 1)]
                at = max(at, given_at) if given_at >= 0 else _NEVER
            if second != NO_SEMAPHORE:
                given_at = rings[second, queue[place, _TOKEN1] & (room - 1)]
                at = max(at, given_at) if given_at >= 0 else _NEVER
            if scarce and at < _NEVER:
                at = _port(program[queue[place, _PC], TOUCHES], engine, at, ports, held)
            if at < _NEVER and at <= start:
                chosen, start = engine, at
            if chosen > STORE and not scarce:
                break
        if chosen == 0:
            break
        engine = chosen
        place = engine * depth + head[engine]
        at = queue[place, _PC]
        for slot in (WAIT0, WAIT1):
            semaphore = program[at, slot]
            if semaphore != NO_SEMAPHORE:
                consumed[semaphore] += 1
                last_take[semaphore] = start
        if program[at, ROWS] > 0:
            rows = gathered[:0]
            if gathered.shape[0] > 0 and program[at, LIMIT] > 0:
                # The load engine starts its instructions in program order.
                rows = gathered[rows_gathered : rows_gathered + program[at, ROWS]]
                if rows.shape[0] < program[at, ROWS]:
                    return UNGATHERED, at, NO_SEMAPHORE
                rows_gathered += program[at, ROWS]
            first_at, second_at = queue[place, _FROM0], queue[place, _FROM1]
            next_start, end, moved = transfer(t, memory, program[at], first_at, second_at, engine == STORE, start, rows)
        else:
            next_start = start + program[at, OCCUPANCY]
            end = next_start + program[at, LATENT]
            moved = 0
        totals[2, engine] += moved
        # A pipelined engine retires one instruction per cycle.
        end = max(end, last_end[engine] + 1 if pipelined[engine] else last_end[engine])
        last_end[engine] = end
        turned[engine] = next_start if pipelined[engine] else end
        ready[engine] = turned[engine] + program[at, GAP]
        totals[0, engine] += turned[engine] - start
        for each in range(held.shape[0]):
            if program[at, TOUCHES] >> each & 1:
                held[each, engine] = end
        started[engine, head[engine]] = start
        head[engine] = head[engine] + 1 if head[engine] + 1 < depth else 0
        queued[engine] -= 1
        if program[at, SIGNAL0] != NO_SEMAPHORE:
            rings[program[at, SIGNAL0], queue[place, _GIVE0] & (room - 1)] = end
        if program[at, SIGNAL1] != NO_SEMAPHORE:
            rings[program[at, SIGNAL1], queue[place, _GIVE1] & (room - 1)] = end
        log[queue[place, _NUMBER] & (log.shape[0] - 1), 1] = end
        if queue[place, _NUMBER] < trace.shape[0]:
            trace[queue[place, _NUMBER], 0] = at
            trace[queue[place, _NUMBER], 1] = engine
            trace[queue[place, _NUMBER], 2] = start
            trace[queue[place, _NUMBER], 3] = end
            trace[queue[place, _NUMBER], 4] = turned[engine]
            trace[queue[place, _NUMBER], 5] = moved
    _retire(log, retired, executed, program, phases, totals)
    return OK, 0, 0
