"""Random words of lanes: Threefry-2x32 with 20 rounds, one generator for two lanes."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Value

from unmask.numerics.noise import PARITY, ROTATIONS, ROUNDS
from unmask.rtl.bits import wire
from unmask.rtl.pipeline import Pipeline

_WORD = 32
_ROUNDS_PER_PLACE = 2
THREEFRY_PLACES = ROUNDS // _ROUNDS_PER_PLACE
"""Of `rounds`: two of them, and the key between them, fit between two registers at 1 GHz in ASAP7."""

Pair = tuple[Value, Value]


def rounds(p: Pipeline, key: Pair, counters: list[Pair], *beside: Value) -> tuple[list[Pair], list[Value]]:
    """Threefry of counters under one key, and `beside` as late; `THREEFRY_PLACES` places, the last one behind the last round.

    counters: of each pair of words (32 bits), to which the key was added, the sum of both and the right one: what the first round adds is
        then the caller's to share among counters. See `unmask.numerics.noise.threefry2x32`.
    """
    m, others = p.m, list(beside)
    pairs = list(counters)
    for index in range(ROUNDS):
        if index:
            pairs = [(added(m, left, right), right) for left, right in pairs]
        pairs = [(left, wire(m, right.rotate_left(ROTATIONS[index % len(ROTATIONS)]) ^ left)) for left, right in pairs]
        if index % 4 == 3:
            pairs = _with_key(m, key, index // 4 + 1, pairs)
        if index % _ROUNDS_PER_PLACE == _ROUNDS_PER_PLACE - 1:
            count = len(pairs)
            later = p.cut(*key, *(word for pair in pairs for word in pair), *others)
            key, words, others = (later[0], later[1]), later[2 : 2 + 2 * count], later[2 + 2 * count :]
            pairs = list(zip(words[::2], words[1::2], strict=True))
    return pairs, others


def added(m: Module, a: Value, b: Value) -> Value:
    """The sum of two words, modulo 2^32."""
    return wire(m, (a + b)[:_WORD])


def _with_key(m: Module, key: Pair, group: int, pairs: list[Pair]) -> list[Pair]:
    schedule = [*key, wire(m, key[0] ^ key[1] ^ PARITY)]
    first, second = schedule[group % 3], added(m, schedule[(group + 1) % 3], Const(group, _WORD))
    return [(added(m, left, first), added(m, right, second)) for left, right in pairs]
