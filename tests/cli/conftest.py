"""A network small enough to write here, and the `unmask` command as its entry point runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from unmask import save_model
from unmask.cli.main import run
from unmask.models.config import LladaConfig
from unmask.models.llada import Llada
from unmask.training.tokenizer import train_tokenizer

SPEECH = Path(__file__).parent.parent / "data" / "speeches" / "1800_john_adams_f.txt"
VOCABULARY = 320


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str

    def is_mistake(self) -> str:
        """Assert that this is how a user's mistake looks; returns its line."""
        assert self.status == 2
        assert self.stdout == ""
        assert self.stderr.startswith("unmask: ")
        assert self.stderr.count("\n") == 1
        assert self.stderr.endswith("\n")
        return self.stderr


Command = Callable[..., Done]


@pytest.fixture
def unmask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["unmask", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = LladaConfig(
        d_model=32,
        n_heads=2,
        n_layers=2,
        mlp_hidden_size=64,
        vocab_size=VOCABULARY,
        embedding_size=VOCABULARY,
        max_sequence_length=64,
        mask_token_id=VOCABULARY - 1,
        eos_token_id=VOCABULARY - 2,
        rope_theta=1e4,
    )
    model = Llada(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, folder)
    train_tokenizer([SPEECH.read_text()], VOCABULARY).save(str(folder / "tokenizer.json"))
    return folder
