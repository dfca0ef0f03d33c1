"""What the parts of the vector datapath are given while the engine samples at a temperature: a vector of logits in every cycle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.numerics import bf16
from unmask.numerics.functions import weight
from unmask.rtl.lane import LaneOp
from unmask.rtl.road import Road
from unmask.rtl.window import Sum
from unmask.silicon.gates import Bits, Gates, places_of
from unmask.silicon.recording import Recording

CYCLES, RESET, SEED = 1024, 4, 0
# The cycle from which on an idle part is given nothing new; before it, registers take what they then hold.
IDLE_FROM = 32
# Logits as a language model's: a normal distribution, with a spread of this many.
SPREAD, TEMPERATURE = 4.0, 0.8
_SAMPLES = ("V_SAMPLE",)
_LOGITS = frozenset({"a", "value", "scores", "companions"})
_CONSTANT = {
    "op": int(LaneOp["V_SAMPLE"]),
    "kind": int(Sum.WINDOW),
    "mask": -1,
    "values": 0,
    "temperature": int(bf16.to_bits(bf16.round(np.array(TEMPERATURE, np.float32)))),
    "seed": 0x243F6A88,
    "step": 7,
    "position": 100,
    # The operand of a row and the level of a window: the same for the whole vector, and not V_SAMPLE's.
    "b": 0,
    "key": 0,
    "level": 0,
    # Every register that V_SAMPLE needs loads.
    "loads": -1,
    "short_loads": -1,
    "function_loads": (1 << Road.weight_registers(_SAMPLES, Road.places(_SAMPLES))) - 1,
}


def sampling_inputs(gates: Gates) -> Recording:
    """Inputs of a part: normal logits, their weights, uniform words, Gumbel noise, counting tokens; the rest constant. No outputs."""
    rng = np.random.default_rng(SEED)
    columns, logits = [], {}
    for port in gates.inputs:
        width = len(port.nets)
        if port.name == "rst":
            columns.append((np.arange(CYCLES) < RESET)[:, None].astype(np.uint8))
            continue
        lanes = {"significands": width // 8, "exponents": width // 26}.get(port.name, width // 16)
        if port.name in _LOGITS or port.name in ("significands", "exponents"):
            if lanes not in logits:
                logits[lanes] = bf16.round(rng.normal(0, SPREAD, (CYCLES, lanes)).astype(np.float32))
            values = logits[lanes]
            numbers = bf16.to_bits(values).astype(np.int64)
            if port.name in ("significands", "exponents"):
                found = weight(values)
                # The hardware counts the exponent of the leading bit, the function that of the last.
                numbers = found[1] + 7 if port.name == "exponents" else found[0]
            columns.append(_bits(numbers, width // lanes))
        elif port.name == "noise":
            noise = rng.gumbel(size=(CYCLES, width // 16)).astype(np.float32)
            columns.append(_bits(bf16.to_bits(bf16.round(noise)).astype(np.int64), 16))
        elif port.name == "token":
            columns.append(_bits((np.arange(CYCLES) * 8)[:, None], width))
        elif port.name in _CONSTANT:
            columns.append(_bits(np.full((CYCLES, 1), _CONSTANT[port.name]), width))
        else:
            columns.append(rng.integers(0, 2, (CYCLES, width), dtype=np.uint8))
    what = f"{CYCLES} cycles of sampling at a temperature, a vector of normal logits in each"
    return Recording(np.concatenate(columns, axis=1), np.zeros((CYCLES, 0), np.uint8), what)


def idle_inputs(gates: Gates) -> Recording:
    """Inputs of a part between instructions: those of sampling for some cycles, and then no register loads and nothing changes."""
    inputs = sampling_inputs(gates).inputs
    inputs[IDLE_FROM:] = inputs[IDLE_FROM]
    for name, place in places_of(gates.inputs).items():
        if name.endswith("loads"):
            inputs[IDLE_FROM:, place] = 0
    return Recording(inputs, np.zeros((CYCLES, 0), np.uint8), f"{CYCLES - IDLE_FROM} cycles in which nothing runs")


def _bits(numbers: NDArray[np.int64], width: int) -> Bits:
    """[cycles, n] integers as [cycles, n * width] bits, lowest first; the sign goes on beyond 64 bits."""
    places = np.minimum(np.arange(width), 63)
    bits: Bits = (numbers[:, :, None] >> places & 1).astype(np.uint8).reshape(len(numbers), -1)
    return bits
