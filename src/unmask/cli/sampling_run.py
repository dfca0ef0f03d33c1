"""What the sampling engine is run on for `unmask synth` and `unmask gatesim`: sampling steps of the shipped model, and random programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unmask.machine.config import Machine
    from unmask.machine.functional import FunctionalMachine
    from unmask.rtl.lockstep.generator import Case
    from unmask.silicon.gates import Gates
    from unmask.silicon.recording import Recording, Run

BLOCK, TEMPERATURE, VECTORS = 8, 0.8, 128
COMMITS = BLOCK // 2
MODEL, PROMPT = "sotu", "My fellow Americans, the state of our"


@cache
def model_logits() -> NDArray[np.float32]:
    """BF16-valued logits of the shipped model for a block of masks after a prompt: float32 [`BLOCK`, vocabulary]."""
    import torch

    from unmask.models.checkpoint import load_model
    from unmask.models.tokenizer import load_tokenizer
    from unmask.numerics import bf16

    model = load_model(MODEL)
    ids = torch.tensor([[*load_tokenizer(MODEL).encode(PROMPT), *[model.config.mask_token_id] * BLOCK]])
    with torch.no_grad():
        logits: NDArray[np.float32] = bf16.round(model(ids)[0, -BLOCK:].to(torch.float32).numpy())
    return logits


def sampling_run(machine: Machine, program: Literal["four-phase", "single-pass"], temperature: float, vocabulary: int, seed: int) -> Run:
    """The sampling of a denoising step: the first columns of the model's logits, and the tokens and the canvas that PyTorch finds."""
    import numpy as np

    from unmask.compiler.sampling.workload import Workload, sampling_program
    from unmask.machine.config import BF16
    from unmask.machine.functional import FunctionalMachine
    from unmask.numerics import bf16, mx

    raw = model_logits()[:, :vocabulary]
    made = sampling_program(Workload(1, BLOCK, raw.shape[1], temperature), machine, program)
    npu = FunctionalMachine(made, machine)
    if machine.formats.logits == BF16:
        seen = raw
        padded = np.zeros((BLOCK, made.regions["logits"].size // BLOCK // 2), "<u2")
        padded[:, : raw.shape[1]] = bf16.to_bits(raw)
        npu.write("logits", padded)
    else:
        wide = np.zeros((BLOCK, made.regions["logits.scales"].size // BLOCK * mx.BLOCK), np.float32)
        wide[:, : raw.shape[1]] = raw
        packed = mx.quantize(wide, machine.formats.logits)
        seen = bf16.round(mx.dequantize(packed))[:, : raw.shape[1]]
        npu.write("logits.elements", mx.pack(packed))
        npu.write("logits.scales", packed.scales)
    return run_of(npu, seen, temperature, seed)


def run_of(npu: FunctionalMachine, logits: NDArray[np.float32], temperature: float, seed: int) -> Run:
    """A program that samples, of `unmask.compiler.sampling.workload`, on a canvas of masks, with what PyTorch finds.

    Args:
        npu: with the program and its operands.
        logits: BF16-valued [`BLOCK`, vocabulary], what the program samples.
    """
    import numpy as np
    import torch

    from unmask.decoding.noise import TorchNoise
    from unmask.decoding.policy import Policy
    from unmask.decoding.sampler import Sampling
    from unmask.quant.commit import machine_committer
    from unmask.quant.streaming import StreamingSampler
    from unmask.silicon.recording import Run

    parameters = [0, seed, 0, COMMITS]
    npu.write("canvas", np.full(BLOCK, -1, "<i4"))
    npu.write("parameters", np.array(parameters, "<i4"))
    policy = Policy(gen_length=BLOCK, block_length=BLOCK, steps=1, temperature=temperature, exclude_mask=False)
    sampling = Sampling(0, torch.arange(BLOCK), temperature, policy.remasking, (), (), TorchNoise(seed))
    tokens, confidence = StreamingSampler(policy, seed=seed)(torch.from_numpy(logits)[None], sampling)
    chosen = machine_committer(policy)(confidence, torch.tensor([COMMITS]))[0].numpy()
    found = tokens[0].numpy().astype(np.int32)
    leaves = {"tokens": found, "canvas": np.where(chosen, found, np.int32(-1))}
    return Run(case_of(npu, dict(enumerate(parameters, BLOCK))), leaves)


def case_of(npu: FunctionalMachine, parameters: dict[int, int]) -> Case:
    """A program with the memory as it is now, and what it finds in the integer SRAM."""
    from unmask.rtl.lockstep.generator import Case

    made = npu.program
    data = {name: npu.state.hbm[region.address : region.address + region.size].copy() for name, region in made.regions.items()}
    return Case(replace(made, data=data), parameters)


def single_passes(machine: Machine, seed: int = 0, vocabulary: int | None = None) -> list[Run]:
    """Sampling in one pass, with and without temperature.

    Args:
        vocabulary: columns of the model's logits; by default as many as take `VECTORS` vectors a row, or all.
    """
    columns = _columns(machine, vocabulary)
    return [sampling_run(machine, "single-pass", heat, columns, seed) for heat in (TEMPERATURE, 0.0)]


def _columns(machine: Machine, vocabulary: int | None) -> int:
    return min(vocabulary or VECTORS * machine.vector.vlen, int(model_logits().shape[1]))


def sampling_recording(
    machine: Machine, folder: Path, programs: int = 0, seed: int = 0, vocabulary: int | None = None
) -> Callable[[Gates], Recording]:
    """Makes the recording of sampling steps, with and without temperature, in one pass and in four phases, and of random programs.

    Args:
        folder: for the files.
        programs: random ones, after a step in four phases; without them nothing but single passes.
        vocabulary: as of `single_passes`.
    """

    def recorded(gates: Gates) -> Recording:
        from unmask.rtl.lockstep.generator import generate
        from unmask.rtl.lockstep.names import instructions_of
        from unmask.silicon.recording import Run, record

        columns = _columns(machine, vocabulary)
        runs = single_passes(machine, seed, vocabulary)
        what = f"sampling of {BLOCK} positions, {columns} logits of the model {MODEL}, in one pass at temperatures {TEMPERATURE} and 0"
        if programs:
            runs.append(sampling_run(machine, "four-phase", 0.0, columns, seed))
            runs += [Run(generate(seed, number, machine, instructions_of("sampler"))) for number in range(programs)]
            what += f"; in four phases; {programs} random programs"
        return record(machine, runs, what, gates, folder)

    return recorded
