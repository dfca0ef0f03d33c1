"""Machine checkpoints: what is packed, that they load as exactly those values, and that nothing unfinished passes for finished."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.small import CONFIG, DREAM_CONFIG, small_dream, small_model
from unmask.compiler.memory import Hbm
from unmask.compiler.network import place_network
from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_network, save_model, shapes, unfilled
from unmask.models.config import LladaConfig
from unmask.models.family import Network
from unmask.models.llada import FAMILY
from unmask.numerics import mx
from unmask.quant import stream
from unmask.quant.checkpoint import Quantized, quantize_checkpoint
from unmask.quant.layout import CheckpointFormats, Entry, check_formats, read_formats, roles

FORMATS = CheckpointFormats("mxfp4", "mxint8", "mxint4", "mxfp8")
MATRICES = {"llada": 7 * CONFIG.n_layers + 1, "dream": 7 * DREAM_CONFIG.num_hidden_layers + 1}


def split(folder: Path, count: int) -> None:
    """Turn a folder with one weight file into one with `count` shards and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    placed = {name: f"model-{i * count // len(names) + 1:05}-of-{count:05}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(placed.values())):
        save_file({name: weights[name] for name in names if placed[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (folder / "model.safetensors").unlink()


def write(network: Network, folder: Path, shards: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    save_model(network, folder, dtype)
    if shards > 1:
        split(folder, shards)
    return folder


@pytest.fixture(params=[("llada", 1), ("llada", 3), ("dream", 4)], ids=lambda case: f"{case[0]}-{case[1]}")
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family, shards = request.param
    return write(small_model() if family == "llada" else small_dream(), tmp_path / family, shards)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write(small_model(), tmp_path / "source", 3)


def line_of(call: Callable[[], object]) -> str:
    with pytest.raises(UnmaskError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def quantized_values(folder: Path, formats: CheckpointFormats) -> dict[str, torch.Tensor]:
    """What a machine checkpoint must load as: the source's tensors, through the definition of the formats."""
    network = load_network(folder)
    values = {}
    for name, role in roles(network).items():
        tensor, form = network.state_dict()[name], formats.of(role)
        values[name] = (
            tensor.bfloat16().float() if form is None else torch.from_numpy(mx.dequantize(mx.quantize(tensor.numpy(), form)).copy())
        )
    return values


@pytest.mark.parametrize("name", mx.FORMATS)
def test_it_loads_as_exactly_the_values_of_its_formats(source, tmp_path, name):
    formats = CheckpointFormats(name, "mxint8", "mxint8", embedding="mxfp6_e2m3" if name == "mxint8" else "bf16")
    quantize_checkpoint(source, tmp_path / "packed", formats)
    loaded, expected = load_network(tmp_path / "packed").state_dict(), quantized_values(source, formats)
    assert loaded.keys() == expected.keys()
    for tensor, values in expected.items():
        assert torch.equal(loaded[tensor], values), tensor


def test_every_matrix_that_is_multiplied_with_is_packed_and_nothing_else(source, tmp_path):
    done = quantize_checkpoint(source, tmp_path / "packed", FORMATS)
    stored: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "packed").glob("*.safetensors"):
        stored |= load_file(path)
    elements = {name.removesuffix(".elements") for name in stored if name.endswith(".elements")}
    assert len(elements) == done.packed == MATRICES[source.name]
    matrices = {name for name, tensor in load_network(source).state_dict().items() if tensor.ndim == 2}
    embedding = matrices - elements
    assert len(embedding) == 1
    assert stored[embedding.pop()].dtype == torch.bfloat16
    assert {tensor.dtype for name, tensor in stored.items() if name.endswith((".elements", ".scales"))} == {torch.uint8}
    assert done.stored_bytes == sum(tensor.nbytes for tensor in stored.values())
    assert done.source_bytes == done.converted_bytes == 2 * sum(tensor.numel() for tensor in load_network(source).state_dict().values())


def test_it_is_sharded_like_its_source_and_has_its_other_files(source, tmp_path):
    weights = {path.name for path in source.glob("*.safetensors")}
    sides = ("tokenizer.json", "kv_scales.safetensors")
    for name in sides:
        (source / name).write_bytes(name.encode())
    quantize_checkpoint(source, tmp_path / "packed", FORMATS)
    for name in sides:
        path = tmp_path / "packed" / name
        assert path.read_bytes() == name.encode()
        path.unlink()
    assert {path.name for path in (tmp_path / "packed").glob("*.safetensors")} == weights
    index = source / "model.safetensors.index.json"
    assert (tmp_path / "packed" / index.name).is_file() == index.is_file()
    assert json.loads((tmp_path / "packed" / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    if index.is_file():
        placed = json.loads((tmp_path / "packed" / index.name).read_text())["weight_map"]
        assert all(name in load_file(tmp_path / "packed" / file) for name, file in placed.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_wider_sources_are_rounded_once(tmp_path, dtype):
    source = write(small_model(), tmp_path / "source", 2, dtype)
    quantize_checkpoint(source, tmp_path / "packed", FORMATS)
    loaded = load_network(tmp_path / "packed").state_dict()
    assert all(torch.equal(loaded[name], values) for name, values in quantized_values(source, FORMATS).items())


def test_large_matrices_go_through_in_chunks_of_rows(sharded, tmp_path, monkeypatch):
    quantize_checkpoint(sharded, tmp_path / "whole", FORMATS)
    monkeypatch.setattr(stream, "CHUNK_BYTES", 100)
    quantize_checkpoint(sharded, tmp_path / "chunks", FORMATS)
    assert files(tmp_path / "whole") == files(tmp_path / "chunks")


def test_quantizing_the_loaded_network_again_changes_nothing(sharded, tmp_path):
    quantize_checkpoint(sharded, tmp_path / "first", FORMATS)
    save_model(load_network(tmp_path / "first"), tmp_path / "values")
    quantize_checkpoint(tmp_path / "values", tmp_path / "second", FORMATS)
    stored = [
        {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
        for folder in (tmp_path / "first", tmp_path / "second")
    ]
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(tensor, stored[1][name]) for name, tensor in stored[0].items())


def test_a_tied_head_is_stored_once(tmp_path):
    config = LladaConfig(**{**CONFIG.__dict__, "weight_tying": True})
    source = write(small_model(config), tmp_path / "tied", 1)
    done = quantize_checkpoint(source, tmp_path / "packed", FORMATS)
    assert done.packed == MATRICES["llada"] - 1
    assert load_network(tmp_path / "packed").config.weight_tying


def test_formats_are_recorded_and_compared(sharded, tmp_path):
    quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    own = {"weights": "mxfp4", "activations": "mxint8", "kv": "mxint4", "logits": "mxfp8"}
    assert read_formats(tmp_path / "packed") == {**own, "embedding": "bf16"}
    assert read_formats(sharded) is None
    assert check_formats(tmp_path / "packed", own) == check_formats(sharded, own) == []
    (line,) = check_formats(tmp_path / "packed", {**own, "kv": "mxint8"})
    assert "made for kv in mxint4; the machine's are mxint8" in line
    assert "weights in mxfp4; the machine's are mxint8" in line_of(lambda: check_formats(tmp_path / "packed", {**own, "weights": "mxint8"}))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"weights": "bf16"}, r"weights: unknown format 'bf16': expected one of mxint8, .*mxfp4$"),
        ({"kv": "int8"}, "kv: unknown format 'int8'"),
        ({"logits": "fp32"}, r"logits: unknown format 'fp32': expected one of mxint8, .*, bf16$"),
        ({"embedding": ""}, "embedding: unknown format ''"),
    ],
)
def test_an_unknown_format_lists_the_known_ones(names, expected):
    with pytest.raises(UnmaskError, match=expected):
        CheckpointFormats(**{"weights": "mxfp4", "activations": "mxint8", "kv": "mxint4", **names})


def edit(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the shard of a folder that holds a tensor."""
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        if name in weights:
            change(weights)
            save_file(weights, path)


MATRIX, NORM = "model.transformer.blocks.1.up_proj.weight", "model.transformer.blocks.0.ff_norm.weight"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "index"), [(MATRIX, [21, 3]), (NORM, [7])])
def test_a_weight_that_is_no_number_is_named(sharded, tmp_path, monkeypatch, name, index, value):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 300)
    edit(sharded, name, lambda weights: weights[name].__setitem__(tuple(index), value))
    assert f"tensor {name} holds NaN or infinity at {index}" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS))
    assert not any(path.name.startswith("packed") for path in tmp_path.iterdir())
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda weights: weights.pop(MATRIX), f"tensor {MATRIX} is missing"),
        (lambda weights: weights.update({MATRIX: torch.zeros(3, 16)}), f"tensor {MATRIX} has shape [3, 16]; expected [24, 16]"),
        (lambda weights: weights.update({MATRIX: torch.zeros(24, 16, dtype=torch.int8)}), f"tensor {MATRIX} has dtype I8"),
    ],
)
def test_what_is_wrong_in_a_header_is_named_before_any_work(sharded, tmp_path, change, expected):
    edit(sharded, MATRIX, change)
    assert expected in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_outputs_and_sources_that_will_not_do_are_named_before_any_work(sharded, tmp_path):
    done = quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    assert done.folder == tmp_path / "packed"
    assert "packed exists already" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS))
    assert "is a machine checkpoint already" in line_of(lambda: quantize_checkpoint(tmp_path / "packed", tmp_path / "twice", FORMATS))
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "letter.txt").write_text("mine")
    assert "no unfinished machine checkpoint" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "other", FORMATS))
    (tmp_path / "empty").mkdir()
    assert quantize_checkpoint(sharded, tmp_path / "empty", FORMATS).packed == done.packed


class Interrupt:
    """Ends a conversion after some chunks, by an interrupt."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def __call__(self, done: int, whole: int) -> None:
        if done > self.fraction * whole:
            raise KeyboardInterrupt


def attempt(source: Path, output: Path, fraction: float, formats: CheckpointFormats = FORMATS) -> Path:
    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, output, formats, Interrupt(fraction))
    return output.with_name(output.name + ".partial")


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.9, 0.999])
def test_an_interrupted_conversion_goes_on_with_what_is_finished(sharded, tmp_path, fraction):
    whole = quantize_checkpoint(sharded, tmp_path / "whole", FORMATS)
    partial = attempt(sharded, tmp_path / "packed", fraction)
    assert not (tmp_path / "packed").exists()
    assert not list(partial.glob("*.safetensors.partial"))
    kept = {path: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
    done = quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    assert files(tmp_path / "packed") == files(tmp_path / "whole")
    assert not partial.exists()
    assert (done.converted_bytes < whole.converted_bytes) == (len(kept) > 0)
    assert all((tmp_path / "packed" / path.name).stat().st_mtime_ns == time for path, time in kept.items())


def test_a_damaged_finished_file_is_made_again(sharded, tmp_path):
    quantize_checkpoint(sharded, tmp_path / "whole", FORMATS)
    partial = attempt(sharded, tmp_path / "packed", 0.9)
    first = sorted(partial.glob("*.safetensors"))[0]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    assert files(tmp_path / "packed") == files(tmp_path / "whole")


def test_what_ended_before_the_last_renaming_is_finished(sharded, tmp_path):
    quantize_checkpoint(sharded, tmp_path / "whole", FORMATS)
    (tmp_path / "whole").rename(tmp_path / "packed.partial")
    assert quantize_checkpoint(sharded, tmp_path / "packed", FORMATS).converted_bytes == 0
    assert load_network(tmp_path / "packed").config == CONFIG


def test_an_unfinished_folder_is_refused_and_says_how_to_go_on(sharded, tmp_path):
    partial = attempt(sharded, tmp_path / "packed", 0.5)
    for path in (partial, tmp_path / "packed"):
        line = line_of(lambda path=path: load_network(path))
        assert f"{partial} is an unfinished machine checkpoint" in line
        assert f"`unmask quantize ... --output {tmp_path / 'packed'}`" in line
    assert "unfinished" in line_of(lambda: read_formats(partial))
    assert "unfinished" in line_of(lambda: quantize_checkpoint(partial, tmp_path / "again", FORMATS))


def test_an_attempt_at_something_else_is_left_alone(sharded, tmp_path):
    partial = attempt(sharded, tmp_path / "packed", 0.5)
    before = files(partial)
    other = CheckpointFormats("mxint8", "mxint8", "mxint8")
    assert "was begun with another source" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", other))
    different = write(small_model(seed=1), tmp_path / "different", 3)
    assert "was begun with another source" in line_of(lambda: quantize_checkpoint(different, tmp_path / "packed", FORMATS))
    assert files(partial) == before


def test_two_writers_do_not_meet(sharded, tmp_path):
    lines = []

    def second(done: int, whole: int) -> None:
        if not lines:
            lines.append(line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)))

    quantize_checkpoint(sharded, tmp_path / "packed", FORMATS, second)
    assert "packed.partial is being written by another process" in lines[0]


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, content) -> int:
        size = memoryview(content).nbytes
        self._room -= size
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_full_disk_is_one_line_and_leaves_what_is_finished(sharded, tmp_path, monkeypatch):
    open_file, last = Path.open, sorted(path.name for path in sharded.glob("*.safetensors"))[-1]

    def limited(path, mode="r", *arguments, **named):
        file = open_file(path, mode, *arguments, **named)
        return FullDisk(file, 1000) if path.name == f"{last}.partial" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", limited)
        line = line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS))
    assert "no space left on the device" in line
    assert "the same command goes on" in line
    left = {path.name for path in (tmp_path / "packed.partial").iterdir()}
    assert len([name for name in left if name.endswith(".safetensors")]) == 2
    assert last not in left
    assert not any(name.endswith(".partial") for name in left)
    done = quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    assert 0 < done.converted_bytes < done.source_bytes


def test_too_little_space_is_said_before_any_work(sharded, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert "bytes are still to be written; 100 are free" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "packed", FORMATS))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unwritable_place_is_one_line(sharded, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in line_of(lambda: quantize_checkpoint(sharded, tmp_path / "file" / "packed", FORMATS))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"version": 2}, "version 2 of the layout; this unmask reads version 1"),
        ({"formats": {"weights": "mxfp4"}}, "formats must name those of activations, embedding, kv, logits, weights"),
        ({"formats": {**FORMATS.__dict__, "weights": "mxfp3"}}, "weights: unknown format 'mxfp3'"),
        ({"formats": {**FORMATS.__dict__, "weights": "mxint8"}}, "has shape"),
    ],
)
def test_a_damaged_machine_file_is_named(sharded, tmp_path, values, expected):
    quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    path = tmp_path / "packed" / "machine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    assert expected in line_of(lambda: load_network(tmp_path / "packed"))


def test_packed_tensors_of_another_type_are_named(sharded, tmp_path):
    quantize_checkpoint(sharded, tmp_path / "packed", FORMATS)
    name = MATRIX + ".scales"
    edit(tmp_path / "packed", name, lambda weights: weights.update({name: weights[name].to(torch.int8)}))
    assert f"tensor {name} has dtype I8; expected U8" in line_of(lambda: load_network(tmp_path / "packed"))


def test_progress_is_told_in_source_bytes(sharded, tmp_path):
    told: list[tuple[int, int]] = []
    done: Quantized = quantize_checkpoint(sharded, tmp_path / "packed", FORMATS, lambda now, whole: told.append((now, whole)))
    assert told == sorted(told)
    assert told[0] == (0, done.source_bytes)
    assert told[-1] == (done.source_bytes, done.source_bytes)


@pytest.mark.parametrize("name", mx.FORMATS)
def test_a_program_of_it_holds_the_bytes_of_one_quantized_on_the_fly(source, tmp_path, name):
    quantize_checkpoint(source, tmp_path / "packed", CheckpointFormats(name, "mxint8", "mxint8"))
    placed = []
    for folder in (source, tmp_path / "packed"):
        hbm = Hbm()
        place_network(hbm, load_network(folder), 8, mx.FORMATS[name])
        placed.append({region: content.tobytes() for region, content in hbm.data.items()})
    assert placed[0] == placed[1]


@pytest.mark.slow
def test_a_file_larger_than_the_memory_used_goes_through(tmp_path):
    config = LladaConfig(**{**CONFIG.__dict__, "d_model": 2048, "mlp_hidden_size": 8192, "n_layers": 8})
    entries = [Entry(name, "BF16", shape) for name, shape in shapes(unfilled(FAMILY, config)).items()]
    ones = np.full(2**20, 0x3F80, np.uint16)

    def content() -> Iterator[stream.Part]:
        yield stream.header(entries)
        for entry in entries:
            yield from (ones[: min(len(ones), entry.size // 2 - start)].data for start in range(0, entry.size // 2, len(ones)))

    source = tmp_path / "source"
    source.mkdir()
    stream.write_file(source / "model.safetensors", content())
    (source / "config.json").write_text(json.dumps(config.to_json()))
    command = [sys.executable, "-m", "unmask.cli.main", "quantize", source, "--weights", "mxint8", "--output", tmp_path / "packed"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert 1024 * usage.ru_maxrss < 0.7 * (source / "model.safetensors").stat().st_size
