"""LLaDA's decoding written once more, in the order of `inference-semantics.md` and without any seam, and recorded as a golden case.

One row of the batch, one position and one commit at a time: slow, and so plain that it can be checked by reading.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unmask.models.llada import Llada


def _sha(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


@torch.no_grad()
def record(model: Llada, prompt: list[list[int]], seed: int, **kwargs: Any) -> dict[str, Any]:
    """A case as the golden folder holds it, with the full logits of the first forward under the key `tensors`."""
    mask, eos = model.config.mask_token_id, model.config.eos_token_id
    gen_length, block_length = kwargs["gen_length"], kwargs["block_length"]
    steps = kwargs["steps"] * block_length // gen_length
    temperature, scale = kwargs.get("temperature", 0.0), kwargs.get("cfg_scale", 0.0)
    torch.manual_seed(seed)
    start = len(prompt[0])
    canvas = [row + [mask] * gen_length for row in prompt]
    events: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    forwards = 0
    for block_start in range(start, start + gen_length, block_length):
        block_end = block_start + block_length
        todo = [sum(token == mask for token in row[block_start:block_end]) for row in canvas]
        for step in range(steps):
            fed = [list(row) for row in canvas]
            if scale > 0:
                fed += [[mask] * start + row[start:] for row in canvas]
            logits = model(torch.tensor(fed))
            wide = torch.softmax(logits.double(), dim=-1)
            forward = {"op": "forward", "ids": fed, "argmax": logits.argmax(-1).tolist(), "max_prob_f64": wide.amax(-1).tolist()}
            if forwards == 0:
                tensors["logits_0"], forward["logits_key"] = logits.contiguous(), "logits_0"
            forwards += 1
            events.append(forward)
            if scale > 0:
                unconditional = logits[len(canvas) :]
                logits = unconditional + (scale + 1) * (logits[: len(canvas)] - unconditional)
            logits = logits.clone()
            if kwargs.get("logits_eos_inf"):
                logits[:, :, eos] = -torch.inf
            scores = logits
            if temperature > 0:
                noise = torch.rand_like(logits, dtype=torch.float64)
                events.append({"op": "rand_like", "shape": list(noise.shape), "dtype": "torch.float64", "sha": _sha(noise)})
                scores = logits.double().exp() / (-noise.log()) ** temperature
            probability = torch.softmax(logits, dim=-1)
            uniform = None
            if kwargs.get("remasking") == "random":
                uniform = torch.rand(len(canvas), start + gen_length)
                events.append({"op": "rand", "shape": list(uniform.shape), "dtype": "torch.float32", "sha": _sha(uniform)})
            for row, tokens in enumerate(canvas):
                best = [int(scores[row, i].argmax()) for i in range(len(tokens))]
                values = uniform[row] if uniform is not None else torch.stack([probability[row, i, t] for i, t in enumerate(best)])
                eligible = [i for i in range(block_end) if tokens[i] == mask]
                confidence = [float(values[i]) if i in eligible else float("-inf") for i in range(len(tokens))]
                k = todo[row] // steps + (step < todo[row] % steps)
                chosen = sorted(range(len(tokens)), key=lambda i: (-confidence[i], i))[:k]
                conf = [value if value > float("-inf") else "-inf" for value in confidence]
                events.append({"op": "topk", "k": k, "dtype": str(values.dtype), "indices": chosen, "conf": conf})
                for i in chosen:
                    if i in eligible:
                        tokens[i] = best[i]
    return {
        "source": "ML-GSAI/LLaDA@0000000 generate.py::generate",
        "kwargs": {**kwargs, "mask_id": mask},
        "seed": seed,
        "prompt_ids": prompt,
        "output_ids": canvas,
        "n_forward": forwards,
        "dtype": str(model.dtype).removeprefix("torch."),
        "events": events,
        "tensors": tensors,
    }


def write_case(case: dict[str, Any], file: Path) -> None:
    """`NAME.json` and, beside it, `NAME.safetensors`."""
    file.write_text(json.dumps({key: value for key, value in case.items() if key != "tensors"}))
    save_file(case["tensors"], file.with_suffix(".safetensors"))
