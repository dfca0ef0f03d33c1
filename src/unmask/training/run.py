"""A training run from the speeches to a checkpoint folder, which can be interrupted at any step and goes on where it stopped."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import tokenizers
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unmask.errors import UnmaskError
from unmask.models.checkpoint import save_model
from unmask.models.family import Network
from unmask.models.tokenizer import Tokenizer, load_tokenizer
from unmask.training.card import TrainingFacts, model_card, this_machine
from unmask.training.corpus import Corpus
from unmask.training.evaluation import Evaluation, bits_per_character, encode_all, evaluate
from unmask.training.recipe import Recipe
from unmask.training.run_state import STATE_FILE, RunState, check_same_run, load_run, save_run, tokens_digest
from unmask.training.tokenizer import train_tokenizer
from unmask.training.trainer import Trainer, token_stream

_PROBE_WINDOWS = 48
"""Windows of held-out text on which a model is watched during training: a tenth of them, a few seconds."""


@dataclass(frozen=True)
class TrainingResult:
    """How a sitting ended.

    Attributes:
        steps: steps taken in all.
        seconds: wall time of the steps, over all sittings.
        evaluation: of the finished model; None if the run was interrupted before its last step.
    """

    steps: int
    seconds: float
    evaluation: Evaluation | None


def train(
    recipe: Recipe,
    corpus: Corpus,
    folder: Path,
    *,
    checkpoint_every: int = 100,
    bound_every: int = 250,
    compiled: bool = True,
    must_resume: bool = False,
    console: Console | None = None,
) -> TrainingResult:
    """Train by `recipe`, or go on with the run of the same recipe that `folder` holds; at the end write the checkpoint there.

    The first Ctrl-C ends the run after its current step with everything saved; a second one ends it at once, at the last checkpoint.

    Args:
        recipe: what to do.
        corpus: the speeches, split.
        folder: receives `training.safetensors` on the way, and at the end `model.safetensors` (bfloat16), `config.json`,
            `tokenizer.json` (unless the recipe names a shipped one) and the model card `README.md`.
        checkpoint_every: steps between checkpoints.
        bound_every: steps between measurements of the bound, or a guide's cross-entropy, on a part of the held-out text.
        compiled: use `torch.compile` where a C++ compiler is present.
        must_resume: refuse to start from the beginning.
        console: for progress; standard error if None.

    Raises:
        UnmaskError: `folder` holds a damaged run, one of another recipe or corpus, or none although `must_resume`; or cannot be
            written; the texts are too short; the loss is not finite.
    """
    console = console or Console(stderr=True)
    run = _Run(recipe, corpus, folder)
    if run.resume():
        console.print(f"going on after step {run.trainer.step} of {recipe.schedule.steps}")
    elif must_resume:
        raise UnmaskError(f"{folder} holds no training run to resume ({STATE_FILE} is missing)")
    if not run.finished and compiled:
        run.trainer.compile(console.print)
    _take_steps(run, console, checkpoint_every, bound_every)
    return TrainingResult(run.trainer.step, run.seconds, _finish(run, console) if run.finished else None)


class _Run:
    """A trainer with the texts it works on and the folder it is kept in."""

    def __init__(self, recipe: Recipe, corpus: Corpus, folder: Path) -> None:
        self.recipe = recipe
        self.folder = folder
        self.seconds = 0.0
        self.corpus = corpus
        training = [speech.text for speech in corpus.training]
        self.trained_tokenizer = None if recipe.tokenizer else _trained_tokenizer(training, recipe.network.vocabulary)
        self.tokenizer = Tokenizer(self.trained_tokenizer) if self.trained_tokenizer else _shared_tokenizer(recipe)
        stream = token_stream(encode_all(self.tokenizer, training), recipe.network.vocabulary - 2)
        longest = max(length for _, length in recipe.schedule.lengths)
        if len(stream) <= longest:
            raise UnmaskError(f"the training text has {len(stream)} tokens, too few for texts of {longest}")
        self.trainer = Trainer(recipe, stream)

    @property
    def finished(self) -> bool:
        return self.trainer.step >= self.recipe.schedule.steps

    def resume(self) -> bool:
        """Take up the run that the folder holds; False if there is none."""
        found = load_run(self.folder)
        if found is None:
            return False
        state, tensors = found
        check_same_run(self.folder, state, self.recipe.model_dump(), tokens_digest(self.trainer.stream))
        try:
            self.trainer.restore(tensors, state.step)
        except (KeyError, RuntimeError) as error:
            raise UnmaskError(f"{self.folder / STATE_FILE} does not fit its own recipe ({error}); remove it to start anew") from None
        self.seconds = state.seconds
        return True

    def checkpoint(self) -> None:
        state = RunState(self.trainer.step, self.seconds, self.recipe.model_dump(), tokens_digest(self.trainer.stream))
        save_run(self.folder, state, self.trainer.tensors())


def _trained_tokenizer(texts: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    try:
        return train_tokenizer(texts, vocabulary)
    except ValueError as error:
        raise UnmaskError(f"network.vocabulary {vocabulary} is too large for this corpus: {error}") from None


def _shared_tokenizer(recipe: Recipe) -> Tokenizer:
    assert recipe.tokenizer is not None
    tokenizer = load_tokenizer(recipe.tokenizer)
    if tokenizer.vocab_size != recipe.network.vocabulary:
        raise UnmaskError(
            f"network.vocabulary is {recipe.network.vocabulary}; the tokenizer of {recipe.tokenizer} has {tokenizer.vocab_size} entries"
        )
    return tokenizer


def _take_steps(run: _Run, console: Console, checkpoint_every: int, bound_every: int) -> None:
    """Train to the last step or to the first Ctrl-C, and leave a checkpoint."""
    trainer, steps = run.trainer, run.recipe.schedule.steps
    probe = _Probe(run.tokenizer, run.corpus, run.recipe.bound_length)
    with _interruption() as interruption, _progress(console) as progress:
        task = progress.add_task("training", total=steps, completed=trainer.step, loss="", speed="", bits="")
        while not run.finished and not interruption.asked:
            started = time.monotonic()
            loss = trainer.take_step()
            seconds = time.monotonic() - started
            run.seconds += seconds
            if not math.isfinite(loss):
                raise UnmaskError(f"the loss is {loss} at step {trainer.step}; lower the learning rates (the last checkpoint is kept)")
            speed = f"{run.recipe.schedule.tokens_per_step / seconds:,.0f} tokens/s"
            progress.update(task, completed=trainer.step, loss=f"loss {loss:.3f}", speed=speed)
            if trainer.step % checkpoint_every == 0:
                run.checkpoint()
            if trainer.step % bound_every == 0:
                bits = probe.measure(trainer.model)
                progress.update(task, bits=f"{bits:.3f} bits per character")
                console.print(f"step {trainer.step}: {speed}, loss {loss:.3f}, {bits:.3f} bits per character (part of the held-out text)")
        run.checkpoint()


def _finish(run: _Run, console: Console) -> Evaluation:
    """Measure the trained model and write its checkpoint folder."""
    model = run.trainer.model
    with Progress(console=console) as progress:
        task = progress.add_task("measuring", total=1.0)
        evaluation = evaluate(
            model,
            run.tokenizer,
            [speech.text for speech in run.corpus.held_out],
            [speech.text for speech in run.corpus.training],
            length=run.recipe.bound_length,
            report=lambda fraction: progress.update(task, completed=fraction),
        )
    parameters = sum(weight.numel() for weight in model.parameters())
    facts = TrainingFacts(run.recipe, run.seconds, this_machine(), len(run.trainer.stream), parameters)
    write_checkpoint(run.folder, model, run.trained_tokenizer, model_card(facts, run.corpus, evaluation))
    return evaluation


def write_checkpoint(folder: Path, model: Network, tokenizer: tokenizers.Tokenizer | None, card: str) -> None:
    """Write a checkpoint folder that `load_network` and `load_tokenizer` read: weights in bfloat16, its own tokenizer and model card."""
    save_model(model, folder, torch.bfloat16)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text(card, "utf-8")


class _Probe:
    """Evenly spaced windows of the held-out text."""

    def __init__(self, tokenizer: Tokenizer, corpus: Corpus, length: int) -> None:
        texts = encode_all(tokenizer, [speech.text for speech in corpus.held_out])
        windows = [text[start : start + length] for text in texts for start in range(0, len(text), length)]
        self._windows = windows[:: max(1, len(windows) // _PROBE_WINDOWS)]
        self._characters = sum(len(tokenizer.decode(window)) for window in self._windows)
        self._length = length

    def measure(self, model: Network) -> float:
        return bits_per_character(model, self._windows, self._characters, length=self._length)[0]


@dataclass
class _Interruption:
    asked: bool = False


@contextmanager
def _interruption() -> Iterator[_Interruption]:
    """Turn the first Ctrl-C into a request; from the second on it interrupts as usual."""
    interruption = _Interruption()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield interruption
        return

    def ask(number: int, frame: FrameType | None) -> None:
        interruption.asked = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, previous)


def _progress(console: Console) -> Progress:
    fields = [TextColumn(f"{{task.fields[{name}]}}") for name in ("loss", "speed", "bits")]
    return Progress(BarColumn(), MofNCompleteColumn(), *fields, TimeRemainingColumn(), console=console)
