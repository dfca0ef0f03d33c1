"""Shows a canvas while it unmasks, and the cost afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from unmask.models.tokenizer import Tokenizer

_MASK = "░░"


class CanvasView:
    """The live canvas on a terminal; one line per step where there is none; nothing if `quiet`."""

    def __init__(self, tokenizer: Tokenizer, mask_token: int, steps: int, quiet: bool) -> None:
        self._tokenizer, self._mask, self._steps, self._quiet = tokenizer, mask_token, steps, quiet
        self._console = Console(stderr=quiet, quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self._console
        )
        self._task = self._progress.add_task("denoising", total=steps)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While steps run."""
        if self._console.is_terminal and not self._quiet:
            with Live(self._progress, console=self._console, refresh_per_second=12) as self._live:
                yield
        else:
            yield

    def step(self, number: int, canvas: list[int], committed: list[int]) -> None:
        """Show the canvas after a step; `committed` are the positions that it filled."""
        self._progress.update(self._task, completed=number + 1)
        if self._quiet:
            return
        text = self._render(canvas, set(committed))
        if self._live is not None:
            self._live.update(Group(Panel(text, title=f"step {number + 1} of {self._steps}"), self._progress))
        else:
            line = f"step {number + 1:>3}/{self._steps}  +{len(committed)}  {text.plain}"
            self._console.print(line, soft_wrap=True, markup=False)

    def _render(self, canvas: list[int], committed: set[int]) -> Text:
        """Neighbouring tokens of one kind are decoded together, so that a character that spans tokens comes out whole."""
        text, start = Text(), 0
        kinds = ["mask" if token == self._mask else "new" if at in committed else "old" for at, token in enumerate(canvas)]
        for end in range(1, len(canvas) + 1):
            if end < len(canvas) and kinds[end] == kinds[start]:
                continue
            if kinds[start] == "mask":
                text.append(_MASK * (end - start), style="dim")
            else:
                text.append(self._tokenizer.decode(canvas[start:end]), style="bold green" if kinds[start] == "new" else "")
            start = end
        return text

    @contextmanager
    def checking(self) -> Iterator[Callable[[object], None]]:
        """While the reference runs; yields what to call after each of its steps."""
        live = self._console.is_terminal and not self._quiet
        with Progress(console=self._console, transient=True) if live else nullcontext() as bar:
            task = bar.add_task("checking against PyTorch", total=self._steps) if bar else None

            def advance(_: object) -> None:
                if bar is not None and task is not None:
                    bar.advance(task)

            yield advance

    def summary(self, result: dict[str, Any]) -> None:
        """The text, and what it cost."""
        self._console.print(Panel(Text(result["text"]), title="text", style="bold"))
        if "cycles" not in result:
            cost = f"{result['steps']} steps, {result['forwards']} forwards in {result['wall_seconds']:.1f} s"
            self._console.print(f"{cost} (PyTorch, float32)")
            return
        new = len(result["tokens"])
        self._console.print(
            f"{new} tokens in {result['steps']} steps on machine [bold]{result['machine']}[/]: {result['cycles']:,} cycles, "
            f"{result['seconds_at_clock'] * 1e3:.3f} ms at {result['clock_ghz']:g} GHz, "
            f"[bold]{result['tokens_per_second']:,.0f} tokens/s[/] (simulated in {result['wall_seconds']:.1f} s)"
        )
        self._console.print(_cycle_table("engine", "busy cycles", result["cycles_by_engine"], result["cycles"]))
        self._console.print(_cycle_table("phase", "cycles", result["cycles_by_phase"], result["cycles"]))
        self._console.print(f"transformer {result['transformer_share']:.1%}, sampling {result['sampling_share']:.1%} of the cycles")
        if result["check"] is not None:
            self._print_check(result["check"])

    def _print_check(self, check: dict[str, Any]) -> None:
        if check["identical"]:
            verdict = "[bold green]identical[/]: PyTorch in the machine's formats commits the same positions and tokens at every step"
        else:
            first = check["first_difference"] + 1
            verdict = f"[bold red]different[/]: PyTorch in the machine's formats commits other tokens from step {first} on"
        self._console.print(f"check: {verdict}")
        self._console.print(f"float32 PyTorch, given the same canvas at each step, shares {check['float32_agreement']:.1%} of the commits")


def _cycle_table(what: str, unit: str, cycles: dict[str, int], total: int) -> Table:
    table = Table(what, box=None, pad_edge=False)
    table.add_column(unit, justify="right")
    table.add_column("of the run", justify="right")
    for name, count in cycles.items():
        table.add_row(name, f"{count:,}", f"{count / total:.1%}")
    return table
