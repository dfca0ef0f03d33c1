"""Random words of lanes: Threefry-2x32 with 13 rounds, one generator for four lanes."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Signal, Value

from unmask.numerics.noise import PARITY, ROTATIONS, ROUNDS
from unmask.rtl.bits import wire
from unmask.rtl.pipeline import Pipeline

_WORD = 32
_ROUNDS_PER_PLACE = 2
_ROUNDS_PER_GROUP = 4
THREEFRY_PLACES = ROUNDS // _ROUNDS_PER_PLACE + 1
"""Of `rounds`: two of them, and the key between them, fit between two registers at 1 GHz in ASAP7; the first one, whose sum the caller
makes, stands alone."""

Pair = tuple[Value, Value]


def key_groups(m: Module, seed: Value, step: Value) -> list[Pair]:
    """What is added after each fourth round: to the right word, and to the sum of both; registers, a cycle after the key."""
    schedule = [seed, step, wire(m, seed ^ step ^ PARITY)]
    groups = []
    for group in range(1, (ROUNDS - 1) // _ROUNDS_PER_GROUP + 1):
        second, both = Signal(_WORD, name=f"key_right_{group}"), Signal(_WORD, name=f"key_both_{group}")
        right = added(m, schedule[(group + 1) % 3], Const(group, _WORD))
        m.d.sync += [second.eq(right), both.eq(added(m, schedule[group % 3], right))]
        groups.append((second, both))
    return groups


def rounds(p: Pipeline, groups: list[Pair], counters: list[Pair], *beside: Value) -> tuple[list[Pair], list[Value]]:
    """Threefry of counters under one key, and `beside` as late; `THREEFRY_PLACES` places, the last one behind the last round.

    groups: of the key, which stays as it is while counters are under way. counters: of each pair of words (32 bits), to which the key was
        added, the sum of both and the right one: what the first round adds is then the caller's to share among counters. See
        `unmask.numerics.noise.threefry2x32`.
    """
    m, others = p.m, list(beside)
    pairs = list(counters)
    for index in range(ROUNDS):
        pairs = [(left, wire(m, right.rotate_left(ROTATIONS[index % len(ROTATIONS)]) ^ left)) for left, right in pairs]
        if index % _ROUNDS_PER_PLACE == 0:
            later = p.cut(*(word for pair in pairs for word in pair), *others)
            words, others = later[: 2 * len(pairs)], later[2 * len(pairs) :]
            pairs = list(zip(words[::2], words[1::2], strict=True))
        group, after = divmod(index + 1, _ROUNDS_PER_GROUP)
        if index == ROUNDS - 1:
            break
        if after:
            pairs = [(added(m, left, right), right) for left, right in pairs]
        else:
            second, both = groups[group - 1]
            pairs = [(added(m, left, right, both), added(m, right, second)) for left, right in pairs]
    return pairs, others


def drawn(pair: Pair, token: int) -> Value:
    """The random bits of one of the tokens of a counter: bit 1 picks the word, and an odd one is read backwards."""
    word = pair[token >> 1]
    return word[::-1] if token & 1 else word


def added(m: Module, *words: Value) -> Value:
    """The sum of words, modulo 2^32."""
    return wire(m, sum(words[1:], start=words[0])[:_WORD])
