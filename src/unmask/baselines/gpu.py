"""A GPU: its vendor's data sheet, and the coefficients that say how much of it PyTorch's kernels get."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmask.errors import UnmaskError

Quantity = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Microseconds = Annotated[float, Field(ge=0, le=1e4)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stream(_Part):
    """Kernels that pass over tensors once: element-wise, reductions, gathers. Shares are of the data sheet's memory bandwidth."""

    element_us: Microseconds = Field(description="shortest element-wise kernel")
    reduce_us: Microseconds = Field(description="shortest reduction over rows")
    gather_us: Microseconds = Field(description="a row of a gather of 16 rows or fewer, which go one after the other")
    dram: Share = Field(description="sustained share of the bandwidth, whole tensors in order")
    strided: Share = Field(description="share of the bandwidth where a tensor is read across its rows")
    gather: Share = Field(description="share of the bandwidth in gathers of rows")
    l2: Quantity = Field(description="bandwidth of the second-level cache over that of the memory")
    l2_share: Quantity = Field(description="share of the cache up to which a kernel's tensors stay in it")


class Gemm(_Part):
    """Matrix products. `tiles` gives, by rows x columns of a thread block's tile, its time over that of an ideal tile."""

    fixed_us: Microseconds = Field(description="shortest kernel")
    dram: Share = Field(description="sustained share of the memory's bandwidth")
    math: Share = Field(description="share of the tensor peak of one multiprocessor, others idle")
    droop: Annotated[float, Field(ge=0, lt=1)] = Field(description="loss of clock with every multiprocessor busy")
    overlap: Annotated[float, Field(ge=1, le=100)] = Field(description="norm that joins arithmetic and memory time; high: perfect overlap")
    split_k: Quantity = Field(description="bandwidth of the sum of partial products over that of the memory")
    tiles: dict[str, Quantity]
    narrow_tiles: dict[str, Quantity] = Field(description="further tiles, of kernels for weights of fewer bits; an assumption")


class Attention(_Part):
    """The fused kernel behind `scaled_dot_product_attention` (Dao, arXiv 2307.08691)."""

    fixed_us: Microseconds = Field(description="shortest kernel")
    math: Share = Field(description="share of the tensor peak of one multiprocessor")
    block_us: Microseconds = Field(description="start and end of a thread block")
    rows: Annotated[int, Field(gt=0)] = Field(description="query rows of a thread block, no mask")
    causal_rows: Annotated[int, Field(gt=0)] = Field(description="query rows, and keys of a tile, under a causal mask")


class Host(_Part):
    """What the processor that launches kernels costs; an assumption, not a fit."""

    launch_us: Microseconds = Field(description="between two launches of eager PyTorch")
    gap_us: Microseconds = Field(description="between two kernels in a queue")


class Fit(_Part):
    """Coefficients and where they come from."""

    source: str
    command: str
    stream: Stream
    gemm: Gemm
    attention: Attention
    host: Host
    memory_power: Share = Field(description="power above idle of a kernel that saturates the memory, over that of one at the board's limit")


class Gpu(_Part):
    """One GPU. TFLOP/s are dense; bandwidth in GB/s of 10^9 bytes."""

    name: str
    description: str
    process: str
    sources: tuple[str, ...]
    area_mm2: Quantity
    multiprocessors: Annotated[int, Field(gt=0)]
    l2_mib: Quantity
    memory_gbps: Quantity
    memory_gib: Quantity
    bf16_tflops: Quantity = Field(description="tensor cores, BF16 in, FP32 sums")
    fp32_tflops: Quantity
    fp64_tflops: Quantity = Field(description="without tensor cores")
    board_w: Quantity = Field(description="board power limit")
    idle_w: Quantity = Field(description="board power with clocks up and nothing running; an assumption")
    fit: Fit

    @classmethod
    def load(cls, name: str) -> Gpu:
        """A GPU that ships, by its name, or one's own data sheet by the path of a .toml file.

        In a file, `like = "a6000"` takes over that GPU's coefficients, which are shares of peaks; a table `[fit]` changes some of them.

        Raises:
            UnmaskError: no such GPU or file, or a file that does not describe a GPU.
        """
        return _parse(_tables(name), name)


def gpus() -> list[str]:
    """Names of the GPUs that ship."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def _folder() -> resources.abc.Traversable:
    return resources.files("unmask.baselines") / "gpus"


def _tables(name: str) -> dict[str, Any]:
    """The tables of a GPU's file, with those of the GPU that it is like beneath."""
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text("utf-8")
        except OSError as error:
            raise UnmaskError(f"{name}: cannot read the GPU's file: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UnmaskError(f"{name}: not a text file") from None
    elif name in gpus():
        text = (_folder() / f"{name}.toml").read_text("utf-8")
    else:
        raise UnmaskError(f"unknown GPU {name!r}: expected one of {', '.join(gpus())}, or the path of a .toml file")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnmaskError(f"{name}: not TOML: {error}") from None
    like = tables.pop("like", None)
    if like is None:
        return tables
    if like not in gpus() or like == name:
        raise UnmaskError(f"{name}: like is {like!r}; expected one of {', '.join(other for other in gpus() if other != name)}")
    return {**tables, "fit": _over(_tables(like)["fit"], tables.get("fit", {}))}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with what `above` changes, table by table."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
    return merged


def _parse(tables: dict[str, Any], source: str) -> Gpu:
    try:
        return Gpu.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnmaskError(f"{source}: {'.'.join(map(str, first['loc'])) or 'gpu'}: {first['msg']}") from None
