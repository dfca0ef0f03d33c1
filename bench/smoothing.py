"""What smoothing is worth to a 4-bit KV cache: errors of the shipped model's cache, attention and logits, and the commits that stay.

`python bench/smoothing.py [PROMPTS [TEXT]]`: first the errors layer by layer, on canvases in the middle of a generation; then whole
generations under each cache. At every step of a float32 generation the network is evaluated in the machine's formats on the same canvas,
with a cache of its own, and compared with float32 and with the same decoding at `mxint8`: the error of the block's logits, the candidates
of all masked positions, and the positions and tokens that commit. The prompts are short openings, or 128 tokens at several places of a
text file.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from unmask import Machine, Policy, generate, load_model, load_tokenizer
from unmask.decoding.cache.smoothing import Scales, Smoothing
from unmask.decoding.commit import TopK
from unmask.decoding.compose import cache_of
from unmask.decoding.evaluate import Evaluator
from unmask.decoding.generate import StepRecord
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.machine.config import Smoothing as MethodName
from unmask.models.arithmetic import FloatArithmetic
from unmask.models.family import Network
from unmask.models.layers import TransformerBlock
from unmask.numerics import mx
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.noise import CounterNoise
from unmask.quant.smoothing.registry import smoothing_named
from unmask.quant.smoothing.scales import FILL, power_of_two_below
from unmask.quant.smoothing.static import KvScales, Static, load_scales

PROMPTS = (
    "My fellow citizens, I have the honor to report that",
    "The condition of our foreign relations during the past year",
    "I recommend to the Congress an act by which the",
    "The receipts of the Treasury for the fiscal year amounted to",
    "Our armed forces stand ready to defend the peace of",
    "We must create jobs for the American people and",
    "The Indian tribes within our borders have been at",
    "A treaty of commerce and navigation with Great Britain was",
)
POLICY = Policy(gen_length=32, block_length=16, steps=16, temperature=0.7)
CACHES = ("none", "prefix", "dual")
SEED, LONG, SPACING = 0, 128, 300


class ToOne:
    """BAOS whose scales are the largest magnitudes themselves."""

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        return Scales(*(x.abs().amax(dim=2, keepdim=True).bfloat16().to(x.dtype) for x in (keys, values)))


class Only:
    """A method for one operand; the other one is kept as it is."""

    def __init__(self, method: Smoothing, operand: str) -> None:
        self._method, self._operand = method, operand

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        found = self._method.scales(layer, keys, values)
        other = {"keys": "values", "values": "keys"}[self._operand]
        return replace(found, **{other: torch.ones_like(getattr(found, other))})


class WideCache(MachineArithmetic):
    """The machine's formats, but keys, values and the products with them as wide as float32."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None) -> Tensor:
        return FloatArithmetic().attention(q, k, v, attention_bias).bfloat16().float()


@dataclass
class Variant:
    """A way to keep keys and values, and how it did."""

    name: str
    kv: str
    smoothing: Smoothing | None
    logits: list[float] = field(default_factory=list)
    candidates: list[bool] = field(default_factory=list)
    commits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def variants(model: Network) -> list[Variant]:
    """What is compared; `mxint8` without smoothing comes first, since the others are held against it."""
    calibrated = load_scales("sotu", model)
    powers = Static(KvScales(power_of_two_below(calibrated.keys / FILL), power_of_two_below(calibrated.values / FILL)))
    methods = {name: smoothing_named(name, calibrated) for name in get_args(MethodName)}
    filling = methods["baos-bf16"]
    assert filling is not None
    sketches = {"static, powers": powers, "baos to 1": ToOne(), "baos-bf16, K only": Only(filling, "keys")}
    sketches["baos-bf16, V only"] = Only(filling, "values")
    return [
        Variant("none", "mxint8", None),
        *(Variant(name, "mxint8", methods[name]) for name in ("baos", "baos-bf16")),
        *(Variant(name, "mxint4", method) for name, method in (methods | sketches).items()),
        Variant("none", "wide", None),
    ]


def arithmetic(kv: str) -> MachineArithmetic:
    """The formats of the machine `small`, but for the KV cache."""
    formats = Machine.preset("small").formats
    if kv == "wide":
        return WideCache(formats.weights, formats.activations, formats.kv)
    return MachineArithmetic(formats.weights, formats.activations, kv)


def relative(found: Tensor, expected: Tensor) -> float:
    """Error of norms."""
    return float((found - expected).norm() / expected.norm())


def stored(x: Tensor, kv: str) -> Tensor:
    """K or V in blocks along the head dimension."""
    return torch.from_numpy(mx.dequantize(mx.quantize(x.numpy(), kv)))


def transposed(x: Tensor, kv: str) -> Tensor:
    """V as the mix reads it, down its columns: every tile of 32 x 32 has one scale."""
    heads = [mx.dequantize(mx.reblock_transposed(mx.quantize(head.numpy(), kv))).T for head in x.flatten(0, 1)]
    return torch.from_numpy(np.stack(heads)).reshape(x.shape)


@torch.no_grad()
def layer_errors(model: Network, canvases: Tensor, tried: list[Variant]) -> None:
    """Print the relative errors of K and V, of V as the mix reads it, and of the attention output, layer by layer."""
    projected: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(index: int, block: TransformerBlock, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, arithmetic: object) -> Tensor:
        projected.append(block.project(x, cos, sin, FloatArithmetic()))
        return block.attend(x, *projected[-1], bias, FloatArithmetic())

    model.hidden(canvases, layers=run)
    print("relative error in %, layer by layer, and their mean")
    for variant in tried:
        if variant.kv == "wide":
            continue
        errors: dict[str, list[float]] = {"K": [], "V": [], "V read": [], "attention": []}
        lanes = arithmetic(variant.kv)
        for layer, (q, k, v) in enumerate(projected):
            one = torch.ones_like(k[:, :, :1])
            scales = Scales(one, one) if variant.smoothing is None else variant.smoothing.scales(layer, k, v)
            k_small, v_small = lanes.scaled(k, scales.keys.reciprocal()), lanes.scaled(v, scales.values.reciprocal())
            errors["K"].append(relative(stored(k_small, variant.kv) * scales.keys, k))
            errors["V"].append(relative(stored(v_small, variant.kv) * scales.values, v))
            errors["V read"].append(relative(transposed(v_small, variant.kv) * scales.values, v))
            mixed = lanes.scaled(lanes.attention(lanes.scaled(q, scales.keys), k_small, v_small, None), scales.values)
            errors["attention"].append(relative(mixed, FloatArithmetic().attention(q, k, v, None)))
        for what, found in errors.items():
            cells = "".join(f"{100 * error:7.2f}" for error in (*found, sum(found) / len(found)))
            print(f"  {variant.kv:<8}{variant.name:<24}{what:<10}{cells}")


def chosen(confidence: Tensor, masked: Tensor, tokens: Tensor, counts: Tensor) -> list[set[tuple[int, int]]]:
    """(position, token) pairs that commit, row by row."""
    picked = TopK()(confidence.masked_fill(~masked, -torch.inf), counts)
    return [{(int(p), int(tokens[row, p])) for p in picked[row].nonzero()[:, 0]} for row in range(len(tokens))]


@torch.no_grad()
def follow(model: Network, prompts: Tensor, cache: str, tried: list[Variant]) -> None:
    """Run the float32 generation and hold every variant against it at each of its steps."""
    config, length, policy = model.config, prompts.shape[1], replace(POLICY, cache=cache)
    canvas = torch.cat((prompts, prompts.new_full((len(prompts), POLICY.gen_length), config.mask_token_id)), dim=1)
    evaluators = []
    for variant in tried:
        twin = load_model("sotu")
        twin.arithmetic = arithmetic(variant.kv)
        evaluators.append(Evaluator(twin, canvas != config.mask_token_id, length, 0.0, None, cache_of(policy, variant.smoothing)))
    exact = Evaluator(model, canvas != config.mask_token_id, length, 0.0, None, cache_of(policy))
    sampler, before, index = FloatSampler(), canvas, 0

    def compare(record: StepRecord) -> None:
        nonlocal before, index
        active = range(record.start, record.end)
        index = 0 if record.step % POLICY.steps_per_block == 0 else index + 1
        masked = before[:, active.start : active.stop] == config.mask_token_id
        counts = record.committed.sum(dim=1)
        positions, excluded = torch.arange(active.start, active.stop), (config.mask_token_id,)
        sampling = Sampling(record.step, positions, policy.temperature, policy.remasking, excluded, (), CounterNoise(SEED))
        expected = exact(before, active, index, active).logits
        tokens, confidence = sampler(expected, sampling)
        references = {"float32": chosen(confidence, masked, tokens, counts)}
        for variant, evaluate in zip(tried, evaluators, strict=True):
            logits = evaluate(before, active, index, active).logits
            found, sureness = sampler(logits, sampling)
            commits = chosen(sureness, masked, found, counts)
            references.setdefault("mxint8", commits)
            variant.logits.append(relative(logits[masked], expected[masked]))
            variant.candidates.extend((found == tokens)[masked].tolist())
            for name, reference in references.items():
                variant.commits[name].extend(len(ours & theirs) / len(ours) for ours, theirs in zip(commits, reference, strict=True))
        before = record.canvas

    generate(model, prompts, policy, noise=CounterNoise(SEED), on_step=compare)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    model, tokenizer = load_model("sotu"), load_tokenizer("sotu")
    if len(sys.argv) > 2:
        whole = tokenizer.encode(Path(sys.argv[2]).read_text("utf-8"))
        encoded = [whole[start : start + LONG] for start in range(0, count * SPACING, SPACING)]
    else:
        encoded = [tokenizer.encode(prompt) for prompt in PROMPTS[:count]]
    prompts = torch.tensor([ids[: min(map(len, encoded))] for ids in encoded])
    middle = generate(model, prompts, POLICY, noise=CounterNoise(SEED)).steps[POLICY.steps // 2 - 1].canvas
    layer_errors(model, middle, variants(model))
    for cache in CACHES:
        tried = variants(model)
        follow(model, prompts, cache, tried)
        print(f"\ncache {cache}: {len(tried[0].candidates)} candidates, {count * POLICY.gen_length} commits, against float32")
        print(f"  {'kv':<8}{'smoothing':<24}{'logits error':>14}{'candidates':>12}{'commits':>10}{'commits of mxint8':>19}")
        for variant in tried:
            shares = (np.mean(variant.candidates), *(np.mean(variant.commits[name]) for name in ("float32", "mxint8")))
            cells = "".join(f"{100 * share:{width}.1f}%" for share, width in zip(shares, (11, 9, 18), strict=True))
            print(f"  {variant.kv:<8}{variant.name:<24}{100 * np.mean(variant.logits):13.2f}%{cells}")


if __name__ == "__main__":
    main()
