"""Cycles of instructions against values worked out by hand."""

import pytest

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, decode
from unmask.isa.table import INSTRUCTIONS, Cost, Kind
from unmask.machine import costs
from unmask.machine.config import Machine
from unmask.machine.costs import Cycles, cost_of
from unmask.machine.dma import is_dma

NANO, SMALL, EDGE = (Machine.preset(name) for name in ("nano", "small", "edge"))


def one(text: str) -> Op:
    return decode(assemble(text))[0]


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        # nano: blen 8, mlen 32, rows 1; 4 x 3 tiles, ceil(100 / 32) = 4 passes of 8 cycles; 16 skew, 2 tree levels, 6 latency.
        ("M_MM dst=r0 a=r0 b=r0 m=32 n=17 k=100 dst_stride=1 a_stride=4 transposed=0 format=0", NANO, Cycles(12 * 4 * 8, 24)),
        # small: blen 16, mlen 64, rows 4; 2 rows of tiles, 3 columns of them on 4 rows, 1 pass of 16 cycles; 32 + 2 + 8.
        ("M_MM dst=r0 a=r0 b=r0 m=32 n=48 k=64 dst_stride=2 a_stride=2 transposed=0 format=1", SMALL, Cycles(2 * 16, 42)),
        # Transposed: 3 rows of tiles, 2 groups of 4 columns of tiles, 2 passes of 32 cycles, the first of them 32 later.
        ("M_MM dst=r0 a=r0 b=r0 m=33 n=65 k=65 dst_stride=3 a_stride=3 transposed=1 format=1", SMALL, Cycles(3 * 2 * 2 * 32, 42 + 32, 32)),
        ("V_ADD dst=r0 a=r0 b=r0 rows=3 cols=65 dst_stride=4 a_stride=4 b_stride=0", SMALL, Cycles(6, 4)),
        ("V_EXP dst=r0 a=r0 rows=3 cols=64 dst_stride=4 a_stride=4", SMALL, Cycles(3, 8)),
        ("V_RED_SUM dst=r0 a=r0 rows=3 cols=64 a_stride=4 running=1", SMALL, Cycles(3, 10)),
        (
            "V_GUMBEL dst=r0 a=r0 seed=r0 step=r0 position=r0 token=r0 temperature=r0 rows=3 cols=65 dst_stride=4 a_stride=4",
            EDGE,
            Cycles(3, 16),
        ),
        (
            "V_SAMPLE a=r0 first=r0 token=r0 seed=r0 step=r0 position=r0 period=1 temperature=r0 rows=3 cols=129 a_stride=8 running=0",
            EDGE,
            Cycles(6, 16 + 11),
        ),
        ("F_MUL dst=r0 a=r0 b=r0 count=32", SMALL, Cycles(32, 4)),
        ("F_RECIP dst=r0 a=r0 count=32", SMALL, Cycles(128, 28)),
        ("I_EQ_I dst=r0 a=r0 count=65 value=3", SMALL, Cycles(5, 4)),
        ("V_TOPK_MASK dst=r0 f=r0 eligible=r0 k=r0 count=65", SMALL, Cycles(130, 4)),
        # 5 passes over 3 rows of 2 vectors; over 2 rows of 1 they wait for the tree.
        ("V_TOPK_ROW dst=r0 a=r0 b=r0 k=5 rows=3 cols=65 dst_stride=3 a_stride=3 b_stride=3", EDGE, Cycles(5 * 11, 11)),
        ("V_TOPK_ROW dst=r0 a=r0 b=r0 k=5 rows=30 cols=129 dst_stride=5 a_stride=5 b_stride=5", EDGE, Cycles(5 * 60, 11)),
        # 33 rows of weights of 32 elements are 17 vectors of 64.
        ("V_EXPERT_TILES dst=r0 b=r0 span=33 cols=8 b_stride=1 rows=4 tiles=12", SMALL, Cycles(17 + 24, 4)),
        ("V_GATHER_ROWS dst=r0 a=r0 b=r0 expert=r0 skip=r0 rows=4 span=33 cols=65 stride=3 b_stride=1", SMALL, Cycles(17 + 8, 4)),
        ("V_SCATTER_ADD dst=r0 a=r0 b=r0 expert=r0 skip=r0 rows=4 span=33 cols=65 stride=3 b_stride=1", SMALL, Cycles(17 + 8, 8)),
        ("SYNC engine=1", SMALL, Cycles(1, 0)),
        ("S_LI rd=r0 value=3", SMALL, Cycles(1, 0)),
        ("END", SMALL, Cycles(1, 0)),
    ],
)
def test_hand_computed(text, machine, expected):
    assert cost_of(one(text), machine) == expected


def test_nothing_is_free():
    for row in INSTRUCTIONS:
        op = Op(row.name, {spec.name: 0 if spec.kind is Kind.REGISTER or spec.name == "format" else 1 for spec in row.fields})
        assert is_dma(op) or cost_of(op, SMALL).occupancy > 0, row.name


def test_a_class_without_a_rule_is_an_error(monkeypatch):
    monkeypatch.setattr(costs, "_RULES", {cost: rule for cost, rule in costs._RULES.items() if cost is not Cost.TOPK})
    with pytest.raises(UnmaskError, match="V_TOPK_MASK: cost class TOPK has no rule"):
        cost_of(one("V_TOPK_MASK dst=r0 f=r0 eligible=r0 k=r0 count=65"), SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F_RECIP dst=r0 a=r0 count=0", "F_RECIP: count is 0"),
        ("V_ADD dst=r0 a=r0 b=r0 rows=0 cols=65 dst_stride=4 a_stride=4 b_stride=0", "V_ADD: rows is 0"),
    ],
)
def test_nothing_to_do_is_an_error(text, message):
    with pytest.raises(UnmaskError, match=message):
        cost_of(one(text), SMALL)
