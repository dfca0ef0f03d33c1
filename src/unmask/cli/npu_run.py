"""What `unmask synth` and `unmask gatesim` run the NPU and its matrix engine on: the LM head of the shipped model, and its sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.cli.sampling_run import BLOCK, MODEL, PROMPT, TEMPERATURE, case_of, run_of, sampling_recording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unmask.compiler.sampling.workload import Workload
    from unmask.machine.config import Machine
    from unmask.machine.functional import FunctionalMachine
    from unmask.silicon.gates import Gates
    from unmask.silicon.recording import Recording, Run

COLUMNS = 128
"""Of the vocabulary, whose logits the NPU samples: four tiles of 32 columns."""
TILE = 32
"""Columns of a tile."""


@cache
def head_operands() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden states of the shipped model for a block of masks after a prompt, and its LM head: float32 [`BLOCK`, width], [vocabulary,
    width].
    """
    import torch

    from unmask.models.checkpoint import load_model
    from unmask.models.tokenizer import load_tokenizer
    from unmask.numerics import bf16

    model = load_model(MODEL)
    ids = torch.tensor([[*load_tokenizer(MODEL).encode(PROMPT), *[model.config.mask_token_id] * BLOCK]])
    with torch.no_grad():
        hidden: NDArray[np.float32] = bf16.round(model.hidden(ids)[0, -BLOCK:].to(torch.float32).numpy())
        head: NDArray[np.float32] = model.head_weight.detach().to(torch.float32).numpy()
    return hidden, head


def product(machine: Machine, columns: int) -> NDArray[np.float32]:
    """The first columns of the logits as PyTorch finds them in the machine's formats: BF16-valued [`BLOCK`, columns]."""
    import torch

    from unmask.quant.arithmetic import MachineArithmetic

    hidden, head = head_operands()
    formats = machine.formats
    arithmetic = MachineArithmetic(formats.weights, formats.activations, formats.kv)
    found: NDArray[np.float32] = arithmetic.linear(torch.from_numpy(hidden), torch.from_numpy(head[:columns])).numpy()
    return found


def _workload(columns: int, temperature: float = 0.0) -> Workload:
    from unmask.compiler.sampling.workload import Workload

    return Workload(1, BLOCK, columns, temperature, head_operands()[0].shape[1])


def _write_operands(npu: FunctionalMachine, machine: Machine, columns: int) -> None:
    from unmask.numerics import bf16, mx

    hidden, head = head_operands()
    packed = mx.quantize(head[:columns], mx.format_named(machine.formats.weights))
    npu.write("x", bf16.to_bits(hidden))
    npu.write("head.elements", mx.pack(packed))
    npu.write("head.scales", packed.scales)


def tile_run(machine: Machine) -> Run:
    """A tile of the LM head, by itself, and the logits that PyTorch finds."""
    import numpy as np

    from unmask.compiler.sampling.workload import head_program
    from unmask.machine.functional import FunctionalMachine
    from unmask.numerics import bf16
    from unmask.silicon.recording import Run

    npu = FunctionalMachine(head_program(_workload(TILE), machine), machine)
    _write_operands(npu, machine, TILE)
    logits = np.ascontiguousarray(bf16.to_bits(product(machine, TILE)), "<u2")
    return Run(case_of(npu, {}), {"logits": logits.view("<i4").reshape(-1)})


def fused_run(machine: Machine, temperature: float, seed: int = 0) -> Run:
    """Tiles of the LM head, sampled behind the matrix engine, and the tokens and the canvas that PyTorch finds."""
    from unmask.compiler.sampling.workload import sampling_program
    from unmask.machine.functional import FunctionalMachine

    npu = FunctionalMachine(sampling_program(_workload(COLUMNS, temperature), machine, "fused"), machine)
    _write_operands(npu, machine, COLUMNS)
    return run_of(npu, product(machine, COLUMNS), temperature, seed)


def npu_recording(machine: Machine, folder: Path) -> Callable[[Gates], Recording]:
    """Makes the recording of the NPU while it multiplies tiles of the LM head and samples them, with and without temperature."""

    def recorded(gates: Gates) -> Recording:
        from unmask.silicon.recording import record

        what = (
            f"LM head and sampling of {BLOCK} positions, {COLUMNS} columns of the model {MODEL}'s vocabulary, "
            f"at temperatures {TEMPERATURE} and 0"
        )
        return record(machine, [fused_run(machine, heat) for heat in (TEMPERATURE, 0.0)], what, gates, folder)

    return recorded


def matrix_recording(machine: Machine, folder: Path) -> Callable[[Gates], Recording]:
    """Makes the recording of the matrix engine in the NPU while it multiplies a tile of the LM head; busy while a product is under way."""

    def recorded(gates: Gates) -> Recording:
        import numpy as np

        from unmask.silicon.blocks import Design
        from unmask.silicon.recording import record
        from unmask.silicon.units import npu

        whole = npu(machine)
        design = Design(whole, "npu", [whole.array])
        what = f"a tile of the LM head of the model {MODEL}: {BLOCK} rows, {TILE} columns, {head_operands()[0].shape[1]} products each"
        found = record(machine, [tile_run(machine)], what, gates, folder, design, ["array"])
        start, retire = found.column(gates.inputs, "start"), found.column(gates.outputs, "retire")
        assert start is not None
        assert retire is not None
        # From the cycle in which one starts to that in which it ends.
        under_way = np.cumsum(start, dtype=np.int64) > np.cumsum(retire, dtype=np.int64)
        return replace(found, running=under_way | (retire == 1))

    return recorded


def recording_of(unit: str, machine: Machine, folder: Path, programs: int = 0, seed: int = 0) -> Callable[[Gates], Recording] | None:
    """Makes the recording that a unit is measured and compared at; None of one that takes random inputs.

    Args:
        folder: for the files.
        programs, seed: of `unmask.cli.sampling_run.sampling_recording`, for the sampler.
    """
    if unit == "sampler":
        return sampling_recording(machine, folder, programs, seed)
    if unit == "npu":
        return npu_recording(machine, folder)
    return matrix_recording(machine, folder) if unit == "matrix" else None
