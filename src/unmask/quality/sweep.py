"""Sweeps over number formats: of the logits alone, and of everything that a machine keeps in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from unmask.decoding.compose import cache_of, opens_blocks, sampler_of
from unmask.decoding.dream import Opening
from unmask.decoding.generate import Generation, generate
from unmask.decoding.guide import CachedGuide
from unmask.decoding.piecewise import PiecewiseGuide
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampler
from unmask.errors import UnmaskError
from unmask.machine.config import Formats
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.quality.beside import Beside, Commits, Elsewhere
from unmask.quality.bounds import in_formats
from unmask.quality.candidates import Candidate
from unmask.quality.measure import Judge
from unmask.quality.precision import EXACT, PRECISIONS, PreciseSampler
from unmask.quality.windows import Window
from unmask.quant.commit import machine_committer
from unmask.quant.draws import CounterDraws
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler
from unmask.quant.smoothing.registry import smoothing_named

FORMAT_SETS: tuple[Formats | None, ...] = (
    None,
    Formats(weights="mxint8", activations="mxint8", kv="mxint8"),
    Formats(weights="mxfp8", activations="mxfp8", kv="mxfp8", logits="mxfp8"),
    Formats(weights="mxfp4", activations="mxint8", kv="mxint8"),
    Formats(weights="mxint8", activations="mxint8", kv="mxint4"),
    Formats(weights="mxint8", activations="mxint8", kv="mxint4", smoothing="baos"),
    Formats(weights="mxint4", activations="mxint8", kv="mxint4"),
    Formats(weights="mxint4", activations="mxint8", kv="mxint4", smoothing="baos"),
)
"""What the sweep goes through; None is float32."""
_STORED, _MORE = 4, ("smoothing", "softmax_sums")


def formats_named(text: str) -> Formats:
    """Formats as a command line names them: WEIGHTS/ACTIVATIONS/KV/LOGITS, and :SMOOTHING and :SOFTMAX-SUMS if they are not the usual ones.

    Raises:
        UnmaskError: another shape of text, or a name that is none.
    """
    stored, *more = text.strip().split(":")
    names = stored.split("/")
    if len(names) != _STORED or len(more) > len(_MORE):
        raise UnmaskError(f"formats {text!r}: expected WEIGHTS/ACTIVATIONS/KV/LOGITS, such as mxfp4/mxint8/mxfp4/mxfp8:baos")
    fields = dict(zip(Formats.model_fields, [*names, *more], strict=False))
    try:
        return Formats.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnmaskError(f"formats {text!r}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None


LOGITS_POLICIES = ("llada", "llada:temperature=0.7", "default")
"""Under which the precision of the logits is swept."""

FORMATS_POLICIES = ("llada", "default", "fast-dllm", "guided")
"""Under which the formats are swept, unless policies are named."""


@dataclass(frozen=True)
class LogitsRow:
    """One precision of the logits under one policy.

    Attributes:
        logits, sampling: see `unmask.quality.precision.Precision`.
        policy: as it was named.
        commits: of the generations in float64, over all prompts.
        changed: of these, how many this precision would not have made on the same canvas, for `changed_tokens` with another token at the
            same position, for `changed_positions` at another position.
        agreement: 1 - changed / commits.
        bits_per_character, distinct_2: of the text that this precision generates by itself; see `unmask.quality.measure.Quality`.
    """

    logits: str
    sampling: str
    policy: str
    commits: int
    changed: int
    changed_tokens: int
    changed_positions: int
    agreement: float
    bits_per_character: float | None
    distinct_2: float | None


@dataclass(frozen=True)
class FormatsRow:
    """One set of formats under one policy.

    Attributes:
        formats: weights, activations, KV cache, logits, smoothing by name; None in float32.
        policy: as it was named.
        forwards: of the diffusion model per prompt.
        commits: over all prompts.
        agreement: the fraction of commits that the float32 network makes too, given the same canvas and random numbers.
        bits_per_character, distinct_2: of the generated text; see `unmask.quality.measure.Quality`. The judge computes in float32.
        wall_seconds: per prompt on this machine, the float32 network beside it included.
    """

    formats: dict[str, str] | None
    policy: str
    forwards: float
    commits: int
    agreement: float
    bits_per_character: float | None
    distinct_2: float | None
    wall_seconds: float


def logits_rows(
    candidate: Candidate,
    model: Network,
    judge: Judge,
    windows: Sequence[Window],
    *,
    seed: int,
    report: Callable[[], None] = lambda: None,
) -> list[LogitsRow]:
    """Every precision of the logits under one policy of LLaDA's scorers.

    Args:
        candidate: the policy.
        model: the float32 network.
        judge: of the texts.
        windows: the prompts; the continuations say how many tokens to generate. Prompt i decodes with seed + i.
        seed: of the first prompt.
        report: called after each prompt.

    Raises:
        UnmaskError: a policy with a guide or with Dream's scorers, which sample otherwise; what `generate` raises.
    """
    start = candidate.policy(len(windows[0].continuation), seed)
    if start.commit == "guided" or start.remasking not in ("low_confidence", "random"):
        raise UnmaskError(f"policy {candidate.name!r}: the precision of logits is swept for LLaDA's scorers without a guide")
    commits = [Commits() for _ in PRECISIONS]
    texts: list[list[list[int]]] = [[] for _ in PRECISIONS]
    for index, window in enumerate(windows):
        policy = replace(start, seed=seed + index)
        beside = Beside(PreciseSampler(EXACT, policy), [PreciseSampler(precision, policy) for precision in PRECISIONS], policy)
        exact = _generate(model, window, policy, beside, beside)
        for total, more, precision, of_precision in zip(commits, beside.commits, PRECISIONS, texts, strict=True):
            total.add(more)
            # What changes no commit on the way generates the same text.
            own = _generate(model, window, policy, PreciseSampler(precision, policy)) if more.changed else exact
            of_precision.append(own.new_tokens())
        report()
    rows = []
    for precision, total, of_precision in zip(PRECISIONS, commits, texts, strict=True):
        quality, kept = judge(windows, of_precision), 1 - total.changed / total.total
        changes = (total.total, total.changed, total.tokens, total.positions, kept)
        rows.append(
            LogitsRow(precision.logits, precision.sampling, candidate.name, *changes, quality.bits_per_character, quality.distinct_2)
        )
    return rows


def formats_row(
    formats: Formats | None,
    candidate: Candidate,
    model: Network,
    judge: Judge,
    windows: Sequence[Window],
    *,
    seed: int,
    report: Callable[[], None] = lambda: None,
) -> FormatsRow:
    """One set of formats under one policy: PyTorch in the machine's formats, which is what the NPU commits.

    Args:
        formats: of the machine, without smoothing `static`; None: float32.
        candidate, model, judge, windows, seed, report: as of `logits_rows`; every policy goes.

    Raises:
        UnmaskError: smoothing `static`; what `generate` raises.
    """
    start = candidate.policy(len(windows[0].continuation), seed)
    network, judge_network = (model, judge.network) if formats is None else (in_formats(model, formats), in_formats(judge.network, formats))
    done: list[Generation] = []
    commits, started = Commits(), time.perf_counter()
    for index, window in enumerate(windows):
        policy = replace(start, seed=seed + index)
        length = len(window.prompt)
        guide = judge.network if policy.commit == "guided" else None
        if formats is None:
            sampler = sampler_of(policy, model.config, draws=CounterDraws(policy.seed), guide=None if guide is None else CachedGuide(guide))
        else:
            sampler = _machine_sampler(policy, network, None if guide is None else judge_network, length + policy.gen_length)
        beside = Beside(sampler, [Elsewhere(model, policy, length, guide)], policy)
        smoothing = formats.smoothing if formats else "none"
        done.append(_generate(network, window, policy, beside, beside, smoothing=smoothing))
        commits.add(beside.commits[0])
        report()
    wall = time.perf_counter() - started
    quality = judge(windows, [generation.new_tokens() for generation in done])
    return FormatsRow(
        formats=None if formats is None else formats.model_dump(),
        policy=candidate.name,
        forwards=sum(len(step.fed) for generation in done for step in generation.steps) / len(windows),
        commits=commits.total,
        agreement=1 - commits.changed / commits.total,
        bits_per_character=quality.bits_per_character,
        distinct_2=quality.distinct_2,
        wall_seconds=wall / len(windows),
    )


def expected_seconds(model: Network, windows: Sequence[Window], formats: int, logits: int) -> float:
    """About how long rows take here at most, from a forward pass in float32 and one in MXINT8: every policy takes a forward per token and
    prompt, which feeds the whole canvas.

    Args:
        model: the float32 network.
        windows: as of `logits_rows`.
        formats: calls of `formats_row`.
        logits: calls of `logits_rows`.
    """
    canvas = Policy(gen_length=len(windows[0].continuation), block_length=len(windows[0].continuation), steps=1)
    took = []
    for network in (model, in_formats(model, Formats(weights="mxint8", activations="mxint8", kv="mxint8"))):
        generate(network, [windows[0].prompt], canvas)  # which packs the weights
        started = time.perf_counter()
        generate(network, [windows[0].prompt], canvas)
        took.append(time.perf_counter() - started)
    exact, packed = took
    forwards = len(windows) * len(windows[0].continuation)
    return forwards * (formats * (exact + packed) + logits * len(PRECISIONS) * exact)


def _machine_sampler(policy: Policy, network: Network, guide: GuideNetwork | None, positions: int) -> Sampler:
    if guide is not None:
        return sampler_of(policy, network.config, guide=PiecewiseGuide(guide, positions))
    sampler: Sampler = MachineSampler(policy)
    return Opening(sampler) if opens_blocks(policy, network.config) else sampler


def _generate(
    model: Network, window: Window, policy: Policy, sampler: Sampler, beside: Beside | None = None, *, smoothing: str = "none"
) -> Generation:
    return generate(
        model,
        [window.prompt],
        policy,
        noise=CounterNoise(policy.seed),
        sampler=sampler,
        committer=machine_committer(policy),
        cache=cache_of(policy, smoothing_named(smoothing)),
        on_step=None if beside is None else beside.on_step,
    )
