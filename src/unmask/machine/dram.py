"""Memory as the DMA engines see it: what a device's figures mean in cycles, and how requests are served.

A DMA instruction reads or writes ranges of bytes (`unmask.machine.dma`). An ideal memory counts the aligned beats that a range touches:
they follow each other at `bytes_per_cycle`, and the range is done `latency` cycles after the last. Everything below is about DRAM.

The engine cuts ranges into AXI bursts, which do not cross multiples of `burst_beats` x `beat_bytes`, asks for a beat per port and cycle,
and has at most `outstanding` bursts per port under way; they end in order of asking. An AXI burst is done `latency` cycles after the last
of its bytes has passed its channel's data bus, in the first whole cycle from then on. Of one port (`ports` = 1, which the RTL has) it is
known how its beats follow each other: a beat a cycle, bursts in the order of asking, so that a burst is done as many cycles after the one
before as it has beats, and never before an ideal memory of the same latency would be done; of writes it is responses that come in order,
one a cycle. With more ports it is left open which burst takes which port, and bursts are done as soon as their bytes have passed.

Addresses go around the channels in pieces of `interleave_bytes`; after every round the first channel moves on by one, and by one more after
as many rounds as there are channels, so that no stride stays in one channel. Within a channel, consecutive rows lie in consecutive banks.

A channel serves pieces in the order in which it is asked for them, instruction by instruction: of two DMA instructions the one that starts
first is served first, the load if both start at once. A burst's column command needs its row open (`trcd` after the activate) and its data
appears `tcl` later, when the bus is free; bursts follow each other at the rate of the pins, or every `tccd` where that is longer. Another
row of the bank needs a precharge (`tras` after the activate, after the last data, `twr` after written data) and an activate `trp` later, at
least `trrd` after the channel's last activate: it overlaps with transfers of other banks. A bus that changes direction rests for `twtr`.

Refresh "all": at multiples of `trefi` a channel closes all rows, for `trp` + `trfc`; what would not end before is served after. Refresh
"bank": a bank owes a refresh of `trfc_bank` for every `trefi`; it is paid when the bank opens another row, from the moment it could close
the old one, and at the latest after eight, which JEDEC lets a controller put off.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from unmask.machine import _kernels as kernels
from unmask.machine.config import Machine
from unmask.machine.memory import Dram, Ideal

I64 = NDArray[np.int64]


def parameters(hbm: Dram, clock_ghz: float) -> I64:
    """The memory for the compiled loops, int64 [PARAMETERS]: the only place where nanoseconds become ticks of the machine's clock."""
    figures = hbm.figures

    def ticks(nanoseconds: float) -> int:
        return math.ceil(nanoseconds * clock_ghz * kernels.TICKS - 1e-6)

    t = np.zeros(kernels.PARAMETERS, np.int64)
    t[kernels.CHANNELS] = hbm.devices * figures.channels
    t[kernels.BANKS] = figures.banks
    t[kernels.INTERLEAVE] = hbm.interleave_bytes
    t[kernels.PIECES] = figures.row_bytes // hbm.interleave_bytes
    t[kernels.BURST_BYTES] = figures.burst_bytes
    t[kernels.FULL] = hbm.interleave_bytes // figures.burst_bytes
    t[kernels.ALL_BANKS] = hbm.refresh == "all"
    t[kernels.PORTS] = hbm.ports
    t[kernels.BEAT] = hbm.beat_bytes
    t[kernels.REQUEST] = hbm.beat_bytes * hbm.burst_beats
    t[kernels.READS] = hbm.ports * hbm.outstanding_reads
    t[kernels.WRITES] = hbm.ports * hbm.outstanding_writes
    t[kernels.BURST] = ticks(max(figures.burst_bytes / figures.channel_gbps, figures.tccd))
    t[kernels.RCD], t[kernels.RP], t[kernels.CL] = ticks(figures.trcd), ticks(figures.trp), ticks(figures.tcl)
    t[kernels.RAS], t[kernels.WR], t[kernels.TURN] = ticks(figures.tras), ticks(figures.twr), ticks(figures.twtr)
    t[kernels.RRD], t[kernels.REFI] = ticks(figures.trrd), ticks(figures.trefi)
    t[kernels.RFC], t[kernels.RFC_BANK] = ticks(figures.trfc), ticks(figures.trfc_bank)
    t[kernels.LATENCY] = hbm.latency * kernels.TICKS
    return t


def ideal_parameters(hbm: Ideal) -> I64:
    """An ideal memory for the compiled loops, int64 [PARAMETERS]; it keeps no state."""
    t = np.zeros(kernels.PARAMETERS, np.int64)
    t[[kernels.CHANNELS, kernels.BANKS, kernels.READS, kernels.WRITES]] = 1
    t[kernels.BEAT] = t[kernels.BURST_BYTES] = hbm.beat_bytes
    t[kernels.PACE] = hbm.bytes_per_cycle
    t[kernels.LATENCY] = hbm.latency * kernels.TICKS
    return t


def parameters_of(machine: Machine) -> I64:
    """A machine's memory for the compiled loops, int64 [PARAMETERS]."""
    return parameters(machine.hbm, machine.clock_ghz) if isinstance(machine.hbm, Dram) else ideal_parameters(machine.hbm)
