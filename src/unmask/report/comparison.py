"""A machine beside a GPU on the same generation: time, energy, sampling, die and power, and the published NPU's gains over the same GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unmask.baselines.generation import GpuGeneration, generation_time
from unmask.baselines.gpu import Gpu
from unmask.baselines.measured import MeasuredProfile
from unmask.baselines.transformer import Precision
from unmask.compiler.analytic import estimate_generation
from unmask.compiler.generation import GenerationTime
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.models.layers import Architecture
from unmask.numerics import mx
from unmask.report.bounds import bounds, fixed_energy
from unmask.report.costs import of_generation
from unmask.report.generation import figures
from unmask.silicon.cost.table import Costs

Time = Callable[[Machine], GenerationTime]
"""Times the generation on a machine, by one reading or the other."""
Confidence = Literal["bf16", "fp32", "fp64"]

SOURCE = "DART, arXiv 2601.20706v2: LLaDA-8B, VLEN 2048, at the best of its configurations"
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "RTX A6000": {"tokens_per_s": 4.91, "tokens_per_j": 23.3},
    "H100 SXM 80GB": {"tokens_per_s": 2.06, "tokens_per_j": 15.5},
}
"""Gains of the published NPU, by the GPU's name; its sampling takes less than `PUBLISHED_SAMPLING_SHARE` of the time."""
PUBLISHED_SAMPLING_SHARE = 0.10
TARGETS: Mapping[str, Mapping[str, float]] = {
    "RTX A6000": {"tokens_per_s": 10, "tokens_per_j": 45},
    "H100 SXM 80GB": {"tokens_per_s": 4, "tokens_per_j": 30},
}
"""Gains that the project aims at, at `TARGET_BATCH` sequences."""
TARGET_BATCH = 16
MULTIPLY = "no more peak multiplies than the GPU"
_ROOM_KIB = 2**20
"""Of a vector SRAM that holds all rows of any batch that is compared."""


@dataclass(frozen=True)
class Workload:
    """What both sides run.

    Attributes:
        shape: of the network.
        policy: how the canvas is unmasked.
        prompt: positions before the generated ones.
        batch: sequences.
        tokens_per_step: of commits by value, an assumption; None: 1.
        sampling: the machine's sampling program.
    """

    shape: Architecture
    policy: Policy
    prompt: int
    batch: int
    tokens_per_step: float | None = None
    sampling: SamplingProgram = "general"


def compare(
    work: Workload, machine: Machine, gpu: Gpu, timed: Time, costs: Costs, confidence: Confidence, profile: MeasuredProfile | None = None
) -> dict[str, Any]:
    """Every figure of the comparison, with stable names.

    Args:
        work: what both sides run.
        machine: the NPU.
        gpu: the yardstick.
        timed: the reading of the machine.
        costs: prices of energy and area.
        confidence: dtype of the GPU's softmax.
        profile: measured steps, which replace the model's where there are any.

    Returns:
        `npu` and `gpu`, each with `seconds`, `tokens_per_s`, `tokens_per_j`, `energy_j`, `sampling_share`, `area_mm2`, `power_w` (the most
        it takes), `average_w`, `memory_gbps`, `peak_multiplies` (per second); `ratio` of `tokens_per_s` and `tokens_per_j`;
        `sampling_share` of both; `machine_area_mm2`, `machine_power_w`; `published`, or None; `rows`, variants of either side;
        `targets` and `conditions`, each `met` or not; `bounds`, what the machine waits for and what moving
        bytes and multiplying takes by itself; `sim`, the figures of `unmask sim`.

    Raises:
        UnmaskError: a workload that one of the sides does not do.
    """
    done = timed(machine)
    sim = {**figures(done), **of_generation(done, costs)}
    npu = _npu(sim, machine)
    plain = Precision(confidence=confidence)
    modelled = _gpu_time(work, gpu, plain, profile)
    yardstick = _gpu(modelled, gpu)
    ratio = _ratio(npu, yardstick)
    target = _aims(gpu, work.batch).get("tokens_per_j")
    least = None if target is None or ratio["tokens_per_j"] >= target else _least_bytes(work, machine)
    return {
        "batch": work.batch,
        "prompt": work.prompt,
        "generate": work.policy.gen_length,
        "block": work.policy.block_length,
        "policy": sim["policy"],
        "machine": machine.name,
        "gpu_name": gpu.name,
        "gpu_basis": _basis(modelled, confidence),
        "formats": sim["formats"],
        "assumptions": sim["assumptions"],
        "npu": npu,
        "gpu": yardstick,
        "ratio": ratio,
        "sampling_share": {"npu": npu["sampling_share"], "gpu": yardstick["sampling_share"]},
        "machine_area_mm2": npu["area_mm2"],
        "machine_power_w": npu["power_w"],
        "published": _published(gpu, yardstick),
        "rows": _rows(work, machine, gpu, timed, costs, confidence, npu, yardstick),
        "targets": _targets(gpu, work.batch, ratio),
        "conditions": _conditions(npu, yardstick),
        "bounds": {**bounds(sim), "fixed_energy": fixed_energy(sim, yardstick, target, least)},
        "sim": sim,
    }


def _least_bytes(work: Workload, machine: Machine) -> float:
    """Bytes that the machine would move if its vector SRAM and accumulators held all rows at once; by the analytic reading."""
    rows = work.batch * (work.prompt + work.policy.gen_length)
    roomy = machine.model_copy(
        update={
            "sram": machine.sram.model_copy(update={"vector_kib": max(_ROOM_KIB, machine.sram.vector_kib)}),
            "vector": machine.vector.model_copy(update={"accumulators": max(rows, machine.vector.accumulators)}),
        }
    )
    done = estimate_generation(work.shape, work.policy, roomy, work.prompt, work.batch, work.tokens_per_step, work.sampling)
    return done.hbm_bytes


def _npu(sim: Mapping[str, Any], machine: Machine) -> dict[str, float]:
    sampling = sum(work["share"] for phase, work in sim["by_phase"].items() if phase.startswith("sampling"))
    return {
        "seconds": sim["seconds"],
        "tokens_per_s": sim["tokens_per_second"],
        "tokens_per_j": sim["tokens_per_joule"],
        "energy_j": sim["energy"]["total_j"],
        "sampling_share": sampling,
        "area_mm2": sim["area"]["total_mm2"],
        "power_w": sim["peak_power_w"],
        "average_w": sim["power_w"],
        "memory_gbps": machine.memory_gbps,
        "peak_multiplies": machine.peak_multiplies * machine.clock_ghz * 1e9,
    }


def _gpu(done: GpuGeneration, gpu: Gpu) -> dict[str, float]:
    return {
        "seconds": done.seconds,
        "tokens_per_s": done.tokens_per_s,
        "tokens_per_j": done.tokens_per_j,
        "energy_j": done.energy_j,
        "sampling_share": done.sampling_share,
        "area_mm2": gpu.area_mm2,
        "power_w": gpu.board_w,
        "average_w": done.average_w,
        "memory_gbps": gpu.memory_gbps,
        "peak_multiplies": gpu.bf16_tflops / 2 * 1e12,
        "measured_share": done.measured_share,
    }


def _gpu_time(work: Workload, gpu: Gpu, precision: Precision, profile: MeasuredProfile | None = None) -> GpuGeneration:
    return generation_time(
        work.shape,
        work.policy,
        gpu,
        work.prompt,
        work.batch,
        tokens_per_step=work.tokens_per_step,
        precision=precision,
        profile=profile,
    )


def _basis(done: GpuGeneration, confidence: Confidence) -> str:
    modelled = f"model of PyTorch's kernels, BF16, softmax in {confidence.upper()}; coefficients {done.gpu.fit.source}"
    if not done.measured_share:
        return modelled
    return "measured" if done.measured_share > 0.999 else f"{done.measured_share:.0%} of the time measured, the rest a {modelled}"


def _ratio(npu: Mapping[str, float], gpu: Mapping[str, float]) -> dict[str, float]:
    return {name: npu[name] / gpu[name] for name in ("tokens_per_s", "tokens_per_j")}


def _published(gpu: Gpu, yardstick: Mapping[str, float]) -> dict[str, Any] | None:
    """The published gains, and what they would be of this GPU's figures; None for a GPU of which none is published."""
    ratio = PUBLISHED.get(gpu.name)
    if ratio is None:
        return None
    scaled = {name: gain * yardstick[name] for name, gain in ratio.items()}
    return {"source": SOURCE, "ratio": dict(ratio), **scaled, "sampling_share_below": PUBLISHED_SAMPLING_SHARE}


def _rows(
    work: Workload,
    machine: Machine,
    gpu: Gpu,
    timed: Time,
    costs: Costs,
    confidence: Confidence,
    npu: Mapping[str, float],
    yardstick: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The comparison with one side changed at a time."""
    bits = {role: mx.FORMATS[getattr(machine.formats, role)].bits_per_element for role in ("weights", "kv")}
    stored = Precision(bits["weights"], bits["kv"], confidence)
    smaller = with_fewer_multiplies(machine, gpu)
    rows = [
        _row(
            "same number formats",
            f"the GPU's weights in {machine.formats.weights}, its KV cache in {machine.formats.kv}, unpacked at no cost",
            npu,
            _gpu(_gpu_time(work, gpu, stored), gpu),
        )
    ]
    if smaller is not machine:
        done = timed(smaller)
        fewer = _npu({**figures(done), **of_generation(done, costs)}, smaller)
        now, before = smaller.matrix, machine.matrix
        note = f"the NPU with {now.rows} rows of sub-arrays, {now.mlen} wide, instead of {before.rows}, {before.mlen} wide"
        rows.append(_row(MULTIPLY, note, fewer, yardstick))
    else:
        rows.append(_row(MULTIPLY, "the machine as it is", npu, yardstick))
    if confidence != "fp64":
        wide = Precision(confidence="fp64")
        note = "as LLaDA's first release and Fast-dLLM do"
        rows.append(_row("the GPU's softmax in FP64", note, npu, _gpu(_gpu_time(work, gpu, wide), gpu)))
    return rows


def _row(name: str, note: str, npu: Mapping[str, float], gpu: Mapping[str, float]) -> dict[str, Any]:
    return {"name": name, "note": note, "npu": dict(npu), "gpu": dict(gpu), "ratio": _ratio(npu, gpu)}


def with_fewer_multiplies(machine: Machine, gpu: Gpu) -> Machine:
    """The machine with no more multiplies per second than the GPU's tensor cores have in BF16: of fewer rows of sub-arrays or, where one
    row has more, of rows half as wide, and so on.

    Raises:
        UnmaskError: a single sub-array has more.
    """
    most = gpu.bf16_tflops / 2 * 1000 / machine.clock_ghz
    array = machine.matrix
    if machine.peak_multiplies <= most:
        return machine
    mlen = array.mlen
    while mlen * array.blen > most and not mlen // 2 % array.blen:
        mlen //= 2
    rows = int(most // (mlen * array.blen))
    if rows < 1:
        raise UnmaskError(
            f"a sub-array of machine {machine.name} multiplies {mlen * array.blen:,} times a cycle; expected at most the {most:,.0f} "
            f"of {gpu.name}"
        )
    return machine.model_copy(update={"matrix": array.model_copy(update={"mlen": mlen, "rows": min(rows, array.rows)})})


def _targets(gpu: Gpu, batch: int, ratio: Mapping[str, float]) -> list[dict[str, Any]]:
    aims = _aims(gpu, batch)
    return [{"name": name, "target": target, "found": ratio[name], "met": ratio[name] >= target} for name, target in aims.items()]


def _aims(gpu: Gpu, batch: int) -> Mapping[str, float]:
    """`TARGETS`, set at one batch alone, so that there is none at another."""
    return TARGETS.get(gpu.name, {}) if batch == TARGET_BATCH else {}


def _conditions(npu: Mapping[str, float], gpu: Mapping[str, float]) -> list[dict[str, Any]]:
    """What makes the comparison fair: no more bandwidth (to a thousandth, which rates per pin leave), die area or power than the GPU."""
    slack = {"memory_gbps": 1.001, "area_mm2": 1.0, "power_w": 1.0}
    return [{"name": name, "npu": npu[name], "gpu": gpu[name], "met": npu[name] <= gpu[name] * factor} for name, factor in slack.items()]
