"""How long a whole generation takes on a GPU, and its energy: every kind of step priced once, and counted as often as it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import Kernel, seconds_of
from unmask.baselines.measured import MeasuredProfile
from unmask.baselines.sampling import sampling_kernels
from unmask.baselines.steps import StepKind, steps_of
from unmask.baselines.transformer import AttentionKind, Precision, transformer_kernels
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.layers import Architecture

Launch = Literal["eager", "graph"]
"""`eager`: the processor launches kernel after kernel, as PyTorch does; `graph`: a captured CUDA graph, which costs it nothing."""


@dataclass(frozen=True)
class StepTime:
    """One kind of step.

    Attributes:
        kind: its sizes.
        count: how often it runs.
        transformer, sampling: kernels of the network and of the sampler, commit included.
        transformer_seconds, sampling_seconds: of one step, waiting for the processor and gaps included.
        joules: of one step.
        measured: the seconds were measured, not modelled.
    """

    kind: StepKind
    count: int
    transformer: tuple[Kernel, ...]
    sampling: tuple[Kernel, ...]
    transformer_seconds: float
    sampling_seconds: float
    joules: float
    measured: bool = False

    @property
    def seconds(self) -> float:
        """Of one step."""
        return self.transformer_seconds + self.sampling_seconds


@dataclass(frozen=True)
class GpuGeneration:
    """A whole generation on a GPU. Totals are sums over `steps`: a kind's figure times how often it runs."""

    gpu: Gpu
    shape: Architecture
    policy: Policy
    batch: int
    prompt_length: int
    precision: Precision
    launch: Launch
    steps: tuple[StepTime, ...]

    @property
    def step_count(self) -> int:
        """Denoising steps."""
        return sum(step.count for step in self.steps)

    @property
    def transformer_seconds(self) -> float:
        """In the network, LM head included."""
        return sum(step.transformer_seconds * step.count for step in self.steps)

    @property
    def sampling_seconds(self) -> float:
        """From logits to the committed canvas."""
        return sum(step.sampling_seconds * step.count for step in self.steps)

    @property
    def seconds(self) -> float:
        """Of the whole generation."""
        return self.transformer_seconds + self.sampling_seconds

    @property
    def sampling_share(self) -> float:
        """Of the time, in [0, 1]."""
        return self.sampling_seconds / self.seconds

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.policy.gen_length

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second."""
        return self.tokens / self.seconds

    @property
    def energy_j(self) -> float:
        """Joules of the board; see `step_joules`."""
        return sum(step.joules * step.count for step in self.steps)

    @property
    def tokens_per_j(self) -> float:
        """New tokens per joule."""
        return self.tokens / self.energy_j

    @property
    def average_w(self) -> float:
        """Mean power of the board, watts."""
        return self.energy_j / self.seconds

    @property
    def measured_share(self) -> float:
        """Share of the time that was measured, in [0, 1]."""
        return sum(step.seconds * step.count for step in self.steps if step.measured) / self.seconds

    @property
    def kernels(self) -> list[Kernel]:
        """Every kind of kernel with its launches over the whole generation; `seconds` is a launch's mean."""
        launches: Counter[tuple[str, str]] = Counter()
        totals: dict[tuple[str, str], list[float]] = {}
        for step in self.steps:
            for kernel in (*step.transformer, *step.sampling):
                key, count = (kernel.operator, kernel.name), kernel.count * step.count
                launches[key] += count
                before = totals.get(key, [0.0, 0.0, 0.0])
                own = (kernel.seconds, kernel.hbm_bytes, kernel.flops)
                totals[key] = [total + value * count for total, value in zip(before, own, strict=True)]
        means = {key: [total / launches[key] for total in sums] for key, sums in totals.items()}
        return [Kernel(*key, seconds, moved, flops, launches[key]) for key, (seconds, moved, flops) in means.items()]


def generation_time(
    shape: Architecture,
    policy: Policy,
    gpu: Gpu,
    prompt_length: int,
    batch: int = 1,
    *,
    tokens_per_step: float | None = None,
    precision: Precision | None = None,
    launch: Launch = "eager",
    attention: AttentionKind = "fused",
    profile: MeasuredProfile | None = None,
) -> GpuGeneration:
    """Price a generation.

    Args:
        shape: of the network.
        policy: how the canvas is unmasked.
        gpu: what runs it.
        prompt_length: positions before the generated ones.
        batch: sequences that are decoded side by side.
        tokens_per_step: see `steps_of`.
        precision: formats; None: BF16 throughout, as LLaDA's reference.
        launch: who launches kernels.
        attention: see `unmask.baselines.attention`.
        profile: measured seconds, which are taken instead of the model's for the kinds of step that it has.

    Raises:
        UnmaskError: a batch, prompt or canvas out of range, a profile of another policy; what `steps_of` and `sampling_kernels` raise.
    """
    for name, value in (("batch", batch), ("prompt_length", prompt_length)):
        if value < 1:
            raise UnmaskError(f"{name} is {value}; it must be at least 1")
    if prompt_length + policy.gen_length > shape.max_sequence_length:
        raise UnmaskError(
            f"a prompt of {prompt_length} tokens and gen_length {policy.gen_length} do not fit the context of {shape.max_sequence_length}"
        )
    if profile is not None and profile.policy != sampled_as(policy):
        raise UnmaskError(f"the profile was measured with {profile.policy}; expected {sampled_as(policy)}")
    precision = precision or Precision()
    kinds = steps_of(policy, shape, prompt_length, batch, tokens_per_step)
    steps = tuple(_step(shape, policy, gpu, kind, count, batch, precision, launch, attention, profile) for kind, count in kinds.items())
    return GpuGeneration(gpu, shape, policy, batch, prompt_length, precision, launch, steps)


def sampled_as(policy: Policy) -> dict[str, str | float | int | bool | None]:
    """What of a policy decides the kernels of its steps."""
    names = ("temperature", "remasking", "commit", "cache", "exclude_mask", "cfg_scale")
    return {name: getattr(policy, name) for name in names}


def elapsed(gpu: Gpu, parts: Sequence[Sequence[Kernel]], launch: Launch = "eager") -> list[float]:
    """Seconds of each part of a step: its kernels, the gaps between them and, where the processor that launches them is slower than the
    device over the whole step, the wait for it, shared out by launches.
    """
    host = gpu.fit.host
    launches = [sum(kernel.count for kernel in part) for part in parts]
    device = [seconds_of(part) + host.gap_us * 1e-6 * count for part, count in zip(parts, launches, strict=True)]
    waiting = max(host.launch_us * 1e-6 * sum(launches) - sum(device), 0.0) if launch == "eager" else 0.0
    return [own + waiting * count / sum(launches) for own, count in zip(device, launches, strict=True)]


def step_joules(gpu: Gpu, kernels: tuple[Kernel, ...], seconds: float) -> float:
    """Energy of the board over `seconds` in which these kernels run.

    Idle power all the time, and while a kernel runs the rest of the board's power in proportion to how busy it keeps the tensor cores or,
    at `memory_power` of the rest for a saturated one, the memory; whichever is more.
    """
    fit = gpu.fit
    flops = gpu.bf16_tflops * 1e12 * fit.gemm.math * (1 - fit.gemm.droop)
    bandwidth = gpu.memory_gbps * 1e9 * fit.stream.dram
    busy = sum(
        kernel.count * min(max(kernel.flops / flops, fit.memory_power * kernel.hbm_bytes / bandwidth), kernel.seconds) for kernel in kernels
    )
    return gpu.idle_w * seconds + (gpu.board_w - gpu.idle_w) * busy


def _step(
    shape: Architecture,
    policy: Policy,
    gpu: Gpu,
    kind: StepKind,
    count: int,
    batch: int,
    precision: Precision,
    launch: Launch,
    attention: AttentionKind,
    profile: MeasuredProfile | None,
) -> StepTime:
    cached = policy.cache != "none"
    sampled = min(kind.head_rows, policy.block_length) if policy.exclude_mask else kind.head_rows
    network = tuple(
        transformer_kernels(gpu, shape, kind.batch, kind.rows, kind.keys, kind.head_rows, precision, cached=cached, attention=attention)
    )
    sampler = tuple(sampling_kernels(gpu, policy, batch, sampled, shape.vocab_size, precision.confidence))
    transformer, sampling = elapsed(gpu, (network, sampler), launch)
    joules = step_joules(gpu, network + sampler, transformer + sampling)
    modelled = StepTime(kind, count, network, sampler, transformer, sampling, joules)
    if profile is None or (found := profile.step(kind)) is None:
        return modelled
    seconds = found.transformer_s + found.sampling_s
    power = modelled.joules / modelled.seconds if profile.power_w is None else profile.power_w
    return replace(
        modelled,
        transformer_seconds=found.transformer_s,
        sampling_seconds=found.sampling_s,
        joules=power * seconds,
        measured=True,
    )
