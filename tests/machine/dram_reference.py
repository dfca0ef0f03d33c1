"""DRAM and DMA as slowly and obviously as possible: one burst at a time, every refresh on its own, plain Python integers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from unmask.machine.memory import Dram, Ideal

TICKS = 1024
POSTPONED = 8


@dataclass
class Bank:
    row: int | None = None
    opened: int = 0  # when the row was activated
    closable: int = 0  # when it may be precharged
    ready: int = 0  # when a closed bank may be activated
    paid: int = 0  # refreshes done


@dataclass
class Channel:
    banks: list[Bank]
    bus: int | None = None  # end of the last burst
    writing: bool = False
    activated: int | None = None
    refreshes: int = 0
    log: list[tuple[int, int]] = field(default_factory=list)  # bursts on the bus


class SlowDram:
    """Serves bursts; times in ticks of 1 / 1024 cycle."""

    def __init__(self, hbm: Dram, clock_ghz: float) -> None:
        self.hbm, self.f = hbm, hbm.figures
        self.channels = [Channel([Bank() for _ in range(self.f.banks)]) for _ in range(hbm.devices * self.f.channels)]

        def ticks(nanoseconds: float) -> int:
            return math.ceil(nanoseconds * clock_ghz * TICKS - 1e-6)

        names = ("trcd", "trp", "tcl", "tras", "twr", "twtr", "trrd", "trefi", "trfc", "trfc_bank")
        self.t = {name: ticks(getattr(self.f, name)) for name in names}
        self.t["burst"] = ticks(max(self.f.burst_bytes / (self.f.pin_gbps * self.f.bits / 8), self.f.tccd))

    def place(self, address: int) -> tuple[int, int, int]:
        """Channel, bank and row of a byte."""
        piece = address // self.hbm.interleave_bytes
        count = len(self.channels)
        round_, position = divmod(piece, count)
        channel = (position + round_ + round_ // count) % count
        row = round_ * self.hbm.interleave_bytes // self.f.row_bytes
        return channel, row % self.f.banks, row // self.f.banks

    def refresh_all(self, channel: Channel) -> None:
        channel.refreshes += 1
        for bank in channel.banks:
            bank.row, bank.ready = None, channel.refreshes * self.t["trefi"] + self.t["trp"] + self.t["trfc"]

    def refresh_bank(self, channel: Channel, bank: Bank, row: int, at: int) -> None:
        due = max(at, channel.bus or 0) // self.t["trefi"]
        if due > bank.paid and (bank.row != row or due - bank.paid > POSTPONED):
            if bank.row is not None:
                bank.row, bank.ready = None, bank.closable + self.t["trp"]
            while bank.paid < due:
                bank.ready += self.t["trfc_bank"]
                bank.paid += 1

    def burst(self, address: int, write: bool, at: int, first: bool) -> int:
        """End of a burst on its bus; `first` of those asked for together."""
        t = self.t
        number, bank_number, row = self.place(address)
        channel = self.channels[number]
        bank = channel.banks[bank_number]
        if self.hbm.refresh == "bank" and first:
            self.refresh_bank(channel, bank, row, at)
        while True:
            if self.hbm.refresh == "all":
                while (channel.refreshes + 1) * t["trefi"] <= at:
                    self.refresh_all(channel)
            opened = bank.opened
            if bank.row != row:
                opened = max(at, bank.ready) if bank.row is None else max(at, bank.closable) + t["trp"]
                if channel.activated is not None:
                    opened = max(opened, channel.activated + t["trrd"])
            data = max(at, opened + t["trcd"]) + t["tcl"]
            if channel.bus is not None:
                data = max(data, channel.bus + (t["twtr"] if channel.writing != write else 0))
            if self.hbm.refresh == "bank" or data + t["burst"] <= (channel.refreshes + 1) * t["trefi"]:
                break
            self.refresh_all(channel)
        if bank.row != row:
            bank.row, bank.opened, channel.activated = row, opened, opened
        channel.bus, channel.writing = data + t["burst"], write
        channel.log.append((data, channel.bus))
        bank.closable = max(opened + t["tras"], channel.bus + (t["twr"] if write else 0))
        return channel.bus

    def serve(self, address: int, size: int, write: bool, at: int) -> tuple[int, int]:
        """End of the last burst of a range, and how many there are."""
        burst, latest, count, previous = self.f.burst_bytes, 0, 0, -1
        for number in range(address // burst, (address + size - 1) // burst + 1):
            piece = number * burst // self.hbm.interleave_bytes
            latest = max(latest, self.burst(number * burst, write, at, first=piece != previous))
            previous, count = piece, count + 1
        return latest, count


class SlowDma:
    """DMA instructions before a memory."""

    def __init__(self, hbm: Dram | Ideal, clock_ghz: float) -> None:
        self.hbm, self.memory = hbm, SlowDram(hbm, clock_ghz) if isinstance(hbm, Dram) else None
        self.under_way: dict[bool, list[int]] = {False: [], True: []}

    def transfer(self, ranges: list[tuple[int, int]], write: bool, start: int) -> tuple[int, int, int]:
        """Cycle in which the engine is ready again, cycle in which all is in place, bytes; `ranges` are addresses and sizes."""
        return self.at_once(ranges, start) if self.memory is None else self.bursts(ranges, write, start)

    def at_once(self, ranges: list[tuple[int, int]], start: int) -> tuple[int, int, int]:
        hbm, at, moved = self.hbm, start, 0
        for address, size in ranges:
            beats = len({byte // hbm.beat_bytes for byte in range(address, address + size)})
            at += math.ceil(beats * hbm.beat_bytes / hbm.bytes_per_cycle)
            moved += beats * hbm.beat_bytes
        return at, at + hbm.latency, moved

    def bursts(self, ranges: list[tuple[int, int]], write: bool, start: int) -> tuple[int, int, int]:
        hbm, at, latest, bursts = self.hbm, start * TICKS, 0, 0
        most = hbm.ports * (hbm.outstanding_writes if write else hbm.outstanding_reads)
        for address, size in ranges:
            end = address + size
            while address < end:
                longest = hbm.beat_bytes * hbm.burst_beats
                upto = min(end, (address // longest + 1) * longest)
                ends = self.under_way[write]
                if len(ends) >= most:
                    at = max(at, ends[-most] * TICKS)
                done, count = self.memory.serve(address, upto - address, write, at)
                beats = len(range(address // hbm.beat_bytes, (upto - 1) // hbm.beat_bytes + 1))
                end_of_burst = math.ceil(done / TICKS) + hbm.latency
                if hbm.ports == 1:
                    end_of_burst = max(end_of_burst, at // TICKS + beats + hbm.latency)
                    if ends:
                        end_of_burst = max(end_of_burst, ends[-1] + (1 if write else beats))
                ends.append(end_of_burst)
                latest, bursts = max(latest, ends[-1]), bursts + count
                at += math.ceil(beats * TICKS / hbm.ports)
                address = upto
        return math.ceil(at / TICKS), latest, bursts * self.memory.f.burst_bytes


def gathered(ids: int, row: int, limit: int) -> int:
    """The row of a table that L_GATHER is timed with: the value in the integer SRAM is not known."""
    return ((ids + row) * 0x9E3779B1 % 2**32) * limit // 2**32
