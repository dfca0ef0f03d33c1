"""The whole NPU in RTL, instruction by instruction: matrix programs by hand, random programs, and denoising steps of a network."""

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble
from unmask.isa.program import Program, Region
from unmask.machine.config import Machine
from unmask.rtl.lockstep import Case, run
from unmask.rtl.lockstep.machines import bench_machine
from unmask.rtl.npu import Npu

TINY = bench_machine(Machine.preset("rtl-tiny"))
BY_HAND = """
S_LI rd=r1 value=0
S_LI rd=r2 value=4096
S_LI rd=r3 value=12288
S_LI rd=r4 value=1536
S_LI rd=r5 value=2560
S_LI rd=r6 value=14000
S_LI rd=r7 value=512
L_VEC dst=r1 src=r1 rows=11 cols=70 dst_stride=3 src_stride=192 signal=0
L_MAT dst=r1 src=r2 scales=r3 rows=40 cols=70 src_stride=3 format=0 signal=1
L_MAT dst=r7 src=r2 scales=r3 rows=70 cols=33 src_stride=2 format=1 signal=2
M_MM dst=r4 a=r1 b=r1 m=11 n=40 k=70 dst_stride=2 a_stride=3 transposed=0 format=0 wait=0,1 signal=3
M_MM dst=r5 a=r1 b=r7 m=11 n=33 k=70 dst_stride=2 a_stride=3 transposed=1 format=1 wait=2 signal=4
SYNC engine=3 signal=5
V_ADD dst=r4 a=r4 b=r5 rows=11 cols=33 dst_stride=2 a_stride=2 b_stride=2 wait=3,4 signal=6
ST_VEC src=r4 dst=r6 rows=11 cols=40 src_stride=2 dst_stride=80 wait=5,6
HALT
"""


def by_hand() -> Program:
    words = assemble(BY_HAND)
    rng = np.random.default_rng(1)
    image = np.zeros(1 << 14, np.uint8)
    values = (rng.normal(0, 1, 2048).astype(np.float32).view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    image[: values.size] = values
    image[4096:12288] = rng.integers(0, 256, 8192)
    image[12288:14000] = rng.integers(122, 132, 14000 - 12288)
    return Program(words, ["test"] * len(words), image.size, {"hbm": Region(0, image.size)}, {"hbm": image}, TINY.model_dump())


def test_products_by_hand():
    result = run([Case(by_hand())], TINY, "npu")
    assert result.details == []
    assert result.passed


@pytest.mark.parametrize(("field", "value"), [("mlen", 48), ("latency", 1)])
def test_an_array_that_cannot_be_built_is_refused(field, value):
    with pytest.raises(UnmaskError, match=f"matrix.{field} {value}"):
        Npu(TINY.model_copy(update={"matrix": TINY.matrix.model_copy(update={field: value})}))
