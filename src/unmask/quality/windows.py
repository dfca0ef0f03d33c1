"""Windows of held-out text, always the same ones for the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.errors import UnmaskError


@dataclass(frozen=True)
class Window:
    """Where a generation starts, and how its author went on: token ids."""

    prompt: list[int]
    continuation: list[int]


def spread(texts: Sequence[Sequence[int]], count: int, length: int) -> list[list[int]]:
    """Windows of `length` tokens at even distances over all texts; none reaches from one text into the next.

    Args:
        texts: token ids of each text.
        count: how many windows; they overlap where the texts are short.
        length: tokens per window.

    Raises:
        UnmaskError: fewer different windows than asked for.
    """
    rooms = [max(len(text) - length + 1, 0) for text in texts]
    if sum(rooms) < count:
        raise UnmaskError(f"the texts hold {sum(rooms)} windows of {length} tokens; expected at least {count}")
    windows = []
    for index in range(count):
        start, text = (2 * index + 1) * sum(rooms) // (2 * count), 0
        while start >= rooms[text]:
            start, text = start - rooms[text], text + 1
        windows.append(list(texts[text][start : start + length]))
    return windows


def prompts(texts: Sequence[Sequence[int]], count: int, prompt_tokens: int, gen_length: int) -> list[Window]:
    """`count` prompts of `prompt_tokens` tokens and the `gen_length` tokens that follow them, spread over the texts.

    Raises:
        UnmaskError: what `spread` raises.
    """
    whole = spread(texts, count, prompt_tokens + gen_length)
    return [Window(window[:prompt_tokens], window[prompt_tokens:]) for window in whole]
