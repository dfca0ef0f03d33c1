"""`unmask generate`: from a prompt to text, on the simulated NPU or in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli import costs, options
from unmask.cli.policy import policy_from, takes_policy
from unmask.cli.printed import print_json
from unmask.cli.target import diffusion_network, target_machine
from unmask.cli.text import encode_prompt, new_text
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.cli.canvas import CanvasView
    from unmask.cli.template import Template
    from unmask.compiler.host import Step
    from unmask.decoding.generate import StepRecord
    from unmask.decoding.policy import Policy
    from unmask.models.family import Network
    from unmask.models.guide import GuideNetwork
    from unmask.models.tokenizer import Tokenizer


class Backend(StrEnum):
    """Where the denoising steps are computed."""

    NPU = "npu"
    RTL = "rtl"
    TORCH = "torch"


@dataclass(frozen=True)
class Task:
    """What is to be generated.

    Attributes:
        prompts: the texts to continue; of a template, what comes before its first gap.
        ids: their tokens.
    """

    model: Network
    tokenizer: Tokenizer
    prompts: Sequence[str]
    ids: Sequence[Sequence[int]]
    template: Template | None
    policy: Policy
    guide: GuideNetwork | None

    @property
    def padded(self) -> list[list[int]]:
        """The tokens, those of shorter prompts after padding."""
        config = self.model.config
        pad = getattr(config, "pad_token_id", None)
        pad = config.eos_token_id if pad is None else pad
        return [[pad] * padding + list(ids) for padding, ids in zip(self.padding, self.ids, strict=True)]

    @property
    def padding(self) -> list[int]:
        """How many positions of each row are padding."""
        longest = max(map(len, self.ids))
        return [longest - len(ids) for ids in self.ids]

    @property
    def attention_mask(self) -> list[list[int]] | None:
        """0 at padding; None if there is none."""
        if not any(self.padding):
            return None
        return [[0] * padding + [1] * len(ids) for padding, ids in zip(self.padding, self.ids, strict=True)]

    @property
    def content(self) -> list[list[int]] | None:
        """What the generated positions hold at first; None: nothing."""
        return None if self.template is None else [self.template.content]


@takes_policy
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="The text to continue; several make a batch.")] = None,
    machine: options.MachineOption = "small",
    model: options.ModelOption = "sotu",
    backend: Annotated[Backend, typer.Option(help="The simulated machine, its hardware, or float32 PyTorch.")] = Backend.NPU,
    template: Annotated[
        str | None,
        typer.Option(help="Instead of PROMPT, a text with gaps to fill: [24] is one of 24 tokens; a bracket needs a backslash before it."),
    ] = None,
    guide: Annotated[
        str | None, typer.Option(help="Of --commit guided: a shipped guide's name, or a folder. By default the model's own.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare every step with PyTorch in the machine's number formats."),
    ] = False,
    weights: options.Weights = None,
    activations: options.Activations = None,
    kv: options.Kv = None,
    logits: options.LogitsFormat = None,
    smoothing: options.SmoothingOption = None,
    sampling: options.SamplingOption = "general",
    prices: options.CostsOption = None,
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Generate text, and say what it cost.

    Where standard output is no terminal it gets the text alone, and all else goes to standard error.

    With --check, exits with status 1 if the machine and PyTorch commit different tokens anywhere; with --backend rtl also if the functional
    reading does, or if a step takes other cycles than the cycle reading says. That backend builds the hardware first: minutes, kept in the
    user's cache.
    """
    if check and backend is Backend.TORCH:
        raise UnmaskError("--check compares the machine with PyTorch; it needs --backend npu or rtl")
    if template is not None and prompts:
        raise UnmaskError("a template holds its prompt: expected either PROMPT or --template")
    if template is None and not prompts:
        raise UnmaskError("Missing argument 'PROMPT': expected a text to continue, or --template")
    formats = {"weights": weights, "activations": activations, "kv": kv, "logits": logits, "smoothing": smoothing}
    if backend is Backend.TORCH and (given := [role for role, form in formats.items() if form is not None]):
        raise UnmaskError(f"--{given[0]} is for the machine; --backend torch computes in float32")
    if backend is Backend.TORCH and sampling != "general":
        raise UnmaskError("--sampling is for the machine; --backend torch has one sampler")
    if backend is Backend.TORCH and prices is not None:
        raise UnmaskError("--costs is for the machine; what --backend torch takes is not modelled")
    from unmask.silicon.cost.table import load_costs

    table = load_costs(prices)
    policy = None if template is not None else policy_from(decoding)
    target = target_machine(machine, None if backend is Backend.TORCH else model, formats)
    task = _task(prompts or [], template, model, guide, decoding, policy)
    one = len(task.prompts) == 1
    about = {
        "prompt": task.prompts[0] if one else list(task.prompts),
        "prompt_tokens": len(task.ids[0]) if one else [len(ids) for ids in task.ids],
        "model": model,
        "backend": backend.value,
        "policy": vars(task.policy),
    }
    view = _view(task, as_json)
    if backend is Backend.TORCH:
        result = _torch(task, view)
    else:
        from unmask.cli.simulated import simulated

        result = simulated(task, target, view, check, model, sampling, table, rtl=backend is Backend.RTL)
    result |= _texts(task, result["tokens"])
    if as_json:
        print_json(about | result)
    else:
        view.summary([""] if template is not None else task.prompts, result)
    if check and not result["check"]["identical"]:
        raise typer.Exit(1)


def _task(
    prompts: Sequence[str], template: str | None, model: str, guide: str | None, decoding: dict[str, Any], policy: Policy | None
) -> Task:
    """Load what is asked for and read the texts; the policy of a template depends on its gaps."""
    from unmask.models.tokenizer import load_tokenizer

    network, tokenizer = diffusion_network(model), load_tokenizer(model)
    config = network.config
    special = (config.mask_token_id, config.eos_token_id)
    if template is None:
        ids, parsed = [encode_prompt(prompt, tokenizer, special) for prompt in prompts], None
    else:
        from unmask.cli.template import read_template

        parsed = read_template(template, tokenizer, special, config.mask_token_id, config.max_sequence_length)
        prompts, ids = [parsed.prompt], [parsed.prompt_ids]
    policy = policy or policy_from(decoding, None if parsed is None else parsed.is_gap)
    return Task(network, tokenizer, prompts, ids, parsed, policy, _guide(policy, guide, model))


def _guide(policy: Policy, name: str | None, model: str) -> GuideNetwork | None:
    if policy.commit != "guided":
        if name is not None:
            raise UnmaskError(f"--guide belongs to --commit guided; commit is {policy.commit!r}")
        return None
    from unmask.models.guide import load_guide

    return load_guide(f"{model}-guide" if name is None else name, model)


def _view(task: Task, quiet: bool) -> CanvasView:
    from unmask.cli.canvas import CanvasView
    from unmask.decoding.compose import opens_blocks

    policy, mask = task.policy, task.model.config.mask_token_id
    masks = len(task.ids) * policy.gen_length if task.template is None else sum(task.template.is_gap)
    fixed = policy.commit == "schedule" and not policy.early_stop and not opens_blocks(policy, task.model.config)
    fixed &= task.template is None or policy.blocks == 1
    return CanvasView(task.tokenizer, mask, masks, policy.steps if fixed else None, quiet)


def _texts(task: Task, tokens: Any) -> dict[str, Any]:
    """The texts of the generated tokens, [gen_length] or [batch, gen_length]."""
    eos = task.model.config.eos_token_id
    if task.template is not None:
        whole = task.tokenizer.decode([*task.template.prompt_ids, *tokens])
        return {"text": whole, "gaps": task.template.texts(task.tokenizer, tokens)}
    if len(task.prompts) == 1:
        return {"text": new_text(task.tokenizer, tokens, eos)}
    return {"text": [new_text(task.tokenizer, row, eos) for row in tokens]}


def shown(task: Task, view: CanvasView) -> Callable[[Step | StepRecord], None]:
    """Shows a step, without what is padding."""

    def show(step: Step | StepRecord) -> None:
        canvases = [row[padding:] for row, padding in zip(step.canvas.tolist(), task.padding, strict=True)]
        committed = [{at - padding for at in step.positions(row)} for row, padding in enumerate(task.padding)]
        view.step(step.step, canvases, committed)

    return show


def _torch(task: Task, view: CanvasView) -> dict[str, Any]:
    from unmask.decoding.generate import generate
    from unmask.decoding.guide import CachedGuide
    from unmask.quant.noise import CounterNoise

    started = time.perf_counter()
    with view.running():
        done = generate(
            task.model,
            task.padded,
            task.policy,
            template=task.content,
            attention_mask=task.attention_mask,
            guide=None if task.guide is None else CachedGuide(task.guide),
            noise=CounterNoise(task.policy.seed),
            on_step=shown(task, view),
        )
    rows = range(len(task.prompts))
    tokens = [done.new_tokens(row) for row in rows]
    commits = [[{"step": r.step, "positions": r.positions(row), "tokens": r.tokens(row)} for r in done.steps] for row in rows]
    return costs.without_machine() | {
        "text": None,
        "tokens": tokens[0] if len(rows) == 1 else tokens,
        "steps": len(done.steps),
        "forwards": done.n_forward,
        "commits": commits[0] if len(rows) == 1 else commits,
        "wall_seconds": time.perf_counter() - started,
    }
