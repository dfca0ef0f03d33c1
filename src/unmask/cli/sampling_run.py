"""What the sampling engine is run on for `unmask synth` and `unmask gatesim`: sampling steps, and random programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from unmask.machine.config import Machine
    from unmask.rtl.lockstep.generator import Case
    from unmask.silicon.gates import Gates
    from unmask.silicon.recording import Recording

BLOCK, TEMPERATURE = 8, 0.8
# Logits as a language model's: a normal distribution, with a spread of this many.
SPREAD = 4.0


def sampling_case(machine: Machine, program: Literal["four-phase", "single-pass"], temperature: float, vocabulary: int, seed: int) -> Case:
    """The sampling of one denoising step of a block, as a program with its logits in memory."""
    import numpy as np

    from unmask.compiler.sampling.workload import Workload, sampling_program
    from unmask.machine.functional import FunctionalMachine
    from unmask.numerics import bf16, mx
    from unmask.rtl.lockstep.generator import Case

    rng = np.random.default_rng(seed)
    work = Workload(1, BLOCK, vocabulary, temperature)
    made = sampling_program(work, machine, program)
    npu = FunctionalMachine(made, machine)
    logits = rng.normal(0, SPREAD, (BLOCK, vocabulary)).astype(np.float32)
    parameters = [0, seed, 0, BLOCK // 2]
    npu.write("canvas", np.full(BLOCK, -1, "<i4"))
    npu.write("parameters", np.array(parameters, "<i4"))
    if "logits" in made.regions:
        padded = np.zeros((BLOCK, made.regions["logits"].size // BLOCK // 2), "<u2")
        padded[:, :vocabulary] = bf16.to_bits(bf16.round(logits))
        npu.write("logits", padded)
    else:
        blocks = made.regions["logits.scales"].size // BLOCK
        wide = np.zeros((BLOCK, blocks * mx.BLOCK), np.float32)
        wide[:, :vocabulary] = logits
        packed = mx.quantize(wide, machine.formats.logits)
        npu.write("logits.elements", mx.pack(packed))
        npu.write("logits.scales", packed.scales)
    data = {name: npu.state.hbm[region.address : region.address + region.size].copy() for name, region in made.regions.items()}
    return Case(replace(made, data=data), {BLOCK + index: value for index, value in enumerate(parameters)})


def sampling_recording(machine: Machine, cache: Path, programs: int = 0, seed: int = 0) -> Callable[[Gates], Recording]:
    """Makes the recording of sampling steps, with and without temperature, in one pass and in four phases, and of random programs."""

    def recorded(gates: Gates) -> Recording:
        from unmask.rtl.lockstep.generator import generate
        from unmask.rtl.lockstep.names import instructions_of
        from unmask.silicon.recording import record

        vocabulary = 16 * machine.vector.vlen
        cases = [sampling_case(machine, "single-pass", heat, vocabulary, seed) for heat in (TEMPERATURE, 0.0)]
        what = f"sampling of {BLOCK} positions, vocabulary {vocabulary}, in one pass at temperatures {TEMPERATURE} and 0"
        if programs:
            cases.append(sampling_case(machine, "four-phase", 0.0, vocabulary, seed))
            cases += [generate(seed, number, machine, instructions_of("sampler")) for number in range(programs)]
            what += f"; in four phases; {programs} random programs"
        return record(machine, cases, what, gates, cache)

    return recorded
