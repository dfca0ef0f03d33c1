"""Shows a canvas while it unmasks, and the cost afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from unmask.cli.energy import show_costs
from unmask.cli.text import printable
from unmask.models.tokenizer import Tokenizer

_MASK = "░░"
_LINES = 8
_SILENCE = 30
"""Seconds between two lines of progress within a step, where there is no terminal."""


class CanvasView:
    """The live canvas on a terminal, a line now and then where there is none; nothing if `quiet`.

    Where standard output is no terminal it gets the text alone, and all else goes to standard error.
    """

    def __init__(self, tokenizer: Tokenizer, mask_token: int, masks: int, steps: int | None, quiet: bool) -> None:
        """Set what is shown.

        Args:
            tokenizer: of the model.
            mask_token: what is shown as a gap.
            masks: how many there are at the start.
            steps: how many the run will take; None: it is not known, and progress is counted in masks.
            quiet: show nothing.
        """
        self._tokenizer, self._mask, self._quiet = tokenizer, mask_token, quiet
        self._masks, self._steps, self._done = masks, steps, 0
        self._text_alone = not sys.stdout.isatty()
        self._console = Console(stderr=self._text_alone, quiet=quiet, highlight=False)
        self._is_live = not quiet and self._console.file.isatty() and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._told = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self._console
        )
        self._task = self._progress.add_task("denoising", total=self._total)

    @property
    def _total(self) -> int:
        return self._masks if self._steps is None else self._steps

    @contextmanager
    def running(self) -> Iterator[None]:
        """While steps run."""
        if self._is_live:
            with Live(self._progress, console=self._console, refresh_per_second=12) as self._live:
                yield
        else:
            yield

    def step(self, number: int, canvases: Sequence[Sequence[int]], committed: Sequence[Collection[int]]) -> None:
        """Show a step.

        Args:
            number: of the step, from 0.
            canvases: every row's canvas after it.
            committed: the positions that it filled in each.
        """
        before, left = self._done, sum(list(canvas).count(self._mask) for canvas in canvases)
        self._done = self._masks - left if self._steps is None else number + 1
        self._progress.update(self._task, completed=self._done)
        if self._live is not None:
            whole = "" if self._steps is None else f" of {self._steps}"
            panel = Panel(Text("\n").join(map(self._render, canvases, committed)), title=f"step {number + 1}{whole}")
            self._live.update(Group(panel, self._progress))
        elif not self._quiet and self._done * _LINES // self._total > before * _LINES // self._total:
            whole = "" if self._steps is None else f"/{self._steps}"
            texts = [self._render(*row).plain.replace("\n", " ") for row in zip(canvases, committed, strict=True)]
            line = f"step {number + 1}{whole}, {left} masks left: {' | '.join(texts)}"
            self._console.print(line, soft_wrap=True, markup=False)

    def _render(self, canvas: Sequence[int], committed: Collection[int]) -> Text:
        """Neighbouring tokens of one kind are decoded together, so that a character that spans tokens comes out whole.

        End of text is shown, since what follows it on the canvas is no part of the text.
        """
        text, start = Text(), 0
        kinds = ["mask" if token == self._mask else "new" if at in committed else "old" for at, token in enumerate(canvas)]
        for end in range(1, len(canvas) + 1):
            if end < len(canvas) and kinds[end] == kinds[start]:
                continue
            if kinds[start] == "mask":
                text.append(_MASK * (end - start), style="dim")
            else:
                decoded = printable(self._tokenizer.decode(list(canvas[start:end]), skip_special=False))
                text.append(decoded, style="bold green" if kinds[start] == "new" else "")
            start = end
        return text

    @contextmanager
    def building(self) -> Iterator[Callable[[str], None]]:
        """While the hardware is built; yields what to call with what is being done."""
        told: list[str] = []
        with self._console.status("loading the hardware") if self._is_live else nullcontext() as status:

            def tell(what: str) -> None:
                if status is not None:
                    status.update(f"building the hardware, once, minutes: {escape(what)}")
                elif (stage := what.partition(",")[0]) not in told:
                    told.append(stage)
                    self._console.print(f"building the hardware, once, minutes: {escape(stage)}")

            yield tell

    def cycles(self, cycles: int, seconds: float) -> None:
        """Show how far the hardware is: its cycles so far, and the seconds that they took."""
        what = f"{cycles:,} cycles, {cycles / seconds:,.0f} cycles/s"
        self._progress.update(self._task, description=f"denoising, {what}")
        if not self._is_live and not self._quiet and seconds - self._told > _SILENCE:
            self._told = seconds
            self._console.print(what)

    @contextmanager
    def checking(self, what: str) -> Iterator[Callable[[object], None]]:
        """While a reference runs; yields what to call after each of its steps."""
        with Progress(console=self._console, transient=True) if self._is_live else nullcontext() as bar:
            task = bar.add_task(what, total=self._steps) if bar else None

            def advance(_: object) -> None:
                if bar is not None and task is not None:
                    bar.advance(task)

            yield advance

    def summary(self, prompts: Sequence[str], result: dict[str, Any]) -> None:
        """The texts, each after its prompt where standard output holds nothing else, and what they cost."""
        texts = [result["text"]] if len(prompts) == 1 else result["text"]
        for prompt, text in zip(prompts, texts, strict=True):
            if self._text_alone:
                print(printable(prompt + text), flush=True)
            else:
                self._console.print(Panel(Text(printable(text).lstrip()), title="text", style="bold"))
        if result["cycles"] is None:
            cost = f"{result['steps']} steps, {result['forwards']} forwards in {result['wall_seconds']:.1f} s"
            self._console.print(f"{cost} (PyTorch, float32)")
            return
        new = len(result["tokens"]) if len(prompts) == 1 else sum(map(len, result["tokens"]))
        machine = escape(printable(result["machine"]))
        self._console.print(f"{new} tokens in {result['steps']} steps on machine [bold]{machine}[/]")
        self._console.print(
            f"{result['cycles']:,} cycles, {result['seconds_at_clock'] * 1e3:.3f} ms at {result['clock_ghz']:g} GHz "
            f"(simulated in {result['wall_seconds']:.1f} s)"
        )
        self._console.print(f"[bold]{result['tokens_per_second']:,.0f} tokens/s[/]")
        if result["cycles_per_second"] is not None:
            self._console.print(
                f"on the hardware in Verilator: {result['cycles_per_second']:,.0f} cycles/s, "
                f"{result['cycle_difference']:,} cycles from the cycle reading"
            )
        self._console.print(_cycle_table("engine", "busy cycles", result["cycles_by_engine"], result["cycles"]))
        self._console.print(_cycle_table("phase", "cycles", result["cycles_by_phase"], result["cycles"]))
        self._console.print(f"transformer {result['transformer_share']:.1%}, sampling {result['sampling_share']:.1%} of the cycles")
        show_costs(result, self._console)
        if result["check"] is not None:
            self._print_check(result["check"])
            if "functional" in result["check"]:
                verdict = "[bold green]identical[/] to" if result["check"]["functional"] else "[bold red]different[/] from"
                self._console.print(f"hardware: {verdict} the functional reading")

    def _print_check(self, check: dict[str, Any]) -> None:
        if check["first_difference"] is None:
            self._console.print("check: [bold green]identical[/] to PyTorch in the machine's number formats:")
            self._console.print("the same positions and tokens at every step")
        else:
            first = check["first_difference"] + 1
            self._console.print(f"check: [bold red]different[/] from PyTorch in the machine's number formats from step {first} on")
        self._console.print(f"float32 PyTorch, given each step's canvas, shares {check['float32_agreement']:.1%} of the commits")


def _cycle_table(what: str, unit: str, cycles: dict[str, int], total: int) -> Table:
    table = Table(what, box=None, pad_edge=False)
    table.add_column(unit, justify="right")
    table.add_column("of the run", justify="right")
    for name, count in cycles.items():
        table.add_row(escape(printable(name)), f"{count:,}", f"{count / total:.1%}")
    return table
