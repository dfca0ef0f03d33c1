"""What others publish about the same questions: their figures, on their models and machines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One published figure.

    Attributes:
        about: the question.
        says: the figure, with what it was measured on.
        source: whose it is.
    """

    about: str
    says: str
    source: str


CLAIMS = (
    Claim("precision of logits", "FP64 -> MXFP8 sampling keeps task quality (LLaDA-8B)", "DART, arXiv 2601.20706v2"),
    Claim("4-bit KV cache", "with BAOS on a par with BF16: GSM8K +1.9 points 0-shot, HumanEval +1.2", "DART, arXiv 2601.20706v2"),
    Claim("Fast-dLLM", "up to 27.6x tokens/s (LLaDA, GSM8K 8-shot, 1024 tokens, A100)", "Wu et al., arXiv 2505.22618"),
    Claim("FreeCache + Guided Diffusion", "12.14x on average, up to 34x", "FlashDLM, Hu et al., arXiv 2505.21467"),
)
