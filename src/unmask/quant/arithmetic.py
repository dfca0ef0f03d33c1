"""A network in the machine's number formats, tensor-wise in PyTorch: the reference that the NPU must equal bit for bit.

The formats and every rounding are those of `unmask.numerics`; which operation follows which is the network's own code. Nothing here knows
about tiles, programs or engines.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from unmask.numerics import accumulator, bf16, functions, matmul, mx

F32 = NDArray[np.float32]


def _array(x: Tensor) -> F32:
    return x.detach().to(torch.float32).contiguous().numpy()


def _multiply(left: mx.MxTensor, right: mx.MxTensor) -> F32:
    total, invalid = matmul.mx_matmul(left, right)
    return np.where(invalid, np.float32(np.nan), accumulator.to_bf16(total, accumulator.MATRIX_FRACTION))


def _row_sums(x: F32) -> F32:
    total, invalid = accumulator.sum_rows(x)
    return np.where(invalid, np.float32(np.nan), accumulator.to_fp32(total, accumulator.VECTOR_FRACTION))


class MachineArithmetic:
    """An `unmask.models.arithmetic.Arithmetic` in BF16 with MX matrix operands.

    Tensors are float32 with BF16 values. Weights are quantized once per tensor and remembered.

    Args:
        weights, activations, kv: MX format names of `unmask.numerics.mx`.
        logits: one of these, or "bf16".
        softmax_sums: "lanes" sums the exponentials of attention as they are, "array" as they are quantized for the product with V.
    """

    def __init__(self, weights: str, activations: str, kv: str, logits: str = "bf16", *, softmax_sums: str = "lanes") -> None:
        self._weights, self._activations, self._kv = (mx.format_named(name) for name in (weights, activations, kv))
        self._logits = None if logits == "bf16" else mx.format_named(logits)
        self._softmax_sums = softmax_sums
        self._packed = WeakTensorKeyDictionary()

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """Rows of the table, rounded to BF16."""
        return torch.from_numpy(bf16.round(_array(table[ids])))

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMSNorm: exact sum of rounded squares, FP32 reciprocal square root, two BF16 products."""
        values = _array(x).reshape(-1, x.shape[-1])
        mean = _row_sums(bf16.multiply(values, values)) * np.float32(functions.mean_factor(values.shape[1]))
        scale = bf16.round(functions.rsqrt_fp32(mean + np.float32(eps)))
        scaled = bf16.multiply(bf16.multiply(values, scale[:, None]), bf16.round(_array(weight)))
        return torch.from_numpy(scaled.reshape(x.shape))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """MX activations times MX weights, accumulated exactly, rounded to BF16; a BF16 bias is added after that."""
        product = self._product(x, weight, self._weights)
        return torch.from_numpy(product if bias is None else bf16.add(product, bf16.round(_array(bias))))

    def _product(self, x: Tensor, weight: Tensor, form: mx.MxFormat) -> F32:
        packed: mx.MxTensor | None = self._packed.get(weight)  # type: ignore[no-untyped-call]
        if packed is None:
            packed = self._packed[weight] = mx.quantize(_array(weight), form)
        rows = mx.quantize(_array(x).reshape(-1, x.shape[-1]), self._activations)
        return _multiply(rows, packed).reshape(*x.shape[:-1], -1)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary embedding, every product and sum rounded to BF16, tables in BF16."""
        values, half = _array(x), x.shape[-1] // 2
        first, second = values[..., :half], values[..., half:]
        c, s = bf16.round(_array(cos[:, :half])), bf16.round(_array(sin[:, :half]))
        rotated = (
            bf16.subtract(bf16.multiply(first, c), bf16.multiply(second, s)),
            bf16.add(bf16.multiply(second, c), bf16.multiply(first, s)),
        )
        return torch.from_numpy(np.concatenate(rotated, axis=-1))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None) -> Tensor:
        """Softmax attention; exponentials meet V unnormalised and each row is scaled by its reciprocal sum afterwards."""
        batch, heads, rows, head_dim = q.shape
        group = heads // k.shape[1]
        scale = np.array(functions.softmax_scale(head_dim), np.float32)
        result = np.empty(q.shape, np.float32)
        queries, keys, values = _array(q), _array(k), _array(v)
        unseen = None
        if attention_bias is not None:
            seen = attention_bias.bool().expand(batch, heads, rows, keys.shape[2]).numpy()
            unseen = np.where(seen, np.float32(0), np.float32(-np.inf))
        for row in range(batch):
            for head in range(heads):
                left = mx.quantize(queries[row, head], self._activations)
                scores = bf16.multiply(_multiply(left, mx.quantize(keys[row, head // group], self._kv)), scale)
                if unseen is not None:
                    scores = bf16.add(scores, unseen[row, head])
                weights = functions.exp(bf16.subtract(scores, scores.max(axis=1, keepdims=True)))
                right = mx.reblock_transposed(mx.quantize(values[row, head // group], self._kv))
                packed = mx.quantize(weights, self._activations)
                if self._softmax_sums == "array":
                    inverse = functions.reciprocal(self._quantized_sums(packed))
                else:
                    inverse = bf16.round(functions.reciprocal_fp32(_row_sums(weights)))
                result[row, head] = bf16.multiply(_multiply(packed, right), inverse[:, None])
        return torch.from_numpy(result)

    def _quantized_sums(self, rows: mx.MxTensor) -> F32:
        """Row sums, rounded to BF16."""
        ones = mx.quantize(np.ones((1, rows.length), np.float32), self._kv)
        return _multiply(rows, ones)[:, 0]

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up in BF16."""
        return torch.from_numpy(bf16.multiply(functions.silu(_array(gate)), _array(up)))

    def route(self, x: Tensor, weight: Tensor, chosen: int, normalised: bool) -> Tensor:
        """Experts are chosen by their BF16 scores, ties to the lowest; exponentials are scaled by the reciprocal of their sum. The router's
        weights are in the wider of the formats of weights and KV cache, since an error of theirs takes another expert.
        """
        scores = self._product(x, weight, mx.wider(self._weights, self._kv))
        comparable = np.where(np.isnan(scores), np.float32(-np.inf), scores)
        best = np.argsort(-comparable, axis=1, kind="stable")[:, :chosen]
        others = np.ones(scores.shape, bool)
        np.put_along_axis(others, best, False, axis=1)
        exponentials = functions.exp(bf16.subtract(scores, comparable.max(axis=1, keepdims=True)))
        summed = np.where(others, np.float32(0), exponentials) if normalised else exponentials
        inverse = bf16.round(functions.reciprocal_fp32(_row_sums(summed)))
        return torch.from_numpy(np.where(others, np.float32(0), bf16.multiply(exponentials, inverse[:, None])))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """BF16 sum."""
        return torch.from_numpy(bf16.add(_array(x), _array(y)))

    def scaled(self, x: Tensor, factor: Tensor) -> Tensor:
        """BF16 product; the factor is rounded to BF16."""
        return torch.from_numpy(bf16.multiply(_array(x), bf16.round(_array(factor))))

    def logits(self, x: Tensor, weight: Tensor) -> Tensor:
        """The LM head: as `linear`, then through the format in which logits lie in memory, blocks along the vocabulary."""
        logits = self.linear(x, weight)
        if self._logits is None:
            return logits
        packed = mx.quantize(_array(logits).reshape(-1, logits.shape[-1]), self._logits)
        return torch.from_numpy(bf16.round(mx.dequantize(packed)).reshape(logits.shape))

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, every operation rounded to BF16."""
        lead = bf16.subtract(_array(conditional), _array(unconditional))
        factor = np.array(bf16.rounded(scale + 1), np.float32)
        return torch.from_numpy(bf16.add(_array(unconditional), bf16.multiply(lead, factor)))
