"""The libraries and tools that the tests of this folder use, or the reason why they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.silicon import kits
from unmask.silicon.liberty import Library
from unmask.silicon.tools import missing


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("silicon")


@pytest.fixture(scope="session")
def osu018(cache: Path) -> Library:
    if not kits.DEFAULT.exists():
        pytest.skip(f"{kits.DEFAULT} is not there: apt-get install qflow-tech-osu018")
    return kits.library_named(None, cache)


@pytest.fixture(scope="session")
def asap7(cache: Path) -> Library:
    if kits.shared_kit("asap7") is None:
        pytest.skip("no pdk/asap7 beside the checkout")
    return kits.library_named("asap7", cache)


@pytest.fixture(scope="session")
def sta() -> None:
    if packages := missing("sta"):
        pytest.skip(f"apt-get install {' '.join(packages)}")


@pytest.fixture(scope="session")
def iverilog() -> None:
    if packages := missing("iverilog", "vvp"):
        pytest.skip(f"apt-get install {' '.join(packages)}")
