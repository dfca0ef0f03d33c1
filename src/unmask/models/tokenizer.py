"""A checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from unmask.errors import UnmaskError
from unmask.models.checkpoint import resolve_checkpoint, tokenizer_file


class Tokenizer:
    """Text to token ids and back, as a `tokenizer.json` defines it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; no special token is added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; special tokens (mask, end of text) leave nothing behind unless `skip_special` is False."""
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special))


def load_tokenizer(name_or_path: str | Path = "sotu") -> Tokenizer:
    """The tokenizer of a shipped checkpoint or a checkpoint folder: the one in it, or the one that its configuration names.

    Raises:
        UnmaskError: no such checkpoint, no `tokenizer.json` for it, or one that cannot be read.
    """
    path = tokenizer_file(resolve_checkpoint(name_or_path))
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise UnmaskError(f"{path} is not a readable tokenizer: {' '.join(str(error).split())}") from None
