"""`unmask eval`: what each policy and each number format is worth, on held-out text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from unmask.cli import options
from unmask.cli.eval_tables import print_policies, print_sweep
from unmask.cli.policy import DEFAULT_SEED
from unmask.cli.record import Record
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.machine.config import Formats
    from unmask.models.family import Network
    from unmask.quality.candidates import Candidate
    from unmask.quality.measure import Judge
    from unmask.quality.windows import Window

_SIZES = {False: {"prompts": 16, "gen_length": 64, "bound_windows": 32}, True: {"prompts": 4, "gen_length": 32, "bound_windows": 8}}
"""Defaults without and with --sweep, where a forward pass in a machine's formats takes several times as long."""

_BOUND = {False: {"length": 512, "strata": 8}, True: {"length": 128, "strata": 4}}


def evaluate(
    corpus: Annotated[Path | None, typer.Option(help="The whole package of speeches; its held-out part is measured on.")] = None,
    speeches: Annotated[Path | None, typer.Option(help="A folder of .txt files, all of them held out.")] = None,
    model: options.ModelOption = "sotu",
    guide: Annotated[str, typer.Option(help="The judge of the text, and the guide: a shipped one's name, or a folder.")] = "sotu-guide",
    policies: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME...", help="Policies, each NAME or NAME:SETTING=VALUE:..., such as fast-dllm:threshold=0.3."),
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Prompts, spread over the text; 16, or 4 with --sweep.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 16,
    gen_length: Annotated[int | None, typer.Option(min=1, help="Tokens to generate; 64, or 32 with --sweep.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the first prompt; prompt i decodes with seed + i.")] = DEFAULT_SEED,
    bound: Annotated[bool, typer.Option("--bound/--no-bound", help="Also measure the diffusion bound.")] = True,
    bound_windows: Annotated[
        int | None, typer.Option(min=1, help="Windows of the bound; 32 of 512 tokens, or 8 of 128 with --sweep.")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Instead: the precision of logits, and number formats by policies.")] = False,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="FORMATS,...",
            help="With --sweep: only these number formats, beside float32; each WEIGHTS/ACTIVATIONS/KV/LOGITS[:SMOOTHING[:SOFTMAX-SUMS]].",
        ),
    ] = None,
    as_json: options.JsonOption = False,
    output: Annotated[
        Path | None, typer.Option(help="Keep every finished row in this JSON file; the same command goes on from it.")
    ] = None,
) -> None:
    """Measure policies on held-out text: forward passes, and what an autoregressive model makes of the text they generate.

    JSON: model, guide, corpus, settings, bound, reference (the text as its author went on), policies with name, settings, tokens,
    tokens_per_forward, steps, forwards, positions_fed, guide_forwards, perplexity, bits_per_character, bigram_bits_per_character (with
    --corpus), distinct_2, agreement with plain decoding, wall_seconds and generated token ids, all per prompt; and of --sweep,
    sweep.logits, sweep.formats, sweep.bounds and published, which is what others report.
    """
    if (corpus is None) == (speeches is None):
        raise UnmaskError("say which text to measure on: either --corpus or --speeches")
    from unmask.decoding.compose import schedule_of
    from unmask.quality.candidates import EVERY, YARDSTICK, candidates
    from unmask.quality.sweep import FORMATS_POLICIES, formats_named

    if formats is not None and not sweep:
        raise UnmaskError("--formats says what --sweep goes through; expected both")
    sets = None if formats is None else [None, *(formats_named(name) for name in formats.split(","))]
    sizes = {**_SIZES[sweep], **{k: v for k, v in (("prompts", prompts), ("gen_length", gen_length)) if v is not None}}
    if bound_windows is not None:
        sizes["bound_windows"] = bound_windows
    names = (list(FORMATS_POLICIES) if sweep else list(EVERY)) if policies is None else policies.split(",")
    if not sweep and YARDSTICK not in names:
        names = [YARDSTICK, *names]
    chosen = candidates(names)
    wanted = [candidate.policy(sizes["gen_length"], seed) for candidate in chosen]
    task = _load(corpus, speeches, model, guide, sizes, prompt_tokens, count_bigram=not sweep)
    for policy in wanted:
        schedule_of(policy, task.model.config)  # before any of them runs, whether the network takes them all
    settings = {"sweep": sweep, **sizes, "prompt_tokens": prompt_tokens, "seed": seed, "policies": names, "yardstick": YARDSTICK}
    settings |= {} if formats is None else {"formats": formats}
    settings |= {"bound": {**_BOUND[sweep], "length": task.bound_length(sweep)} if bound else None, **_fingerprints(model, guide)}
    head = {"model": model, "guide": guide, "corpus": task.corpus, "settings": settings}
    body: dict[str, Any] = {"bound": None, "reference": None, "policies": [], "published": []}
    body["sweep"] = {"logits": [], "formats": [], "bounds": []}
    record = Record(head, body, output)
    show, console = print_sweep if sweep else print_policies, Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            if record.document["reference"] is None:
                record.set("reference", asdict(task.judge(task.windows, [window.continuation for window in task.windows])))
            if sweep:
                _sweep(task, chosen, sets, record, _Bars(progress))
            else:
                _policies(task, chosen, record, _Bars(progress))
    except KeyboardInterrupt:
        if not as_json:
            show(record.document)
        raise
    if as_json:
        print(record.text())
    else:
        show(record.document)


@dataclass(frozen=True)
class _Task:
    """What is measured, and on what.

    Attributes:
        texts: token ids of each held-out text.
        corpus: what is to say of them.
    """

    model: Network
    judge: Judge
    texts: list[list[int]]
    windows: list[Window]
    corpus: Mapping[str, Any]

    def bound_length(self, sweep: bool) -> int:
        """Tokens per window of the bound."""
        return int(min(_BOUND[sweep]["length"], self.model.config.max_sequence_length))


class _Bars:
    """Progress, a bar for each thing that is measured."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def prompts(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar over prompts; what it gives is called after each."""
        task = self._progress.add_task(what, total=total)
        yield lambda: self._progress.advance(task)

    @contextmanager
    def share(self, what: str) -> Iterator[Callable[[float], None]]:
        """A bar for something whose fraction done is told."""
        task = self._progress.add_task(what, total=1.0)
        yield lambda fraction: self._progress.update(task, completed=fraction)


def _load(
    corpus: Path | None,
    speeches: Path | None,
    model: str,
    guide: str,
    sizes: Mapping[str, int],
    prompt_tokens: int,
    *,
    count_bigram: bool,
) -> _Task:
    from unmask.models.checkpoint import load_network, shipped_checkpoints
    from unmask.models.guide import load_guide
    from unmask.models.tokenizer import load_tokenizer
    from unmask.quality.measure import Judge
    from unmask.quality.windows import prompts
    from unmask.training.baselines import KneserNeyBigram
    from unmask.training.corpus import Speech, read_speeches, split_speeches
    from unmask.training.recipe import load_recipe

    if guide == "sotu-guide" and guide not in shipped_checkpoints():
        raise UnmaskError("no guide ships with this unmask; `unmask train --recipe sotu-guide` makes one, and --guide FOLDER names it")
    training: tuple[Speech, ...] = ()
    if corpus is not None:
        recipe = load_recipe()
        split = split_speeches(read_speeches(corpus), recipe.data.held_out, recipe.data.split_seed)
        training, held_out = split.training, split.held_out
    else:
        assert speeches is not None
        held_out = tuple(read_speeches(speeches))
    network, judge, tokenizer = load_network(model), load_guide(guide, model), load_tokenizer(model)
    texts = [tokenizer.encode(speech.text) for speech in held_out]
    digest = hashlib.sha256("\0".join(speech.text for speech in held_out).encode()).hexdigest()
    about = {"texts": len(texts), "characters": sum(len(speech.text) for speech in held_out), "tokens": sum(map(len, texts))}
    windows = prompts(texts, sizes["prompts"], prompt_tokens, sizes["gen_length"])
    bigram = None
    if training and count_bigram:
        config = network.config
        counted = [tokenizer.encode(speech.text) for speech in training]
        bigram = KneserNeyBigram(counted, config.vocab_size, config.eos_token_id)
    return _Task(network, Judge(judge, tokenizer, bigram), texts, windows, {**about, "sha256": digest})


def _fingerprints(model: str, guide: str) -> dict[str, str]:
    """What tells the checkpoints from others of the same name."""
    from unmask.models.checkpoint import resolve_checkpoint
    from unmask.quant.stream import fingerprint

    files = {name: sorted(resolve_checkpoint(name).glob("model*.safetensors")) for name in (model, guide)}
    return {"model_fingerprint": fingerprint(files[model]), "guide_fingerprint": fingerprint(files[guide])}


def _policies(task: _Task, chosen: list[Candidate], record: Record, bars: _Bars) -> None:
    from unmask.quality.candidates import YARDSTICK
    from unmask.quality.measure import measure

    settings, plain = record.document["settings"], None
    for candidate in sorted(chosen, key=lambda candidate: candidate.name != YARDSTICK):
        if record.row("policies", name=candidate.name) is None:
            with bars.prompts(candidate.name, len(task.windows)) as advance:
                found = measure(candidate, task.model, task.judge, task.windows, seed=settings["seed"], plain=plain, report=advance)
            record.add("policies", rows=[asdict(found)])
        plain = plain or record.document["policies"][0]["generated"]
    if settings["bound"] is not None and record.document["bound"] is None:
        record.set("bound", _bound(task, settings, bars))


def _sweep(task: _Task, chosen: list[Candidate], sets: Sequence[Formats | None] | None, record: Record, bars: _Bars) -> None:
    """Logits and formats or, of the formats in `sets`, only these."""
    from unmask.quality.candidates import candidate as named
    from unmask.quality.published import CLAIMS
    from unmask.quality.sweep import FORMAT_SETS, LOGITS_POLICIES, formats_row, logits_rows

    settings = record.document["settings"]
    record.set("published", [asdict(claim) for claim in CLAIMS])
    policies, wanted = (LOGITS_POLICIES, FORMAT_SETS) if sets is None else ((), sets)
    _announce(task, len(wanted) * len(chosen), len(policies), record)
    for name in policies:
        if record.row("sweep", "logits", policy=name) is None:
            with bars.prompts(f"logits, {name}", len(task.windows)) as advance:
                found = logits_rows(named(name), task.model, task.judge, task.windows, seed=settings["seed"], report=advance)
            record.add("sweep", "logits", rows=[asdict(row) for row in found])
    for formats in wanted:
        dumped = None if formats is None else formats.model_dump()
        title = "float32" if dumped is None else "/".join(dumped.values())
        if settings["bound"] is not None and record.row("sweep", "bounds", formats=dumped) is None:
            record.add("sweep", "bounds", rows=[{"formats": dumped, **_bound(task, settings, bars, formats)}])
        for candidate in chosen:
            if record.row("sweep", "formats", formats=dumped, policy=candidate.name) is None:
                with bars.prompts(f"{title}, {candidate.name}", len(task.windows)) as advance:
                    measured = formats_row(formats, candidate, task.model, task.judge, task.windows, seed=settings["seed"], report=advance)
                record.add("sweep", "formats", rows=[asdict(measured)])


def _bound(task: _Task, settings: Mapping[str, Any], bars: _Bars, formats: Formats | None = None) -> dict[str, Any]:
    from unmask.quality.bounds import bound_of

    sizes = settings["bound"]
    with bars.share("diffusion bound") as report:
        found = bound_of(
            task.model,
            task.judge.tokenizer,
            task.texts,
            windows=settings["bound_windows"],
            length=sizes["length"],
            strata=sizes["strata"],
            formats=formats,
            report=report,
        )
    return asdict(found)


def _announce(task: _Task, formats: int, logits: int, record: Record) -> None:
    """Say on standard error how long the rest of a sweep takes at most."""
    from unmask.quality.sweep import expected_seconds

    done = record.document["sweep"]
    formats -= len(done["formats"])
    logits -= len({row["policy"] for row in done["logits"]})
    minutes = expected_seconds(task.model, task.windows, formats, logits) / 60
    Console(stderr=True, highlight=False).print(
        f"{formats} rows of formats, {logits} policies of logits: at most about {minutes:.0f} minutes"
    )
