"""Finding case files and handing each to the runner that knows its reference implementation."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from unmask.decoding.golden.case import MismatchError, NotReplayableError, Runner
from unmask.decoding.golden.report import CaseResult, GoldenReport
from unmask.errors import UnmaskError

_CASE_KEYS = {"kwargs", "prompt_ids", "output_ids", "events"}
_NOT_CASES = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tensor_names.json"}


def replay(path: str | Path) -> GoldenReport:
    """Replay every case file under `path`, a folder (searched recursively) or one file.

    A case that no runner knows is skipped with the reason; a damaged one, or one whose model cannot be loaded, fails with it.

    Raises:
        UnmaskError: `path` does not exist.
    """
    root = Path(path)
    if not root.exists():
        raise UnmaskError(f"no golden cases at {root}: no such file or folder")
    return GoldenReport(tuple(result for file in _json_files(root) if (result := _replay_file(file, root)) is not None))


def model_folder(case: Path) -> Path:
    """Where the weights of a case lie: in its own folder, but those of FlashDLM and Guided Diffusion in `../dream`."""
    folder = case.resolve().parent
    return folder.parent / "dream" if folder.name in ("flashdlm", "guided") else folder


def _json_files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for file in sorted(root.rglob("*.json")):
        if file.name not in _NOT_CASES and not file.name.endswith(".index.json"):
            yield file


def _replay_file(file: Path, root: Path) -> CaseResult | None:
    """The result of one file, or None if it is not a case."""
    relative = Path(file.name) if file == root else file.relative_to(root)
    name = relative.with_suffix("").as_posix()
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return CaseResult(name, "failed", f"not readable JSON: {_one_line(error)}")
    if not isinstance(values, dict) or not _CASE_KEYS & values.keys():
        return None
    source = str(values.get("source", ""))
    for runner in _runners():
        if runner.recognises(source):
            try:
                return CaseResult(name, "passed", runner.run(file, values))
            except NotReplayableError as error:
                return CaseResult(name, "skipped", _one_line(error))
            except (MismatchError, UnmaskError) as error:
                return CaseResult(name, "failed", _one_line(error))
    return CaseResult(name, "skipped", f"no runner for source {source!r}")


@cache
def _runners() -> tuple[Runner, ...]:
    package = importlib.import_module("unmask.decoding.golden")
    modules = (importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    return tuple(module.RUNNER for module in modules if hasattr(module, "RUNNER"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
