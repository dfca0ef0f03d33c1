"""Published measurements of diffusion-LLM inference on GPUs, and what the model predicts for them. Nothing is fitted to them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, get_args

from unmask.baselines.generation import elapsed, generation_time
from unmask.baselines.gpu import Gpu
from unmask.baselines.sampling import Confidence, sampling_kernels
from unmask.baselines.transformer import Precision
from unmask.decoding.policy import Policy
from unmask.models.catalogue import architecture


@dataclass(frozen=True)
class Comparison:
    """A published figure beside the model's.

    Attributes:
        source: whose it is and of what.
        gpu: which one.
        assumed: what the publication leaves open and is assumed here.
        unit: of both.
        published, predicted: the figures.
    """

    source: str
    gpu: str
    assumed: str
    unit: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative, signed."""
        return self.predicted / self.published - 1


def comparisons() -> list[Comparison]:
    """Every published figure beside what the shipped model of its GPU predicts."""
    data = tomllib.loads((resources.files("unmask.baselines") / "published.toml").read_text("utf-8"))
    found: list[Comparison] = []
    for kind, compare in (("sampling", _sampling), ("share", _share), ("throughput", _throughput)):
        for entry in data[kind]:
            found += compare(Gpu.load(entry["gpu"]), entry)
    return found


def _published_policy(generate: int, cache: str = "none") -> Policy:
    """LLaDA's own: arg-max, a token a step, every position that is fed sampled."""
    return Policy(generate, 32, generate, cache=cache, exclude_mask=False)


def _sampling(gpu: Gpu, entry: dict[str, Any]) -> list[Comparison]:
    """In each dtype of the softmax that a reference has used; the publication does not say which."""
    policy = _published_policy(entry["block"])
    found = []
    for confidence in get_args(Confidence):
        kernels = sampling_kernels(gpu, policy, entry["batch"], entry["block"], entry["vocabulary"], confidence)
        modelled = 1e3 * sum(elapsed(gpu, [kernels]))
        assumed = f"softmax in {confidence.upper()}"
        found.append(Comparison(entry["source"], entry["gpu"], assumed, "ms", entry["milliseconds"], modelled))
    return found


def _share(gpu: Gpu, entry: dict[str, Any]) -> list[Comparison]:
    """Of the models the one with the largest share; the publication says in which ranges batch and lengths lay, not which gave the most."""
    policy = _published_policy(entry["generate"])
    shares = [
        generation_time(
            architecture(model), policy, gpu, entry["prompt"], entry["batch"], precision=Precision(confidence="fp64")
        ).sampling_share
        for model in entry["models"]
    ]
    assumed = f"batch {entry['batch']}, {entry['prompt']} + {entry['generate']} tokens, no cache, softmax in FP64, logits of every row"
    return [Comparison(entry["source"], entry["gpu"], assumed, "%", entry["percent"], 100 * max(shares))]


def _throughput(gpu: Gpu, entry: dict[str, Any]) -> list[Comparison]:
    """Tokens/s with each cache, and how many times faster the last one is than the first; softmax in FP64, logits of every fed row."""
    shape, published = architecture(entry["model"]), entry["tokens_per_s"]
    rates = {
        cache: generation_time(
            shape, _published_policy(entry["generate"], cache), gpu, entry["prompt"], precision=Precision(confidence="fp64")
        ).tokens_per_s
        for cache in published
    }
    sizes = f"{entry['prompt']} + {entry['generate']} tokens"
    found = [
        Comparison(entry["source"], entry["gpu"], f"cache {cache}, {sizes}", "tokens/s", published[cache], rate)
        for cache, rate in rates.items()
    ]
    first, *_, last = rates
    ratio = Comparison(
        entry["source"],
        entry["gpu"],
        f"cache {last} over {first}, {sizes}",
        "x",
        published[last] / published[first],
        rates[last] / rates[first],
    )
    return [*found, ratio]
