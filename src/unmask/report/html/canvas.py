"""The section of a generated text: its canvas, unmasking step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from unmask.errors import UnmaskError
from unmask.report.html import plots
from unmask.report.html.figures import Data, facts, figure


def canvas(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask generate` but its costs: the text with the step that committed each token, as an animation.

    Without a script, and on paper, the canvas is the finished one: shades say when a token was committed.
    """
    single = not found["tokens"] or isinstance(found["tokens"][0], int)
    sequences = [found["commits"]] if single else found["commits"]
    prompts = [found["prompt"]] if single else found["prompt"]
    piece = _pieces(found["model"])
    steps = found["steps"]
    rows = "".join(_row(prompt, commits, steps, piece) for prompt, commits in zip(prompts, sequences, strict=True))
    controls = (
        f'<div class=controls><button type=button class=play aria-label="play or pause">▶</button>'
        f'<input type=range min=0 max={steps} value={steps} aria-label="step"><output>{steps} of {steps}</output></div>'
    )
    table = [
        (row, commit["step"], at, token) for row, commits in enumerate(sequences) for commit in commits for at, token in _tokens(commit)
    ]
    data = Data(("sequence", "step", "position", "token"), table)
    drawing = f"<div class=canvas data-steps={steps}>{controls}{rows}</div>"
    shown = figure("The canvas, step by step", drawing, data, "The stronger its colour, the later a token was committed.")
    policy = ", ".join(f"{name} {value}" for name, value in found["policy"].items() if value is not None)
    return facts([("model", found["model"]), ("steps", f"{steps:,}"), ("policy", policy)]) + shown + _rate(sequences)


def _tokens(commit: Mapping[str, Any]) -> list[tuple[int, int]]:
    return list(zip(commit["positions"], commit["tokens"], strict=True))


def _row(prompt: str, commits: Sequence[Mapping[str, Any]], steps: int, piece: Callable[[int], str]) -> str:
    """A sequence: the prompt, then every position with its last token and the step that set it."""
    last: dict[int, tuple[int, int]] = {}
    for order, commit in enumerate(commits, 1):
        for at, token in _tokens(commit):
            last[at] = order, token
    spans = [
        f'<span class=t data-step={order} style="--k:{order / max(steps, 1):.3f}" title="position {at}, step {order}">'
        f"{escape(piece(token))}</span>"
        for at, (order, token) in sorted(last.items())
    ]
    return f"<p class=tokens><span class=prompt>{escape(prompt)}</span>{''.join(spans)}</p>"


def _pieces(model: str) -> Callable[[int], str]:
    """A token's text; where the model's tokenizer is not on this machine, its number."""
    from unmask.models.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(model)
    except UnmaskError:
        return lambda token: f"{token} "
    return lambda token: tokenizer.decode([token], skip_special=False)


def _rate(sequences: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """How much of the canvas is committed after every step."""
    totals = [
        sum(len(commits[step]["positions"]) for commits in sequences if step < len(commits)) for step in range(max(map(len, sequences)))
    ]
    if not totals:
        return ""
    sums = [sum(totals[: step + 1]) for step in range(len(totals))]
    times = [float(step) for step in range(len(sums) + 1)]
    drawing = plots.steps("tokens committed", times, [float(value) for value in sums], "step", "tokens committed", sums[-1])
    return figure("Tokens committed", drawing, Data(("step", "tokens"), list(enumerate(sums, 1))))
