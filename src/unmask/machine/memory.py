"""What is behind the DMA engines: ideal memory, or DRAM of channels, banks and rows with the timings of a public data sheet."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

Positive = Annotated[int, Field(gt=0, le=2**20)]
Nanoseconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
IDEAL = "ideal"


class Part(BaseModel):
    """A part of a machine: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ideal(Part):
    """Bandwidth and latency only, with nothing between requests; the load and the store engine have a port each."""

    device: Literal["ideal"] = "ideal"
    gib: Positive
    bytes_per_cycle: Positive = Field(description="of each port, at the machine's clock")
    latency: Positive = Field(description="cycles from the request of a beat to its arrival")
    beat_bytes: Positive = Field(description="a range is as many aligned beats as it touches")

    def peak_gbps(self, clock_ghz: float) -> float:
        """GB/s of each port."""
        return self.bytes_per_cycle * clock_ghz


class Device(Part):
    """One stack, chip or package of DRAM. Times in nanoseconds; `machine/memories/*.toml` cite where the figures come from.

    Consecutive bursts of a row follow each other at the bus's rate: the banks of a channel stand for those of all bank groups, over which a
    controller spreads a stream.
    """

    title: str
    gib: Positive
    channels: Positive = Field(description="independent channels, or pseudo-channels where the standard has them")
    pin_gbps: Annotated[float, Field(gt=0, le=100)] = Field(description="Gb/s of a data pin")
    bits: Positive = Field(description="data pins of a channel")
    burst_bytes: Positive = Field(description="of one column command")
    banks: Positive = Field(description="of a channel")
    row_bytes: Positive = Field(description="of an open row (page)")
    trcd: Nanoseconds = Field(description="activate to column command")
    trp: Nanoseconds = Field(description="precharge to activate")
    tcl: Nanoseconds = Field(description="column command to data, of reads and writes")
    tras: Nanoseconds = Field(description="activate to precharge")
    twr: Nanoseconds = Field(description="end of a write's data to precharge")
    twtr: Nanoseconds = Field(description="end of a write's data to a read's, and the other way")
    trrd: Nanoseconds = Field(description="activate to activate in a channel: tRRD, or tFAW / 4 where that is longer")
    tccd: Nanoseconds = Field(description="column command to column command")
    trefi: Nanoseconds = Field(description="between refreshes of a bank")
    trfc: Nanoseconds = Field(description="a refresh of all banks of a channel")
    trfc_bank: Nanoseconds = Field(description="a refresh of one bank")

    @property
    def channel_gbps(self) -> float:
        """GB/s of a channel's pins."""
        return self.pin_gbps * self.bits / 8

    @model_validator(mode="after")
    def _refresh_leaves_time(self) -> Device:
        row = max(self.row_bytes / self.channel_gbps, self.row_bytes / self.burst_bytes * self.tccd)
        if self.trefi < 2 * (self.trfc + self.trp + self.trcd + self.tcl + row):
            raise ValueError("trefi leaves no time between two refreshes")
        return self


def _folder() -> resources.abc.Traversable:
    return resources.files("unmask.machine") / "memories"


def devices() -> list[str]:
    """Names of the memory devices that ship with unmask."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


@cache
def _figures(name: str) -> dict[str, Any]:
    return tomllib.loads((_folder() / f"{name}.toml").read_text("utf-8"))


class Dram(Part):
    """DRAM, with the path to it; addresses go around the channels in pieces of `interleave_bytes`."""

    device: str = Field(description="a file of machine/memories")
    devices: Positive = Field(description="how many: stacks, chips or packages")
    interleave_bytes: Positive = Field(description="consecutive bytes in one channel")
    refresh: Literal["bank", "all"] = Field(description="bank: each bank while it is closed; all: the whole channel every trefi")
    latency: Positive = Field(description="cycles from an engine to the memory's controller and back")
    ports: Positive = Field(description="AXI ports of each DMA engine: beats per cycle")
    beat_bytes: Positive = Field(description="width of a port")
    burst_beats: Positive = Field(description="longest AXI burst; bursts do not cross multiples of their size")
    outstanding_reads: Positive = Field(description="bursts of the load engine under way, per port")
    outstanding_writes: Positive = Field(description="bursts of the store engine under way, per port")
    overrides: dict[str, float] = Field(default={}, description="figures of the device to replace")

    @model_validator(mode="after")
    def _is_known(self) -> Dram:
        if self.device not in devices():
            raise ValueError(f"unknown memory device {self.device!r}: expected one of {', '.join([IDEAL, *devices()])}")
        if unknown := sorted(self.overrides.keys() - Device.model_fields.keys()):
            raise ValueError(f"overrides: unknown figure {unknown[0]!r}")
        try:
            figures = self.figures
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"overrides: {'.'.join(map(str, first['loc'])) or self.device}: {first['msg']}") from None
        if self.interleave_bytes % figures.burst_bytes or figures.row_bytes % self.interleave_bytes:
            raise ValueError(
                f"interleave_bytes {self.interleave_bytes}: expected a multiple of {figures.burst_bytes} dividing {figures.row_bytes}"
            )
        return self

    @property
    def figures(self) -> Device:
        """The device's figures, overrides applied."""
        return Device.model_validate(_figures(self.device) | self.overrides)

    @property
    def gib(self) -> int:
        """Capacity, GiB."""
        return self.devices * self.figures.gib

    def peak_gbps(self, clock_ghz: float) -> float:
        """GB/s of all data pins, as the data sheet has it."""
        figures = self.figures
        return self.devices * figures.channels * figures.channel_gbps


def _kind(value: Any) -> str:
    name = value.get("device", IDEAL) if isinstance(value, dict) else getattr(value, "device", IDEAL)
    return IDEAL if name == IDEAL else "dram"


Hbm = Annotated[Annotated[Ideal, Tag(IDEAL)] | Annotated[Dram, Tag("dram")], Discriminator(_kind)]
"""The memory of a machine: `Ideal` where `device` is "ideal" or missing."""
