"""One BF16 lane of the vector engine: an adder and a multiplier with one rounding, and the road of the functions beside them."""

from __future__ import annotations

from collections.abc import Collection

from amaranth.hdl import Cat, Module, Mux, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.errors import UnmaskError
from unmask.numerics.bf16 import INFINITY_BITS, SIGN_BIT
from unmask.rtl import bf16, floating, functions
from unmask.rtl.bits import wire
from unmask.rtl.pipeline import Pipeline, loads_of
from unmask.rtl.road import LONG, NOISY, OP_BITS, OPERATIONS, SHORT, LaneOp, Road, chosen
from unmask.rtl.window import EXPONENT_BITS

__all__ = ["LONG", "NOISY", "OPERATIONS", "SHORT", "SHORT_PLACES", "Lane", "LaneOp"]


KEY_BITS = 16
_MOST = (1 << KEY_BITS) - 1
SHORT_PLACES = 1 + floating.ROUNDED_PLACES
"""Of the way to `result`: before it, where the operands come from their switches, and those of a rounded sum."""


def key_of(word: Value) -> Value:
    """An INT32 word as a key: brought into the range of `ordered`, within which elements are compared alike."""
    value = word.as_signed()
    return Mux(value < 0, 0, Mux(value > _MOST, _MOST, value))[:KEY_BITS]


class Lane(wiring.Component):
    """A BF16 lane that takes an operation per cycle.

    Ports:
        op: a `LaneOp`, constant while results are under way.
        a, b: the operands' patterns; b is the factor or the constant where an instruction has one per row or one at all.
        level: the window's level of the row for V_EXP_WIN, signed, `level_later` cycles after a; `functions.NO_LEVEL` without one.
        key: V_CUT's key of the row, at least 0 and at most 0xFFFF (nearest to the word's value), `key_later` cycles after a.
        short_loads, function_loads: the registers that load, as `Pipeline` has it, on the road to `result`, and to `function_result`, whose
            first `weight` ones are also those of V_SAMPLE.
        result: of one of `SHORT`, or a + b of one of `NOISY`, `short` cycles later.
        function_result: of one of `LONG`, `function` cycles later.
        significand, exponent, invalid: of V_SAMPLE, `weight` cycles later, the weight of a as `functions.weight` has it, and whether a is
            NaN or plus infinity, which no window sum can hold.

    At `SHORT_PLACES` and `function_places` registers it is made for 1 GHz in ASAP7.

    Attributes:
        level_later, key_later, weight: see above.

    Args:
        short, function: registers from the inputs to either result.
        operations: the instructions to build; nothing is built for the others.

    Raises:
        UnmaskError: an operation that a lane does not have.
    """

    def __init__(self, short: int, function: int, operations: Collection[str] = SHORT + LONG) -> None:
        for name in operations:
            if name not in SHORT + LONG + NOISY:
                raise UnmaskError(f"operation {name}: expected some of {', '.join(SHORT + LONG + NOISY)}")
        self._short, self._function, self._operations = short, function, frozenset(operations)
        self._weighs = "V_SAMPLE" in self._operations
        self.key_later = short // SHORT_PLACES
        self.weight = Road.weight_registers(operations, function) if self._weighs else 0
        self.level_later = Road.level_registers(operations, function) if "V_EXP_WIN" in self._operations else 0
        super().__init__(
            {
                "op": In(OP_BITS),
                "a": In(16),
                "b": In(16),
                "level": In(signed(functions.LEVEL_BITS)),
                "key": In(KEY_BITS),
                "short_loads": loads_of(short),
                "function_loads": loads_of(function),
                "result": Out(16),
                "function_result": Out(16),
                "significand": Out(8),
                "exponent": Out(signed(EXPONENT_BITS)),
                "invalid": Out(1),
            }
        )

    @property
    def function_places(self) -> int:
        """Places for registers on the road of the functions."""
        return Road.places(self._operations)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._operations & frozenset(SHORT + NOISY):
            m.d.comb += self.result.eq(self._short_result(m))
        if self._operations & frozenset(LONG) or self._weighs:
            road = Road(m, self._operations, self._function, self.function_loads)
            m.d.comb += self.function_result.eq(road.result(self.op, self.a, self.level))
            if self._weighs:
                m.d.comb += [
                    self.significand.eq(road.weight.significand),
                    self.exponent.eq(road.weight.exponent),
                    self.invalid.eq(road.invalid),
                ]
        return m

    def _short_result(self, m: Module) -> Value:
        p = Pipeline(m, SHORT_PLACES, self._short, "short", self.short_loads)
        first, second, op = p.cut(self.a, self.b, self.op)

        def is_one_of(*names: str) -> Value:
            return chosen(op, self._operations, *names)

        b = Cat(second[:15], second[15] ^ is_one_of("V_SUB", "V_SUB_F"))
        terms = floating.add_terms(m, first, b)
        # What the adder does not need stands still while it adds.
        a = wire(m, first & is_one_of("V_MUL", "V_MUL_F", "V_MUL_I", "V_FILL", "V_CUT").replicate(16))
        if self._operations & {"V_MUL", "V_MUL_F", "V_MUL_I"}:
            terms = floating.select(m, is_one_of("V_MUL", "V_MUL_F", "V_MUL_I"), floating.multiply_terms(m, a, second), terms)
        if self._operations & {"V_FILL", "V_CUT"}:
            kept = floating.is_nan(m, a) | (bf16.ordered(m, a) >= self.key)
            passed = Mux(is_one_of("V_FILL"), second, Mux(kept, a, SIGN_BIT | INFINITY_BITS))[:16]
            terms = floating.select(m, is_one_of("V_FILL", "V_CUT"), floating.term(m, passed), terms)
        (result,) = floating.rounded(p, terms, bf16.FRACTION)
        p.done()
        return result
