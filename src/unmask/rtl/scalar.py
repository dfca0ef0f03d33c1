"""The FP32 scalar unit of the vector engine: an entry per cycle."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.errors import UnmaskError
from unmask.isa.table import INSTRUCTIONS
from unmask.numerics.bf16 import NAN_BITS
from unmask.rtl import bf16, floating, fp32, noise, roots
from unmask.rtl.bits import wire
from unmask.rtl.functions import LEVEL_BITS, WEIGHT_PLACES, weight, weight_level
from unmask.rtl.pipeline import Pipeline, delay
from unmask.rtl.road import LaneOp, Road

SHORT = ("F_FILL", "F_ADD_I", "F_MUL_I", "F_SUB", "F_MUL", "F_LT", "F_FROM_INT", "I_SET_BIT_GT")
LONG = ("F_EXP", "F_RECIP", "F_RSQRT", "F_LOG", "F_UNIFORM", "F_GUMBEL", "F_EXP_WIN", "V_SAMPLE_END")
ScalarOp = IntEnum("ScalarOp", [(row.name, row.opcode) for row in INSTRUCTIONS if row.name in SHORT + LONG])  # type: ignore[misc]
"""The instructions that the unit computes; the values are their opcodes."""

OP_BITS = 8
SHORT_PLACES = 1 + fp32.PLACES + 1
"""Behind the memories that the operands come from, those of a rounded sum, and before the memory that the result goes to."""
_PRODUCT_PLACES = 1 + fp32.PLACES + 1
FUNCTION_PLACES = 1 + roots.RECIPROCAL_PLACES + _PRODUCT_PLACES
"""Of the longest way, V_SAMPLE_END's: a reciprocal and a product, between places as those of `SHORT_PLACES`."""

_EXPONENTIALS = {"F_EXP": "V_EXP", "F_EXP_WIN": "V_EXP_WIN", "V_SAMPLE_END": "V_EXP_WIN"}


@dataclass(frozen=True)
class _Operands:
    """The ports that functions use, behind their first place: see `ScalarUnit`."""

    op: Value
    a: Value
    b: Value
    random: Value
    level: Value


class ScalarUnit(wiring.Component):
    """FP32 words, an operation per cycle; NaN results are 0x7FC00000.

    Ports:
        op: a `ScalarOp`, constant while results are under way.
        a, b: operands, FP32 patterns; of F_FROM_INT the integer a; of F_EXP_WIN a value and the maximum that gives the level of its window;
            of V_SAMPLE_END the picked value and the row's window sum, NaN if the row met a NaN or an infinity.
        immediate: the constant of F_FILL, F_ADD_I, F_MUL_I. random: the 32 random bits of F_UNIFORM and F_GUMBEL.
        level: of the row's window for V_SAMPLE_END, signed; `functions.NO_LEVEL` where there is none.
        result: of one of `SHORT`, `short` cycles later; of F_LT and I_SET_BIT_GT 1 or 0, whether a < b or a > b.
        function_result: of one of `LONG`, `function` cycles later.

    At `SHORT_PLACES` and `FUNCTION_PLACES` registers it is made for 1 GHz in ASAP7.

    Args:
        short, function: registers from the inputs to either result.
        operations: the instructions to build; nothing is built for the others.

    Raises:
        UnmaskError: an operation that the unit does not have.
    """

    def __init__(self, short: int, function: int, operations: Collection[str] = SHORT + LONG) -> None:
        for name in operations:
            if name not in SHORT + LONG:
                raise UnmaskError(f"operation {name}: expected some of {', '.join(SHORT + LONG)}")
        self._short, self._function, self._operations = short, function, frozenset(operations)
        super().__init__(
            {
                "op": In(OP_BITS),
                "a": In(32),
                "b": In(32),
                "immediate": In(32),
                "random": In(32),
                "level": In(signed(LEVEL_BITS)),
                "result": Out(32),
                "function_result": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._operations & frozenset(SHORT):
            m.d.comb += self.result.eq(self._short_result(m))
        if self._operations & frozenset(LONG):
            m.d.comb += self.function_result.eq(self._function_result(m))
        return m

    def _built(self, *names: str) -> bool:
        return any(name in self._operations for name in names)

    def _chosen(self, op: Value, *names: str) -> Value:
        found: Value = Const(0, 1)
        for name in names:
            if self._built(name):
                found = found | (op == ScalarOp[name])
        return found

    def _short_result(self, m: Module) -> Value:
        p = Pipeline(m, SHORT_PLACES, self._short, "short")
        given = wire(m, Mux(self._chosen(self.op, "F_ADD_I", "F_MUL_I", "F_FILL"), self.immediate, self.b))
        groups = (("F_SUB",), ("F_MUL", "F_MUL_I"), ("F_FILL",), ("F_FROM_INT",), ("F_LT", "I_SET_BIT_GT"), ("I_SET_BIT_GT",))
        a, b, *chosen = p.cut(self.a, given, *(wire(m, self._chosen(self.op, *names)) for names in groups))
        subtracts, multiplies, fills, converts, compares, swaps = chosen
        terms = floating.add_terms(m, a, wire(m, Cat(b[:31], b[31] ^ subtracts)))
        if self._built("F_MUL", "F_MUL_I"):
            terms = floating.select(m, multiplies, floating.multiply_terms(m, a, b, apart=True), terms)
        if self._built("F_FILL"):
            terms = floating.select(m, fills, floating.term(m, b), terms)
        if self._built("F_FROM_INT"):
            terms = floating.select(m, converts, _integer_term(m, a), terms)
        below = fp32.less(m, wire(m, Mux(swaps, b, a)), wire(m, Mux(swaps, a, b)))
        result, compares, below = floating.rounded(p, terms, fp32.FRACTION, compares, below, whole=True)
        (result,) = p.cut(wire(m, Mux(compares, below, result)[:32]))
        p.done()
        return result

    def _function_result(self, m: Module) -> Value:
        before = self._function // FUNCTION_PLACES
        p = Pipeline(m, 1, before, "operands")
        given = _Operands(*p.cut(self.op, self.a, self.b, self.random, self.level))
        rest = self._function - before
        last = rest * _PRODUCT_PLACES // (FUNCTION_PLACES - 1) if self._built("V_SAMPLE_END") else 0
        first = rest - last
        weight = self._exponential(m, given, first) if self._built(*_EXPONENTIALS) else Const(0, 32)
        inverse = self._inverse(m, given, first) if self._built("F_RECIP", "V_SAMPLE_END") else Const(0, 32)
        result: Value = Const(0, 32)
        own = {("F_EXP", "F_EXP_WIN"): weight, ("F_RECIP",): inverse, **self._functions(m, given, first)}
        for names, value in own.items():
            result = wire(m, result | (value & wire(m, self._chosen(given.op, *names)).replicate(32)))
        if not self._built("V_SAMPLE_END"):
            return result
        p = Pipeline(m, _PRODUCT_PLACES, last, "confidence")
        ends = wire(m, self._chosen(given.op, "V_SAMPLE_END"))
        ends, result, weight, inverse = p.cut(ends, result, weight, inverse)
        terms = floating.multiply_terms(m, weight, inverse, apart=True)
        product, ends, result = floating.rounded(p, terms, fp32.FRACTION, ends, result, whole=True)
        (result,) = p.cut(wire(m, Mux(ends, product, result)[:32]))
        p.done()
        return result

    def _functions(self, m: Module, given: _Operands, registers: int) -> dict[tuple[str, ...], Value]:
        """The other functions, by the instruction that wants them, `registers` cycles after the operands."""
        found: dict[tuple[str, ...], Value] = {}
        if self._built("F_RSQRT"):
            p = Pipeline(m, roots.RSQRT_PLACES, registers, "rsqrt")
            found["F_RSQRT",] = roots.rsqrt(p, given.a)
        if self._built("F_LOG"):
            p = Pipeline(m, roots.LOG_PLACES, registers, "log")
            found["F_LOG",] = roots.logarithm(p, given.a)
        if self._built("F_UNIFORM"):
            p = Pipeline(m, fp32.PLACES, registers, "uniform")
            found["F_UNIFORM",] = fp32.rounded_fixed(p, Cat(given.random[8:], Const(0, 1)).as_signed(), 24)
        if self._built("F_GUMBEL"):
            found["F_GUMBEL",] = self._gumbel(m, given, registers)
        return found

    def _gumbel(self, m: Module, given: _Operands, registers: int) -> Value:
        before = registers * noise.GUMBEL_FP32_PLACES // (noise.GUMBEL_FP32_PLACES + fp32.PLACES)
        drawn = Pipeline(m, noise.GUMBEL_FP32_PLACES, before, "gumbel")
        value = wire(m, noise.gumbel_fp32(drawn, given.random))
        added = Pipeline(m, fp32.PLACES, registers - before, "gumbel_sum")
        return fp32.add(added, delay(m, given.a, before, "gumbel_a"), value)

    def _exponential(self, m: Module, given: _Operands, registers: int) -> Value:
        """e^a rounded to BF16, or its weight at the window's level, as an FP32 pattern."""
        built = [name for name in _EXPONENTIALS if self._built(name)]
        op: Value = Const(0, len(LaneOp))
        for name in built:
            op = Mux(given.op == ScalarOp[name], int(LaneOp[_EXPONENTIALS[name]]), op)
        # What is no BF16 value, as F_EXP_WIN expects it, is cut off.
        cut = wire(m, Mux(floating.is_nan(m, given.a), NAN_BITS, given.a[16:]))
        x = wire(m, Mux(self._chosen(given.op, "F_EXP"), bf16.round_fp32(m, given.a), cut)[:16])
        operations = frozenset(_EXPONENTIALS[name] for name in built)
        road = Road(m, operations, registers)
        level: Value = Const(0, signed(LEVEL_BITS))
        if "V_EXP_WIN" in operations:
            level = self._window_level(m, given, Road.level_registers(operations, registers))
        return wire(m, fp32.from_bf16(road.result(wire(m, op), x, level)))

    def _window_level(self, m: Module, given: _Operands, registers: int) -> Value:
        """The level of a maximum, or for V_SAMPLE_END that of the row, `registers` cycles after the operands."""
        p = Pipeline(m, WEIGHT_PLACES + 1, registers, "level")
        own: Value = Const(0, signed(LEVEL_BITS))
        if self._built("F_EXP_WIN"):
            found = weight(p, given.b[16:])
            own = weight_level(m, found)
        else:
            for _ in range(WEIGHT_PLACES):
                p.cut()
        (own,) = p.cut(own)
        p.done()
        if not self._built("V_SAMPLE_END"):
            return own
        row = delay(m, given.level, registers, "given_level")
        return wire(m, Mux(self._chosen(given.op, "V_SAMPLE_END"), row, own)[:LEVEL_BITS].as_signed())

    def _inverse(self, m: Module, given: _Operands, registers: int) -> Value:
        """1 / a, or for V_SAMPLE_END the reciprocal of the window sum."""
        p = Pipeline(m, roots.RECIPROCAL_PLACES, registers, "reciprocal")
        x = wire(m, Mux(self._chosen(given.op, "V_SAMPLE_END"), given.b, given.a))
        quotient = wire(m, roots.reciprocal(p, x))
        p.done()
        return quotient


def _integer_term(m: Module, word: Value) -> floating.Terms:
    """A signed 32-bit integer as the only term of a sum."""
    value = fp32.fixed(m, word, 0)
    precision = fp32.PRECISION
    mantissa = Cat(Const(0, 2 * precision - 32), value.mantissa)
    zero = Const(0, 1)
    return floating.wired(m, floating.Terms(value.sign, mantissa, Const(0, 2 * precision), zero, value.exponent, zero, zero))
