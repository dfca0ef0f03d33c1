"""One BF16 lane of the vector engine: an adder and a multiplier with one rounding, and the road of the functions beside them."""

from __future__ import annotations

from collections.abc import Collection

from amaranth.hdl import Cat, Module, Mux, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.errors import UnmaskError
from unmask.numerics.bf16 import INFINITY_BITS, SIGN_BIT
from unmask.rtl import bf16, floating, functions
from unmask.rtl.pipeline import Pipeline
from unmask.rtl.road import LONG, OP_BITS, SHORT, LaneOp, Road, chosen

__all__ = ["LONG", "SHORT", "SHORT_PLACES", "Lane", "LaneOp"]


KEY_BITS = 16
_MOST = (1 << KEY_BITS) - 1
SHORT_PLACES = floating.ROUNDED_PLACES


def key_of(word: Value) -> Value:
    """An INT32 word as a key: brought into the range of `ordered`, within which elements are compared alike."""
    value = word.as_signed()
    return Mux(value < 0, 0, Mux(value > _MOST, _MOST, value))[:KEY_BITS]


class Lane(wiring.Component):
    """A BF16 lane that takes an operation per cycle.

    Ports:
        op: a `LaneOp`. a, b: the operands' patterns; b is the factor or the constant where an instruction has one per row or one at all.
        level: the window's level of the row for V_EXP_WIN, signed; `functions.NO_LEVEL` where there is none.
        key: V_CUT's key of the row, at least 0 and at most 0xFFFF (nearest to the word's value).
        result: of one of `SHORT`, `short` cycles later. function_result: of one of `LONG`, `function` cycles later.

    At `SHORT_PLACES` and `function_places` registers it is made for 1 GHz in ASAP7.

    Args:
        short, function: registers from the inputs to either result.
        operations: the instructions to build; nothing is built for the others.

    Raises:
        UnmaskError: an operation that a lane does not have.
    """

    def __init__(self, short: int, function: int, operations: Collection[str] = SHORT + LONG) -> None:
        for name in operations:
            if name not in SHORT + LONG:
                raise UnmaskError(f"operation {name}: expected some of {', '.join(SHORT + LONG)}")
        self._short, self._function, self._operations = short, function, frozenset(operations)
        super().__init__(
            {
                "op": In(OP_BITS),
                "a": In(16),
                "b": In(16),
                "level": In(signed(functions.LEVEL_BITS)),
                "key": In(KEY_BITS),
                "result": Out(16),
                "function_result": Out(16),
            }
        )

    @property
    def function_places(self) -> int:
        """Places for registers on the road of the functions."""
        return Road.places(self._operations)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._operations & frozenset(SHORT):
            m.d.comb += self.result.eq(self._short_result(m))
        if self._operations & frozenset(LONG):
            m.d.comb += self.function_result.eq(Road(m, self._operations, self._function).result(self.op, self.a, self.level))
        return m

    def _short_result(self, m: Module) -> Value:
        def is_one_of(*names: str) -> Value:
            return chosen(self.op, self._operations, *names)

        p = Pipeline(m, SHORT_PLACES, self._short, "short")
        b = Cat(self.b[:15], self.b[15] ^ is_one_of("V_SUB", "V_SUB_F"))
        terms = floating.add_terms(m, self.a, b)
        if self._operations & {"V_MUL", "V_MUL_F", "V_MUL_I"}:
            terms = floating.select(m, is_one_of("V_MUL", "V_MUL_F", "V_MUL_I"), floating.multiply_terms(m, self.a, self.b), terms)
        if self._operations & {"V_FILL", "V_CUT"}:
            kept = floating.is_nan(m, self.a) | (bf16.ordered(m, self.a) >= self.key)
            passed = Mux(is_one_of("V_FILL"), self.b, Mux(kept, self.a, SIGN_BIT | INFINITY_BITS))[:16]
            terms = floating.select(m, is_one_of("V_FILL", "V_CUT"), floating.term(m, passed), terms)
        (result,) = floating.rounded(p, terms, bf16.FRACTION)
        p.done()
        return result
