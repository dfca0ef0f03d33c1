"""Dream's decoding in blocks, Fast-dLLM's and FlashDLM's, written once more as plain loops and recorded as golden cases.

Keys and values come from the caches under test elsewhere; what is sampled, ranked and committed is written here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache, Moment
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.freecache import FreeCache
from unmask.models.dream import Dream

from .other_references import Recorder


class _Run:
    """One recorded call: the canvas, and one forward pass or one draw after the other."""

    def __init__(self, model: Dream, prompt: list[list[int]], seed: int, cache: Cache, kwargs: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self.model, self.cache, self.kwargs, self.recorder = model, cache, kwargs, Recorder(model)
        self.prompt, self.seed, self.mask = prompt, seed, model.config.mask_token_id
        self.x = torch.cat((torch.tensor(prompt), torch.full((len(prompt), kwargs["max_new_tokens"]), self.mask)), 1)

    def forward(self, block: range, step: int) -> tuple[Tensor, range]:
        """Shifted logits of the rows that the cache feeds, and which these are."""
        now = Moment(self.x, len(self.prompt[0]), block, step, self.recorder.forwards)
        rows = self.cache.rows(now)
        ids = self.x[:, rows.start : rows.stop].clone()
        logits = self.model.logits(self.model.hidden(ids, positions=rows, layers=self.cache.runner(now, rows)))
        cached = {"past_len": self.x.shape[1], "replace_positions": list(rows)} if isinstance(self.cache, DualCache) else {}
        self.recorder.forward(ids, logits, **(cached if step else {}))
        return torch.cat((logits[:, :1], logits[:, :-1]), 1), rows

    def sample(self, logits: Tensor, alg: str) -> tuple[Tensor, Tensor]:
        """A token and its confidence for logits [..., vocabulary]."""
        temperature, least = self.kwargs.get("temperature", 0.0), torch.finfo(logits.dtype).min
        logits = logits / temperature if temperature else logits.clone()
        if "top_k" in self.kwargs:
            logits[logits < logits.sort(-1, descending=True).values[..., self.kwargs["top_k"] - 1, None]] = least
        p = torch.softmax(logits, -1)
        tokens = p.argmax(-1)
        if temperature:
            drawn = torch.multinomial((p / p.sum(-1, keepdim=True)).reshape(-1, p.shape[-1]), 1, True)
            tokens = self.recorder.drawn("multinomial", drawn).reshape(tokens.shape)
        if alg == "entropy":
            return tokens, (p * torch.log(p + 1e-10)).sum(-1)
        return tokens, p.gather(-1, tokens[..., None])[..., 0]

    def choose(self, confidence: Tensor, k: int) -> Tensor:
        if temperature := self.kwargs.get("alg_temp"):
            return self.recorder.drawn("multinomial", torch.multinomial(torch.softmax(confidence / temperature, -1), k))
        return self.recorder.topk(confidence, k)

    def case(self, source: str, **more: Any) -> dict[str, Any]:
        kwargs = {**self.kwargs, "mask_token_id": self.mask, **more}
        return self.recorder.case(source, self.prompt, self.seed, self.x, kwargs)


@torch.no_grad()
def record_fast_dream(model: Dream, prompt: list[list[int]], seed: int, **kwargs: Any) -> dict[str, Any]:
    """Fast-dLLM's blocks on Dream."""
    run = _Run(model, prompt, seed, DualCache() if kwargs["dual_cache"] else PrefixCache(), kwargs)
    length, x, mask = kwargs["block_length"], run.x, run.mask
    steps = kwargs["steps"] * length // kwargs["max_new_tokens"]
    times = torch.linspace(1, 1e-3, steps + 1)
    for start in range(len(prompt[0]), x.shape[1], length):
        block, step = range(start, start + length), 1
        x[:, start] = run.sample(run.forward(block, 0)[0], "")[0][:, start]
        while step == 1 or bool((x[:, start : block.stop] == mask).any()):
            assert step < 40, "the mask token was committed; the reference would not end"
            logits, rows = run.forward(block, step)
            masked = x[:, rows.start : rows.stop] == mask
            by_threshold = kwargs["alg"] == "confidence_threshold"
            if not by_threshold:
                if step == steps:
                    break
                masked[:, length:] = False
            tokens, values = run.sample(logits[masked], "" if by_threshold else "entropy")
            candidates = torch.full_like(masked, mask, dtype=torch.int64).masked_scatter(masked, tokens)
            confidence = torch.full(masked.shape, -torch.inf).masked_scatter(masked, values)
            confidence[:, length:] = -torch.inf
            if by_threshold:
                order = run.recorder.topk(confidence, int(masked[:, :length].sum()))[0].tolist()
                kept = [place for rank, place in enumerate(order) if rank == 0 or confidence[0, place] >= kwargs["threshold"]]
                x[0, [start + place for place in kept]] = candidates[0, kept]
            else:
                mean = masked.sum() / len(x)
                if k := int(mean * (1 - times[step + 1] / times[step])) if step < steps - 1 else int(mean):
                    chosen = run.choose(confidence, k)
                    x.scatter_(1, start + chosen, candidates.gather(1, chosen))
            step += 1
    return run.case("a/Fast-dLLM@00 dream/model generation_utils_block.py")


@torch.no_grad()
def record_flash(model: Dream, prompt: list[int], seed: int, **kwargs: Any) -> dict[str, Any]:
    """FlashDLM's FreeCache, for one row."""
    run = _Run(model, [prompt], seed, FreeCache(), kwargs)
    length, x, mask, eos = kwargs["block_size"], run.x, run.mask, model.config.eos_token_id
    blocks, last = kwargs["max_new_tokens"] // length, -1
    steps = kwargs["steps"] // blocks
    times = torch.linspace(1, 1e-3, kwargs["steps"] + 1)
    for index in range(kwargs["steps"]):
        number, step = divmod(index, steps)
        start = len(prompt) + number * length
        logits, rows = run.forward(range(start, start + length), step)
        places = start + (x[0, start : start + length] == mask).nonzero()[:, 0]
        tokens, confidence = run.sample(logits[0, places - rows.start], kwargs["alg"])
        left = len(places) + (blocks - number - 1) * length
        k = len(places) if step == steps - 1 else int(torch.tensor(left) * (1 - times[index + 1] / times[index]))
        if k:
            chosen = run.choose(confidence, k)
            x[0, places[chosen]] = tokens[chosen]
            last = max(last, int(places[chosen].max()))
        clean = x[0, : last + 1]
        if (
            kwargs["early_stop"]
            and last >= 0
            and not (clean == mask).any()
            and bool((clean[-kwargs["early_stop_consecutive"] :] == eos).all())
        ):
            x[x == mask] = eos
            break
    return run.case("a/flash-dlm-experimental@00 src/model/dream_flash (_sample_block_diffusion)", use_block_diffusion=True)
