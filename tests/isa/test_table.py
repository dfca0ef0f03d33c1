"""Properties of the instruction table and its manual page."""

from unmask.isa.manual import manual
from unmask.isa.table import BY_NAME, BY_OPCODE, INSTRUCTIONS, NO_SEMAPHORE, OPERAND_BITS, REGISTER_COUNT, Engine, Kind


def test_names_and_opcodes_are_unique():
    assert len(BY_NAME) == len(BY_OPCODE) == len(INSTRUCTIONS)
    assert all(0 <= row.opcode < 256 for row in INSTRUCTIONS)


def test_operands_fit_their_bits():
    for row in INSTRUCTIONS:
        assert sum(spec.bits for spec in row.fields) <= OPERAND_BITS, row.name


def test_operand_names_are_unique_in_a_row():
    for row in INSTRUCTIONS:
        assert len({spec.name for spec in row.fields}) == len(row.fields), row.name
        assert not {"wait", "signal"} & {spec.name for spec in row.fields}, row.name


def test_fields_can_hold_what_they_name():
    for row in INSTRUCTIONS:
        for spec in row.fields:
            if spec.kind is Kind.REGISTER:
                assert 1 << spec.bits == REGISTER_COUNT
            assert spec.bits == {Kind.FP32: 32, Kind.BF16: 16}.get(spec.kind, spec.bits)
    assert 1 << next(spec.bits for spec in BY_NAME["SEM_SET"].fields if spec.name == "semaphore") == NO_SEMAPHORE + 1
    assert max(Engine) < 1 << BY_NAME["SYNC"].fields[0].bits


def test_the_manual_describes_every_instruction_and_operand():
    page = manual()
    for row in INSTRUCTIONS:
        _, _, entry = page.partition(f"### {row.name}\n")
        entry = entry.split("\n### ")[0]
        assert row.effect in entry
        assert f"`0x{row.opcode:02x}`" in entry
        for spec in row.fields:
            assert f"| {spec.name} | {spec.kind.value} | {spec.meaning} |" in entry
