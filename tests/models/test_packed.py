"""The seam to checkpoints in number formats."""

from pathlib import Path

import pytest
import torch

from unmask.errors import UnmaskError
from unmask.models import packed
from unmask.models.checkpoint import load_network, save_model

from .small import CONFIG, small_model


def test_whoever_is_registered_reads_a_packed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_model(small_model(), tmp_path)
    (tmp_path / packed.MARKER).write_text("{}")
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr(packed, "_finders", [])
    with pytest.raises(UnmaskError, match="nothing that reads number formats is loaded"):
        load_network(tmp_path)
    packed.register(lambda: lambda folder, expected: ((folder, name, torch.ones(shape)) for name, shape in expected.items()))
    network = load_network(tmp_path)
    assert network.config == CONFIG
    assert all((tensor == 1).all() for tensor in network.state_dict().values())


def test_a_tensor_that_is_no_number_is_named_whoever_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_model(small_model(), tmp_path)
    (tmp_path / packed.MARKER).write_text("{}")
    monkeypatch.setattr(packed, "_finders", [])
    packed.register(lambda: lambda folder, expected: ((folder, name, torch.full(shape, torch.nan)) for name, shape in expected.items()))
    with pytest.raises(UnmaskError, match=r"tensor model\.transformer\.wte\.weight holds NaN"):
        load_network(tmp_path)
