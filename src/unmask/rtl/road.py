"""The road of the functions of a lane, from a BF16 pattern to one, and which instructions a lane knows."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Value, ValueLike, signed

from unmask.rtl import bf16, floating, functions
from unmask.rtl.bits import saturated, wire
from unmask.rtl.floating import BIAS
from unmask.rtl.pipeline import Pipeline

SHORT = ("V_ADD", "V_SUB", "V_MUL", "V_SUB_F", "V_MUL_F", "V_MUL_I", "V_FILL", "V_CUT")
LONG = ("V_EXP", "V_EXP_WIN", "V_XEXP", "V_RECIP", "V_SILU", "V_POW2")
NOISY = ("V_GUMBEL", "V_SAMPLE")
OPERATIONS = SHORT + LONG + NOISY
"""The instructions that a lane computes. For `NOISY` ones it adds b to a; V_SAMPLE takes the weight of a beside."""
LaneOp = IntEnum("LaneOp", [(name, 1 << index) for index, name in enumerate(OPERATIONS)])  # type: ignore[misc]
"""A bit each, so that no lane has to decode anything."""

OP_BITS = len(OPERATIONS)
_EXPONENTIALS = ("V_EXP", "V_EXP_WIN", "V_XEXP", "V_SILU", "V_SAMPLE")
_EXPONENTIAL_PLACES = 4
# From the pattern on, the place before the first step among them.
_LEVEL_PLACES, _WEIGHT_PLACES = 3, 4


def chosen(op: Value, operations: Collection[str], *names: str) -> Value:
    """Whether `op` is one of `names`; a constant where none of them is built."""
    found: Value = Const(0, 1)
    for name in names:
        if name in operations:
            found = found | op[OPERATIONS.index(name)]
    return found


class Road:
    """The functions of a lane: e^x, its weight, 1 + e^-x, the reciprocal, the product and the rounding, as far as they are needed.

    Attributes:
        weight: once there is a result, of x, `weight_registers` later: as `functions.weight`; none is built without an exponential.
        invalid: as late, whether x is NaN or plus infinity, which no window sum can hold.
    """

    weight: functions.Weight
    invalid: Value

    def __init__(self, m: Module, operations: frozenset[str], registers: int, loads: ValueLike | None = None) -> None:
        self._m, self._operations = m, operations & frozenset((*LONG, "V_SAMPLE"))
        self._p = Pipeline(m, self.places(operations), registers, "long", loads)

    @staticmethod
    def places(operations: Collection[str]) -> int:
        """Places for registers, of a road with those operations."""
        exponential = _EXPONENTIAL_PLACES * any(name in operations for name in _EXPONENTIALS)
        quotient = ("V_SILU" in operations) + any(name in operations for name in ("V_SILU", "V_RECIP"))
        return 1 + exponential + quotient + any(name in operations for name in ("V_SILU", "V_XEXP"))

    @staticmethod
    def weight_registers(operations: Collection[str], registers: int) -> int:
        """Cycles from x to its weight, of a road with those operations, V_SAMPLE among them, and so many registers."""
        return _WEIGHT_PLACES * registers // Road.places(operations)

    @staticmethod
    def level_registers(operations: Collection[str], registers: int) -> int:
        """Cycles from x to the level of its row, of a road with those operations, V_EXP_WIN among them, and so many registers."""
        return _LEVEL_PLACES * registers // Road.places(operations)

    def _chosen(self, op: Value, *names: str) -> Value:
        return chosen(op, self._operations, *names)

    def _built(self, *names: str) -> bool:
        return any(name in self._operations for name in names)

    def result(self, op: Value, x: Value, level: Value) -> Value:
        """The result, of x = a.

        op: of `LaneOp`, constant while results are under way. level: of the row, `level_registers` after x.
        """
        m, p = self._m, self._p
        mantissa: Value = Const(1 << 16, 17)
        field: Value = Const(BIAS, signed(functions.FIELD_BITS))
        weight = functions.Weight(Const(0, 8), Const(0, signed(functions.FIELD_BITS)))
        # Behind the switch that the pattern comes from.
        x, op = p.cut(x, op)
        number = floating.unpack(m, x)
        if self._built(*_EXPONENTIALS):
            number, mantissa, field, weight = self._exponential(op, number, level)
        significand: Value = Const(0, 8)
        inner: Value = Const(0, signed(10))
        infinite: Value = Const(0, 1)
        if self._built("V_SILU"):
            significand, one_field, infinite = functions.one_plus(m, weight)
            inner = wire(m, Cat(one_field, Const(0, 2)).as_signed())
        if self._built("V_RECIP"):
            own, own_field = functions.normalised(m, number)
            significand = wire(m, Mux(self._chosen(op, "V_RECIP"), own, significand))
            inner = wire(m, Mux(self._chosen(op, "V_RECIP"), own_field, inner)[:10].as_signed())
        if self._built("V_SILU"):
            number, (mantissa, field, significand, inner, infinite) = floating.cut(p, number, mantissa, field, significand, inner, infinite)
        if self._built("V_SILU", "V_RECIP"):
            quotient, quotient_field = functions.reciprocal(m, significand, inner)
            inverts = wire(m, self._chosen(op, "V_SILU", "V_RECIP"))
            mantissa = wire(m, Mux(inverts, Cat(Const(0, 9), quotient), mantissa))
            field = wire(m, Mux(inverts, quotient_field, field)[: functions.FIELD_BITS].as_signed())
            number, (mantissa, field, infinite) = floating.cut(p, number, mantissa, field, infinite)
        value = self._product(op, number, mantissa, field, infinite)
        if self._built("V_SILU", "V_XEXP"):
            value, _ = floating.cut(p, value)
        p.done()
        return floating.packed(m, value, floating.normalising(m, value, 1), bf16.FRACTION)

    def _exponential(self, op: Value, number: floating.Number, level: Value) -> tuple[floating.Number, Value, Value, functions.Weight]:
        m, p = self._m, self._p
        cap = functions.WEIGHT_CAP if self._built("V_EXP_WIN", "V_SAMPLE") else functions.EXP_CAP
        product, distance = functions.exponential_product(m, number, cap)
        number, (product, distance) = floating.cut(p, number, product, distance)
        argument = functions.exponential_argument(m, number.sign ^ self._chosen(op, "V_SILU"), product, distance, cap)
        number, (argument,) = floating.cut(p, number, argument)
        power = functions.exponential(m, argument)
        exponent = power.exponent
        if not self._built("V_SAMPLE"):
            exponent = wire(m, saturated(exponent, functions.FIELD_BITS))
        if self._built("V_EXP_WIN"):
            lowered = functions.relative(m, power.exponent, level)
            exponent = wire(m, Mux(self._chosen(op, "V_EXP_WIN"), lowered, exponent)[: len(exponent)].as_signed())
        number, (mantissa, exponent) = floating.cut(p, number, power.mantissa, exponent)
        # A bit more, for the carry of the rounding.
        wide = wire(m, Cat(exponent, exponent[-1]).as_signed())
        weight = functions.rounded_weight(m, functions.Power(mantissa, wide), ~(number.nan | number.infinity))
        self.weight, self.invalid = weight, wire(m, number.nan | (number.infinity & ~number.sign))
        if self._built("V_SAMPLE"):
            # It needs nothing of what follows, which stands still.
            others = wire(m, ~self._chosen(op, "V_SAMPLE"))
            number, mantissa = floating.where(m, others, number), wire(m, mantissa & others.replicate(len(mantissa)))
            exponent, scale = (
                wire(m, Mux(others, saturated(value, bits), 0))
                for value, bits in ((exponent, functions.FIELD_BITS), (weight.exponent, functions.FIELD_BITS + 1))
            )
            weight = functions.Weight(wire(m, weight.significand & others.replicate(8)), scale)
        field = wire(m, (exponent + BIAS)[: functions.FIELD_BITS + 1].as_signed())
        field = wire(m, saturated(field, functions.FIELD_BITS))
        if self._built("V_EXP_WIN"):
            windowed = wire(m, self._chosen(op, "V_EXP_WIN"))
            field = wire(m, Mux(windowed, functions.scaled_field(m, weight.exponent), field)[: functions.FIELD_BITS].as_signed())
            mantissa = wire(m, Mux(windowed, Cat(Const(0, 9), weight.significand), mantissa))
        number, (mantissa, field, significand, scale) = floating.cut(p, number, mantissa, field, weight.significand, weight.exponent)
        return number, mantissa, field, functions.Weight(significand, scale)

    def _product(self, op: Value, number: floating.Number, mantissa: Value, field: Value, infinite: Value) -> floating.Unrounded:
        m = self._m
        if self._built("V_POW2"):
            exact = self._chosen(op, "V_POW2")
            mantissa = wire(m, Mux(exact, 1 << 16, mantissa))
            field = wire(m, Mux(exact, functions.power_of_two_field(number), field)[: functions.FIELD_BITS].as_signed())
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
