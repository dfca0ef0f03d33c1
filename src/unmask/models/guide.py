"""The network of a guide: LLaDA's block under a causal mask, which makes it a Llama.

A guide is a small autoregressive model that says how far a diffusion model's draft may be kept (FlashDLM's Guided Diffusion, Hu et al.,
arXiv 2505.21467). It needs the diffusion model's vocabulary, so its checkpoint may name the checkpoint whose tokenizer it shares.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.models.arithmetic import Arithmetic
from unmask.models.checkpoint import load_network, read_config, resolve_checkpoint, tokenizer_file
from unmask.models.config import LladaConfig
from unmask.models.family import Family, Network, NetworkParts
from unmask.models.layers import LayerRunner, Rows, TransformerBlock
from unmask.models.llada import Llada

_MODEL_TYPE = "unmask-guide"


@dataclass(frozen=True)
class GuideConfig(LladaConfig):
    """LLaDA's keys, and which tokenizer the guide uses.

    Attributes:
        tokenizer: name of the shipped checkpoint whose tokenizer it is; None: the folder holds its own.
    """

    tokenizer: str | None = None

    @property
    def shifted_logits(self) -> bool:
        """Row `i` of the logits predicts position `i + 1`."""
        return True

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path) -> GuideConfig:
        """The configuration in `values`, the parsed content of the file `path`.

        Raises:
            UnmaskError: what `LladaConfig.from_json` raises; a `tokenizer` that is no name.
        """
        config = super().from_json(values, path)
        assert isinstance(config, cls)
        name = values.get("tokenizer")
        if name is not None and not isinstance(name, str):
            raise UnmaskError(f"{path}: tokenizer is {name!r}; the name of a shipped checkpoint is needed")
        return replace(config, tokenizer=name)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "model_type": _MODEL_TYPE}


class GuideNetwork(Network):
    """Token ids in, one row of logits per position out: row `i` predicts position `i + 1` and depends on nothing after `i`.

    It wraps a LLaDA network rather than being one, so that nobody takes it for a bidirectional network.
    """

    def __init__(self, config: GuideConfig) -> None:
        super().__init__()
        self.config: GuideConfig = config
        self.network = Llada(config)

    @property
    def arithmetic(self) -> Arithmetic:  # type: ignore[override]
        """What the network is computed in; may be replaced."""
        return self.network.arithmetic

    @arithmetic.setter
    def arithmetic(self, arithmetic: Arithmetic) -> None:
        self.network.arithmetic = arithmetic

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of the logits."""
        return self.network.dtype

    def computed_in(self, arithmetic: Arithmetic) -> Self:
        twin = copy.copy(self)
        twin._modules = {**self._modules, "network": self.network.computed_in(arithmetic)}
        return twin

    @property
    def parts(self) -> NetworkParts:
        return self.network.parts

    def hidden(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: Rows | None = None,
        layers: LayerRunner | None = None,
    ) -> Tensor:
        """The final, normalised hidden states; a position attends to itself and those before it.

        Args:
            ids: token ids, int64 [batch, positions].
            attention_mask: bool [batch, keys], False where a key must not be seen. With `layers`, key `j` lies at position `j`;
                without, the keys are the positions fed.
            positions: where the ids lie, the same for every row of the batch; None: from 0.
            layers: runs the blocks; a cache is one. It must present the keys from position 0 to the last one fed, or as many as
                `attention_mask` has. None: the rows that are fed see only one another.

        Returns:
            [batch, positions, d_model] in the dtype of the weights.

        Raises:
            ValueError: a position beyond `max_sequence_length`.
        """
        positions = range(ids.shape[1]) if positions is None else positions
        rows = torch.arange(positions.start, positions.stop) if isinstance(positions, range) else positions
        keys = rows
        if layers is not None:
            keys = torch.arange(int(rows.max()) + 1 if attention_mask is None else attention_mask.shape[1])
        bias = (keys <= rows[:, None]).to(ids.device)[None, None]
        if attention_mask is not None:
            bias = bias & attention_mask[:, None, None, :].bool()
        return self.network.hidden(ids, positions=positions, layers=partial(_run_block, bias, layers))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.network.logits(hidden)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [batch, positions, vocab_size] of every position of `ids` [batch, positions]."""
        return self.logits(self.hidden(ids, attention_mask))


def load_guide(name_or_path: str | Path = "sotu-guide", model: str | Path = "sotu", dtype: torch.dtype = torch.float32) -> GuideNetwork:
    """The guide of a diffusion model, in evaluation mode.

    Args:
        name_or_path: the guide, the name of a shipped checkpoint or a folder.
        model: the diffusion model that it is to guide, likewise.
        dtype: the dtype of every weight after loading.

    Raises:
        UnmaskError: what `load_network` raises; a checkpoint that is no guide; a guide whose vocabulary is not the model's.
    """
    folder, guided = resolve_checkpoint(name_or_path), resolve_checkpoint(model)
    family, config = read_config(folder)
    if family is not FAMILY:
        raise UnmaskError(f"{folder} holds a {family.name} network; a guide ({FAMILY.name}) is needed here")
    vocab_size = read_config(guided)[1].vocab_size
    if config.vocab_size != vocab_size:
        raise UnmaskError(f"the guide {folder} has a vocabulary of {config.vocab_size}; the model {guided} has {vocab_size}")
    ours, theirs = tokenizer_file(folder), tokenizer_file(guided)
    if ours != theirs and _vocabulary(ours) != _vocabulary(theirs):
        raise UnmaskError(f"the guide {folder} has another tokenizer than the model {guided}: {ours} and {theirs} differ")
    network = load_network(folder, dtype)
    assert isinstance(network, GuideNetwork)
    return network


def _vocabulary(path: Path) -> tuple[object, object]:
    """What a `tokenizer.json` says of its tokens."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return values["model"], values["added_tokens"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnmaskError(f"{path} is not a readable tokenizer: {' '.join(str(error).split())}") from None


def _run_block(
    bias: Tensor,
    layers: LayerRunner | None,
    index: int,
    block: TransformerBlock,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    attention_bias: Tensor | None,
    arithmetic: Arithmetic,
) -> Tensor:
    """Run one block under the causal `bias`, in place of the padding's, by `layers` if there is a runner."""
    if layers is not None:
        return layers(index, block, x, cos, sin, bias, arithmetic)
    return block.attend(x, *block.project(x, cos, sin, arithmetic), bias, arithmetic)


def _recognises(keys: Iterable[str], model_type: object) -> bool:
    return model_type == _MODEL_TYPE


FAMILY = Family(name=_MODEL_TYPE, recognises=_recognises, read_config=GuideConfig.from_json, build=GuideNetwork)
