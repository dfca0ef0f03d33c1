"""The published profile, if it lies beside the checkout, and the `unmask` command as its entry point runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unmask.baselines.gpu import Gpu
from unmask.baselines.profile import Measured, read_profile
from unmask.cli.main import run

PUBLISHED = Path(__file__).parents[3] / "shared" / "gpu" / "a6000_llama31_8b_layers.csv"


@pytest.fixture(scope="session")
def a6000() -> Gpu:
    return Gpu.load("a6000")


@pytest.fixture(scope="session")
def published_profile() -> list[Measured]:
    if not PUBLISHED.exists():
        pytest.skip(f"no gpu/{PUBLISHED.name} beside the checkout: LLMServingSim publishes it")
    return read_profile(PUBLISHED)


@pytest.fixture
def unmask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unmask", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return command
