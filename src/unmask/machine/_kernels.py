"""The compiled loops of the cycle reading: DRAM, DMA transfers and the walk over a program.

`unmask.machine.dram` and `unmask.machine.cycle` say what they compute and call them. They are one module because numba, which caches what
it compiles by file, would not notice that a function of another file has changed.

Times of the memory are in ticks, `TICKS` to a cycle of the machine's clock.
"""

from __future__ import annotations

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
CHANNELS, BANKS, INTERLEAVE, PIECES, BURST_BYTES, ALL_BANKS, PORTS, BEAT, REQUEST, READS, WRITES = range(11)
BURST, RCD, RP, CL, RAS, WR, TURN, RRD, REFI, RFC, RFC_BANK, LATENCY, PARAMETERS = range(11, 24)
# State of a channel, and of a bank; rows of int64 arrays.
_BUS, _ACTIVATED, _DUE, _WROTE, CHANNEL_STATE = range(5)
_ROW, _OPENED, _CLOSABLE, _READY, _REFRESHED, BANK_STATE = range(6)

# Columns of the static program.
KIND, ENGINE, OCCUPANCY, LATENT, WAIT0, WAIT1, SIGNAL0, SIGNAL1, TARGET, VALUE, PHASE, BYTES, RD, RS, RT = range(15)
ADDRESS0, ROWS0, BYTES0, STRIDE0, ADDRESS1, ROWS1, BYTES1, STRIDE1, LIMIT, COLUMNS = range(15, 25)
PLAIN, LOOP, END, SEM_SET, HALT, S_LI, S_ADDI, S_ADD, S_MULI, S_XORI, S_LD = range(11)
OK, DEADLOCK, RESET, OVERFLOW = range(4)
# What an engine's queue holds of an instruction.
_PC, _NUMBER, _AT, _TOKEN0, _TOKEN1, _GIVE0, _GIVE1, _FROM0, _FROM1, _ENTRY = range(10)


@njit(cache=True)
def idle(t: I64) -> tuple[I64, I64, I64, I64]:
    """State of a memory that has not been asked for anything: channels, banks, AXI bursts under way, the oldest of them.

    They are int64 [channels, CHANNEL_STATE], [channels x banks, BANK_STATE], [2, bursts] and [2], reads first; bursts by the tick at which
    they are done.
    """
    channels = np.zeros((t[CHANNELS], CHANNEL_STATE), np.int64)
    channels[:, _BUS], channels[:, _ACTIVATED], channels[:, _DUE] = -t[TURN], -t[RRD], t[REFI]
    banks = np.zeros((t[CHANNELS] * t[BANKS], BANK_STATE), np.int64)
    banks[:, _ROW] = _CLOSED
    return channels, banks, np.zeros((2, max(t[READS], t[WRITES])), np.int64), np.zeros(2, np.int64)


@njit(cache=True)
def _refresh_channel(t: I64, channels: I64, banks: I64, channel: int, time: int) -> None:
    """Refresh all banks of a channel; the refresh is due at `time`."""
    channels[channel, _DUE] = time + t[REFI]
    for bank in range(channel * t[BANKS], (channel + 1) * t[BANKS]):
        banks[bank, _ROW] = _CLOSED
        banks[bank, _READY] = time + t[RP] + t[RFC]


@njit(cache=True)
def _piece(t: I64, channels: I64, banks: I64, channel: int, bank: int, row: int, bursts: int, write: bool, at: int) -> int:
    """Serve consecutive bursts of one row, asked for at tick `at`; the tick at which the last one's data has passed the bus.

    `bank` counts over all channels.
    """
    if t[ALL_BANKS] != 0:
        if at >= channels[channel, _DUE]:
            _refresh_channel(t, channels, banks, channel, at - at % t[REFI])
    else:
        interval = max(at, channels[channel, _BUS]) // t[REFI]
        owed = interval - banks[bank, _REFRESHED]
        if owed > 0 and (banks[bank, _ROW] != row or owed > POSTPONED):
            closed = banks[bank, _READY] if banks[bank, _ROW] == _CLOSED else banks[bank, _CLOSABLE] + t[RP]
            banks[bank, _ROW] = _CLOSED
            banks[bank, _READY] = closed + owed * t[RFC_BANK]
            banks[bank, _REFRESHED] = interval
    end = 0
    while bursts > 0:
        hit = banks[bank, _ROW] == row
        opened = banks[bank, _OPENED]
        if not hit:
            opened = max(at, banks[bank, _READY]) if banks[bank, _ROW] == _CLOSED else max(at, banks[bank, _CLOSABLE]) + t[RP]
            opened = max(opened, channels[channel, _ACTIVATED] + t[RRD])
        bus = channels[channel, _BUS] + (t[TURN] if channels[channel, _WROTE] != write else 0)
        data = max(max(at, opened + t[RCD]) + t[CL], bus)
        now = bursts
        if t[ALL_BANKS] != 0:
            now = min(bursts, (channels[channel, _DUE] - data) // t[BURST])
            if now <= 0:
                _refresh_channel(t, channels, banks, channel, channels[channel, _DUE])
                continue
        if not hit:
            banks[bank, _ROW] = row
            banks[bank, _OPENED] = opened
            channels[channel, _ACTIVATED] = opened
        end = data + now * t[BURST]
        channels[channel, _BUS] = end
        channels[channel, _WROTE] = write
        banks[bank, _CLOSABLE] = max(opened + t[RAS], end + (t[WR] if write else 0))
        bursts -= now
    return end


@njit(cache=True)
def serve(t: I64, channels: I64, banks: I64, address: int, size: int, write: bool, at: int) -> tuple[int, int]:
    """Serve the bytes [address, address + size), asked for at tick `at`: the tick at which the last has passed its bus, and the bursts."""
    interleave, burst = t[INTERLEAVE], t[BURST_BYTES]
    end = address + size
    block = address // interleave
    position = block % t[CHANNELS]
    line = block // t[CHANNELS]
    turn = (line + line // t[CHANNELS]) % t[CHANNELS]
    latest, total = 0, 0
    while address < end:
        upto = min(end, (block + 1) * interleave)
        bursts = (upto - 1) // burst - address // burst + 1
        channel = position + turn if position + turn < t[CHANNELS] else position + turn - t[CHANNELS]
        row = line // t[PIECES]
        bank = channel * t[BANKS] + row % t[BANKS]
        done = _piece(t, channels, banks, channel, bank, row // t[BANKS], bursts, write, at)
        latest = max(latest, done)
        total += bursts
        address = upto
        block += 1
        position += 1
        if position == t[CHANNELS]:
            position = 0
            line += 1
            turn = (line + line // t[CHANNELS]) % t[CHANNELS]
    return latest, total


@njit(cache=True)
def _range(t: I64, channels: I64, banks: I64, ring: I64, slots: I64, address: int, size: int, write: bool, at: int) -> tuple[int, int, int]:
    """Ask for consecutive bytes as AXI bursts from tick `at` on.

    Returns:
        Ticks at which the last beat has been asked for and at which all is done, bursts of memory.
    """
    port = 1 if write else 0
    window = t[WRITES] if write else t[READS]
    end = address + size
    latest, total = 0, 0
    while address < end:
        upto = min(end, (address // t[REQUEST] + 1) * t[REQUEST])
        at = max(at, ring[port, slots[port]])
        done, bursts = serve(t, channels, banks, address, upto - address, write, at)
        done += t[LATENCY]
        ring[port, slots[port]] = done
        slots[port] = slots[port] + 1 if slots[port] + 1 < window else 0
        latest = max(latest, done)
        total += bursts
        beats = (upto - 1) // t[BEAT] - address // t[BEAT] + 1
        at += (beats * TICKS + t[PORTS] - 1) // t[PORTS]
        address = upto
    return at, latest, total


@njit(cache=True)
def transfer(
    t: I64, channels: I64, banks: I64, ring: I64, slots: I64, op: I64, address0: int, address1: int, write: bool, start: int
) -> tuple[int, int, int]:
    """A DMA instruction that starts in cycle `start`.

    Args:
        t: the memory's parameters.
        channels, banks, ring, slots: its state, as `idle` makes it.
        op: the instruction's row of the static program.
        address0, address1: what its two address registers hold.

    Returns:
        Cycle in which the engine may start the next one, cycle in which the last byte is in place, bytes that crossed the memory's pins.
    """
    at = start * TICKS
    latest, total = 0, 0
    for part in range(2):
        rows = op[ROWS0] if part == 0 else op[ROWS1]
        size = op[BYTES0] if part == 0 else op[BYTES1]
        stride = op[STRIDE0] if part == 0 else op[STRIDE1]
        base = address0 if part == 0 else address1
        if rows > 0 and size == stride and op[LIMIT] == 0:
            size, rows = rows * size, 1
        for row in range(rows):
            where = base + row * stride
            if op[LIMIT] > 0:
                where = base + ((((address1 + row) * 0x9E3779B1) & 0xFFFFFFFF) * op[LIMIT] >> 32) * stride
            at, done, bursts = _range(t, channels, banks, ring, slots, where, size, write, at)
            latest = max(latest, done)
            total += bursts
    return -(-at // TICKS), -(-latest // TICKS), total * t[BURST_BYTES]


@njit(cache=True)
def _grow(rings: I64, taken: I64, given: I64) -> I64:
    """Twice the room for tokens; every token keeps its number."""
    room = rings.shape[1]
    larger = np.empty((rings.shape[0], 2 * room), np.int64)
    for semaphore in range(rings.shape[0]):
        for token in range(taken[semaphore], given[semaphore]):
            larger[semaphore, token & (2 * room - 1)] = rings[semaphore, token & (room - 1)]
    return larger


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


@njit(cache=True)
def walk(
    program: I64,
    depth: int,
    loop_depth: int,
    pipelined: NDArray[np.bool_],
    dram: bool,
    t: I64,
    words: I64,
    phases: I64,
    totals: I64,
    trace: I64,
) -> tuple[int, int, int]:
    """Time a program.

    The sequencer runs ahead as far as it can, then the engines whose next instruction's start is known. Load and store share the memory:
    the one that starts first, load on a tie, goes first, and only when nobody else can go on, so that no other can come before it.

    Args:
        program: [instructions, COLUMNS].
        dram, t: whether DMA instructions take the time of DRAM, and its parameters.
        words: what S_LD finds in the integer SRAM; 0 beyond.
        phases: out, cycles by phase.
        totals: out, [4, engines]: busy cycles, instructions, HBM bytes; [3, 0] is the time.
        trace: out, [n, 4]; only the first n instructions are traced.

    Returns:
        Status, instruction, semaphore.
    """
    engines = pipelined.shape[0]
    registers = np.zeros(REGISTER_COUNT, np.int64)
    channels, banks, ring, slots = idle(t)
    now = 0  # the sequencer's next free cycle
    ready = np.zeros(engines, np.int64)
    last_end = np.zeros(engines, np.int64)
    queue = np.zeros((engines, depth, _ENTRY), np.int64)
    started = np.zeros((engines, depth), np.int64)  # when the latest `depth` instructions started
    head = np.zeros(engines, np.int64)
    tail = np.zeros(engines, np.int64)
    queued = np.zeros(engines, np.int64)
    rings = np.zeros((NO_SEMAPHORE + 1, 64), np.int64)  # when tokens are given, -1 while unknown; the room is a power of two
    given = np.zeros(NO_SEMAPHORE + 1, np.int64)
    taken = np.zeros(NO_SEMAPHORE + 1, np.int64)
    consumed = np.zeros(NO_SEMAPHORE + 1, np.int64)  # by instructions that have started
    last_take = np.zeros(NO_SEMAPHORE + 1, np.int64)
    left = np.zeros(loop_depth + 1, np.int64)
    log = np.zeros((1024, 2), np.int64)  # instruction and end of those not yet retired; the room is a power of two
    level, executed, retired, pc = 0, 0, 0, 0
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
                    known = rings[first, token0 & (rings.shape[1] - 1)] >= 0
                    start = max(start, rings[first, token0 & (rings.shape[1] - 1)])
                if second != NO_SEMAPHORE:
                    known = known and rings[second, token1 & (rings.shape[1] - 1)] >= 0
                    start = max(start, rings[second, token1 & (rings.shape[1] - 1)])
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
            else:
                now = max(now, started[engine, tail[engine]]) + 1
                totals[0, 0] += 1
            totals[1, engine] += 1
            if kind == SEM_SET:
                semaphore = program[pc, TARGET]
                if taken[semaphore] != given[semaphore] or last_take[semaphore] > start:
                    return RESET, pc, semaphore
                while program[pc, VALUE] > rings.shape[1]:
                    rings = _grow(rings, consumed, given)
                for _ in range(program[pc, VALUE]):
                    rings[semaphore, given[semaphore] & (rings.shape[1] - 1)] = end
                    given[semaphore] += 1
            give0, give1 = 0, 0
            for slot in (SIGNAL0, SIGNAL1):
                semaphore = program[pc, slot]
                if semaphore != NO_SEMAPHORE:
                    if given[semaphore] - taken[semaphore] == MAX_TOKENS:
                        return OVERFLOW, pc, semaphore
                    if given[semaphore] - consumed[semaphore] == rings.shape[1]:
                        rings = _grow(rings, consumed, given)
                    rings[semaphore, given[semaphore] & (rings.shape[1] - 1)] = end
                    if slot == SIGNAL0:
                        give0 = given[semaphore]
                    else:
                        give1 = given[semaphore]
                    given[semaphore] += 1
            if executed - retired == log.shape[0]:
                retired = _retire(log, retired, executed, program, phases, totals)
                if executed - retired > log.shape[0] // 2:
                    larger = np.zeros((2 * log.shape[0], 2), np.int64)
                    for number in range(retired, executed):
                        larger[number & (larger.shape[0] - 1)] = log[number & (log.shape[0] - 1)]
                    log = larger
            log[executed & (log.shape[0] - 1), 0] = pc
            log[executed & (log.shape[0] - 1), 1] = end
            if engine != 0:
                entry = queue[engine, tail[engine]]
                entry[_PC], entry[_NUMBER], entry[_AT] = pc, executed, now
                entry[_TOKEN0], entry[_TOKEN1], entry[_GIVE0], entry[_GIVE1] = token0, token1, give0, give1
                entry[_FROM0], entry[_FROM1] = registers[program[pc, ADDRESS0]], registers[program[pc, ADDRESS1]]
                tail[engine] = tail[engine] + 1 if tail[engine] + 1 < depth else 0
                queued[engine] += 1
            executed += 1
            if kind == LOOP:
                left[level] = program[pc, VALUE]
                level += 1
            elif kind == END:
                left[level - 1] -= 1
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
            entry = queue[engine, head[engine]]
            first, second = program[entry[_PC], WAIT0], program[entry[_PC], WAIT1]
            at = max(entry[_AT], ready[engine])
            if first != NO_SEMAPHORE:
                given_at = rings[first, entry[_TOKEN0] & (rings.shape[1] - 1)]
                at = max(at, given_at) if given_at >= 0 else _NEVER
            if second != NO_SEMAPHORE:
                given_at = rings[second, entry[_TOKEN1] & (rings.shape[1] - 1)]
                at = max(at, given_at) if given_at >= 0 else _NEVER
            if at < _NEVER and (at < start or (at == start and engine == LOAD)):
                chosen, start = engine, at
            if chosen > STORE:
                break
        if chosen == 0:
            break
        engine = chosen
        entry = queue[engine, head[engine]]
        at = entry[_PC]
        for slot in (WAIT0, WAIT1):
            semaphore = program[at, slot]
            if semaphore != NO_SEMAPHORE:
                consumed[semaphore] += 1
                last_take[semaphore] = start
        if dram and program[at, ROWS0] > 0:
            next_start, end, moved = transfer(
                t, channels, banks, ring, slots, program[at], entry[_FROM0], entry[_FROM1], engine == STORE, start
            )
            totals[2, engine] += moved
        else:
            next_start = start + program[at, OCCUPANCY]
            end = next_start + program[at, LATENT]
            totals[2, engine] += program[at, BYTES]
        end = max(end, last_end[engine])
        last_end[engine] = end
        ready[engine] = next_start if pipelined[engine] else end
        totals[0, engine] += ready[engine] - start
        started[engine, head[engine]] = start
        head[engine] = head[engine] + 1 if head[engine] + 1 < depth else 0
        queued[engine] -= 1
        if program[at, SIGNAL0] != NO_SEMAPHORE:
            rings[program[at, SIGNAL0], entry[_GIVE0] & (rings.shape[1] - 1)] = end
        if program[at, SIGNAL1] != NO_SEMAPHORE:
            rings[program[at, SIGNAL1], entry[_GIVE1] & (rings.shape[1] - 1)] = end
        log[entry[_NUMBER] & (log.shape[0] - 1), 1] = end
        if entry[_NUMBER] < trace.shape[0]:
            trace[entry[_NUMBER], 0] = at
            trace[entry[_NUMBER], 1] = engine
            trace[entry[_NUMBER], 2] = start
            trace[entry[_NUMBER], 3] = end
    _retire(log, retired, executed, program, phases, totals)
    return OK, 0, 0
