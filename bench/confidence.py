"""What the confidence of the streaming sampling programs is worth beside that of the general program and beside exact softmax.

`python bench/confidence.py`: errors of both confidences, against softmax of the same BF16 logits in float64, and how often they commit the
same positions of a step; on the logits of the shipped model along generations, and on random rows of LLaDA's vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmask import Policy, generate, load_model, load_tokenizer
from unmask.decoding.sampler import Sampling
from unmask.models.family import Network
from unmask.numerics import bf16
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.sampler import MachineSampler
from unmask.quant.streaming import StreamingSampler

PROMPTS = (
    "My fellow citizens, I have the honor to report that",
    "The condition of our foreign relations during the past year",
    "I recommend to the Congress an act by which the",
    "The receipts of the Treasury for the fiscal year amounted to",
    "Our armed forces stand ready to defend the peace of",
    "We must create jobs for the American people and",
)
LLADA_VOCABULARY, ROWS = 126_464, 64


class Beside:
    """A sampler that decodes as the general program does, and keeps what the streaming ones would have said."""

    def __init__(self, policy: Policy) -> None:
        self._samplers = MachineSampler(policy), StreamingSampler(policy)
        self.errors: list[list[float]] = [[], []]
        self.same = {1: [0, 0], 2: [0, 0], 4: [0, 0]}

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        found = [sampler(logits, sampling) for sampler in self._samplers]
        tokens = found[0][0]
        assert torch.equal(tokens, found[1][0])
        allowed = logits.to(torch.float64).clone()
        allowed[..., list(sampling.excluded)] = -torch.inf
        exact = allowed.softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
        masked = torch.ones_like(tokens, dtype=torch.bool) if sampling.eligible is None else sampling.eligible
        for errors, (_, confidence) in zip(self.errors, found, strict=True):
            errors += (confidence.double() / exact - 1)[masked].tolist()
        for count, (equal, all_) in self.same.items():
            chosen = [set(c.masked_fill(~masked, -1).flatten().topk(min(count, int(masked.sum()))).indices.tolist()) for _, c in found]
            self.same[count] = [equal + (chosen[0] == chosen[1]), all_ + 1]
        return found[0]


def report(what: str, beside: Beside) -> None:
    """Print one workload."""
    print(what)
    for name, errors in zip(("general (stable-max)", "streaming (window)"), beside.errors, strict=True):
        magnitudes = np.abs(errors)
        print(f"  {name:21} mean error {magnitudes.mean():8.3%}, largest {magnitudes.max():8.3%}, bias {np.mean(errors):+8.3%}")
    for count, (equal, all_) in beside.same.items():
        print(f"  the {count} most confident positions are the same in {equal} of {all_} steps")


def shipped(model: Network, temperature: float) -> Beside:
    """Generations of the shipped model in the machine's formats."""
    policy = Policy(gen_length=64, block_length=32, steps=64, temperature=temperature, remasking="low_confidence")
    beside, tokenizer = Beside(policy), load_tokenizer("sotu")
    network = model.computed_in(MachineArithmetic("mxint8", "mxint8", "mxint8"))
    for prompt in PROMPTS:
        generate(network, [tokenizer.encode(prompt)], policy, sampler=beside)
    return beside


def random_rows(scale: float) -> Beside:
    """Normal logits with a few high ones, two rows a step."""
    policy = Policy(gen_length=ROWS, block_length=ROWS, steps=1, remasking="low_confidence")
    beside, rng = Beside(policy), np.random.default_rng(0)
    for _ in range(8):
        x = rng.normal(size=(1, ROWS, LLADA_VOCABULARY)).astype(np.float32) * np.float32(scale)
        x[0, np.arange(ROWS), rng.integers(0, LLADA_VOCABULARY, ROWS)] += rng.uniform(0, 30, ROWS).astype(np.float32)
        beside(torch.from_numpy(bf16.round(x)), Sampling(0, torch.arange(ROWS), 0.0, "low_confidence", (), (), None))
    return beside


def main() -> None:
    """Print every workload."""
    model = load_model("sotu")
    for temperature in (0.0, 0.7):
        report(f"shipped model, {len(PROMPTS)} generations of 64 tokens, temperature {temperature:g}", shipped(model, temperature))
    for scale in (1.0, 4.0):
        report(f"random logits, {LLADA_VOCABULARY} columns, deviation {scale:g}, blocks of {ROWS}", random_rows(scale))


if __name__ == "__main__":
    main()
