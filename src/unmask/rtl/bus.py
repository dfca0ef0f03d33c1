"""The memory interface: a subset of AXI4 that any AXI4 memory controller serves.

Every burst is incrementing (AxBURST = INCR), of full-width beats (AxSIZE = log2 of the bytes of a beat), from an address that is a
multiple of a beat, of at most 256 beats, and stays within 4 KiB. There is one ID: responses come in the order of requests; AxLOCK,
AxCACHE, AxPROT, AxQOS and AxREGION are constants of the integrator's choice. Reads have no strobes: a beat is read whole. WSTRB is set
for the bytes that are written. A valid signal stays, with its payload, until ready; ready may depend on valid. Data of a write may
precede its address, as AXI allows. RRESP and BRESP: bit 1 set is an error.
"""

from amaranth.lib.wiring import In, Out, Signature

ADDRESS_BITS = 48


class ReadBus(Signature):
    """The read channels, as their master sees them.

    Members:
        arvalid, arready, araddr (bytes), arlen (beats - 1).
        rvalid, rready, rdata, rresp, rlast.
    """

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "arvalid": Out(1),
                "arready": In(1),
                "araddr": Out(ADDRESS_BITS),
                "arlen": Out(8),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(8 * beat_bytes),
                "rresp": In(2),
                "rlast": In(1),
            }
        )


class WriteBus(Signature):
    """The write channels, as their master sees them.

    Members:
        awvalid, awready, awaddr (bytes), awlen (beats - 1).
        wvalid, wready, wdata, wstrb (one bit a byte), wlast.
        bvalid, bready, bresp.
    """

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "awvalid": Out(1),
                "awready": In(1),
                "awaddr": Out(ADDRESS_BITS),
                "awlen": Out(8),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(8 * beat_bytes),
                "wstrb": Out(beat_bytes),
                "wlast": Out(1),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
            }
        )
