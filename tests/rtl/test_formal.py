"""Units against specifications that say what they compute, not how: proven by yosys' SAT solver at small width."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Mux, Value, signed

from unmask.numerics import bf16, functions
from unmask.rtl import window
from unmask.rtl.bf16 import ordered
from unmask.rtl.bits import wire
from unmask.rtl.functions import LEVEL_BITS, NO_LEVEL, Weight
from unmask.rtl.lane import key_of
from unmask.rtl.reduce import MaxTree, column_absmax
from unmask.rtl.window import EXPONENT_BITS, Node, Sum, WindowTree, merge

from .formal import Bench, all_of, any_of, ordinal

pytest.importorskip("pyosys")
EVERY = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))


def best_lane(lanes: int, *, later: bool = False) -> Bench:
    """The tree of maxima, of equals the first lane; with `later`, which is wrong, the last."""
    bench = Bench()
    bench.m.submodules.tree = tree = MaxTree(lanes, 0)
    mask = bench.given("mask", lanes)
    scores, companions = ([bench.given(f"{name}{i}", 16) for i in range(lanes)] for name in ("score", "companion"))
    bench.m.d.comb += tree.mask.eq(mask)
    for i in range(lanes):
        bench.m.d.comb += [tree.scores[i].eq(scores[i]), tree.companions[i].eq(companions[i])]
    values = [wire(bench.m, ordinal(score, 16, bf16.INFINITY_BITS)) for score in scores]
    right = []
    for i in range(lanes):
        others = [~mask[j] | ((values[i] > values[j]) if (j < i) != later else (values[i] >= values[j])) for j in range(lanes) if j != i]
        score = Mux(scores[i][:15] > bf16.INFINITY_BITS, bf16.SIGN_BIT | bf16.INFINITY_BITS, scores[i])
        right.append(all_of(mask[i], *others, tree.lane == i, tree.score == score, tree.companion == companions[i]))
    bench.claim(tree.found == mask.any(), ~tree.found | any_of(*right))
    return bench


@pytest.mark.parametrize("lanes", [2, 4])
def test_the_tree_of_maxima_is_the_first_of_the_highest(lanes):
    assert not best_lane(lanes).refuted()


def test_a_wrong_specification_is_refuted():
    assert best_lane(2, later=True).refuted()


def column_maximum(*, of_negative: bool = False) -> Bench:
    """The maximum down a column; with `of_negative`, which is wrong, a negative maximum so far counts by its magnitude."""
    bench = Bench()
    value, before = bench.given("value", 16), bench.given("before", 16)
    result = column_absmax(bench.m, value, before)
    magnitude = Mux(value[:15] > bf16.INFINITY_BITS, 0, value[:15])
    nothing = (before[:15] > bf16.INFINITY_BITS) | (Const(0, 1) if of_negative else before[15])
    so_far = Mux(nothing, 0, before[:15])
    bench.claim(~result[15], result[:15] <= bf16.INFINITY_BITS, (result[:15] == magnitude) | (result[:15] == so_far))
    bench.claim(result[:15] >= magnitude, result[:15] >= so_far)
    return bench


def test_the_maximum_down_a_column_is_the_larger_of_two_magnitudes():
    assert not column_maximum().refuted()
    assert column_maximum(of_negative=True).refuted()


def test_a_key_separates_as_the_word_it_is_made_of():
    bench = Bench()
    value, word = bench.given("value", 16), bench.given("word", 32)
    position = wire(bench.m, ordered(bench.m, value))
    bench.claim((position >= key_of(word)) == (Cat(position, Const(0, 1)).as_signed() >= word.as_signed()))
    assert not bench.refuted()


COUNTER = 6
NEVER = Const(0, 1)


def node(bench: Bench, name: str) -> Node:
    """Any sum: at a level that some weight has, or of nothing."""
    level = bench.given(f"{name}_level", signed(LEVEL_BITS))
    levels = functions.weight(EVERY)[1] + 7 >> 5
    bench.assume((level == NO_LEVEL) | ((level >= int(levels.min())) & (level <= int(levels.max()))))
    return Node(level, bench.given(f"{name}_upper", COUNTER), bench.given(f"{name}_lower", COUNTER))


def merged(bench: Bench, a: Node, b: Node) -> Node:
    """The sum of two sums by its definition: a counter counts units that are worth less by a level's worth for each level down."""
    top = wire(bench.m, Mux(a.level > b.level, a.level, b.level))
    parts = []
    for part in (a, b):
        below = wire(bench.m, top - part.level)
        parts.append((Mux(below == 0, part.upper, 0), Mux(below == 0, part.lower, Mux(below == 1, part.upper, 0))))
    return Node(top, *(wire(bench.m, first + second) for first, second in zip(*parts, strict=True)))


def same(a: Node, b: Node) -> Value:
    return all_of(a.level == b.level, a.upper == b.upper, a.lower == b.lower)


def test_two_window_sums_merge_as_defined():
    bench = Bench()
    a, b = node(bench, "a"), node(bench, "b")
    bench.claim(same(merge(bench.m, a, b, NEVER), merged(bench, a, b)))
    assert not bench.refuted()


def test_the_order_of_merges_does_not_matter():
    bench, (a, b, c) = (made := Bench()), (node(made, name) for name in "abc")
    m = bench.m
    bench.claim(same(merge(m, merge(m, a, b, NEVER), c, NEVER), merge(m, a, merge(m, b, c, NEVER), NEVER)))
    bench.claim(same(merge(m, a, b, NEVER), merge(m, b, a, NEVER)))
    assert not bench.refuted()


@pytest.mark.parametrize(
    ("kind", "lanes"), [(Sum.WINDOW, 2), pytest.param(Sum.WINDOW, 4, marks=pytest.mark.slow), (Sum.FIXED, 4), (Sum.SCALED, 4)]
)
def test_a_tree_of_sums_is_its_lanes_merged_in_pairs(kind, lanes):
    exponents = functions.weight(EVERY)[1] + 7
    bench = Bench()
    m = bench.m
    m.submodules.tree = tree = WindowTree(lanes, 0)
    mask = bench.given("mask", lanes)
    m.d.comb += [tree.kind.eq(kind), tree.mask.eq(mask)]
    nodes, invalid = [], []
    for i in range(lanes):
        shapes = {"values": 16, "significands": 8, "exponents": signed(EXPONENT_BITS)}
        x, significand, exponent = (bench.given(f"{name}{i}", shape) for name, shape in shapes.items())
        bench.assume(exponent >= int(exponents.min()), exponent <= int(exponents.max()))
        m.d.comb += [getattr(tree, name)[i].eq(value) for name, value in zip(shapes, (x, significand, exponent), strict=True)]
        part, bad = window.term(m, Const(kind, Sum), x, Weight(significand, exponent), mask[i])
        nodes.append(Node(part.level, *part.counters(m)))
        invalid.append(bad)
    while len(nodes) > 1:
        nodes = [merged(bench, low, high) for low, high in zip(nodes[::2], nodes[1::2], strict=True)]
    (total,) = nodes
    bench.claim(same(Node(tree.level, tree.upper, tree.lower), total), tree.invalid == Cat(invalid).any())
    assert not bench.refuted()
