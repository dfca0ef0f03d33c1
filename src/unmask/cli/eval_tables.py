"""The tables of `unmask eval`, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH = 150
"""Columns where standard output is no terminal."""


def print_policies(document: Mapping[str, Any]) -> None:
    """Print the policies, with the text as its author went on in the last row, and the bound."""
    settings, console = document["settings"], _console()
    costs = ("steps", "forwards", "fed", "guide", "tokens", "tok/forward")
    columns = (*costs, "bits/char", "bigram", "perplexity", "distinct-2", "as plain", "seconds")
    console.print(f"{_sizes(settings)}; figures per prompt")
    table = _table(("policy",), columns)
    for row in document["policies"]:
        counts = [_number(row[name], 1) for name in ("steps", "forwards")]
        counts += [_number(row["positions_fed"], 0), _number(row["guide_forwards"], 1), _number(row["tokens"], 1)]
        seconds = _number(row["wall_seconds"], 2)
        table.add_row(row["name"], *counts, _number(row["tokens_per_forward"], 2), *_quality(row), _share(row["agreement"]), seconds)
    if (true := document["reference"]) is not None:
        table.add_row("the author", "", "", "", "", _number(true["tokens"], 1), "", *_quality(true), "", "")
    console.print(table)
    if (bound := document["bound"]) is not None:
        console.print(
            f"diffusion bound of {document['model']}: {bound['bits_per_character']:.3f} ± {bound['standard_error']:.3f} bits per character "
            f"(windows: {bound['windows']}, of {bound['length']} tokens; {bound['strata']} forwards each)"
        )


def print_sweep(document: Mapping[str, Any]) -> None:
    """Print the precision of logits, the formats, and what others publish."""
    settings, console = document["settings"], _console()
    console.print(_sizes(settings))
    if document["sweep"]["logits"]:
        console.print("\nlogits of the float32 network in other formats")
        console.print(_logits_table(document))
    console.print("\nweights/activations/KV cache/logits (smoothing of the cache), by policies")
    console.print(_formats_table(document))
    if bounds := document["sweep"]["bounds"]:
        sizes = f"windows: {bounds[0]['windows']}, of {bounds[0]['length']} tokens; {bounds[0]['strata']} forwards each"
        console.print(f"bound: {sizes}, on the same masks for all formats")
    if (true := document["reference"]) is not None:
        figures = f"{_number(true['bits_per_character'], 3)} bits/char, distinct-2 {_number(true['distinct_2'], 3)}"
        console.print(f"the same windows as their authors went on: {figures}")
    console.print("\nwhat others report, on their models and machines")
    claims = _table(("about", "they say", "source"), ())
    for claim in document["published"]:
        claims.add_row(claim["about"], claim["says"], claim["source"])
    console.print(claims)


def _logits_table(document: Mapping[str, Any]) -> Table:
    table = _table(
        ("policy", "logits", "sampled in"),
        ("commits", "changed", "other token", "other position", "bits/char", "distinct-2"),
    )
    for row in document["sweep"]["logits"]:
        changes = [
            f"{row['commits']:,}",
            _share(row["changed"] / row["commits"]),
            str(row["changed_tokens"]),
            str(row["changed_positions"]),
        ]
        quality = (_number(row["bits_per_character"], 3), _number(row["distinct_2"], 3))
        table.add_row(row["policy"], row["logits"], row["sampling"], *changes, *quality)
    return table


def _formats_table(document: Mapping[str, Any]) -> Table:
    bounds = {_name(row["formats"]): row for row in document["sweep"]["bounds"]}
    exact = bounds.get("float32")
    columns = ("bound", "- float32", "forwards", "as float32", "bits/char", "distinct-2", "seconds")
    table, last = _table(("formats", "policy"), columns), None
    for row in document["sweep"]["formats"]:
        name = _name(row["formats"])
        first, bound, last = name != last, bounds.get(name), name
        loss = ["", ""]
        if first and bound is not None and exact is not None:
            difference = bound["bits_per_character"] - exact["bits_per_character"]
            loss = [_number(bound["bits_per_character"], 3), f"{difference:+.3f}"]
        quality = (_number(row["bits_per_character"], 3), _number(row["distinct_2"], 3))
        run = (_number(row["forwards"], 1), _share(row["agreement"]), *quality, _number(row["wall_seconds"], 1))
        table.add_row(name if first else "", row["policy"], *loss, *run)
    return table


def _name(formats: Mapping[str, str] | None) -> str:
    """A set of formats in short."""
    if formats is None:
        return "float32"
    stored = "/".join(formats[name] for name in ("weights", "activations", "kv", "logits"))
    more = [formats["smoothing"]] * (formats["smoothing"] != "none") + ["sums by the array"] * (formats["softmax_sums"] == "array")
    return f"{stored} ({', '.join(more)})" if more else stored


def _quality(row: Mapping[str, Any]) -> list[str]:
    bits = [_number(row[name], 3) for name in ("bits_per_character", "bigram_bits_per_character")]
    return [*bits, _number(row["perplexity"], 1), _number(row["distinct_2"], 3)]


def _sizes(settings: Mapping[str, Any]) -> str:
    return f"prompts: {settings['prompts']}, of {settings['prompt_tokens']} tokens; generated: {settings['gen_length']} tokens each"


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def _table(words: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in words:
        table.add_column(column, no_wrap=True)
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _share(value: float) -> str:
    return f"{value:.1%}"
