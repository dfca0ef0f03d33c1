"""Templates: text with gaps, such as `My fellow citizens, [24] the state of our Union is [8].`

A space before a gap belongs to the gap: tokenizers of this field put it into the token of the word that follows, so text that ends in one
leaves only words without a space, such as the ends of other words, to fill the gap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.cli.text import encode
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.models.tokenizer import Tokenizer

_PIECES = re.compile(r"\\\[|\[([^\[\]]*)\]|\[|[^\\\[]+|\\")
"""An escaped bracket, a bracketed gap, an open bracket, or text."""

_DIGITS = 9
"""Of a gap's size; no context is that long."""


@dataclass(frozen=True)
class Template:
    """A template in tokens.

    Attributes:
        prompt: the text before the first gap.
        prompt_ids: its ids, maybe none.
        content: the ids from the first gap on, mask tokens in the gaps.
        gaps: where in `content` each gap lies.
    """

    prompt: str
    prompt_ids: list[int]
    content: list[int]
    gaps: tuple[range, ...]

    @property
    def is_gap(self) -> list[bool]:
        """For every position of `content`, whether it is to be filled."""
        return [any(position in gap for gap in self.gaps) for position in range(len(self.content))]

    def texts(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
        """What stands in every gap, given the tokens in the place of `content`."""
        return [tokenizer.decode([tokens[position] for position in gap]) for gap in self.gaps]


def read_template(text: str, tokenizer: Tokenizer, special: Collection[int], mask_token: int, context: int) -> Template:
    """Parse a template: `[n]` is a gap of `n` tokens, `\\[` a bracket, the rest is text.

    Args:
        text: the template.
        special: ids that text must not spell.
        mask_token: what a gap holds.
        context: the longest canvas of the model.

    Raises:
        UnmaskError: no gap, one of 0 tokens, a bracket that is no gap, more tokens than the context holds, or what `encode` raises.
    """
    pieces = _pieces(text)
    if not any(isinstance(piece, int) for piece in pieces):
        raise UnmaskError("the template has no gap: expected text with [n] where n tokens are to be filled in")
    first = next(index for index, piece in enumerate(pieces) if isinstance(piece, int))
    prompt = "".join(piece for piece in pieces[:first] if isinstance(piece, str))
    prompt_ids = encode(prompt, "template", tokenizer, special)
    content: list[int] = []
    gaps: list[range] = []
    for piece in pieces[first:]:
        given = [] if isinstance(piece, int) else encode(piece, "template", tokenizer, special)
        size = piece if isinstance(piece, int) else len(given)
        if (needed := len(prompt_ids) + len(content) + size) > context:
            raise UnmaskError(f"the template needs {needed} positions or more; the model's context has {context}")
        if isinstance(piece, int):
            gaps.append(range(len(content), len(content) + piece))
            given = [mask_token] * piece
        content += given
    return Template(prompt, prompt_ids, content, tuple(gaps))


def _pieces(text: str) -> list[str | int]:
    """Texts and gap sizes in turn; neighbouring texts are one."""
    pieces: list[str | int] = []
    for match in _PIECES.finditer(text):
        piece: str | int = "[" if match[0] == "\\[" else match[0]
        if match[1] is not None or match[0] == "[":
            if not (match[1] or "").isdecimal() or len(match[1]) > _DIGITS:
                raise UnmaskError(f"{match[0]!r} in the template is no gap: expected [n] with a number of tokens, or \\[ for a bracket")
            if (piece := int(match[1])) == 0:
                raise UnmaskError("a gap of 0 tokens: expected at least 1")
            if pieces and isinstance(pieces[-1], str):
                pieces[-1] = pieces[-1].removesuffix(" ")
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces
