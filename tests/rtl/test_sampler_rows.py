"""Row accumulators, instruction after instruction and vector after vector without a gap, against the numerics."""

import numpy as np
import pytest

from unmask.machine.semantics.registry import comparable
from unmask.numerics import accumulator, bf16, window
from unmask.rtl.functions import NO_LEVEL
from unmask.rtl.sampler_rows import RowOp, RowState

from .lanes import SPECIAL
from .streaming import Simulation

ROWS, LANES, COUNTER_BITS = 8, 4, 34
NAN = np.float32(np.nan)


class Rows:
    """What the functional reading keeps of rows."""

    def __init__(self):
        self.windows, self.totals, self.invalid = window.empty(ROWS), np.zeros(ROWS, np.int64), np.zeros(ROWS, bool)
        self.best, self.picked, self.candidates = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.uint16), np.zeros(ROWS, np.int64)

    def sample(self, row, x, score, picked, index, fresh):
        if fresh:
            self.windows[row], self.invalid[row] = window.empty(1)[0], False
        if fresh or score > self.best[row]:
            self.best[row], self.picked[row], self.candidates[row] = score, picked, index
        window.add_rows(self.windows[row : row + 1], x)
        self.invalid[row] |= (np.isnan(x) | (x == np.inf)).any()

    def fixed(self, row, x, fresh):
        if fresh:
            self.totals[row], self.invalid[row] = 0, False
        total, invalid = accumulator.sum_rows(x)
        self.totals[row] += total[0]
        self.invalid[row] |= invalid[0]

    def scaled(self, row, x, level, fresh):
        if fresh:
            self.windows[row], self.invalid[row] = window.empty(1)[0], False
        self.invalid[row] |= window.add_scaled(self.windows[row : row + 1], np.array([level]), x)[0]


def bits_of(value):
    return int(np.asarray(value, np.float32).view(np.uint32))


def scores(rng, shape):
    near = bf16.round((rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 3)).astype(np.float32))
    return np.where(rng.random(shape) < 0.1, bf16.from_bits(rng.choice(SPECIAL, shape)), near)


@pytest.mark.parametrize("registers", [0, 5])
def test_rows_hold_what_the_numerics_hold(registers):
    rng = np.random.default_rng(registers)
    state, driven, expected = Rows(), [], []
    for _ in range(1200):
        op, running = RowOp(int(rng.integers(0, 5))), int(rng.random() < 0.6)
        first_row = int(rng.integers(0, ROWS))
        for row in range(first_row, int(rng.integers(first_row, ROWS)) + 1):
            vectors = 1 if op == RowOp.READ else int(rng.integers(1, 4))
            prior, replaced = rng.choice([NAN, -np.inf, 0.0, -0.0, 1.5, 3.25000001, 1e30]).astype(np.float32), False
            best, companion, candidate = comparable(prior), 0, 0
            level = int(rng.choice([window.LOWEST, -700000, -2, -1, 0, 1, 2, 700000]))
            for vector in range(vectors):
                fresh = vector == 0 and not running
                score, index = comparable(scores(rng, ())), int(rng.integers(0, 2**32))
                picked = int(rng.integers(0, 1 << 16))
                x = scores(rng, (1, LANES))
                part, bad = window.empty(1), False
                if op == RowOp.SAMPLE:
                    window.add_rows(part, x)
                    bad = bool((np.isnan(x) | (x == np.inf)).any())
                    before = state.best[row]
                    state.sample(row, x, score, picked, index, fresh)
                    replaced |= fresh or bool(score > before)
                elif op == RowOp.FIXED:
                    total, invalid = accumulator.sum_rows(x)
                    part[0] = 0, (int(total[0]) >> 32) & 0xFFFFFFFF, int(total[0]) & 0xFFFFFFFF
                    bad = bool(invalid[0])
                    state.fixed(row, x, fresh)
                elif op == RowOp.SCALED:
                    x = np.where(rng.random(x.shape) < 0.05, x, rng.random(x.shape).astype(np.float32))
                    x = bf16.round(x * np.float32(0.99))
                    bad = bool(window.add_scaled(part, np.array([level]), x)[0])
                    state.scaled(row, x, level, fresh)
                elif op == RowOp.MAX and (fresh or score > best):
                    best, companion, candidate, replaced = score, picked, index, True
                driven.append(
                    {
                        "valid": 1,
                        "op": int(op),
                        "row": row,
                        "first": vector == 0,
                        "last": vector == vectors - 1,
                        "running": running,
                        "prior": bits_of(prior),
                        "score": bits_of(score) >> 16,
                        "picked": picked,
                        "index": index,
                        "level": NO_LEVEL if part[0, 0] == window.LOWEST else int(part[0, 0]),
                        "upper": int(part[0, 1]),
                        "lower": int(part[0, 2]),
                        "invalid": bad,
                    }
                )
                expected.append({"done": 0})
            if op == RowOp.FIXED:
                total = accumulator.to_fp32(state.totals[row], accumulator.VECTOR_FRACTION)
            else:
                total = window.to_fp32(state.windows[row : row + 1])[0]
            kept = int(state.windows[row, 0])
            result = {"done": 1, "row_done": row}
            if op != RowOp.MAX:
                result |= {"sum": 0x7FC00000 if state.invalid[row] else bits_of(total)}
            if op in (RowOp.SAMPLE, RowOp.SCALED, RowOp.READ):
                result |= {"window_level": (NO_LEVEL if kept == window.LOWEST else kept) & (2**21 - 1)}
            if op in (RowOp.SAMPLE, RowOp.READ):
                result |= {"companion": int(state.picked[row]), "candidate": int(state.candidates[row]) & 0xFFFFFFFF}
            elif op == RowOp.MAX:
                result |= {"best": bits_of(best), "replaced": replaced}
                if replaced:
                    result |= {"companion": companion, "candidate": candidate}
            expected[-1] = result
    inputs = {name: np.array([step[name] for step in driven], np.int64) for name in driven[0]}
    inputs["row_ahead"] = np.append(inputs["row"][1:], 0)
    # A cycle before the first vector presents its row.
    inputs = {name: np.concatenate([[inputs["row"][0] if name == "row_ahead" else 0], part]) for name, part in inputs.items()}
    found = Simulation(RowState(ROWS, COUNTER_BITS, registers)).run(inputs, len(driven) + 1 + registers)
    for cycle, values in enumerate(expected):
        for name, value in values.items():
            assert int(found[name][cycle + 1 + registers]) == value, (cycle, driven[cycle], name)
