"""The masks of the streaming sorter against the functional reading's, instruction after instruction without a gap."""

import numpy as np

from unmask.machine.semantics.integers import _ranked
from unmask.machine.semantics.registry import comparable
from unmask.rtl.topk import MASK_REGISTERS, Mask, MaskUnit

from .streaming import Simulation

ENTRIES, LONGEST = 8, 20
SPECIAL = np.array([0x7FC00000, 0xFF800000, 0x7F800000, 0, 0x80000000, 0x3F800000, 1, 0x80000001], np.uint32)


def expected(kind, scores, eligible, bars, k, value):
    ranked = _ranked(scores, eligible)
    if kind == Mask.TOPK:
        chosen = ranked[: max(k, 0)]
    elif kind == Mask.THRESHOLD:
        chosen = np.concatenate((ranked[:1], ranked[comparable(scores[ranked]) >= value]))
    else:
        cleared = comparable(scores[ranked]) >= bars[: len(ranked)]
        cleared[:1] = True
        chosen = ranked[: int(np.logical_and.accumulate(cleared).sum())]
    mask = np.zeros(len(scores), np.uint64)
    mask[chosen] = 1
    return mask


def words(rng, count):
    close = rng.choice(np.array([0.5, 0.25, 0.75], np.float32), count).view(np.uint32)
    anything = rng.integers(0, 2**32, count).astype(np.uint32)
    anything[np.isnan(anything.view(np.float32))] = 0x7FC00000
    return np.choose(rng.integers(0, 3, count), [close, anything, rng.choice(SPECIAL, count)]).astype(np.uint32)


def test_masks_follow_one_another():
    rng = np.random.default_rng(0)
    columns = {name: [] for name in ("valid", "first", "last", "score", "eligible", "bar", "kind", "k", "value")}
    masks = []
    for _ in range(1500):
        kind = int(rng.integers(0, 3))
        count = int(rng.integers(1, (LONGEST if kind == Mask.THRESHOLD else ENTRIES) + 1))
        scores, bars, value = words(rng, count), words(rng, count), words(rng, 1)
        eligible = (rng.random(count) < rng.choice([0, 0.5, 1])).astype(np.int32)
        k = int(rng.choice([-(2**31), -1, 0, 1, count // 2, count, ENTRIES, 2**31 - 1]))
        idle = np.zeros(count + int(rng.integers(0, 3)), int)
        number = np.arange(count)
        driven = (np.ones(count), number == 0, number == count - 1, scores, eligible, bars)
        for name, part in zip(columns, driven, strict=False):
            columns[name].append(np.concatenate([part.astype(np.int64), idle]))
        # Only the first entry's operands count.
        for name, operand in (("kind", kind), ("k", k), ("value", int(value[0]))):
            columns[name].append(np.concatenate([[operand], rng.integers(0, 3, count - 1), idle]))
        mask = expected(kind, scores.view(np.float32), eligible, bars.view(np.float32), k, value.view(np.float32)[0])
        masks.append(
            (np.concatenate([np.zeros(count), np.ones(count), idle[count:]]), np.concatenate([np.zeros(count), mask, idle[count:]]))
        )
    inputs = {name: np.concatenate(parts) for name, parts in columns.items()}
    total = len(inputs["valid"])
    found = Simulation(MaskUnit(ENTRIES, LONGEST)).run(inputs, total + MASK_REGISTERS)
    valid, mask = (np.concatenate(parts) for parts in zip(*masks, strict=True))
    np.testing.assert_array_equal(found["mask_valid"][MASK_REGISTERS:], valid)
    np.testing.assert_array_equal((found["mask"] & found["mask_valid"])[MASK_REGISTERS:], mask)
