"""Row sums of attention by the array: the NPU commits what the reference does, and the vector engine adds up no exponentials."""

from __future__ import annotations

import pytest

from unmask import Policy
from unmask.compiler.analytic import estimate_generation
from unmask.machine.config import Machine
from unmask.models.catalogue import architecture

from .cases import BASE, FLAT, GROUPED, LINE, NANO, NARROW_HEADS, ODD, ODD_HEADS, ONE_HEAD, SMALL, TILES, TINY, network, shrunk
from .test_smoothing import prompt, same


def by_array(machine, **formats):
    return shrunk(machine, formats={"softmax_sums": "array", **formats})


@pytest.mark.parametrize(
    ("config", "machine", "cache", "formats"),
    [
        (BASE, TILES, "none", {}),
        (GROUPED, FLAT, "dual", {"kv": "mxfp4", "smoothing": "baos"}),
        (NARROW_HEADS, ODD, "prefix", {"kv": "mxint4"}),
        (TINY, LINE, "none", {}),
        (ONE_HEAD, TILES, "dual", {"kv": "mxfp8"}),
        (ODD_HEADS, NANO, "prefix", {"kv": "mxfp4", "activations": "mxfp6_e2m3"}),
        (GROUPED, SMALL, "dual", {}),
    ],
)
def test_tokens_are_the_references(config, machine, cache, formats):
    policy = Policy(8, 4, 4, cache=cache, seed=3)
    assert same(network(config), policy, by_array(machine, **formats), prompt(5, batch=2))


def test_the_vector_engine_adds_up_no_exponentials_and_works_less():
    machine = Machine.preset("h100-class")
    array, lanes = (
        estimate_generation(architecture("llada-8b"), Policy(32, 32, 32), on, 96, 8)
        for on in (machine, machine.with_formats(softmax_sums="lanes"))
    )
    assert array.cycles < 0.95 * lanes.cycles
    assert array.cycles_by_engine["vector"] < 0.7 * lanes.cycles_by_engine["vector"]
    names = [{op.name for op, phase in zip(d.program.ops, d.program.phases, strict=True) if phase == "attention"} for d in (array, lanes)]
    assert ["F_RECIP" in found for found in names] == [False, True]
