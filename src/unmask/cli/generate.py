"""`unmask generate`: from a prompt to text, on the simulated NPU or in PyTorch."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli import options
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.cli.canvas import CanvasView
    from unmask.compiler.check import Check
    from unmask.compiler.host import Simulation
    from unmask.decoding.policy import Policy
    from unmask.models.llada import Llada
    from unmask.models.tokenizer import Tokenizer


class Backend(StrEnum):
    """Where the denoising steps are computed."""

    NPU = "npu"
    TORCH = "torch"


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    machine: options.MachineOption = "small",
    model: options.ModelOption = "sotu",
    backend: Annotated[Backend, typer.Option(help="The simulated machine, or the float32 PyTorch reference.")] = Backend.NPU,
    gen_length: options.GenLength = 64,
    block_length: options.BlockLength = 32,
    steps: options.Steps = 32,
    temperature: options.Temperature = options.DEFAULT_TEMPERATURE,
    remasking: options.RemaskingOption = options.DEFAULT_REMASKING,
    cfg_scale: Annotated[float, typer.Option(help="Classifier-free guidance; only with --backend torch.")] = 0.0,
    suppress_eos: options.SuppressEos = False,
    seed: options.Seed = 0,
    check: Annotated[bool, typer.Option("--check", help="Compare every step with PyTorch in the machine's number formats.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Generate text, and say what it cost.

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
    if not prompt.strip():
        raise UnmaskError("the prompt is empty: expected some text to continue")
    network, tokenizer = load_model(model, torch.float32), load_tokenizer(model)
    ids = tokenizer.encode(prompt)
    about = {"prompt": prompt, "prompt_tokens": len(ids), "model": model, "backend": backend.value, "policy": vars(policy)}
    view = CanvasView(tokenizer, network.config.mask_token_id, policy.steps, quiet=as_json)
    if backend is Backend.TORCH:
        result = _torch(network, tokenizer, ids, policy, view)
    else:
        result = _npu(network, tokenizer, ids, policy, target, view, check)
    if as_json:
        print(json.dumps(about | result))
    else:
        view.summary(result)
    if check and not result["check"]["identical"]:
        raise typer.Exit(1)


def _text(tokenizer: Tokenizer, tokens: list[int], eos: int) -> str:
    """The new text, cut at the first end-of-text token."""
    return tokenizer.decode(tokens[: tokens.index(eos)] if eos in tokens else tokens)


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
    return {
        "text": _text(tokenizer, tokens, model.config.eos_token_id),
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

    started = time.perf_counter()
    program = compile_step(model, policy, machine, len(ids))
    with view.running():
        done = simulate(program, ids, on_step=lambda step: view.step(step.step, step.canvas.tolist(), step.positions))
    wall = time.perf_counter() - started
    outcome: Check | None = None
    if check:
        with view.checking() as advance:
            outcome = compare(done, model, on_step=advance)
    return _report(done, tokenizer, model.config.eos_token_id, outcome) | {"instructions": len(program.words), "wall_seconds": wall}


def _report(done: Simulation, tokenizer: Tokenizer, eos: int, outcome: Check | None) -> dict[str, Any]:
    timing, tokens = done.step_timing, done.new_tokens
    by_phase = done.total(timing.phases)
    sampling = sum(cycles for phase, cycles in by_phase.items() if phase.startswith("sampling"))
    return {
        "text": _text(tokenizer, tokens, eos),
        "tokens": tokens,
        "steps": len(done.steps),
        "commits": [{"step": step.step, "positions": step.positions, "tokens": step.tokens} for step in done.steps],
        "machine": done.machine.name,
        "clock_ghz": done.machine.clock_ghz,
        "formats": done.machine.formats.model_dump(),
        "cycles": done.cycles,
        "seconds_at_clock": done.seconds,
        "tokens_per_second": len(tokens) / done.seconds,
        "cycles_by_engine": done.total(timing.busy),
        "cycles_by_phase": by_phase,
        "sampling_share": sampling / done.cycles,
        "transformer_share": 1 - sampling / done.cycles,
        "hbm_bytes": done.total(timing.hbm_bytes),
        "check": None if outcome is None else vars(outcome),
    }
