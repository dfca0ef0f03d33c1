"""What a command runs, and on what: a diffusion model, and a machine in the formats that options or the checkpoint ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.machine.config import Machine
    from unmask.models.family import Network


def diffusion_network(name: str) -> Network:
    """A checkpoint's network in float32.

    Raises:
        UnmaskError: a guide, which sees only what precedes a position; whatever `load_network` raises.
    """
    from unmask.models.checkpoint import load_network
    from unmask.models.guide import GuideNetwork

    network = load_network(name)
    if isinstance(network, GuideNetwork):
        raise UnmaskError(f"{name} holds a guide; a diffusion model is needed here (a guide goes with --commit guided --guide {name})")
    return network


def target_machine(name: str, model: str | None, formats: dict[str, str | None]) -> Machine:
    """A machine with its formats replaced: by those that a machine checkpoint was made for, and by those that are given.

    What a checkpoint changes is said on standard error.

    Args:
        name: a preset, or the path of a machine file.
        model: a checkpoint, or None.
        formats: fields of `unmask.machine.config.Formats`; None leaves one as it is.

    Raises:
        UnmaskError: no such machine, an unknown format, or weights in another format than the checkpoint holds.
    """
    from unmask.machine.config import Machine
    from unmask.models.checkpoint import resolve_checkpoint
    from unmask.quant.layout import read_formats

    machine = Machine.load(name)
    given = {role: form for role, form in formats.items() if form is not None}
    stored = (None if model is None else read_formats(resolve_checkpoint(model))) or {}
    own = {role: form for role, form in stored.items() if role in type(machine.formats).model_fields}
    if given.get("weights", own.get("weights")) != own.get("weights") and own:
        raise UnmaskError(f"{model} holds weights in {own['weights']}; expected no other --weights, not {given['weights']}")
    changed = {role: form for role, form in own.items() if role not in given and getattr(machine.formats, role) != form}
    if changed:
        typer.echo(f"formats of the checkpoint: {', '.join(f'{role} {form}' for role, form in changed.items())}", err=True)
    return machine.with_formats(**changed, **given)
