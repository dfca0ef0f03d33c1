"""A design as blocks: which modules of its RTLIL are the same, which are kept apart in synthesis, and which are memory macros.

Amaranth writes one module per instance. Equal ones are found by their text, so that each is synthesized once however often it stands in
the design; small ones that stand there once are left to be flattened into the module around them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from amaranth.back import rtlil
from amaranth.lib import wiring

from unmask.errors import UnmaskError
from unmask.rtl.once import once_each

_MODULE = re.compile(r"^module \\(\S+)$\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_INSTANCE = re.compile(r"^(  cell )\\(\S+) ", re.MULTILINE)
_INSTANCE_CELL = re.compile(r"^  cell \\(\S+) .*?^  end\n", re.MULTILINE | re.DOTALL)
# A port that Amaranth makes for a value of another module, called after the value's number in the whole design.
_CROSSING = re.compile(r"\\port\$\d+\$\d+")
_CONNECTED = re.compile(rf"^    connect ({_CROSSING.pattern}) ", re.MULTILINE)
_WIRE = re.compile(r"^(?:  attribute [^\n]*\n)*  wire [^\n]*\n", re.MULTILINE)
_MEMORY = re.compile(r"^  memory width (\d+) size (\d+)", re.MULTILINE)
# A memory macro, as `unmask.rtl.sram` names it, and what yosys must know of its ports.
_MACRO = re.compile(r"unmask_sram_(\d+)x(\d+)_\d+r\d+w")
MACRO_PORTS = "hierarchy -generate unmask_sram_* o:r*_data i:*"

_MEMORY_CELL = re.compile(r"^  cell \$(meminit|memrd|memwr)_v2 .*?^  end\n", re.MULTILINE | re.DOTALL)

# Bits of memory that are mapped to flip-flops, at most; a larger one is a macro.
MOST_BITS = 512
# Cells of RTLIL (an adder is one) from which on a module that stands in the design once is synthesized by itself.
LARGE = 120


@dataclass
class Block:
    """A module, equal ones being one block.

    Attributes:
        name: a short name, unique in the design.
        text: of the module in RTLIL, the names of its children replaced by those of their blocks; empty for a macro.
        children: blocks of its instances, by name, with their number.
    """

    name: str
    text: str
    children: Counter[str] = field(default_factory=Counter)

    @cached_property
    def memory_bits(self) -> int:
        """Of the memory that it infers, or is."""
        macro = _MACRO.fullmatch(self.name)
        memories = [(macro[1], macro[2])] if macro else _MEMORY.findall(self.text)
        return sum(int(width) * int(size) for width, size in memories)

    @cached_property
    def cells(self) -> int:
        """RTLIL cells of the module itself."""
        return len(re.findall(r"^  (?:cell|process) ", self.text, re.MULTILINE))

    @property
    def macro(self) -> bool:
        """Whether it is a memory macro."""
        return not self.text


def rtlil_of(component: wiring.Component, name: str, apart: Collection[wiring.Component] = ()) -> str:
    """RTLIL of a component, its large memories being macros, what stands in it many times, and what is set apart, being converted once."""
    with once_each(component, apart=apart) as repeated:
        text = str(rtlil.convert(component, name=name, emit_src=False))
    return _MODULE.sub(_with_macros, "\n".join([*repeated.values(), text]))


def _with_macros(module: re.Match[str]) -> str:
    """A module, a macro in place of each large memory that it infers; a bit of the mask for each bit of the data.

    A read port without a clock has no enable; one that sees what is written in the same cycle has one named `en_through`.
    """
    text = module[0]
    for width, size, memory in re.findall(r"^  memory width (\d+) size (\d+) \\(\S+)$\n", text, re.MULTILINE):
        if int(width) * int(size) <= MOST_BITS:
            continue
        cells = [cell for cell in _MEMORY_CELL.finditer(text) if f'\\MEMID "\\\\{memory}"' in cell[0]]
        connections = ["    connect \\clk \\clk [0]\n"]
        counts = Counter(cell[1] for cell in cells)
        for kind, letter in (("memrd", "r"), ("memwr", "w")):
            for number, cell in enumerate(cell for cell in cells if cell[1] == kind):
                parts = {"addr": "ADDR", "data": "DATA"}
                if kind == "memwr":
                    parts["mask"] = "EN"
                elif r"\CLK_ENABLE 1" in cell[0]:
                    seen = re.search(r"\\TRANSPARENCY_MASK \d+'0*1", cell[0])
                    parts["en_through" if seen else "en"] = "EN"
                for part, port in parts.items():
                    found = re.search(rf"^    connect \\{port} (.*)$", cell[0], re.MULTILINE)
                    assert found is not None
                    connections.append(f"    connect \\{letter}{number}_{part} {found[1]}\n")
        for cell in cells:
            text = text.replace(cell[0], "")
        text = re.sub(rf"^  memory .* \\{re.escape(memory)}$\n", "", text, flags=re.MULTILINE)
        macro = f"  cell \\unmask_sram_{size}x{width}_{counts['memrd']}r{counts['memwr']}w \\{memory}\n{''.join(connections)}  end\n"
        text = text.removesuffix("end") + macro + "end"
    return text


class Design:
    """The blocks of a component.

    Attributes:
        top: the name of its own block.
        blocks: by name, children before parents.
    """

    def __init__(self, component: wiring.Component, name: str, apart: Collection[wiring.Component] = ()) -> None:
        """Read the component's RTLIL.

        Args:
            apart: units within it whose ports have the names of their signatures.

        Raises:
            UnmaskError: the component instantiates a module that it does not bring along.
        """
        self.blocks: dict[str, Block] = {}
        modules = dict(_MODULE.findall(rtlil_of(component, name, apart)))
        block_of: dict[str, str] = {}
        crossings: dict[str, dict[str, str]] = {}
        by_text: dict[str, str] = {}

        def add(module: str) -> str:
            if module in block_of:
                return block_of[module]
            if _MACRO.fullmatch(module):
                self.blocks[module] = Block(module, "")
                block_of[module] = module
                return module
            if module not in modules:
                raise UnmaskError(f"module {module} of {name} is not part of the design, and no memory macro")
            children: Counter[str] = Counter()

            def replaced(match: re.Match[str]) -> str:
                child = add(match[2])
                children[child] += 1
                return f"{match[1]}\\{child} "

            def connected(cell: re.Match[str]) -> str:
                return _CONNECTED.sub(lambda port: f"    connect {crossings[cell[1]][port[1]]} ", cell[0])

            for child in dict.fromkeys(match[2] for match in _INSTANCE.finditer(modules[module])):
                add(child)
            # Numbered anew in each module, so that a block's text stays what it is where others change.
            own = crossings[module] = dict[str, str]()
            body = _INSTANCE_CELL.sub(connected, modules[module])
            body = _CROSSING.sub(lambda port: own.setdefault(port[0], f"\\crossing${len(own)}"), body)
            body = _INSTANCE.sub(replaced, body)
            key = _canonical(body)
            if key not in by_text:
                short = name if module == name else re.sub(r"_?\d+$", "", re.sub(r"\W", "_", module.rpartition(".")[2])) or "block"
                unique = short
                while unique in self.blocks:
                    unique = f"{short}_{sum(block.startswith(short) for block in self.blocks) + 1}"
                by_text[key] = unique
                self.blocks[unique] = Block(unique, body, children)
            block_of[module] = by_text[key]
            return block_of[module]

        self.top = add(name)

    @cached_property
    def instances(self) -> Counter[str]:
        """How often each block stands in the design."""
        counts = Counter({self.top: 1})
        for name in reversed(self.blocks):
            for child, number in self.blocks[name].children.items():
                counts[child] += number * counts[name]
        return counts

    def kept(self, flat: bool) -> list[str]:
        """Blocks that are synthesized by themselves, children before parents: the top, macros; unless `flat`, what is large or repeated."""

        kept: list[str] = []
        weight: dict[str, int] = {}
        for name, block in self.blocks.items():
            weight[name] = block.cells + sum(weight[child] * number for child, number in block.children.items() if child not in kept)
            apart = weight[name] >= LARGE or (self.instances[name] > 1 and weight[name] >= LARGE // 8)
            if name == self.top or block.macro or (not flat and apart):
                kept.append(name)
        return kept

    def source(self, name: str, kept: list[str]) -> str:
        """RTLIL of one kept block: the blocks to flatten into it, and the interfaces of the kept ones."""

        def below(name: str) -> Iterator[str]:
            yield name
            for child in self.blocks[name].children:
                if child not in kept:
                    yield from below(child)

        inside = list(dict.fromkeys(below(name)))
        outside = dict.fromkeys(child for block in inside for child in self.blocks[block].children if child in kept)
        modules = [f"module \\{block}\n{_without_power_up_values(self.blocks[block].text)}end\n" for block in inside]
        interfaces = [_interface(self.blocks[child]) for child in outside if not self.blocks[child].macro]
        return "\n".join([*modules, *interfaces])


def _interface(block: Block) -> str:
    """RTLIL of a module as a black box."""
    wires = [wire for wire in _WIRE.findall(block.text) if re.search(r" (?:input|output) \d+ ", wire)]
    return f"attribute \\blackbox 1\nmodule \\{block.name}\n{_without_power_up_values(''.join(wires))}end\n"


def _without_power_up_values(text: str) -> str:
    """A standard-cell flip-flop powers up as it likes, be it a register or of a small memory."""
    text = re.sub(r"^  attribute \\init [^\n]*\n", "", text, flags=re.MULTILINE)
    return _MEMORY_CELL.sub(lambda cell: "" if cell[1] == "meminit" else cell[0], text)


def _canonical(body: str) -> str:
    """A digest that does not depend on the order of the ports, which Amaranth takes from the module around."""
    wires = sorted(re.sub(r"(input|output) \d+", r"\1", wire) for wire in _WIRE.findall(body))
    return hashlib.sha256("".join([*wires, _WIRE.sub("", body)]).encode()).hexdigest()
