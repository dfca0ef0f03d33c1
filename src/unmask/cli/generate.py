"""`unmask generate`: from a prompt to text, on the simulated NPU or in PyTorch."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli import costs, options
from unmask.cli.text import encode_prompt, new_text
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.cli.canvas import CanvasView
    from unmask.compiler.check import Check
    from unmask.decoding.policy import Policy
    from unmask.models.llada import Llada
    from unmask.models.tokenizer import Tokenizer


class Backend(StrEnum):
    """Where the denoising steps are computed."""

    NPU = "npu"
    TORCH = "torch"


def generate(
    prompt: options.Prompt,
    machine: options.MachineOption = "small",
    model: options.ModelOption = "sotu",
    backend: Annotated[Backend, typer.Option(help="The simulated machine, or the float32 PyTorch reference.")] = Backend.NPU,
    gen_length: options.GenLength = options.DEFAULT_GEN_LENGTH,
    block_length: options.BlockLength = options.DEFAULT_BLOCK_LENGTH,
    steps: options.Steps = options.DEFAULT_STEPS,
    temperature: options.Temperature = options.DEFAULT_TEMPERATURE,
    remasking: options.RemaskingOption = options.DEFAULT_REMASKING,
    cfg_scale: Annotated[float, typer.Option(help="Classifier-free guidance; only with --backend torch.")] = 0.0,
    suppress_eos: options.SuppressEos = False,
    seed: options.Seed = options.DEFAULT_SEED,
    check: Annotated[bool, typer.Option("--check", help="Compare every step with PyTorch in the machine's number formats.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Generate text, and say what it cost.

    Where standard output is no terminal it gets the text alone, and all else goes to standard error.

    With --check, exits with status 1 if the machine and PyTorch commit different tokens anywhere.
    """
    import torch

    from unmask.cli.canvas import CanvasView
    from unmask.decoding.policy import Policy
    from unmask.machine.config import Machine
    from unmask.models.checkpoint import load_model
    from unmask.models.tokenizer import load_tokenizer

    target = Machine.load(machine)
    policy = Policy(
        gen_length=gen_length,
        block_length=block_length,
        steps=steps,
        temperature=temperature,
        cfg_scale=cfg_scale,
        remasking=remasking,
        suppress_eos=suppress_eos,
        seed=seed,
    )
    if check and backend is Backend.TORCH:
        raise UnmaskError("--check compares the machine with PyTorch; it needs --backend npu")
    network, tokenizer = load_model(model, torch.float32), load_tokenizer(model)
    ids = encode_prompt(prompt, tokenizer, (network.config.mask_token_id, network.config.eos_token_id))
    about = {"prompt": prompt, "prompt_tokens": len(ids), "model": model, "backend": backend.value, "policy": vars(policy)}
    view = CanvasView(tokenizer, network.config.mask_token_id, policy.steps, quiet=as_json)
    if backend is Backend.TORCH:
        result = _torch(network, tokenizer, ids, policy, view)
    else:
        result = _npu(network, tokenizer, ids, policy, target, view, check)
    if as_json:
        print(json.dumps(about | result))
    else:
        view.summary(prompt, result)
    if check and not result["check"]["identical"]:
        raise typer.Exit(1)


def _torch(model: Llada, tokenizer: Tokenizer, ids: list[int], policy: Policy, view: CanvasView) -> dict[str, Any]:
    from unmask.decoding.generate import generate
    from unmask.quant.noise import CounterNoise

    started = time.perf_counter()
    with view.running():
        done = generate(
            model,
            [ids],
            policy,
            noise=CounterNoise(policy.seed),
            on_step=lambda record: view.step(record.step, record.canvas[0].tolist(), record.positions()),
        )
    tokens = done.new_tokens()
    return costs.without_machine() | {
        "text": new_text(tokenizer, tokens, model.config.eos_token_id),
        "tokens": tokens,
        "steps": len(done.steps),
        "forwards": done.n_forward,
        "commits": [{"step": r.step, "positions": r.positions(), "tokens": r.tokens()} for r in done.steps],
        "wall_seconds": time.perf_counter() - started,
    }


def _npu(model: Llada, tokenizer: Tokenizer, ids: list[int], policy: Policy, machine: Any, view: CanvasView, check: bool) -> dict[str, Any]:
    from unmask.compiler.check import check as compare
    from unmask.compiler.host import simulate
    from unmask.compiler.lower import compile_step
    from unmask.numerics import bf16

    started = time.perf_counter()
    program = compile_step(model, policy, machine, len(ids))
    with view.running():
        done = simulate(program, ids, on_step=lambda step: view.step(step.step, step.canvas.tolist(), step.positions))
    wall = time.perf_counter() - started
    outcome: Check | None = None
    if check:
        with view.checking() as advance:
            outcome = compare(done, model, on_step=advance)
    return costs.of_simulation(done) | {
        "text": new_text(tokenizer, done.new_tokens, model.config.eos_token_id),
        "forwards": len(done.steps),
        "instructions": len(program.words),
        "temperature_bf16": bf16.rounded(policy.temperature),
        "check": None if outcome is None else vars(outcome),
        "wall_seconds": wall,
    }
