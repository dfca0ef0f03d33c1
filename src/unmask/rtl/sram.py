"""On-chip memories: banks of a granule each, with their own row addresses, behind rotation networks.

One class serves all: the vector SRAM (BF16 elements, ports of many elements from any multiple of the granule), the integer SRAM (INT32
words, granule 1, wide and single-word ports), the float SRAM (FP32 words, single-word ports).
"""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError


def rotate(m: Module, value: Value, amount: Value, step: int, name: str) -> Value:
    """`value` rotated left by `amount` steps of `step` bits, one layer of multiplexers per bit of `amount`.

    The number of steps in `value` is a power of two.
    """
    for bit in range(len(amount)):
        turned = value.rotate_left((step << bit) % len(value)) if len(value) > step else value
        layer = Signal(len(value), name=f"{name}_{bit}")
        m.d.comb += layer.eq(Mux(amount[bit], turned, value))
        value = layer
    return value


class SramRead(Signature):
    """A read port as the memory's user sees it.

    Members:
        enable: read; the data stays while it is low.
        address: of the first word, in granules.
        data: `lanes` consecutive words, one cycle after `enable`.
    """

    def __init__(self, address_bits: int, bits: int, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({"enable": Out(1), "address": Out(address_bits), "data": In(data.ArrayLayout(unsigned(bits), lanes))})


class SramWrite(Signature):
    """A write port as the memory's user sees it.

    Members:
        address: of the first word, in granules.
        mask: the words that are written; none: nothing happens.
        data: `lanes` consecutive words.
    """

    def __init__(self, address_bits: int, bits: int, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({"address": Out(address_bits), "mask": Out(lanes), "data": Out(data.ArrayLayout(unsigned(bits), lanes))})


class Sram(wiring.Component):
    """A memory of `words` words of `bits` bits, with any number of ports.

    Row r of bank b holds the words of granule r * banks + b. Each port is one port of every bank, so that all ports work in every cycle.
    Reading what another port writes in the same cycle gives the old value, or anything of a macro: no legal program does it. Nor does the
    memory check addresses: beyond the end they wrap; its users check theirs.

    With `black_box` each bank is an instance of a macro `unmask_sram_<rows>x<bits>_<R>r<W>w`, `<bits>` being those of a granule, with ports
    `clk`; per read port i `r<i>_en`, `r<i>_addr`, `r<i>_data` (one cycle later, kept while not enabled); per write port i `w<i>_addr`,
    `w<i>_mask` (a bit per word of the granule), `w<i>_data`. `depth_banks` splits each bank's rows among as many memories or macros, by the
    high bits of the row's address.

    Attributes:
        one `SramRead` or `SramWrite` per port, under the names that were given.
    """

    def __init__(
        self,
        words: int,
        bits: int,
        *,
        granule: int = 1,
        width: int = 1,
        reads: Mapping[str, int],
        writes: Mapping[str, int],
        depth_banks: int = 1,
        black_box: bool = False,
    ) -> None:
        """Size it.

        Args:
            words: capacity, rounded up to whole rows of all banks.
            bits: of a word.
            granule: words of a bank's row: every address is a multiple of it.
            width: words of all banks' rows together, a power of two times the granule.
            reads, writes: the ports' names and how many consecutive words each has: at most `width`.
            depth_banks: memories that a bank's rows are split among, a power of two.

        Raises:
            UnmaskError: sizes that do not fit each other.
        """
        banks = width // granule
        if width % granule or banks & (banks - 1):
            raise UnmaskError(f"a memory {width} words wide in banks of {granule}: expected a power of two of banks")
        for name, lanes in {**reads, **writes}.items():
            if not 1 <= lanes <= width:
                raise UnmaskError(f"port {name} of {lanes} words: expected 1 to {width}, the width of the memory")
        self.words, self.bits, self.granule, self.banks, self.black_box = words, bits, granule, banks, black_box
        self.rows = -(-words // width)
        if depth_banks & (depth_banks - 1) or not 1 <= depth_banks <= self.rows:
            raise UnmaskError(f"{depth_banks} depth banks of {self.rows} rows: expected a power of two from 1 to {self.rows}")
        self.depth_banks = depth_banks
        self.row_bits, self.bank_bits = ceil_log2(self.rows), ceil_log2(banks)
        address_bits = self.row_bits + self.bank_bits
        self.reads, self.writes = dict(reads), dict(writes)
        super().__init__(
            {name: In(SramRead(address_bits, bits, lanes)) for name, lanes in reads.items()}
            | {name: In(SramWrite(address_bits, bits, lanes)) for name, lanes in writes.items()}
        )

    def _rows_of(self, m: Module, address: Value, name: str) -> list[Value]:
        """Each bank's row: banks before the first word's hold the next row's words."""
        row, bank = address[self.bank_bits :], address[: self.bank_bits]
        following = Signal(self.row_bits, name=f"{name}_following")
        m.d.comb += following.eq(row + 1)
        return [Mux(bank > index, following, row) for index in range(self.banks)]

    def _bank(self, m: Module, index: int) -> tuple[list[ReadPort], list[WritePort]]:
        """Bank number `index`: its ports as the memory sees them, in the order of the names."""
        if self.depth_banks == 1:
            return self._macro(m, f"bank{index}", self.rows)
        reads, writes = self._ports(self.row_bits)
        low = self.row_bits - ceil_log2(self.depth_banks)
        held = [Signal(self.row_bits - low, name=f"bank{index}_read{number}") for number in range(len(reads))]
        for read, last in zip(reads, held, strict=True):
            with m.If(read.en):
                m.d.sync += last.eq(read.addr[low:])
        for part in range(-(-self.rows >> low)):
            inner = self._macro(m, f"bank{index}_{part}", min(1 << low, self.rows - (part << low)))
            for read, last, port in zip(reads, held, inner[0], strict=True):
                m.d.comb += [port.addr.eq(read.addr[:low]), port.en.eq(read.en & (read.addr[low:] == part))]
                with m.If(last == part):
                    m.d.comb += read.data.eq(port.data)
            for write, port in zip(writes, inner[1], strict=True):
                chosen = write.addr[low:] == part
                m.d.comb += [port.addr.eq(write.addr[:low]), port.data.eq(write.data), port.en.eq(Mux(chosen, write.en, 0))]
        return reads, writes

    def _ports(self, row_bits: int) -> tuple[list[ReadPort], list[WritePort]]:
        """Ports of a bank, not connected to anything."""
        shape = unsigned(self.granule * self.bits)
        reads = [ReadPort.Signature(addr_width=row_bits, shape=shape).create() for _ in self.reads]
        signature = WritePort.Signature(addr_width=row_bits, shape=shape, granularity=self.bits)
        return reads, [signature.create() for _ in self.writes]

    def _macro(self, m: Module, name: str, rows: int) -> tuple[list[ReadPort], list[WritePort]]:
        """A memory, or a macro, of granules: its ports."""
        word_bits = self.granule * self.bits
        if not self.black_box:
            memory = m.submodules[name] = Memory(shape=unsigned(word_bits), depth=rows, init=[])
            return [memory.read_port() for _ in self.reads], [memory.write_port(granularity=self.bits) for _ in self.writes]
        reads, writes = self._ports(ceil_log2(rows))
        ports: dict[str, Value] = {"i_clk": ClockSignal()}
        for number, read in enumerate(reads):
            ports |= {f"i_r{number}_en": read.en, f"i_r{number}_addr": read.addr, f"o_r{number}_data": read.data}
        for number, write in enumerate(writes):
            ports |= {f"i_w{number}_mask": write.en, f"i_w{number}_addr": write.addr, f"i_w{number}_data": write.data}
        m.submodules[name] = Instance(f"unmask_sram_{rows}x{word_bits}_{len(reads)}r{len(writes)}w", **ports)
        return reads, writes

    def elaborate(self, platform: object) -> Module:
        """Banks, and a rotation network per port."""
        m = Module()
        banks = [self._bank(m, index) for index in range(self.banks)]
        step = self.granule * self.bits
        for number, name in enumerate(self.reads):
            port = getattr(self, name)
            used = -(-port.signature.lanes // self.granule)
            first = port.address[: self.bank_bits]
            rows = self._rows_of(m, port.address, name)
            held = Signal(self.bank_bits, name=f"{name}_first")
            with m.If(port.enable):
                m.d.sync += held.eq(first)
            for index, (reads, _) in enumerate(banks):
                inside = (Const(index, len(first)) - first)[: self.bank_bits] < used if used < self.banks else 1
                m.d.comb += [reads[number].addr.eq(rows[index]), reads[number].en.eq(port.enable & inside)]
            together = Cat(reads[number].data for reads, _ in banks)
            turned = rotate(m, together, (-held)[: self.bank_bits], step, f"{name}_rotated")
            m.d.comb += port.data.eq(turned)
        for number, name in enumerate(self.writes):
            port = getattr(self, name)
            first = port.address[: self.bank_bits]
            rows = self._rows_of(m, port.address, name)
            missing = self.banks * self.granule - port.signature.lanes
            mask = rotate(m, Cat(port.mask, Const(0, missing)), first, self.granule, f"{name}_mask")
            words = rotate(m, Cat(port.data, Const(0, missing * self.bits)), first, step, f"{name}_words")
            for index, (_, writes) in enumerate(banks):
                m.d.comb += [
                    writes[number].addr.eq(rows[index]),
                    writes[number].en.eq(mask.word_select(index, self.granule)),
                    writes[number].data.eq(words.word_select(index, step)),
                ]
        return m
