"""The road of the functions of a lane, from a BF16 pattern to one, and which instructions a lane knows."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Value, signed

from unmask.isa.table import INSTRUCTIONS
from unmask.rtl import bf16, floating, functions
from unmask.rtl.bits import saturated, wire
from unmask.rtl.floating import BIAS
from unmask.rtl.pipeline import Pipeline

SHORT = ("V_ADD", "V_SUB", "V_MUL", "V_SUB_F", "V_MUL_F", "V_MUL_I", "V_FILL", "V_CUT")
LONG = ("V_EXP", "V_EXP_WIN", "V_XEXP", "V_RECIP", "V_SILU", "V_POW2")
LaneOp = IntEnum("LaneOp", [(row.name, row.opcode) for row in INSTRUCTIONS if row.name in SHORT + LONG])  # type: ignore[misc]
"""The instructions that a lane computes; the values are their opcodes."""

OP_BITS = 8


def chosen(op: Value, operations: Collection[str], *names: str) -> Value:
    """Whether `op` is one of `names`; a constant where none of them is built."""
    found: Value = Const(0, 1)
    for name in names:
        if name in operations:
            found = found | (op == LaneOp[name])
    return found


class Road:
    """The functions of a lane: e^x, its weight, 1 + e^-x, the reciprocal, the product and the rounding, as far as they are needed."""

    def __init__(self, m: Module, operations: frozenset[str], registers: int) -> None:
        self._m, self._operations = m, operations & frozenset(LONG)
        self._p = Pipeline(m, self.places(operations), registers, "long")

    @staticmethod
    def places(operations: Collection[str]) -> int:
        """Places for registers, of a road with those operations."""
        exponential = 4 * any(name in operations for name in ("V_EXP", "V_EXP_WIN", "V_XEXP", "V_SILU"))
        quotient = ("V_SILU" in operations) + any(name in operations for name in ("V_SILU", "V_RECIP"))
        return exponential + quotient + any(name in operations for name in ("V_SILU", "V_XEXP"))

    def _chosen(self, op: Value, *names: str) -> Value:
        return chosen(op, self._operations, *names)

    def _built(self, *names: str) -> bool:
        return any(name in self._operations for name in names)

    def result(self, op: Value, x: Value, level: Value) -> Value:
        """The result, of x = a."""
        m, p = self._m, self._p
        mantissa: Value = Const(1 << 16, 17)
        field: Value = Const(BIAS, signed(functions.FIELD_BITS))
        weight = functions.Weight(Const(0, 8), Const(0, signed(functions.FIELD_BITS)))
        if self._built("V_EXP", "V_EXP_WIN", "V_XEXP", "V_SILU"):
            op, x, mantissa, field, weight = self._exponential(op, x, level)
        significand: Value = Const(0, 8)
        inner: Value = Const(0, signed(10))
        infinite: Value = Const(0, 1)
        if self._built("V_SILU"):
            significand, one_field, infinite = functions.one_plus(m, weight)
            inner = wire(m, Cat(one_field, Const(0, 2)).as_signed())
        if self._built("V_RECIP"):
            own, own_field = functions.normalised(m, floating.unpack(m, x))
            significand = wire(m, Mux(self._chosen(op, "V_RECIP"), own, significand))
            inner = wire(m, Mux(self._chosen(op, "V_RECIP"), own_field, inner)[:10].as_signed())
        if self._built("V_SILU"):
            op, x, mantissa, field, significand, inner, infinite = p.cut(op, x, mantissa, field, significand, inner, infinite)
        if self._built("V_SILU", "V_RECIP"):
            quotient, quotient_field = functions.reciprocal(m, significand, inner)
            inverts = wire(m, self._chosen(op, "V_SILU", "V_RECIP"))
            mantissa = wire(m, Mux(inverts, Cat(Const(0, 9), quotient), mantissa))
            field = wire(m, Mux(inverts, quotient_field, field)[: functions.FIELD_BITS].as_signed())
            op, x, mantissa, field, infinite = p.cut(op, x, mantissa, field, infinite)
        value = self._product(op, x, mantissa, field, infinite)
        if self._built("V_SILU", "V_XEXP"):
            value, _ = floating.cut(p, value)
        p.done()
        return floating.packed(m, value, floating.normalising(m, value, 1), bf16.FRACTION)

    def _exponential(self, op: Value, x: Value, level: Value) -> tuple[Value, Value, Value, Value, functions.Weight]:
        m, p = self._m, self._p
        cap = functions.WEIGHT_CAP if self._built("V_EXP_WIN") else functions.EXP_CAP
        product, distance = functions.exponential_product(m, floating.unpack(m, x), cap)
        op, x, level, product, distance = p.cut(op, x, level, product, distance)
        sign = x[15] ^ self._chosen(op, "V_SILU")
        argument = functions.exponential_argument(m, sign, product, distance, cap)
        op, x, level, argument = p.cut(op, x, level, argument)
        power = functions.exponential(m, argument)
        exponent = wire(m, saturated(power.exponent, functions.FIELD_BITS))
        if self._built("V_EXP_WIN"):
            lowered = functions.relative(m, power.exponent, level)
            exponent = wire(m, Mux(self._chosen(op, "V_EXP_WIN"), lowered, exponent)[: functions.FIELD_BITS].as_signed())
        op, x, mantissa, exponent = p.cut(op, x, power.mantissa, exponent)
        # A bit more, for the carry of the rounding.
        wide = wire(m, Cat(exponent, exponent[-1]).as_signed())
        weight = functions.rounded_weight(m, functions.Power(mantissa, wide), Const(1, 1))
        field = wire(m, (exponent + BIAS)[: functions.FIELD_BITS + 1].as_signed())
        field = wire(m, saturated(field, functions.FIELD_BITS))
        if self._built("V_EXP_WIN"):
            windowed = wire(m, self._chosen(op, "V_EXP_WIN"))
            field = wire(m, Mux(windowed, functions.scaled_field(m, weight.exponent), field)[: functions.FIELD_BITS].as_signed())
            mantissa = wire(m, Mux(windowed, Cat(Const(0, 9), weight.significand), mantissa))
        scale = weight.exponent
        op, x, mantissa, field, significand, scale = p.cut(op, x, mantissa, field, weight.significand, scale)
        return op, x, mantissa, field, functions.Weight(significand, scale)

    def _product(self, op: Value, x: Value, mantissa: Value, field: Value, infinite: Value) -> floating.Unrounded:
        m = self._m
        number = floating.unpack(m, x)
        if self._built("V_POW2"):
            exact = self._chosen(op, "V_POW2")
            mantissa = wire(m, Mux(exact, 1 << 16, mantissa))
            field = wire(m, Mux(exact, functions.power_of_two_field(x), field)[: functions.FIELD_BITS].as_signed())
        factor, factor_field = Const(1 << 7, 8), Const(BIAS, 8)
        if self._built("V_SILU", "V_XEXP"):
            scales = wire(m, self._chosen(op, "V_SILU", "V_XEXP"))
            factor, factor_field = wire(m, Mux(scales, number.significand, factor)), wire(m, Mux(scales, number.exponent, factor_field))
        silu, reciprocal, windowed = (wire(m, self._chosen(op, name)) for name in ("V_SILU", "V_RECIP", "V_EXP_WIN"))
        # What e^x does with infinities follows from its size; a reciprocal and the tails of SiLU have to be told.
        none = (
            (reciprocal & number.infinity)
            | (silu & (infinite | (number.infinity & number.sign)))
            | (windowed & ((field < 1) | number.infinity))
        )
        exponent = wire(m, (field + factor_field - BIAS)[: functions.FIELD_BITS + 1].as_signed())
        return floating.wired(
            m,
            floating.Unrounded(
                sign=number.sign & self._chosen(op, "V_SILU", "V_XEXP", "V_RECIP"),
                mantissa=(factor * mantissa) & ~none.replicate(25),
                exponent=exponent,
                nan=(number.nan & ~self._chosen(op, "V_POW2")) | (windowed & number.infinity & ~number.sign),
                infinity=(reciprocal & number.zero) | (silu & number.infinity & ~number.sign),
            ),
        )
