"""Checkpoint folders: `config.json` and safetensors weights, in one file or in shards.

Nothing here unpickles: a pickle can run code when it is read, so only safetensors are accepted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unmask.errors import UnmaskError
from unmask.models import packed
from unmask.models.family import Family, Network, families
from unmask.models.llada import Llada

INDEX = "model.safetensors.index.json"
"""The file that says which shard holds which tensor."""

_WEIGHTS = "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def shipped_checkpoints() -> dict[str, Path]:
    """The checkpoints that come with the package: folder by name."""
    root = Path(str(resources.files("unmask.models"))) / "shipped"
    return {config.parent.name: config.parent for config in sorted(root.glob("*/config.json"))}


def resolve_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a shipped checkpoint's name (`sotu`), or the path itself.

    Raises:
        UnmaskError: neither a shipped name nor an existing folder; a pickle; an unfinished machine checkpoint.
    """
    shipped = shipped_checkpoints()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    for folder in (path, Path(f"{path}{packed.PARTIAL}")):
        packed.refuse_unfinished(folder)
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix in _PICKLES or _looks_pickled(path):
            raise UnmaskError(f"{path} is a pickle, which can run code when read; only folders with safetensors are read")
        raise UnmaskError(f"{path} is a file; a checkpoint is a folder with config.json and {_WEIGHTS}")
    names = ", ".join(shipped) or "none"
    raise UnmaskError(f"no checkpoint {str(name_or_path)!r}: not a folder, and not a shipped name ({names})")


def read_config(folder: Path) -> tuple[Family, Any]:
    """The family and configuration that `folder/config.json` states.

    Raises:
        UnmaskError: the file is missing, is not JSON, is of no known family, or states what that family does not support.
    """
    path = folder / "config.json"
    return config_of(read_json(path), path)


def config_of(values: Mapping[str, Any], path: Path) -> tuple[Family, Any]:
    """The family and configuration that the parsed content of the file `path` states.

    Raises:
        UnmaskError: it is of no known family, or states what that family does not support.
    """
    for family in families():
        if family.recognises(values.keys(), values.get("model_type")):
            return family, family.read_config(values, path)
    known = ", ".join(family.name for family in families())
    raise UnmaskError(f"{path}: model_type is {values.get('model_type')!r}; supported families: {known}")


def tokenizer_file(folder: Path) -> Path:
    """The `tokenizer.json` of a checkpoint folder: its own, or that of the shipped checkpoint that its `config.json` names.

    Raises:
        UnmaskError: neither is there.
    """
    path = folder / "tokenizer.json"
    if not path.is_file() and (folder / "config.json").is_file():
        name = read_json(folder / "config.json").get("tokenizer")
        if name is not None:
            if name not in shipped_checkpoints():
                raise UnmaskError(f"{folder / 'config.json'}: tokenizer is {name!r}, which is no shipped checkpoint")
            path = shipped_checkpoints()[name] / "tokenizer.json"
    if not path.is_file():
        raise UnmaskError(f"{path} is missing")
    return path


def load_model(name_or_path: str | Path = "sotu", dtype: torch.dtype = torch.float32) -> Llada:
    """The network of a LLaDA checkpoint, as `load_network` reads it.

    Raises:
        UnmaskError: what `load_network` raises; a checkpoint of another family.
    """
    folder = resolve_checkpoint(name_or_path)
    family, _ = read_config(folder)
    if family.name != "llada":
        raise UnmaskError(f"{folder} holds a {family.name} network; a llada one is needed here")
    model = load_network(folder, dtype)
    assert isinstance(model, Llada)
    return model


def load_network(name_or_path: str | Path = "sotu", dtype: torch.dtype = torch.float32) -> Network:
    """The network of a checkpoint of any family, in evaluation mode, its weights converted to `dtype`.

    Args:
        name_or_path: the name of a shipped checkpoint, or a folder with `config.json` and `model.safetensors`, or with
            `model.safetensors.index.json` and the shards that it names; or a machine checkpoint, whose values are then those of its
            number formats.
        dtype: the dtype of every weight after loading.

    Raises:
        UnmaskError: one line naming the file and the tensor: nothing there, a pickle, a damaged file, a tensor that is missing,
            unexpected, misshapen, not floating point, NaN or infinite.
    """
    folder = resolve_checkpoint(name_or_path)
    family, config = read_config(folder)
    model = unfilled(family, config)
    expected = shapes(model)
    read = packed.tensors if packed.is_packed(folder) else _tensors
    weights = {name: _checked(tensor, dtype, f"{path}: tensor {name}") for path, name, tensor in read(folder, expected)}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def unfilled(family: Family, config: Any) -> Network:
    """The network of a configuration without its weights: parameters on the meta device."""
    with torch.device("meta"), _Unfilled():
        return family.build(config)


def shapes(model: Network) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a checkpoint of this network holds, by its name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def save_model(model: Network, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, replacing what was there only once each file is complete.

    Args:
        dtype: the dtype of the weights on disk; None keeps that of the model.

    Raises:
        UnmaskError: the folder cannot be written.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in model.state_dict().items()}
    partial = folder / f"{_WEIGHTS}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnmaskError(f"cannot write the checkpoint {folder}: {_one_line(error)}") from None
    try:
        save_file(weights, partial, metadata={"format": "pt"})
        os.replace(partial, folder / _WEIGHTS)
        partial.write_text(json.dumps(model.config.to_json(), indent=2) + "\n")
        os.replace(partial, folder / "config.json")
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UnmaskError(f"cannot write the checkpoint {folder}: {_one_line(error)}") from None


class _Unfilled(TorchFunctionMode):
    """Leaves out the random initialisation of parameters. Even on the meta device it costs seconds, as PyTorch imports its
    decompositions to trace it.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _looks_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4)[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnmaskError: the file is missing or unreadable, or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnmaskError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise UnmaskError(f"{path} is not readable JSON: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise UnmaskError(f"{path} holds a JSON {type(values).__name__}; an object is needed")
    return values


def shards(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> list[tuple[Path, list[str]]]:
    """The weight files of a folder with the tensors each must hold, after checking that together they hold exactly `expected`.

    Raises:
        UnmaskError: no weights, only a pickle, a damaged index, a tensor that is missing or unexpected.
    """
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(shard, str) and Path(shard).name == shard for shard in placed.values()):
            raise UnmaskError(f"{folder / INDEX}: weight_map must map tensor names to file names of this folder")
        _compare_names(folder / INDEX, set(placed), set(expected))
        return [(folder / shard, [name for name in placed if placed[name] == shard]) for shard in sorted(set(placed.values()))]
    if (folder / _WEIGHTS).is_file():
        return [(folder / _WEIGHTS, list(expected))]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise UnmaskError(f"{folder} holds only a pickle ({pickles[0]}), which can run code when read; only safetensors are read")
    raise UnmaskError(f"{folder} holds no weights: neither {_WEIGHTS} nor {INDEX}")


def _compare_names(path: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UnmaskError(f"{path}: tensor {missing[0]} is missing{more}")
    if unexpected := sorted(found - expected):
        more = f" (and {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        raise UnmaskError(f"{path}: tensor {unexpected[0]} is unexpected{more}")


def _tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Path, str, Tensor]]:
    for path, names in shards(folder, expected):
        with open_shard(path, {name: expected[name] for name in names}) as file:
            for name in names:
                yield path, name, file.get_tensor(name)


def open_shard(path: Path, expected: Mapping[str, tuple[int, ...]]) -> Any:
    """A safetensors file opened for PyTorch (a context manager), after checking that the names and shapes in its header are `expected`.

    Raises:
        UnmaskError: missing, a pickle, damaged, a tensor that is missing, unexpected or misshapen.
    """
    if not path.is_file():
        raise UnmaskError(f"{path} is missing")
    if _looks_pickled(path):
        raise UnmaskError(f"{path} is a pickle under another name; only safetensors are read")
    try:
        file: Any = safe_open(path, framework="pt")  # type: ignore[no-untyped-call]
        _compare_names(path, set(file.keys()), set(expected))
        found = {name: tuple(file.get_slice(name).get_shape()) for name in expected}
    except (OSError, SafetensorError) as error:
        raise UnmaskError(f"{path} is not a complete safetensors file: {_one_line(error)}") from None
    for name, shape in expected.items():
        if found[name] != shape:
            raise UnmaskError(f"{path}: tensor {name} has shape {list(found[name])}; expected {list(shape)}")
    return file


def _checked(tensor: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    if tensor.dtype not in _FLOATS:
        raise UnmaskError(f"{what} has dtype {str(tensor.dtype).removeprefix('torch.')}; supported: float64, float32, float16, bfloat16")
    converted = tensor.to(dtype)
    if not bool(torch.isfinite(converted).all()):
        problem = "NaN" if bool(torch.isnan(converted).any()) else "infinite values"
        raise UnmaskError(f"{what} holds {problem}")
    return converted
