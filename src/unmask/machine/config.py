"""The machine: one configuration object that compiler, simulators and RTL read."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from unmask.errors import UnmaskError
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.machine.memory import Hbm, Part, Positive
from unmask.numerics import mx


def _known_format(name: str) -> str:
    if name not in mx.FORMATS:
        raise ValueError(f"unknown MX format {name!r}: expected one of {', '.join(mx.FORMATS)}")
    return name


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"{value} is not a power of two")
    return value


def _known_format_or_bf16(name: str) -> str:
    return name if name == BF16 else _known_format(name)


BF16 = "bf16"
MATRIX_FORMATS = 2
"""How many of `Formats.stored` the matrix engine knows: weights and KV cache."""
MxName = Annotated[str, AfterValidator(_known_format)]
PowerOfTwo = Annotated[Positive, AfterValidator(_power_of_two)]
Smoothing = Literal["none", "tensor", "static", "baos", "baos-bf16"]
"""What K and V are divided by before they are packed; `unmask.quant.smoothing` has the methods."""
SoftmaxSums = Literal["lanes", "array"]
"""What adds up a row's exponentials in attention: the vector engine, as they are, or the array by a product with ones, as it quantizes them
to multiply them by V."""


class MatrixEngine(Part):
    """Flattened systolic array: `rows` rows of `mlen / blen` output-stationary sub-arrays of `blen` x `blen`.

    A row of sub-arrays takes one `mlen`-wide vector from either side per cycle and finishes a `blen` x `blen` tile over `mlen` values of K
    in `blen` cycles; K is split across its sub-arrays and one adder tree sums them.
    """

    blen: Positive
    mlen: Positive
    rows: Positive
    latency: Positive = Field(description="cycles from the last operand to the last result: skew of the sub-arrays excluded")

    @model_validator(mode="after")
    def _divides(self) -> MatrixEngine:
        if self.mlen % self.blen:
            raise ValueError(f"mlen {self.mlen} is not a multiple of blen {self.blen}")
        return self


class VectorEngine(Part):
    """`vlen` BF16 lanes; latencies in cycles."""

    vlen: PowerOfTwo
    granule: Annotated[PowerOfTwo, Field(le=STRIDE_UNIT)] = Field(
        description="elements: every address in the vector SRAM is a multiple of it, so that no operand is shifted by less"
    )
    latency: Positive = Field(description="add, subtract, multiply, fill, integer operations")
    function_latency: Positive = Field(description="exp, SiLU, reciprocal")
    noise_latency: Positive = Field(description="Gumbel noise and the sum it is added to")
    reduce_latency: Positive = Field(description="reduction trees")
    scalar_latency: Positive = Field(description="FP32 add, subtract, multiply")
    scalar_function_latency: Positive = Field(description="FP32 reciprocal, reciprocal square root, exp")
    scalar_interval: Positive = Field(description="cycles between two scalar functions: the divider is not pipelined")
    integer_lanes: PowerOfTwo = Field(description="INT32 words per cycle of the integer unit")
    accumulators: Positive = Field(description="row accumulators, the most rows that one reduction may have")
    sorter: Positive = Field(description="entries of the top-k unit, the most scores that one mask of the best may have")

    @model_validator(mode="after")
    def _granules_fill_vectors(self) -> VectorEngine:
        if self.granule > self.vlen:
            raise ValueError(f"granule {self.granule} exceeds vlen {self.vlen}")
        return self


PORT_USERS: dict[str, tuple[Engine, ...]] = {
    "vector": (Engine.LOAD, Engine.STORE, Engine.MATRIX, Engine.VECTOR),
    "matrix": (Engine.LOAD, Engine.MATRIX),
    "integer": (Engine.LOAD, Engine.STORE, Engine.VECTOR),
}
"""The engines whose instructions touch an on-chip memory. The float SRAM has one, the vector engine; S_LD has a port of its own."""


def _ports(memory: str) -> Any:
    users = len(PORT_USERS[memory])
    return Field(default=users, ge=1, le=users, description=f"engines that may use it at once; {users}: none ever waits")


Banks = Annotated[PowerOfTwo, Field(le=1024, description="macros that the depth is split into")]


class Sram(Part):
    """Capacities, banks and ports of the on-chip memories."""

    vector_kib: Positive = Field(description="BF16 activations")
    matrix_kib: Positive = Field(description="MX elements and scales together")
    float_words: Positive = Field(description="FP32 scalars")
    integer_words: Positive = Field(description="INT32 words")
    vector_banks: Banks = 1
    matrix_banks: Banks = 1
    float_banks: Banks = 1
    integer_banks: Banks = 1
    vector_ports: int = _ports("vector")
    matrix_ports: int = _ports("matrix")
    integer_ports: int = _ports("integer")

    @property
    def scarce_ports(self) -> dict[str, int]:
        """Ports of the memories that have fewer than engines that use them."""
        found: dict[str, int] = {memory: getattr(self, f"{memory}_ports") for memory in PORT_USERS}
        return {memory: ports for memory, ports in found.items() if ports < len(PORT_USERS[memory])}


class Sequencer(Part):
    """Queues, loops and the instruction memory."""

    queue_depth: Positive = Field(description="instructions that wait before each engine")
    loop_depth: Positive = Field(description="nested hardware loops")
    program_words: Positive = Field(description="capacity of the instruction memory: of a program's longest entry, 128 bits each")
    dispatch_latency: Positive = Field(
        default=1, description="cycles from an instruction's dispatch to the first in which its engine may start it"
    )


class Formats(Part):
    """Element formats of the matrix engine's operands and of the logits in HBM; everything else is BF16, FP32 scalars, INT32."""

    weights: MxName
    activations: MxName
    kv: MxName
    logits: Annotated[str, AfterValidator(_known_format_or_bf16)] = BF16
    smoothing: Smoothing = "none"
    softmax_sums: SoftmaxSums = "lanes"

    @property
    def stored(self) -> tuple[str, ...]:
        """The MX formats that the operand `format` of a load or a store numbers: weights, KV cache and, unless they are BF16, logits."""
        return (self.weights, self.kv) if self.logits == BF16 else (self.weights, self.kv, self.logits)


class Gpu(Part):
    """The GPU that a machine is set against, from its vendor's data sheet; for the reader alone."""

    name: str
    bf16_tflops: Annotated[float, Field(gt=0)] = Field(description="dense BF16 tensor TFLOP/s")
    memory_gbps: Annotated[float, Field(gt=0)] = Field(description="GB/s")
    area_mm2: Annotated[float, Field(gt=0)] = Field(description="die, mm2")
    power_w: Annotated[float, Field(gt=0)] = Field(description="board power, W")


class Machine(Part):
    """A complete machine description."""

    name: str
    description: str = ""
    gpu: Gpu | None = None
    clock_ghz: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    matrix: MatrixEngine
    vector: VectorEngine
    sram: Sram
    hbm: Hbm
    sequencer: Sequencer
    formats: Formats

    @property
    def peak_multiplies(self) -> int:
        """Element products per cycle of a busy matrix engine: each sub-array finishes blen x blen over blen values of K in blen cycles."""
        return self.matrix.rows * self.matrix.mlen * self.matrix.blen

    @property
    def peak_tops(self) -> float:
        """10^12 operations per second of a busy matrix engine on MX operands, a multiplication and an addition per product."""
        return 2 * self.peak_multiplies * self.clock_ghz / 1000

    @property
    def memory_gbps(self) -> float:
        """GB/s of the memory, as its data sheet has it; of each direction's port if it is ideal."""
        return self.hbm.peak_gbps(self.clock_ghz)

    @property
    def vector_elements(self) -> int:
        """Capacity of the vector SRAM, BF16 elements."""
        return self.sram.vector_kib * 1024 // 2

    def matrix_blocks(self, element_bits: int) -> int:
        """Capacity of the matrix SRAM, MX blocks of 32 elements of `element_bits` bits and one scale byte."""
        return self.sram.matrix_kib * 1024 // (4 * element_bits + 1)

    def with_formats(self, **formats: str) -> Machine:
        """The same machine with some fields of `formats` replaced.

        Raises:
            UnmaskError: an unknown field or format.
        """
        try:
            return self.model_copy(update={"formats": Formats.model_validate({**self.formats.model_dump(), **formats})})
        except ValidationError as error:
            first = error.errors()[0]
            raise UnmaskError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None

    @classmethod
    def preset(cls, name: str) -> Machine:
        """A machine that ships with unmask.

        Raises:
            UnmaskError: no such preset; the message lists those there are.
        """
        if name not in presets():
            raise UnmaskError(f"unknown machine {name!r}: expected one of {', '.join(presets())}, or the path of a .toml file")
        return _parse((_preset_folder() / f"{name}.toml").read_text("utf-8"), f"preset {name}")

    @classmethod
    def load(cls, name: str) -> Machine:
        """A preset by its name, or a machine file by its path.

        Raises:
            UnmaskError: no such preset or file, or a file that does not describe a machine.
        """
        if not name.endswith(".toml"):
            return cls.preset(name)
        try:
            return _parse(Path(name).read_text("utf-8"), name)
        except OSError as error:
            raise UnmaskError(f"{name}: cannot read the machine file: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UnmaskError(f"{name}: not a text file") from None


def _preset_folder() -> resources.abc.Traversable:
    return resources.files("unmask.machine") / "presets"


def presets() -> list[str]:
    """Names of the machines that ship with unmask."""
    return sorted(entry.name.removesuffix(".toml") for entry in _preset_folder().iterdir() if entry.name.endswith(".toml"))


def _parse(text: str, source: str) -> Machine:
    try:
        return Machine.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UnmaskError(f"{source}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UnmaskError(f"{source}: {'.'.join(map(str, first['loc'])) or 'machine'}: {first['msg']}") from None
