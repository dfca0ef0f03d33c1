"""The tokenizer of a trained model: byte-level BPE (Sennrich et al., arXiv 1508.07909) over the training speeches."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocabulary` entries: the merges, then `END_OF_TEXT`, then `MASK` as the last id.

    Any text round-trips, since every byte has an entry. The same texts give the same tokenizer.

    Raises:
        ValueError: the texts do not hold enough distinct pairs to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT, MASK])
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(f"the texts fill only {tokenizer.get_vocab_size()} of {vocabulary} entries of the vocabulary")
    return tokenizer
