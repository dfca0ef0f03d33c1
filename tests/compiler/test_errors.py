"""What a user may get wrong gives one line that says what was expected."""

import pytest

from unmask import Policy, Program, UnmaskError, compile, simulate
from unmask.machine.functional import FunctionalMachine

from .cases import BASE, GROUPED, SMALL, TILES, TINY, WIDE, network, shrunk

POLICY = Policy(8, 4, 4)


def one_line(call, match):
    with pytest.raises(UnmaskError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sram", "match"),
    [
        (
            {"vector_kib": 1},
            "machine nano cannot run this model and policy: the vector SRAM cannot hold .*: it needs [0-9]+ elements, there are 512",
        ),
        ({"matrix_kib": 1}, "machine nano cannot run this model and policy: the matrix SRAM cannot hold two tiles of .*: a slot has 0"),
        (
            {"matrix_kib": 5},
            "machine nano cannot run this model and policy: the matrix SRAM cannot hold two tiles of 32 rows of [0-9] MX blocks",
        ),
        (
            {"float_words": 2},
            "machine nano cannot run this model and policy: the float SRAM cannot hold .*: it needs [0-9]+ words, there are 2",
        ),
        (
            {"integer_words": 8},
            "machine nano cannot run this model and policy: the integer SRAM cannot hold the ids of .*: it needs [0-9]+ words, there are 8",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_machine_too_small_for_any_tile_names_the_memory(sram, match):
    one_line(lambda: compile(network(WIDE), POLICY, shrunk(TILES, sram={"matrix_kib": 12} | sram), 13), match)


def test_a_machine_that_is_just_large_enough_compiles():
    needed = compile(network(BASE), POLICY, SMALL, 13).about["sram_high_water"]
    exact = shrunk(SMALL, sram={"float_words": needed["float_words"], "integer_words": needed["integer_words"]})
    [tile] = compile(network(BASE), POLICY, exact, 13).about["row_tiles"].values()
    assert tile == {"sequences": 1, "rows": 21}
    one_line(lambda: compile(network(BASE), POLICY, shrunk(exact, sram={"integer_words": 8}), 13), "the integer SRAM")


def test_a_canvas_beyond_the_context_names_both_lengths():
    assert compile(network(BASE), POLICY, SMALL, 88).about["positions"] == 96
    one_line(lambda: compile(network(BASE), POLICY, SMALL, 89), "prompt is too long: 89 tokens and 8 new ones exceed .* context of 96")


def test_an_empty_prompt_is_an_error():
    one_line(
        lambda: compile(network(BASE), POLICY, SMALL, -1), "1 prompts of -1 tokens: expected at least one prompt, of at least no tokens"
    )
    one_line(lambda: simulate(compile(network(BASE), POLICY, SMALL, 0), []), "the prompt is empty; at least one token is needed")


def test_a_cache_that_feeds_scattered_rows_has_no_program():
    one_line(lambda: compile(network(BASE), Policy(8, 4, 4, cache="dkv"), SMALL, 5), "cache 'dkv' has no program")


def test_a_mask_as_candidate_has_no_program():
    one_line(lambda: compile(network(BASE), Policy(8, 4, 4, exclude_mask=False), SMALL, 5), "exclude_mask False: .* expected True")


def test_a_temperature_beyond_bf16_is_an_error():
    one_line(lambda: compile(network(BASE), Policy(8, 4, 4, temperature=3.4e38), SMALL, 5), "temperature 3.4e\\+38 is beyond BF16")


def test_a_prompt_must_be_what_the_program_was_compiled_for():
    program = compile(network(TINY), POLICY, SMALL, 3)
    one_line(lambda: simulate(program, [1, 2]), "compiled for a prompt of 3 tokens, not 2")
    one_line(lambda: simulate(program, []), "compiled for a prompt of 3 tokens, not 0")
    for wrong in (-1, TINY.vocab_size, TINY.mask_token_id):
        one_line(lambda wrong=wrong: simulate(program, [1, wrong, 2]), "the mask token 0|outside the vocabulary of 45")


@pytest.mark.parametrize("kept", [0, 4, 100, 2000, -1])
def test_a_truncated_program_file_is_an_error(tmp_path, kept):
    path = tmp_path / "step.unmask"
    compile(network(TINY), POLICY, SMALL, 3).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    one_line(lambda: Program.load(path), "step.unmask: not a readable unmask program")


def test_regions_are_checked():
    npu = FunctionalMachine(compile(network(TINY), POLICY, SMALL, 3), SMALL)
    one_line(lambda: npu.write("canvass", bytearray(1)), "region 'canvass': expected at most 0 bytes, not 1")
    with pytest.raises(UnmaskError, match="region 'parameters': expected at most 24 bytes, not 25"):
        npu.write("parameters", bytearray(25))


def test_a_program_larger_than_the_memory_is_an_error():
    program = compile(network(TINY), POLICY, SMALL, 3)
    program.hbm_bytes = 2**30 + 1
    one_line(lambda: FunctionalMachine(program, SMALL), "needs 1073741825 bytes of HBM; machine small has 1 GiB")


def test_loops_deeper_than_the_sequencer_allows_do_not_compile():
    machine = shrunk(TILES, sram={"matrix_kib": 12}, sequencer={"loop_depth": 3})
    one_line(lambda: compile(network(GROUPED), POLICY, machine, 13), "loop")


def test_programs_longer_than_the_instruction_memory_do_not_compile():
    machine = shrunk(SMALL, sequencer={"program_words": 100})
    one_line(lambda: compile(network(TINY), POLICY, machine, 3), r"instructions; machine small holds 100 .sequencer.program_words")


def test_heads_whose_halves_are_no_whole_granules_do_not_compile():
    machine = shrunk(SMALL, vector={"granule": 32})
    one_line(lambda: compile(network(TINY), POLICY, machine, 3), r"half of a head has \d+ channels; machine small needs a multiple of 32")


def test_blocks_larger_than_the_top_k_unit_do_not_compile():
    machine = shrunk(SMALL, vector={"sorter": POLICY.block_length - 1})
    one_line(lambda: compile(network(TINY), POLICY, machine, 3), r"positions exceeds the \d+ scores of the top-k unit of machine small")
