"""Latencies at which the hardware is made for 1 GHz in ASAP7: those of the units' own places for registers."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.rtl import request, scalar
from unmask.rtl.functions import WEIGHT_PLACES
from unmask.rtl.lane import LONG, SHORT_PLACES
from unmask.rtl.reduce import MaxTree
from unmask.rtl.reducer import MET_PLACES
from unmask.rtl.road import Road
from unmask.rtl.sampler_rows import ROW_PLACES
from unmask.rtl.scalars import DRAW_PLACES
from unmask.rtl.scaled_noise import ScaledNoise
from unmask.rtl.window import WindowTree

LEAST, MOST = 8, 2048


def machine_of(name: str, vlen: int | None = None, *, whole: bool = False) -> Machine:
    """A machine by its name; with `vlen`, as wide as that, with the latencies that the hardware of that width has at full speed.

    Args:
        name: a preset or a file.
        vlen: lanes; None leaves the machine as it is.
        whole: for the NPU, whose lanes have all functions, and not for a sampling engine.

    Raises:
        UnmaskError: no such machine, or a width that is no power of two from 8 to 2048.
    """
    machine = Machine.load(name)
    if vlen is None:
        return machine
    if not LEAST <= vlen <= MOST or vlen & (vlen - 1):
        raise UnmaskError(f"vlen {vlen}: expected a power of two from {LEAST} to {MOST}")
    vector = machine.vector
    tree = max(MaxTree.places(vlen), WindowTree.places(vlen))
    # A cycle to read and one to write, the row's word before the row, and the datapath.
    latency = 2 + 1 + SHORT_PLACES
    wide = vector.model_copy(
        update={
            "vlen": vlen,
            "granule": min(vector.granule, vlen),
            "integer_lanes": min(32, vlen),
            "latency": latency,
            "function_latency": 2 + WEIGHT_PLACES + Road.places(LONG if whole else ("V_EXP", "V_EXP_WIN")),
            # Noise waits for no word of a row.
            "noise_latency": ScaledNoise.PLACES + latency - 1,
            "reduce_latency": 2 + WEIGHT_PLACES + tree + MET_PLACES + ROW_PLACES,
            "scalar_latency": 2 + scalar.SHORT_PLACES,
            "scalar_function_latency": 2 + DRAW_PLACES + scalar.FUNCTION_PLACES,
        }
    )
    sequencer = machine.sequencer.model_copy(update={"dispatch_latency": 1 + request.PLACES})
    # The vector SRAM grows with its width, so that as many rows fit.
    sram = machine.sram.model_copy(update={"vector_kib": machine.sram.vector_kib * max(1, vlen // vector.vlen)})
    parts = {"vector": wide, "sequencer": sequencer, "sram": sram}
    return Machine.model_validate({**machine.model_dump(), **{name: part.model_dump() for name, part in parts.items()}})
