"""What the bound is measured beside: a general compressor, and a bigram model over the same tokens. All in bits per character."""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def xz_alone(texts: Sequence[str]) -> float:
    """`xz -9` on the joined texts by themselves, bits per character."""
    return 8 * _xz_bytes("\n".join(texts)) / sum(map(len, texts))


def xz_after_training_text(texts: Sequence[str], training: Sequence[str]) -> float:
    """What `xz -9` needs for the texts once it has seen the training text, bits per character.

    Both together less the training text alone; the whole training text lies within the compressor's window of 64 MiB.
    """
    before = "\n".join(training)
    added = _xz_bytes("\n".join([before, *texts])) - _xz_bytes(before)
    return 8 * added / sum(map(len, texts))


def _xz_bytes(text: str) -> int:
    return len(lzma.compress(text.encode(), format=lzma.FORMAT_XZ, preset=9))


class KneserNeyBigram:
    """An interpolated Kneser-Ney bigram (Kneser and Ney, 1995; Chen and Goodman, 1999), one absolute discount per order.

    A pair's count is discounted and the mass given to the continuation distribution, in which a token counts for the number of distinct
    tokens it follows; that one is discounted in turn towards the uniform distribution, so every token has a positive probability. Each
    discount is n1 / (n1 + 2 n2), from the number of events seen once and twice. Each text begins in the context of the end-of-text token.
    """

    def __init__(self, training: Sequence[Sequence[int]], vocabulary: int, end_of_text: int) -> None:
        """Count the texts.

        Args:
            training: token ids of each text, without end-of-text tokens.
            vocabulary: size of the vocabulary; ids are below it.
            end_of_text: the id that stands before and after each text.
        """
        self.vocabulary = vocabulary
        self.end_of_text = end_of_text
        stream: Ids = np.concatenate([np.array([end_of_text]), *(np.array([*text, end_of_text]) for text in training)])
        self._pairs, counts = np.unique(stream[:-1] * vocabulary + stream[1:], return_counts=True)
        first, second = self._pairs // vocabulary, self._pairs % vocabulary

        follows = np.bincount(second, minlength=vocabulary)
        discount = _discount(follows)
        uniform = discount * np.count_nonzero(follows) / len(self._pairs) / vocabulary
        self._continuation: Probabilities = np.maximum(follows - discount, 0) / len(self._pairs) + uniform

        discount = _discount(counts)
        totals = np.bincount(first, weights=counts, minlength=vocabulary)
        successors = np.bincount(first, minlength=vocabulary)
        self._seen: Probabilities = (counts - discount) / totals[first]
        self._left: Probabilities = np.divide(discount * successors, totals, out=np.ones(vocabulary), where=totals > 0)

    def probability(self, context: Ids, token: Ids) -> Probabilities:
        """Probability of `token` after `context`; the two broadcast."""
        pair = context * self.vocabulary + token
        place = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
        seen = np.where(self._pairs[place] == pair, self._seen[place], 0.0)
        return seen + self._left[context] * self._continuation[token]

    def bits_per_character(self, texts: Sequence[Sequence[int]], characters: int) -> float:
        """Bits of all tokens of `texts`, divided by the `characters` they spell."""
        bits = 0.0
        for text in texts:
            ids = np.array([self.end_of_text, *text])
            bits -= float(np.log(self.probability(ids[:-1], ids[1:])).sum()) / math.log(2)
        return bits / characters


def _discount(counts: Ids) -> float:
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return once / (once + 2 * twice) if once else 0.5
