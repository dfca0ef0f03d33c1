"""There is one NaN: whatever the processor makes of a payload or of infinities that cancel, words hold 0x7FC00000 or 0x7FC0."""

import numpy as np
import pytest

from unmask.machine.config import Machine
from unmask.machine.semantics import SEMANTICS
from unmask.machine.state import State
from unmask.numerics import window

INFINITIES = np.array([0x7F800000, 0x7F800000, 0xFF800000], np.uint32)
PAYLOADS = np.array([0x7F800001, 0xFFC12345, 0xFF800001], np.uint32)
DST, A, B, COUNT = 8, 0, 4, 3


def state(a: np.ndarray, b: np.ndarray) -> State:
    """With a and b in the float SRAM."""
    result = State(Machine.preset("nano"), 64)
    result.floats[A : A + COUNT], result.floats[B : B + COUNT] = a.view(np.float32), b.view(np.float32)
    return result


@pytest.mark.parametrize(
    ("name", "operands", "a", "b"),
    [
        ("F_FILL", {"value": float("nan")}, INFINITIES, INFINITIES),
        ("F_ADD_I", {"a": A, "value": 1.0}, PAYLOADS, PAYLOADS),
        ("F_MUL_I", {"a": A, "value": 0.0}, INFINITIES, INFINITIES),
        ("F_SUB", {"a": A, "b": B}, INFINITIES, INFINITIES),
        ("F_SUB", {"a": A, "b": B}, PAYLOADS, INFINITIES),
        ("F_MUL", {"a": A, "b": B}, INFINITIES, PAYLOADS),
        ("F_GUMBEL", {"a": A, "seed": 1, "step": 2, "position": 3}, PAYLOADS, PAYLOADS),
        ("F_EXP", {"a": A}, PAYLOADS, PAYLOADS),
        ("F_RECIP", {"a": A}, PAYLOADS, PAYLOADS),
        ("F_EXP_WIN", {"a": A, "f": B}, PAYLOADS, INFINITIES),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_scalar_nan_is_canonical(name: str, operands: dict[str, float], a: np.ndarray, b: np.ndarray) -> None:
    s = state(a, b)
    SEMANTICS[name](s, dst=DST, count=COUNT, **operands)
    assert (s.floats[DST : DST + COUNT].view(np.uint32) == 0x7FC00000).all()


def test_a_confidence_without_terms_is_the_canonical_nan() -> None:
    found = window.confidence(np.full(1, -np.inf, np.float32), window.empty(1))
    assert found.view(np.uint32) == 0x7FC00000


@pytest.mark.parametrize(("name", "operands"), [("V_FILL", {"value": float("nan")}), ("V_CUT", {"a": 0, "key": 0, "a_stride": 1})])
def test_a_nan_that_a_lane_passes_on_is_canonical(name: str, operands: dict[str, float]) -> None:
    s = State(Machine.preset("nano"), 64)
    s.vector[:32] = np.full(32, 0xFFC10000, np.uint32).view(np.float32)
    SEMANTICS[name](s, dst=64, rows=1, cols=32, dst_stride=1, **operands)
    assert (s.vector[64:96].view(np.uint32) == 0x7FC00000).all()
