"""Prompts in, generated text out: what every command that handles text checks and cleans."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.models.tokenizer import Tokenizer

_BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code for code in (*range(0x20), *range(0x7F, 0xA0), *_BIDIRECTIONAL) if chr(code) not in "\n\t"}
_REPLACED = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")


def encode_prompt(prompt: str, tokenizer: Tokenizer, special: Collection[int]) -> list[int]:
    """The ids of a prompt.

    Raises:
        UnmaskError: the prompt is empty, or what `encode` raises.
    """
    if not prompt.strip():
        raise UnmaskError("the prompt is empty: expected some text to continue")
    return encode(prompt, "prompt", tokenizer, special)


def encode(text: str, what: str, tokenizer: Tokenizer, special: Collection[int]) -> list[int]:
    """The ids of a text.

    Args:
        what: the text's name in messages.
        special: ids that text must not spell: the mask token, end of text.

    Raises:
        UnmaskError: the text is not Unicode (an argument of undecodable bytes), or spells a special token.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnmaskError(f"the {what} is not valid UTF-8") from None
    ids = tokenizer.encode(text)
    for token in ids:
        if token in special:
            raise UnmaskError(f"the {what} spells the special token {tokenizer.decode([token], skip_special=False)}; expected plain text")
    return ids


def new_text(tokenizer: Tokenizer, tokens: list[int], eos_token: int) -> str:
    """The text of generated tokens, cut before the first end-of-text token."""
    return tokenizer.decode(tokens[: tokens.index(eos_token)] if eos_token in tokens else tokens)


def printable(text: str) -> str:
    """The text with control characters replaced, as they could drive the terminal that shows it; new lines and tabs stay."""
    return text.translate(_REPLACED)
