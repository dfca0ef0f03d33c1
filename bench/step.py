"""A denoising step of docs/token.md: every instruction, when it first starts and ends, and what the parts of the step take."""

from __future__ import annotations

import json

from unmask import Machine, Policy, load_model, load_tokenizer
from unmask.compiler.lower import compile_step
from unmask.isa.encoding import format_op
from unmask.isa.program import Program
from unmask.machine.cycle import time_program

PROMPT, MODEL, MACHINE = "My fellow citizens, the", "micro", "rtl-tiny"


def program() -> Program:
    """The step as `unmask compile` makes it of the options that docs/token.md names."""
    policy = Policy(gen_length=16, block_length=8, steps=16)
    length = len(load_tokenizer(MODEL).encode(PROMPT))
    return compile_step(load_model(MODEL), policy, Machine.preset(MACHINE), length, sampling="fused")


def main() -> None:
    """Print."""
    whole = program()
    [name] = whole.entries
    entry, machine = whole.entry(name), Machine.preset(MACHINE)
    timing = time_program(entry, machine, trace=True)
    assert timing.trace is not None
    first: dict[int, tuple[int, int]] = {}
    for pc, start, end in zip(timing.trace.pc.tolist(), timing.trace.start.tolist(), timing.trace.end.tolist(), strict=True):
        first.setdefault(pc, (start, end))
    print("  start     end")
    for pc, op in enumerate(entry.ops):
        start, end = first[pc]
        print(f"{start:7,} {end:7,}  {format_op(op)}")
    print(json.dumps({"cycles": timing.cycles, "phases": timing.phases, "busy": timing.busy}))


if __name__ == "__main__":
    main()
