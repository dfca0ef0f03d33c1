"""How the time of sampling scales, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.compiler.sampling.workload import Workload
    from unmask.machine.config import Machine

_BATCHES = (1, 2, 4, 8, 12, 16)
_STEPS = (1, 2, 4, 8, 16, 32)
_VOCABULARIES = (16_384, 32_768, 65_536, 98_304, 126_464, 151_936)
_CHUNKS = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 126_464)


def draw(folder: Path, machine: Machine, program: str) -> list[Path]:
    """Plot the latency of sampling over batch, steps, vocabulary and, for four-phase, chunk; the rest is as published.

    Steps run the program again, so they are multiples of one.

    Returns:
        The file written, in a list: one for all panels.

    Raises:
        UnmaskError: matplotlib is missing, or the folder cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError:
        raise UnmaskError("--plot needs matplotlib: pip install matplotlib") from None
    panels = _panels(machine, program)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), constrained_layout=True)
    for place, (title, label, values, latencies, logarithmic) in zip(axes, panels, strict=True):
        place.plot(values, latencies, marker="o")
        place.set(title=title, xlabel=label, ylabel="ms", ylim=(0, None))
        if logarithmic:
            place.set_xscale("log", base=2)
        else:
            place.locator_params(axis="x", nbins=5)
        place.grid(alpha=0.3)
    figure.suptitle(f"sampling, {program}, machine {machine.name}: batch 16, block 32, vocabulary 126 464, one step, unless varied")
    path = folder / f"sampling-{program}-{machine.name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise UnmaskError(f"{path}: cannot write the plot: {error.strerror}") from None
    finally:
        pyplot.close(figure)
    return [path]


def _panels(machine: Machine, program: str) -> list[tuple[str, str, Sequence[int], list[float], bool]]:
    from unmask.compiler.sampling.measure import latency_ms
    from unmask.compiler.sampling.published import BATCH, BLOCK, VOCABULARY
    from unmask.compiler.sampling.workload import Workload

    def over(make: Callable[[int], Workload], values: Sequence[int]) -> list[float]:
        return [latency_ms(make(value), machine, program) for value in values]

    standard = Workload(BATCH, BLOCK, VOCABULARY)
    one = latency_ms(standard, machine, program)
    panels: list[Any] = [
        ("batch", "sequences", _BATCHES, over(lambda batch: Workload(batch, BLOCK, VOCABULARY), _BATCHES), False),
        ("steps", "denoising steps", _STEPS, [one * steps for steps in _STEPS], False),
        ("vocabulary", "tokens", _VOCABULARIES, over(lambda tokens: Workload(BATCH, BLOCK, tokens), _VOCABULARIES), False),
    ]
    if program == "four-phase":
        latencies = [latency_ms(standard, machine, program, chunk) for chunk in _CHUNKS]
        panels.append(("chunk", "logits loaded at once", _CHUNKS, latencies, True))
    return panels
