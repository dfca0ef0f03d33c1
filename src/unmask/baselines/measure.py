"""Measuring the PyTorch reference where it runs: transformer and sampling of every kind of step apart."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any, Protocol

import torch
from torch import Tensor

from unmask.baselines.generation import sampled_as
from unmask.baselines.measured import MeasuredProfile, MeasuredStep
from unmask.baselines.steps import StepKind
from unmask.decoding.evaluate import ModelConfig
from unmask.decoding.generate import StepRecord, generate
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.catalogue import catalogue
from unmask.models.checkpoint import config_of
from unmask.models.family import Network
from unmask.models.layers import LayerRunner, Rows

WEIGHT_SEED = 0
"""Of the random weights and prompts."""


class Clock(Protocol):
    """Marks points of a device's queue of work."""

    def mark(self) -> Any:
        """A point after everything that is in the queue."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Time between two points; waits until the device has passed both."""
        ...


class CudaClock:
    """CUDA events."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


@dataclass
class StepTimes:
    """What was measured of one kind of step: one entry per step, seconds."""

    transformer: list[float] = field(default_factory=list)
    sampling: list[float] = field(default_factory=list)


class _Timed:
    """A network that marks when a step's forward pass begins and when its logits are there."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network, self._clock = network, clock
        self.begin: Any = None
        self.end: Any = None
        self.shape = (0, 0, 0)

    @property
    def config(self) -> ModelConfig:
        config: ModelConfig = self._network.config
        return config

    def hidden(
        self, ids: Tensor, attention_mask: Tensor | None = None, *, positions: Rows | None = None, layers: LayerRunner | None = None
    ) -> Tensor:
        self.begin = self._clock.mark()
        self.shape = (ids.shape[0], ids.shape[1], 0)
        return self._network.hidden(ids, attention_mask, positions=positions, layers=layers)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self._network.logits(hidden)
        self.shape = (*self.shape[:2], hidden.shape[1])
        self.end = self._clock.mark()
        return logits

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        return self._network.guidance(conditional, unconditional, scale)


def time_steps(network: Network, prompt: Tensor, policy: Policy, clock: Clock, warm_up: int = 3) -> dict[StepKind, StepTimes]:
    """Decode as `unmask.decoding.generate` does and time every step.

    Args:
        network: on the device.
        prompt: int64 [batch, prompt], on the device.
        policy: the decoding.
        clock: of the device.
        warm_up: steps of each kind that are left out of the result, as far as others remain.

    Returns:
        Times by kind of step, in the order of their first use.
    """
    timed = _Timed(network, clock)
    marks: dict[StepKind, list[tuple[Any, Any, Any]]] = {}

    def on_step(record: StepRecord) -> None:
        batch, rows, head_rows = timed.shape
        kind = StepKind(batch, rows, record.canvas.shape[1], head_rows)
        marks.setdefault(kind, []).append((timed.begin, timed.end, clock.mark()))

    generate(timed, prompt, policy, on_step=on_step)
    times: dict[StepKind, StepTimes] = {}
    for kind, steps in marks.items():
        kept = times.setdefault(kind, StepTimes())
        for begin, logits, end in steps[min(warm_up, len(steps) - 1) :]:
            kept.transformer.append(clock.seconds(begin, logits))
            kept.sampling.append(clock.seconds(logits, end))
    return times


def random_network(model: str, device: str, dtype: torch.dtype = torch.bfloat16) -> Network:
    """A published model at its full size with random weights.

    Args:
        model: of the catalogue.
        device: where it is built.
        dtype: of the weights.

    Raises:
        UnmaskError: no such model, or one that the device's memory does not hold.
    """
    if model not in catalogue():
        raise UnmaskError(f"unknown model {model!r}: expected one of {', '.join(catalogue())}")
    family, config = config_of(catalogue()[model]["config"], Path("catalogue.toml"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(WEIGHT_SEED)
    try:
        with torch.device(device):
            network: Network = family.build(config)
    except torch.OutOfMemoryError:
        raise UnmaskError(f"{model} does not fit the memory of {device}") from None
    finally:
        torch.set_default_dtype(before)
    return network.eval()


def measure(model: str, policy: Policy, prompt_length: int, batch: int, repeats: int = 3) -> MeasuredProfile:
    """Measure a generation of a published model with random weights on the first CUDA device, in BF16.

    Args:
        model: of the catalogue.
        policy: the decoding. Random weights are confident of nothing, so a commit by value commits a token a step; what a step of a kind
            takes does not depend on that.
        prompt_length: positions before the generated ones.
        batch: sequences.
        repeats: generations that are timed, after a first that is not.

    Raises:
        UnmaskError: there is no CUDA device, the model does not fit it, a temperature above 0; what `generate` raises.
    """
    require_cuda()
    if policy.temperature:
        raise UnmaskError(f"temperature is {policy.temperature:g}: this project draws noise on the processor; expected 0")
    network = random_network(model, "cuda")
    prompt = torch.randint(0, network.config.mask_token_id, (batch, prompt_length), device="cuda")
    watts: list[float] = []  # noted in a generation that is not timed: asking the driver takes time
    try:
        generate(network, prompt, policy, on_step=lambda _: _note_power(watts))
        found = merged([time_steps(network, prompt, policy, CudaClock()) for _ in range(repeats)])
    except torch.OutOfMemoryError:
        raise UnmaskError(f"{model} at batch {batch} does not fit the memory of {torch.cuda.get_device_name()}") from None
    return MeasuredProfile(
        device=torch.cuda.get_device_name(),
        software={"torch": str(torch.__version__), "cuda": str(torch.version.cuda)},
        model=model,
        policy=sampled_as(policy),
        dtype="bf16",
        power_w=mean(watts) if watts else None,
        steps=profile_steps(found),
    )


def require_cuda() -> None:
    """Refuse a machine without a GPU.

    Raises:
        UnmaskError: PyTorch finds no CUDA device.
    """
    if not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
        raise UnmaskError(f"no CUDA device: PyTorch {torch.__version__} {built} and finds none; expected a machine with an NVIDIA GPU")


def merged(runs: list[dict[StepKind, StepTimes]]) -> dict[StepKind, StepTimes]:
    """The times of several generations together."""
    together: dict[StepKind, StepTimes] = {}
    for run in runs:
        for kind, times in run.items():
            kept = together.setdefault(kind, StepTimes())
            kept.transformer += times.transformer
            kept.sampling += times.sampling
    return together


def profile_steps(times: dict[StepKind, StepTimes]) -> tuple[MeasuredStep, ...]:
    """Medians of every kind of step."""
    return tuple(
        MeasuredStep(
            **kind._asdict(),
            transformer_s=median(found.transformer),
            sampling_s=median(found.sampling),
            repeats=len(found.transformer),
        )
        for kind, found in times.items()
    )


def _note_power(watts: list[float]) -> None:
    """Note the board's power, if the driver's Python library is there to say."""
    with suppress(ModuleNotFoundError, RuntimeError):
        watts.append(torch.cuda.power_draw() / 1e3)
