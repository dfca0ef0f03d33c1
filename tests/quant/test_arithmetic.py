"""The arithmetic of the machine is that of the network, within what its formats lose."""

import math

import pytest
import torch

from unmask.errors import UnmaskError
from unmask.models.arithmetic import FloatArithmetic
from unmask.models.llada import rotary_tables
from unmask.numerics import mx
from unmask.quant.arithmetic import MachineArithmetic

BF16 = 2.0**-8
"""Half a unit in the last place of BF16, relative."""

FLOAT = FloatArithmetic()
ERRORS = {"mxint8": 0.02, "mxfp8": 0.06, "mxfp6_e2m3": 0.06, "mxfp6_e3m2": 0.12, "mxint4": 0.25, "mxfp4": 0.3}
"""Relative error (of norms) that a product of two random matrices in these formats may have."""


def machine(name: str = "mxint8", **options: str) -> MachineArithmetic:
    return MachineArithmetic(name, name, name, **options)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """BF16 values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    assert found.dtype is torch.float32
    assert torch.equal(found, found.bfloat16().float())
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("shape", [(1, 3, 64), (2, 5, 33), (7, 1)])
def test_linear(name, shape):
    x, weight = random(*shape), torch.randn((29, shape[-1]), generator=torch.Generator().manual_seed(1))
    arithmetic = machine(name)
    # One product of two elements can be off by more than a sum of many.
    bound = ERRORS[name] * (1 if shape[-1] > 1 else 2)
    assert error(arithmetic.linear(x, weight), FLOAT.linear(x, weight)) < bound
    assert torch.equal(arithmetic.logits(x, weight), arithmetic.linear(x, weight))


def test_finer_formats_are_nearer():
    x, weight = random(16, 256), torch.randn((64, 256), generator=torch.Generator().manual_seed(1))
    errors = {name: error(machine(name).linear(x, weight), FLOAT.linear(x, weight)) for name in ERRORS}
    assert errors["mxint8"] < errors["mxfp8"] < errors["mxint4"]
    assert errors["mxfp6_e2m3"] < errors["mxfp4"]
    assert errors["mxint8"] > 0


def test_a_weight_is_quantized_once_and_each_weight_for_itself():
    arithmetic, x, weights = machine(), random(2, 32), [random(4, 32, seed=seed) for seed in (1, 2)]
    first = [arithmetic.linear(x, weight) for weight in weights]
    assert not torch.equal(*first)
    assert all(torch.equal(arithmetic.linear(x, weight), result) for weight, result in zip(weights, first, strict=True))
    assert torch.equal(machine().linear(x, weights[1]), first[1])


@pytest.mark.parametrize("shape", [(1, 4, 64), (2, 3, 5, 7), (1, 1)])
def test_norm(shape):
    x, weight = random(*shape), torch.randn(shape[-1], generator=torch.Generator().manual_seed(1))
    found, expected = machine().norm(x, weight, 1e-5), FLOAT.norm(x, weight, 1e-5)
    assert error(found, expected) < 3 * BF16
    assert torch.allclose(found, expected, rtol=5 * BF16)


def test_norm_of_zeros_is_zero():
    assert torch.equal(machine().norm(torch.zeros(2, 8), torch.ones(8), 1e-5), torch.zeros(2, 8))


@pytest.mark.parametrize("head_dim", [2, 16, 48, 64])
def test_rotate(head_dim):
    x, (cos, sin) = random(2, 3, 9, head_dim), rotary_tables(9, head_dim, 1e4)
    found = machine().rotate(x, cos, sin)
    assert error(found, FLOAT.rotate(x, cos, sin)) < 2 * BF16
    assert torch.equal(found[:, :, 0], x[:, :, 0])
    assert torch.allclose(found.norm(dim=-1), x.norm(dim=-1), rtol=4 * BF16)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize(("heads", "kv_heads", "positions", "head_dim"), [(4, 2, 37, 32), (3, 3, 5, 16), (2, 1, 64, 48), (1, 1, 1, 64)])
def test_attention(name, heads, kv_heads, positions, head_dim):
    q, k, v = (random(2, count, positions, head_dim, seed=seed) for seed, count in enumerate((heads, kv_heads, kv_heads)))
    # Re-blocking V for the transposed read rounds it a second time, to the scale of 32 rows; scores enter an exponential.
    assert error(machine(name).attention(q, k, v, None), FLOAT.attention(q, k, v, None)) < 3 * ERRORS[name]


@pytest.mark.parametrize("name", ERRORS)
def test_sums_by_the_array_are_those_of_the_weights_that_meet_v(name):
    q, k, v = (random(2, 3, 37, 32, seed=seed) for seed in range(3))
    by_array = machine(name, softmax_sums="array")
    assert error(by_array.attention(q, k, v, None), FLOAT.attention(q, k, v, None)) < 3 * ERRORS[name]
    ones = torch.ones_like(v)
    # However coarse the weights are, they add up to one but for the roundings of sum, reciprocal and product to BF16.
    assert (by_array.attention(8 * q, k, ones, None) - ones).abs().max() <= 4 * BF16


def test_attention_to_equal_keys_is_the_mean():
    v = random(1, 1, 32, 32)
    found = machine().attention(random(1, 1, 32, 32, seed=1), torch.ones(1, 1, 32, 32), v, None)
    assert error(found, v.mean(dim=2, keepdim=True).expand(v.shape)) < 0.05
    assert torch.equal(found, found[:, :, :1].expand(found.shape))


def test_every_row_of_a_batch_is_computed_alone():
    q, k, v = (random(3, 2, 10, 16, seed=seed) for seed in range(3))
    whole = machine().attention(q, k, v, None)
    assert all(torch.equal(machine().attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], None)[0], whole[i]) for i in range(3))


def test_masked_keys_are_not_seen():
    q, k, v = (random(2, 2, 9, 16, seed=seed) for seed in range(3))
    seen = torch.rand((2, 1, 9, 9), generator=torch.Generator().manual_seed(3)) < 0.6
    seen[..., 0] = True
    found = machine().attention(q, k, v, seen)
    assert error(found, FLOAT.attention(q, k, v, seen)) < 3 * ERRORS["mxint8"]
    other = k.clone()
    seen[1, ..., 5] = False
    other[1, :, 5] += 100
    assert torch.equal(machine().attention(q, k, v, seen), machine().attention(q, other, v, seen))


def test_gated_add_and_embed():
    gate, up = random(3, 50), random(3, 50, seed=1)
    assert error(machine().gated(gate, up), FLOAT.gated(gate, up)) < 4 * BF16
    assert torch.equal(machine().add(gate, up), (gate + up).bfloat16().float())
    table = torch.randn((11, 6), generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[3, 0, 10], [7, 7, 1]])
    assert torch.equal(machine().embed(ids, table), table.bfloat16().float()[ids])


def test_arguments_are_left_alone():
    x, y = random(1, 2, 8, 16), random(1, 2, 8, 16, seed=1)
    copies, arithmetic, (cos, sin) = (x.clone(), y.clone()), machine(), rotary_tables(8, 16, 1e4)
    arithmetic.attention(x, y, y, None)
    arithmetic.rotate(x, cos, sin)
    arithmetic.linear(x, y[0, 0])
    arithmetic.norm(x, y[0, 0, 0], 1e-5)
    arithmetic.gated(x, y)
    arithmetic.add(x, y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


def test_an_unknown_format_is_an_error():
    with pytest.raises(UnmaskError, match="unknown MX format 'mxint3'"):
        machine("mxint3")


def test_the_scale_of_scores_is_that_of_the_head():
    q, k = torch.full((1, 1, 2, 16), 1.0), torch.stack((torch.full((16,), 1.0), torch.zeros(16)))[None, None]
    v = torch.tensor([[1.0] * 16, [0.0] * 16])[None, None]
    share = 1 / (1 + math.exp(-16 / math.sqrt(16)))
    assert torch.allclose(machine().attention(q, k, v, None), torch.full((1, 1, 2, 16), share), rtol=0.02)


@pytest.mark.parametrize("normalised", [False, True])
def test_routing_is_the_softmax_of_the_best_scores_and_nothing_else(normalised):
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(50, 64, generator=generator).bfloat16().float(), torch.randn(12, 64, generator=generator) / 4
    found = MachineArithmetic("mxfp4", "mxint8", "mxint8").route(x, weight, 3, normalised).double()
    # The router's weights are in the wider format, that of K and V.
    rounded = torch.from_numpy(mx.dequantize(mx.quantize(weight.numpy(), "mxint8"))).double()
    scores = torch.from_numpy(mx.dequantize(mx.quantize(x.numpy(), "mxint8"))).double() @ rounded.T
    share = scores.softmax(dim=1)
    taken = found != 0
    assert (taken.sum(dim=1) == 3).all()
    lowest = scores.masked_fill(~taken, torch.inf).amin(dim=1)
    assert (lowest >= scores.masked_fill(taken, -torch.inf).amax(dim=1) - 2**-7 * scores.abs().amax(dim=1)).all()
    expected = share / (share * taken).sum(dim=1, keepdim=True) if normalised else share
    torch.testing.assert_close(found[taken], expected[taken], rtol=0.1, atol=0)


def test_equal_scores_take_the_lowest_experts_and_no_number_takes_no_more():
    arithmetic = MachineArithmetic("mxint8", "mxint8", "mxint8")
    weight = torch.ones(6, 32)
    assert arithmetic.route(torch.ones(1, 32), weight, 2, False)[0].nonzero()[:, 0].tolist() == [0, 1]
    broken = arithmetic.route(torch.full((1, 32), torch.inf), weight, 2, False)[0]
    assert broken[:2].isnan().all()
    assert (broken[2:] == 0).all()
