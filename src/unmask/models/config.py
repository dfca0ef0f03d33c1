"""The shape of a network, as its checkpoint folder's `config.json` states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.models.layers import Architecture

# Keys of LLaDA's config.json that choose between formulas, with the values that mean the one computed here. Anything else would be
# a network that is silently wrong, so it is refused.
_FORMULAS: dict[str, tuple[object, ...]] = {
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "rope": (True,),
    "rope_full_precision": (True,),
    "block_group_size": (1,),
    "alibi": (False, None),
    "include_bias": (False, None),
    "include_qkv_bias": (False, None),
    "bias_for_layer_norm": (False, None),
    "attention_layer_norm": (False, None),
    "multi_query_attention": (False, None),
    "input_emb_norm": (False, None),
    "scale_logits": (False, None),
    "clip_qkv": (None,),
}


def read_number(values: Mapping[str, Any], path: Path, key: str, kind: type[int] | type[float], default: float | None = None) -> Any:
    """`values[key]`, from the parsed content of the file `path`, as an int or a float.

    Raises:
        UnmaskError: the key is missing and has no default, or its value is no finite number of this kind.
    """
    value = values.get(key)
    if value is None:
        if default is None:
            raise UnmaskError(f"{path}: the key {key} is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value != kind(value):
        raise UnmaskError(f"{path}: {key} is {value!r}; {'an integer' if kind is int else 'a number'} is needed")
    return kind(value)


@dataclass(frozen=True)
class LladaConfig:
    """LLaDA's own configuration keys; only those that change what is computed.

    Raises:
        ValueError: a size that is not positive, heads that do not divide the width, or a special token outside the vocabulary.
    """

    d_model: int
    n_heads: int
    n_layers: int
    mlp_hidden_size: int
    vocab_size: int
    embedding_size: int
    max_sequence_length: int
    mask_token_id: int
    eos_token_id: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    n_kv_heads: int | None = None
    pad_token_id: int | None = None
    weight_tying: bool = False

    def __post_init__(self) -> None:
        sizes = ("d_model", "n_heads", "n_layers", "mlp_hidden_size", "vocab_size", "max_sequence_length", "rope_theta", "rms_norm_eps")
        for name in sizes:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(f"d_model {self.d_model} must divide into n_heads {self.n_heads} heads of even width")
        if self.kv_heads < 1 or self.n_heads % self.kv_heads:
            raise ValueError(f"n_heads {self.n_heads} must be a multiple of n_kv_heads {self.n_kv_heads}")
        if self.embedding_size < self.vocab_size:
            raise ValueError(f"embedding_size {self.embedding_size} is smaller than vocab_size {self.vocab_size}")
        for name in ("mask_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ValueError(f"{name} is {token}, outside the vocabulary of {self.vocab_size}")

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def shifted_logits(self) -> bool:
        """Whether row `i` of the logits predicts position `i + 1`; LLaDA's predicts position `i`."""
        return False

    @property
    def architecture(self) -> Architecture:
        """The sizes by their common names."""
        return Architecture(
            width=self.d_model,
            layers=self.n_layers,
            heads=self.n_heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            feed_forward=self.mlp_hidden_size,
            vocab_size=self.vocab_size,
            embedding_rows=self.embedding_size,
            max_sequence_length=self.max_sequence_length,
            norm_eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            mask_token_id=self.mask_token_id,
            eos_token_id=self.eos_token_id,
            shifted_logits=self.shifted_logits,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path) -> LladaConfig:
        """The configuration in `values`, the parsed content of the file `path`; keys that do not change the maths are ignored.

        Raises:
            UnmaskError: a missing key, a value of the wrong type, an impossible size, or a formula that is not LLaDA's. The line
                names the file, the key, the value and what is supported.
        """
        for key, supported in _FORMULAS.items():
            if key in values and values[key] not in supported:
                raise UnmaskError(f"{path}: {key} is {values[key]!r}; supported: {supported[0]!r}")

        def number(key: str, kind: type[int] | type[float], default: float | None = None) -> Any:
            return read_number(values, path, key, kind, default)

        def optional(key: str) -> int | None:
            return None if values.get(key) is None else number(key, int)

        tying = values.get("weight_tying", False)
        if not isinstance(tying, bool):
            raise UnmaskError(f"{path}: weight_tying is {tying!r}; supported: True, False")
        vocab_size = number("vocab_size", int)
        try:
            return cls(
                d_model=number("d_model", int),
                n_heads=number("n_heads", int),
                n_layers=number("n_layers", int),
                mlp_hidden_size=number("mlp_hidden_size", int),
                vocab_size=vocab_size,
                embedding_size=number("embedding_size", int, vocab_size),
                max_sequence_length=number("max_sequence_length", int),
                mask_token_id=number("mask_token_id", int),
                eos_token_id=number("eos_token_id", int),
                rope_theta=number("rope_theta", float, 10000.0),
                rms_norm_eps=number("rms_norm_eps", float, 1e-5),
                n_kv_heads=optional("n_kv_heads"),
                pad_token_id=optional("pad_token_id"),
                weight_tying=tying,
            )
        except ValueError as error:
            raise UnmaskError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint's `config.json` holds: the keys of this class, and those that tell LLaDA's own code the same formulas."""
        formulas = {key: supported[0] for key, supported in _FORMULAS.items()}
        return {"model_type": "llada", **formulas, **asdict(self)}
