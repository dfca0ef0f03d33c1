"""Cycles of instructions against values worked out by hand."""

import pytest

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, decode
from unmask.isa.table import INSTRUCTIONS, Cost, Kind
from unmask.machine import costs
from unmask.machine.config import Machine
from unmask.machine.costs import Cycles, cost_of

NANO, SMALL, EDGE = (Machine.preset(name) for name in ("nano", "small", "edge"))
MXFP6 = SMALL.model_copy(update={"formats": SMALL.formats.model_copy(update={"kv": "mxfp6_e2m3"})})


def one(text: str) -> Op:
    return decode(assemble(text))[0]


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        # nano: blen 8, mlen 32, rows 1; 4 x 3 tiles, ceil(100 / 32) = 4 passes of 8 cycles; 16 skew, 2 tree levels, 6 latency.
        ("M_MM dst=r0 a=r0 b=r0 m=32 n=17 k=100 dst_stride=1 a_stride=4 transposed=0 format=0", NANO, Cycles(12 * 4 * 8, 24, 0)),
        # small: blen 16, mlen 64, rows 4; 2 x 3 tiles on 4 rows take 2 rounds, 1 pass of 16 cycles; 32 + 2 + 8.
        ("M_MM dst=r0 a=r0 b=r0 m=32 n=48 k=64 dst_stride=2 a_stride=2 transposed=1 format=1", SMALL, Cycles(32, 42, 0)),
        # 3 rows of 100 bytes, apart: 2 beats of 64 bytes each; 384 bytes at 64 a cycle.
        ("L_VEC dst=r0 src=r0 rows=3 cols=50 dst_stride=2 src_stride=128", SMALL, Cycles(6, 100, 384)),
        # Together: 300 bytes, 5 beats.
        ("L_VEC dst=r0 src=r0 rows=3 cols=50 dst_stride=2 src_stride=100", SMALL, Cycles(5, 100, 320)),
        ("ST_VEC src=r0 dst=r0 rows=3 cols=50 src_stride=2 dst_stride=100", SMALL, Cycles(5, 100, 320)),
        # nano: 32-byte beats at 16 bytes a cycle; one row of 20 bytes is a beat whatever its stride.
        ("L_VEC dst=r0 src=r0 rows=1 cols=10 dst_stride=2 src_stride=0", NANO, Cycles(2, 60, 32)),
        # MXINT8, 2 rows of 2 blocks, 4 apart: elements 2 x 64 bytes, 1 beat each; scales 2 x 2 bytes, 1 beat each.
        ("L_MAT dst=r0 src=r0 scales=r0 rows=2 cols=33 src_stride=4 format=0", SMALL, Cycles(4, 100, 256)),
        # Together: 128 bytes of elements, 4 of scales.
        ("ST_MX src=r0 dst=r0 scales=r0 rows=2 cols=33 src_stride=2 dst_stride=2 format=0", SMALL, Cycles(3, 100, 192)),
        # 6-bit elements: 24 bytes a block; 8 rows of 1 block together are 192 bytes and 8 scales.
        ("L_MAT dst=r0 src=r0 scales=r0 rows=8 cols=32 src_stride=1 format=1", MXFP6, Cycles(4, 100, 256)),
        ("L_INT dst=r0 src=r0 count=17", SMALL, Cycles(2, 100, 128)),
        ("ST_INT src=r0 dst=r0 count=16", SMALL, Cycles(1, 100, 64)),
        ("L_GATHER dst=r0 table=r0 ids=r0 rows=5 cols=256 dst_stride=8 table_stride=512 limit=4096", SMALL, Cycles(40, 100, 2560)),
        ("L_GATHER dst=r0 table=r0 ids=r0 rows=5 cols=8 dst_stride=1 table_stride=16 limit=4096", SMALL, Cycles(5, 100, 320)),
        ("V_ADD dst=r0 a=r0 b=r0 rows=3 cols=65 dst_stride=4 a_stride=4 b_stride=0", SMALL, Cycles(6, 4, 0)),
        ("V_EXP dst=r0 a=r0 rows=3 cols=64 dst_stride=4 a_stride=4", SMALL, Cycles(3, 8, 0)),
        ("V_RED_SUM dst=r0 a=r0 rows=3 cols=64 a_stride=4 running=1", SMALL, Cycles(3, 10, 0)),
        (
            "V_GUMBEL dst=r0 a=r0 seed=r0 step=r0 position=r0 token=r0 temperature=r0 rows=3 cols=65 dst_stride=4 a_stride=4",
            EDGE,
            Cycles(3, 16, 0),
        ),
        (
            "V_SAMPLE a=r0 first=r0 token=r0 seed=r0 step=r0 position=r0 period=1 temperature=r0 rows=3 cols=129 a_stride=8 running=0",
            EDGE,
            Cycles(6, 16 + 11, 0),
        ),
        ("F_MUL dst=r0 a=r0 b=r0 count=32", SMALL, Cycles(32, 4, 0)),
        ("F_RECIP dst=r0 a=r0 count=32", SMALL, Cycles(128, 28, 0)),
        ("I_EQ_I dst=r0 a=r0 count=65 value=3", SMALL, Cycles(5, 4, 0)),
        ("V_TOPK_MASK dst=r0 f=r0 eligible=r0 k=r0 count=65", SMALL, Cycles(130, 4, 0)),
        ("SYNC engine=1", SMALL, Cycles(1, 0, 0)),
        ("S_LI rd=r0 value=3", SMALL, Cycles(1, 0, 0)),
        ("END", SMALL, Cycles(1, 0, 0)),
    ],
)
def test_hand_computed(text, machine, expected):
    assert cost_of(one(text), machine) == expected


def test_nothing_is_free():
    for row in INSTRUCTIONS:
        op = Op(row.name, {spec.name: 0 if spec.kind is Kind.REGISTER or spec.name == "format" else 1 for spec in row.fields})
        assert cost_of(op, SMALL).occupancy > 0, row.name


def test_a_class_without_a_rule_is_an_error(monkeypatch):
    monkeypatch.setattr(costs, "_RULES", {cost: rule for cost, rule in costs._RULES.items() if cost is not Cost.TOPK})
    with pytest.raises(UnmaskError, match="V_TOPK_MASK: cost class TOPK has no rule"):
        cost_of(one("V_TOPK_MASK dst=r0 f=r0 eligible=r0 k=r0 count=65"), SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F_RECIP dst=r0 a=r0 count=0", "F_RECIP: count is 0"),
        ("L_INT dst=r0 src=r0 count=0", "L_INT: count is 0"),
        ("L_MAT dst=r0 src=r0 scales=r0 rows=2 cols=33 src_stride=4 format=2", "format 2: expected 0"),
    ],
)
def test_nothing_to_do_is_an_error(text, message):
    with pytest.raises(UnmaskError, match=message):
        cost_of(one(text), SMALL)
