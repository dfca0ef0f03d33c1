"""The shape of the source: who may import whom, and the house habits that a parser can check."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "unmask").rglob("*.py"))
PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
LONGEST_FILE = 500
LONGER = {"src/unmask/machine/_kernels.py"}
"""Numba caches what it compiles by file, and would not notice that a function of another file has changed."""

READERS = {"machine", "compiler", "models", "decoding", "isa", "numerics", "quant", "baselines", "silicon"}
HARDWARE = {"isa", "numerics", "machine"}

# Each room, and the rooms it may import besides itself and `errors`. `facade` is `unmask/__init__.py` and `unmask/api.py`.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "numerics": set(),
    "isa": {"numerics"},
    "machine": {"isa", "numerics"},
    "models": set(),
    "decoding": {"models"},
    "quant": {"models", "decoding", "numerics"},
    "training": {"models", "decoding"},
    "quality": {"machine", "numerics", "models", "decoding", "quant", "training"},
    "compiler": {"machine", "isa", "numerics", "models", "decoding", "quant"},
    "rtl": HARDWARE,
    "silicon": HARDWARE | {"rtl"},
    "baselines": {"models", "decoding"},
    "explore": READERS,
    "report": READERS,
}
ALLOWED["facade"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)

# Modules that run code found in the bytes they read.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def module_name(path: Path) -> str:
    """The dotted name of a file of `src`; a package's `__init__.py` has the package's name."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room that the dotted name `module`, inside `unmask`, lies in."""
    parts = module.split(".")
    return "facade" if len(parts) == 1 or parts[1] == "api" else parts[1]


def absolute(name: str, package: str) -> str:
    """The dotted name `name` without leading dots, which count from `package` upwards."""
    tail = name.lstrip(".")
    level = len(name) - len(tail)
    if not level:
        return name.rstrip(".")
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *tail.split(".")]).rstrip(".")


def imported_modules(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of whatever `tree`, a module whose `__package__` is `package`, imports at any depth.

    `from unmask import isa` names the room; `from unmask import compile` names the facade. A literal given to `import_module` or
    `__import__` counts, and so does the literal start of an f-string.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = absolute("." * level + (module or ""), package)
                if origin != "unmask":
                    yield node.lineno, origin
                    continue
                for alias in names:
                    yield node.lineno, f"unmask.{alias.name}" if alias.name in {*ALLOWED, "api"} else "unmask"
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"), args=[name, *_]):
                start = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else name
                if isinstance(start, ast.Constant) and isinstance(start.value, str):
                    yield node.lineno, absolute(start.value, package)


def forbidden_imports(source: str, module: str, is_package: bool) -> list[str]:
    """One line per import in `source`, the text of `module`, that goes against the arrows."""
    package = module if is_package else module.rpartition(".")[0]
    here = room(module)
    if here not in ALLOWED:
        return [f"{module} lies in '{here}', which is no room of the architecture"]
    found = []
    for line, target in imported_modules(ast.parse(source), package):
        if target.split(".")[0] != "unmask":
            continue
        there = room(target)
        if there not in {here, "errors"} | ALLOWED[here]:
            found.append(f"{module}:{line} imports {target}: {here} may not know {there}")
    return found


def unpickling(source: str) -> list[str]:
    """One line per place in `source` that could run code out of a file: pickle and its relatives, `torch.load`, `torch.save`."""
    tree = ast.parse(source)
    found = [f"line {line} imports {name}" for line, name in imported_modules(tree, "") if name.split(".")[0] in UNPICKLERS]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
                found.append(f"line {node.lineno} uses torch.{node.attr}")
            case ast.ImportFrom(module="torch" | "torch.serialization", names=names):
                found += [f"line {node.lineno} imports torch.{alias.name}" for alias in names if alias.name in {"load", "save"}]
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append(f"line {node.lineno} allows pickles")
    return found


def public(nodes: list[ast.stmt], *kinds: type[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Those of `nodes` that are of one of `kinds` and whose name has no leading underscore."""
    for node in nodes:
        if isinstance(node, kinds) and isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            yield node


def methods(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(class, method) of each public method of each public class of `tree`."""
    for owner in public(tree.body, ast.ClassDef):
        yield from ((owner.name, method) for method in public(owner.body, ast.FunctionDef, ast.AsyncFunctionDef))


def undocumented(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Names of what is public in `trees`, by module name, and has no docstring.

    A method needs none where its body is one statement, or where a method of that name is documented somewhere in `trees`: an interface
    says once what its implementations do.
    """
    contracts = {method.name for tree in trees.values() for _, method in methods(tree) if ast.get_docstring(method)} | {"forward"}
    for module, tree in trees.items():
        if ast.get_docstring(tree) is None:
            yield module
        for node in public(tree.body, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef):
            if ast.get_docstring(node) is None:
                yield f"{module}.{node.name}"
        for owner, method in methods(tree):
            if len(method.body) > 1 and method.name not in contracts:
                yield f"{module}.{owner}.{method.name}"


def test_imports_follow_the_arrows() -> None:
    assert [line for path in MODULES for line in forbidden_imports(path.read_text(), module_name(path), path.name == "__init__.py")] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("unmask.numerics.mx", "from unmask.isa import table"),
        ("unmask.numerics.mx", "from unmask import isa"),
        ("unmask.numerics.mx", "from .. import isa"),
        ("unmask.numerics.mx", "from ..isa.table import INSTRUCTIONS"),
        ("unmask.numerics.formats.mx", "from ...isa import table"),
        ("unmask.isa.table", "def late():\n    import unmask.machine.config"),
        ("unmask.isa.table", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unmask.machine.config import Machine"),
        ("unmask.models.llada", "import importlib\nimportlib.import_module('unmask.compiler')"),
        ("unmask.models.llada", "from importlib import import_module\nimport_module(f'unmask.compiler.{name}')"),
        ("unmask.models.llada", "from importlib import import_module\nimport_module('..compiler', __package__)"),
        ("unmask.models.llada", "from unmask.numerics import bf16"),
        ("unmask.decoding.sampler", "from unmask.machine import config"),
        ("unmask.compiler.lower", "from unmask.cli.main import app"),
        ("unmask.compiler.lower", "from unmask import compile"),
        ("unmask.compiler.lower", "import unmask"),
        ("unmask.report.table", "from unmask.api import simulate"),
        ("unmask.api", "from unmask.cli import main"),
        ("unmask.helpers", "import math"),
        ("unmask.numerics.mx", "from unmask import helpers_of_nobody"),
    ],
)
def test_an_import_against_the_arrows_is_found(module: str, source: str) -> None:
    assert len(forbidden_imports(source, module, is_package=False)) == 1


def test_a_relative_import_in_a_package_counts_from_the_package() -> None:
    assert forbidden_imports("from .table import INSTRUCTIONS\nfrom . import encoding", "unmask.isa", is_package=True) == []
    assert len(forbidden_imports("from ..machine import config", "unmask.isa", is_package=True)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("unmask.isa.table", "from unmask.numerics import bf16\nfrom .encoding import Op\nimport numpy"),
        ("unmask.models.llada", "from unmask import errors\nfrom . import config\nfrom ..errors import UnmaskError"),
        ("unmask.compiler.lower", "from unmask.quant import mx\nfrom unmask.decoding import schedule\nfrom ..machine import config"),
        ("unmask.cli.main", "from unmask import compile\nimport unmask.api\nfrom unmask.explore import search"),
        ("unmask.api", "from unmask import compiler, machine\nfrom unmask.report import table"),
        ("unmask.isa.unmasked", "import unmasked_elsewhere"),
    ],
)
def test_an_import_along_the_arrows_passes(module: str, source: str) -> None:
    assert forbidden_imports(source, module, is_package=False) == []


def test_the_arrows_have_no_cycle() -> None:
    left = {name: set(rooms) - {name} for name, rooms in ALLOWED.items()}
    while left:
        free = {name for name, rooms in left.items() if not rooms & left.keys()}
        assert free, f"a cycle among {sorted(left)}"
        left = {name: rooms for name, rooms in left.items() if name not in free}


def test_nothing_unpickles() -> None:
    assert [f"{module_name(path)} {line}" for path in MODULES for line in unpickling(path.read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def late():\n    from pickle import load",
        "import torch\ntorch.load('a')",
        "import torch\nwrite = torch.save",
        "from torch import load",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
    ],
)
def test_unpickling_is_found(source: str) -> None:
    assert len(unpickling(source)) == 1


def test_a_package_says_what_it_is_in_one_sentence() -> None:
    for path in PACKAGES:
        first_paragraph = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
        assert re.fullmatch(r"(?:[^.!?]|[.!?](?=\S))+\.", first_paragraph), f"{path.relative_to(ROOT)}: {first_paragraph!r}"


def test_every_folder_of_the_source_is_a_package() -> None:
    folders = {path.parent for path in MODULES}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_what_is_public_is_documented() -> None:
    assert list(undocumented({module_name(path): ast.parse(path.read_text()) for path in MODULES})) == []


def test_a_missing_docstring_is_found() -> None:
    source = '''
def _private(): ...
def bare(): ...
class Interface:
    """Documented."""
    def promised(self):
        """Documented for every implementation."""
class Named:
    """Documented."""
    @property
    def trivial(self):
        return self._trivial
    def promised(self):
        first = 1
        return first
    def long(self):
        first = 1
        return first
'''
    assert list(undocumented({"unmask.isa.table": ast.parse(source)})) == [
        "unmask.isa.table",
        "unmask.isa.table.bare",
        "unmask.isa.table.Named.long",
    ]


def test_a_file_fits_on_a_few_screens() -> None:
    assert {str(path.relative_to(ROOT)) for path in MODULES if len(path.read_text().splitlines()) > LONGEST_FILE} <= LONGER


def test_there_is_one_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    written = re.compile(r"^__version__\s*(?::.*)?=\s*['\"](.*)['\"]", re.MULTILINE)
    assert {version for path in MODULES for version in written.findall(path.read_text())} <= {declared}
    assert importlib.metadata.version("unmask") == declared
