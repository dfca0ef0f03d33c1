"""The `unmask` command: one sub-command per file of this package."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from unmask.cli.asm import asm
from unmask.cli.bench import bench
from unmask.cli.bound import bound
from unmask.cli.calibrate import calibrate
from unmask.cli.compare import compare
from unmask.cli.compile import compile_prompt
from unmask.cli.disasm import disasm
from unmask.cli.eval import evaluate
from unmask.cli.formats import formats
from unmask.cli.fuzz import fuzz
from unmask.cli.gatesim import gatesim
from unmask.cli.generate import generate
from unmask.cli.golden import golden
from unmask.cli.gpu import gpu
from unmask.cli.isa import isa
from unmask.cli.machines import machines
from unmask.cli.policies import policies
from unmask.cli.printed import remember
from unmask.cli.quantize import quantize
from unmask.cli.report import report
from unmask.cli.rtl import rtl
from unmask.cli.run import run_program
from unmask.cli.search import search
from unmask.cli.sim import sim
from unmask.cli.synth import synth
from unmask.cli.text import printable
from unmask.cli.trace import trace
from unmask.cli.train import train
from unmask.errors import UnmaskError

# Which Click this is depends on the version of Typer: the installed one, or a copy of its own.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class _Commands(TyperGroup):
    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Keep what was typed, for figures that say what made them."""
        remember(args)
        return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interrupt is one line and the shell's exit status for it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("unmask: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    name="unmask",
    help="An open NPU stack for diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def unmask() -> None:
    """An open NPU stack for diffusion language models."""


app.command("generate")(generate)
app.command("compile")(compile_prompt)
app.command("run")(run_program)
app.command("sim")(sim)
app.command("search")(search)
app.command("trace")(trace)
app.command("compare")(compare)
app.command("report")(report)
app.add_typer(bench, name="bench")
app.add_typer(gpu, name="gpu")
app.add_typer(rtl, name="rtl")
app.command("disasm")(disasm)
app.command("asm")(asm)
app.command("isa")(isa)
app.command("machines")(machines)
app.command("policies")(policies)
app.command("formats")(formats)
app.command("quantize")(quantize)
app.command("golden")(golden)
app.command("fuzz")(fuzz)
app.command("train")(train)
app.command("bound")(bound)
app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app.command("synth")(synth)
app.command("gatesim")(gatesim)


def _explain(mistake: str) -> None:
    """Print a mistake as one line, whatever names and values of the user's it quotes."""
    print(f"unmask: {printable(' '.join(mistake.split()))}", file=sys.stderr)


def _explain_usage(error: Any) -> None:
    """Print what is wrong with the command line; an empty message stands for the help, which is printed already."""
    if message := error.format_message().strip().removesuffix("."):
        command = error.ctx.command_path if error.ctx else "unmask"
        _explain(f"{message} (see `{command} --help`)")


def run() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2; a reader that goes away (`| head`) is no mistake."""
    try:
        try:
            sys.exit(app(prog_name="unmask", standalone_mode=False))
        except UnmaskError as error:
            _explain(str(error))
            sys.exit(2)
        except _UsageError as error:
            _explain_usage(error)
            sys.exit(2)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    run()
