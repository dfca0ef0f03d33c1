"""Boolean expressions of Liberty files as truth tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError

_TOKEN = re.compile(r"\s*([A-Za-z_][\w\[\]]*|[01!'&*+|^()])")

# Inputs of a table, at most: a cell of more is none that a mapper would use.
MOST_INPUTS = 12


def names(expression: str) -> list[str]:
    """The names in an expression, each once."""
    return [token for token in dict.fromkeys(_TOKEN.findall(expression)) if re.match(r"[A-Za-z_]", token)]


def truth_table(expression: str, inputs: Sequence[str]) -> NDArray[np.bool_]:
    """The table of an expression: element i is its value where input k has the value of bit k of i.

    Precedence as in Liberty: `!` and `'`, then `^`, then `*`, `&` and juxtaposition, then `+` and `|`.

    Args:
        expression: as in a `function` attribute.
        inputs: names, at most `MOST_INPUTS`.

    Raises:
        UnmaskError: a syntax error, an unknown name or too many inputs.
    """
    if len(inputs) > MOST_INPUTS:
        raise UnmaskError(f"Liberty function {expression!r} of {len(inputs)} inputs, expected at most {MOST_INPUTS}")
    index = np.arange(1 << len(inputs))
    values = {name: (index >> position & 1).astype(bool) for position, name in enumerate(inputs)}
    return _Parser(expression, values, len(index)).parse()


class _Parser:
    """Recursive descent over the tokens of an expression; each level returns one value per row of the table."""

    def __init__(self, text: str, values: dict[str, NDArray[np.bool_]], rows: int) -> None:
        self.text, self.values, self.rows = text, values, rows
        self.tokens = _TOKEN.findall(text)
        if re.sub(r"\s", "", text) != "".join(self.tokens):
            raise self._error("unknown characters")
        self.position = 0

    def parse(self) -> NDArray[np.bool_]:
        result = self._either()
        if self.position != len(self.tokens):
            raise self._error(f"{self._next()!r} is one too many")
        return result

    def _error(self, what: str) -> UnmaskError:
        return UnmaskError(f"Liberty function {self.text!r}: {what}")

    def _next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _take(self, *tokens: str) -> bool:
        if self._next() in tokens:
            self.position += 1
            return True
        return False

    def _either(self) -> NDArray[np.bool_]:
        result = self._both()
        while self._take("+", "|"):
            result = result | self._both()
        return result

    def _both(self) -> NDArray[np.bool_]:
        result = self._differ()
        while self._take("*", "&") or self._next() not in ("", ")", "+", "|", "^", "'"):
            result = result & self._differ()
        return result

    def _differ(self) -> NDArray[np.bool_]:
        result = self._literal()
        while self._take("^"):
            result = result ^ self._literal()
        return result

    def _literal(self) -> NDArray[np.bool_]:
        if self._take("!"):
            return ~self._literal()
        token = self._next()
        self.position += 1
        if token == "(":
            result = self._either()
            if not self._take(")"):
                raise self._error("expected )")
        elif token in ("0", "1"):
            result = np.full(self.rows, token == "1")
        elif token in self.values:
            result = self.values[token]
        else:
            raise self._error(f"expected one of {', '.join(self.values)}, found {token!r}")
        while self._take("'"):
            result = ~result
        return result
