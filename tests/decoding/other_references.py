"""Fast-dLLM on LLaDA and Dream's own decoding written once more, without any seam, and recorded as golden cases; compare `plain_reference`.

The caches are written as concatenation of old and new keys and values, the samplers as one expression after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unmask.models.dream import Dream
from unmask.models.llada import Llada, rotary_tables

from .plain_reference import _sha


class Recorder:
    """The events of one call."""

    def __init__(self, model: Llada | Dream) -> None:
        self.model, self.events, self.forwards = model, [], 0

    def forward(self, ids: Tensor, logits: Tensor, **where: Any) -> Tensor:
        self.forwards += 1
        largest = torch.softmax(logits.double(), -1).amax(-1)
        event = {"op": "forward", "ids": ids.tolist(), "argmax": logits.argmax(-1).tolist(), "max_prob_f64": largest.tolist()}
        self.events.append({**event, **where})
        return logits

    def drawn(self, op: str, values: Tensor) -> Tensor:
        self.events.append({"op": op, "shape": list(values.shape), "dtype": str(values.dtype), "sha": _sha(values)})
        return values

    def topk(self, confidence: Tensor, k: int) -> Tensor:
        order = torch.sort(confidence, dim=-1, descending=True, stable=True).indices[..., :k]
        written = [["-inf" if x == -torch.inf else float(x) for x in row] for row in confidence.reshape(-1, confidence.shape[-1])]
        conf = written if confidence.ndim == 2 else written[0]
        self.events.append({"op": "topk", "k": k, "dtype": str(confidence.dtype), "indices": order.tolist(), "conf": conf})
        return order

    def case(self, source: str, prompt: list[list[int]], seed: int, canvas: Tensor, kwargs: dict[str, Any], **more: Any) -> dict[str, Any]:
        call = {"source": source, "prompt_ids": prompt, "seed": seed, "output_ids": canvas.tolist(), "kwargs": kwargs}
        return {**call, "n_forward": self.forwards, "events": self.events, "tensors": {}, **more}


def _windowed(model: Llada, ids: Tensor, start: int, cache: list[tuple[Tensor, Tensor]], tail: bool) -> Tensor:
    """Logits of the rows of `ids` from `start` on, attending to the cached rows before them and (`tail`) after them."""
    cos, sin = (table[start : start + ids.shape[1]] for table in rotary_tables(64, model.config.head_dim, model.config.rope_theta))
    x, end = model.model.transformer.wte(ids), start + ids.shape[1]
    for block, (old_k, old_v) in zip(model.model.transformer.blocks, cache, strict=True):
        q, k, v = block.project(x, cos, sin, model.arithmetic)
        after_k, after_v = (old_k[:, :, end:], old_v[:, :, end:]) if tail else (old_k[:, :, :0], old_v[:, :, :0])
        k, v = torch.cat((old_k[:, :, :start], k, after_k), 2), torch.cat((old_v[:, :, :start], v, after_v), 2)
        x = block.attend(x, q, k, v, None, model.arithmetic)
    return model.logits(model.model.transformer.ln_f(x, model.arithmetic))


def _cached(model: Llada, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    cos, sin = rotary_tables(ids.shape[1], model.config.head_dim, model.config.rope_theta)
    x, cache = model.model.transformer.wte(ids), []
    for block in model.model.transformer.blocks:
        q, k, v = block.project(x, cos, sin, model.arithmetic)
        cache.append((k, v))
        x = block.attend(x, q, k, v, None, model.arithmetic)
    return cache


@torch.no_grad()
def record_fast(model: Llada, prompt: list[list[int]], seed: int, kind: str, factor: float | None = None, **kwargs: Any) -> dict[str, Any]:
    """Fast-dLLM on LLaDA; `kind` is plain, prefix or dual."""
    torch.manual_seed(seed)
    recorder, mask, start = Recorder(model), model.config.mask_token_id, len(prompt[0])
    length, temperature, threshold = kwargs["block_length"], kwargs.get("temperature", 0.0), kwargs.get("threshold")
    x = torch.cat((torch.tensor(prompt), torch.full((len(prompt), kwargs["gen_length"]), mask)), 1)
    steps = kwargs["steps"] * length // kwargs["gen_length"]
    for begin in range(start, x.shape[1], length):
        end, step, cache = begin + length, 0, []
        while step == 0 or (kind == "dual" and step == 1) or bool((x[:, begin:end] == mask).any()):
            assert step < 40, "the mask token was committed; the reference would not end"
            low, high = (0, x.shape[1]) if kind == "plain" or step == 0 else (begin, x.shape[1] if kind == "prefix" else end)
            ids = x[:, low:high]
            if high - low == x.shape[1]:
                logits, cache = recorder.forward(ids, model(ids)), _cached(model, ids)
            elif kind == "prefix":
                logits = recorder.forward(ids, _windowed(model, ids, low, cache, False), past_len=low)
            else:
                logits = _windowed(model, ids, low, cache, True)
                recorder.forward(ids, logits, past_len=x.shape[1], replace_positions=list(range(low, high)))
            scores = logits
            if temperature > 0:
                for _ in range(2 if kind == "prefix" and step > 0 else 1):
                    noise = recorder.drawn("rand_like", torch.rand_like(logits, dtype=torch.float64))
                scores = logits.double().exp() / (-noise.log()) ** temperature
            best = scores.argmax(-1)
            confidence = torch.softmax(logits.double(), -1).gather(-1, best[..., None])[..., 0]
            if kwargs.get("remasking") == "random":
                confidence = recorder.drawn("rand", torch.rand(best.shape))
            eligible = ids == mask
            eligible[:, end - low :] = False
            confidence = confidence.masked_fill(~eligible, -torch.inf)
            for row in range(len(x)):
                masks = int(eligible[row].sum())
                k = length // steps + (step < length % steps) if step < steps else 0
                if factor is not None:
                    values = confidence[row].sort(descending=True).values[:masks].tolist()
                    bars = [-1.0] + [1 - factor / (rank + 2) for rank in range(1, masks)]
                    k = next((rank for rank in range(masks) if values[rank] < bars[rank]), masks)
                    k = masks if k == masks - 1 else k
                order = recorder.topk(confidence[row], masks if threshold is not None else k).tolist()
                kept = [i for rank, i in enumerate(order) if threshold is None or rank == 0 or confidence[row, i] >= threshold]
                x[row, [low + i for i in kept if eligible[row, i]]] = best[row, [i for i in kept if eligible[row, i]]]
            step += 1
    name = "generate" if kind == "plain" else f"generate_with_{kind}_cache"
    more = {} if factor is None else {"factor": factor}
    return recorder.case(f"a/Fast-dLLM@00 llada/generate.py::{name}", prompt, seed, x, {**kwargs, "mask_id": mask}, **more)


def _padded(model: Dream, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of a padded batch: positions count what is not padding, and padding neither sees nor is seen."""
    index = mask.long().cumsum(-1) - 1
    index.masked_fill_(mask == 0, 1)
    cos, sin = (table[index].unsqueeze(1) for table in rotary_tables(64, model.config.head_dim, model.config.rope_theta))
    bias = torch.logical_and(mask.unsqueeze(1).unsqueeze(-2), mask.unsqueeze(1).unsqueeze(-1))
    x = model.model.embed_tokens(ids)
    for block in model.model.layers:
        x = block(x, cos, sin, bias, model.arithmetic)
    return model.logits(model.model.norm(x, model.arithmetic))


@torch.no_grad()
def record_dream(model: Dream, prompt: list[list[int]], seed: int, **kwargs: Any) -> dict[str, Any]:
    """Dream's `diffusion_generate`."""
    torch.manual_seed(seed)
    recorder, mask = Recorder(model), model.config.mask_token_id
    steps, temperature, alg = kwargs["steps"], kwargs.get("temperature", 0.0), kwargs["alg"]
    x = torch.cat((torch.tensor(prompt), torch.full((len(prompt), kwargs["max_new_tokens"]), mask)), 1)
    times = torch.linspace(1, kwargs.get("eps", 1e-3), steps + 1)
    padding = kwargs.get("attention_mask")
    if padding is not None:
        padding = functional.pad(torch.tensor(padding), (0, kwargs["max_new_tokens"]), value=1)

    def sampled(logits: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits / temperature if temperature > 0 else logits
        for row in logits if kwargs.get("top_p") else []:
            total, ranked = 0.0, row.sort(descending=True)
            for probability, token in zip(torch.softmax(ranked.values, -1), ranked.indices, strict=True):
                if total > kwargs["top_p"]:
                    row[token] = torch.finfo(row.dtype).min
                total += probability
        for row in logits if kwargs.get("top_k") else []:
            row[row < row.sort(descending=True).values[kwargs["top_k"] - 1]] = torch.finfo(row.dtype).min
        p = torch.softmax(logits, -1)
        if temperature > 0:
            tokens = recorder.drawn("multinomial", torch.multinomial(p / p.sum(-1, keepdim=True), 1, True))[:, 0]
        else:
            tokens = p.argmax(-1)
        if alg == "topk_margin":
            ranked = p.sort(-1, descending=True).values
            return tokens, ranked[:, 0] - ranked[:, 1]
        return tokens, (p * torch.log(p + 1e-10)).sum(-1) if alg == "entropy" else p.gather(-1, tokens[:, None])[:, 0]

    for step in range(steps):
        raw = recorder.forward(x.clone(), model(x) if padding is None else _padded(model, x, padding))
        logits, masked = torch.cat((raw[:, :1], raw[:, :-1]), 1), x == mask
        part = 1 - times[step + 1] / times[step] if step < steps - 1 else torch.tensor(1.0)
        if alg == "origin":
            due = recorder.drawn("rand", torch.rand(int(masked.sum()))) < part
            tokens = x[masked]
            tokens[due] = sampled(logits[masked][due].clone())[0]
            x[masked] = tokens
            continue
        tokens, values = sampled(logits[masked].clone())
        confidence, candidates = torch.full(x.shape, -torch.inf), x.clone()
        confidence[masked], candidates[masked] = values, tokens
        if k := int(masked.sum() / len(x) * part):
            if kwargs.get("alg_temp"):
                weights = functional.softmax(confidence / kwargs["alg_temp"], -1)
                chosen = recorder.drawn("multinomial", torch.multinomial(weights, k))
            else:
                chosen = recorder.topk(confidence, k)
            x.scatter_(1, chosen, candidates.gather(1, chosen))
    return recorder.case("Dream generation_utils as in a@00", prompt, seed, x, {**kwargs, "mask_token_id": mask})
