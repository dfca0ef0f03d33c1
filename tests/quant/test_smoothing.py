"""Smoothing changes nothing but what few bits lose, and its scales are what they are said to be."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models.small import CONFIG, small_dream, small_model

from unmask.decoding.cache.smoothing import Smoother
from unmask.decoding.compose import cache_of
from unmask.decoding.generate import generate
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.machine.config import Smoothing as MethodName
from unmask.models.arithmetic import FloatArithmetic
from unmask.models.checkpoint import load_model, save_model
from unmask.numerics import bf16, functions
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.smoothing.registry import smoothing_named
from unmask.quant.smoothing.scales import FILL, LEAST_PEAK, filling, power_of_two_below
from unmask.quant.smoothing.static import FILE, KvScales, Static, calibrate, calibration_canvases, load_scales, save_scales

FLOAT = FloatArithmetic()
POWERS = ("tensor", "baos")
ONLINE = (*POWERS, "baos-bf16")
CACHES = ("none", "prefix", "dual")
EVERY_BF16 = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))


def rows(seed: int = 0, batch: int = 2, heads: int = 4, kv_heads: int = 2, positions: int = 40, head_dim: int = 32) -> list[torch.Tensor]:
    """Queries, keys and values with BF16 values, every channel of a magnitude of its own."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn((3, 1, 1, head_dim), generator=generator).exp()
    shapes = [(batch, heads, positions, head_dim), *[(batch, kv_heads, positions, head_dim)] * 2]
    return [(torch.randn(shape, generator=generator) * s).bfloat16().float() for shape, s in zip(shapes, spread, strict=True)]


def smoothed(name: str, q, k, v, arithmetic) -> torch.Tensor:
    """The attention output with smoothed keys and values."""
    q, k, v, restoring = Smoother(smoothing_named(name))(0, q, k, v, True, arithmetic)
    return restoring.attention(q, k, v, None)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# The scales


def test_a_power_of_two_is_what_the_machine_computes():
    found = power_of_two_below(torch.from_numpy(np.nan_to_num(np.abs(EVERY_BF16), posinf=np.inf))).numpy()
    finite = ~np.isnan(EVERY_BF16)
    assert np.array_equal(found[finite], functions.power_of_two(EVERY_BF16)[finite])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_that_fills_is_what_the_machine_computes(dtype):
    magnitude = np.abs(EVERY_BF16[np.isfinite(EVERY_BF16)])
    expected = bf16.multiply(np.maximum(magnitude, np.float32(LEAST_PEAK)), np.array(FILL, np.float32))
    found = filling(torch.from_numpy(magnitude).to(dtype))
    assert found.dtype is dtype
    assert np.array_equal(found.numpy(), expected)
    assert bool(torch.isfinite(found.reciprocal().float()).all())


def test_baos_has_a_scale_per_row_head_and_channel():
    _, k, v = rows()
    k[0, 0, :, 3] = 0
    found = smoothing_named("baos").scales(0, k, v)
    for scales, x in ((found.keys, k.numpy()), (found.values, v.numpy())):
        top = np.abs(x).max(axis=2, keepdims=True)
        expected = np.where(top == 0, 1, 2 ** np.floor(np.log2(np.where(top == 0, 1, top))))
        assert scales.shape == (2, 2, 1, 32)
        assert np.array_equal(scales.numpy(), expected)


def test_baos_in_bf16_takes_every_channel_to_seven_quarters():
    _, k, v = rows()
    found = smoothing_named("baos-bf16").scales(0, k, v)
    for scales, x in ((found.keys, k), (found.values, v)):
        assert torch.equal(scales, scales.bfloat16().float())
        assert torch.allclose((x / scales).abs().amax(dim=2), torch.tensor(1.75), rtol=2**-7)


def test_per_tensor_has_one_scale_per_row():
    _, k, v = rows()
    found = smoothing_named("tensor").scales(0, k, v)
    for scales, x in ((found.keys, k), (found.values, v)):
        assert scales.shape == (2, 2, 1, 32)
        for row in range(2):
            assert scales[row].unique().tolist() == [2.0 ** np.floor(np.log2(float(x[row].abs().max())))]


@pytest.mark.parametrize("name", ONLINE)
def test_rows_of_a_batch_do_not_see_each_other(name):
    _, k, v = rows()
    both = smoothing_named(name).scales(0, k, v)
    for row in range(2):
        alone = smoothing_named(name).scales(0, k[row : row + 1], v[row : row + 1])
        assert torch.equal(alone.keys, both.keys[row : row + 1])
        assert torch.equal(alone.values, both.values[row : row + 1])


def test_a_nan_has_no_part_in_a_scale():
    _, k, v = rows()
    expected = smoothing_named("baos").scales(0, k.masked_fill(k == k.max(), 0), v)
    found = smoothing_named("baos").scales(0, k.masked_fill(k == k.max(), torch.nan), v)
    assert torch.equal(found.keys, expected.keys)


# Exactness


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", POWERS)
def test_powers_of_two_change_no_bit_of_attention(name, dtype):
    q, k, v = (x.to(dtype) for x in rows())
    assert torch.equal(smoothed(name, q, k, v, FLOAT), FLOAT.attention(q, k, v, None))


def test_scales_of_any_value_change_attention_by_their_rounding_only():
    q, k, v = (x.double() for x in rows())
    assert error(smoothed("baos-bf16", q, k, v, FLOAT), FLOAT.attention(q, k, v, None)) < 1e-14


@pytest.mark.parametrize("name", POWERS)
def test_powers_of_two_come_back_exactly_in_bf16(name):
    arithmetic = MachineArithmetic("mxint8", "mxint8", "mxint4")
    _, k, v = rows()
    scales = smoothing_named(name).scales(0, k, v)
    assert torch.equal(arithmetic.scaled(arithmetic.scaled(k, scales.keys.reciprocal()), scales.keys), k)


def test_one_scale_for_a_tensor_disappears_in_the_blocks_scales():
    arithmetic = MachineArithmetic("mxint8", "mxint8", "mxint4")
    q, k, v = rows()
    # All but what the matrix accumulator, whose grid is 2^-40, floors.
    assert torch.allclose(smoothed("tensor", q, k, v, arithmetic), arithmetic.attention(q, k, v, None), rtol=0, atol=2**-32)


@pytest.mark.parametrize("name", ["tensor", "baos"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("build", [small_model, small_dream])
def test_a_float_generation_is_the_same_with_powers_of_two(name, cache, build):
    policy = Policy(gen_length=8, block_length=8 if build is small_dream else 4, steps=8, cache=cache)
    if build is small_dream:
        policy = replace(policy, remasking="maskgit_plus", schedule="timesteps")
    model, prompt = build(), [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    plain = generate(model, prompt, policy, cache=cache_of(policy))
    smooth = generate(model, prompt, policy, cache=cache_of(policy, smoothing_named(name)))
    for ours, theirs in zip(smooth.steps, plain.steps, strict=True):
        assert torch.equal(ours.canvas, theirs.canvas)
        assert torch.equal(ours.confidence, theirs.confidence)


# What it is for


@pytest.mark.parametrize("where", ["keys", "values"])
@pytest.mark.parametrize("seed", range(5))
def test_an_outlier_channel_hurts_less_with_baos(where, seed):
    q, k, v = rows(seed)
    (k if where == "keys" else v)[..., 5] *= 2**6
    if where == "keys":
        q[..., 5] /= 2**6
    arithmetic, expected = MachineArithmetic("mxint8", "mxint8", "mxint4"), FLOAT.attention(q, k, v, None)
    other = torch.arange(32) != 5
    plain, powers, full = (
        error(found[..., other], expected[..., other])
        for found in (arithmetic.attention(q, k, v, None), *(smoothed(name, q, k, v, arithmetic) for name in ("baos", "baos-bf16")))
    )
    assert powers < plain / 2
    assert full < plain / 2


# When scales are found


class Recording:
    """A method that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def scales(self, layer, keys, values):
        self.asked.append((layer, keys.shape[2]))
        return smoothing_named("baos").scales(layer, keys, values)


@pytest.mark.parametrize(("cache", "warm_steps"), [("none", 8), ("prefix", 2), ("dual", 2), ("freecache", 1), ("prompt", 1)])
def test_scales_are_found_whenever_the_whole_canvas_is_fed_and_stay_until_then(cache, warm_steps):
    policy, method = Policy(gen_length=8, block_length=4, steps=8, cache=cache), Recording()
    generate(small_model(), [[1, 2, 3]], policy, cache=cache_of(policy, method))
    assert method.asked == [(0, 11), (1, 11)] * warm_steps


def test_a_part_of_the_canvas_keeps_the_scales_of_the_whole():
    arithmetic, smooth = MachineArithmetic("mxint8", "mxint8", "mxint4"), Smoother(smoothing_named("baos"))
    q, k, v = rows()
    smooth(0, q, k, v, True, arithmetic)
    scales = smoothing_named("baos").scales(0, k, v)
    later = [8 * x[:, :, 3:5] for x in (q, k, v)]
    q_later, k_later, v_later, restoring = smooth(0, *later, False, arithmetic)
    assert torch.equal(k_later, later[1] / scales.keys)
    assert torch.equal(v_later, later[2] / scales.values)
    # Query heads 0 and 1 read K/V head 0, heads 2 and 3 read head 1.
    for head in range(4):
        assert torch.equal(q_later[:, head], later[0][:, head] * scales.keys[:, head // 2])
    plain = arithmetic.attention(q_later, k_later, v_later, None)
    for head in range(4):
        assert torch.equal(restoring.attention(q_later, k_later, v_later, None)[:, head], plain[:, head] * scales.values[:, head // 2])
    fresh = smooth(0, 8 * q, 8 * k, 8 * v, True, arithmetic)
    assert torch.equal(fresh[1], 8 * k / (8 * scales.keys))


# Static scales


def test_calibration_takes_the_largest_magnitude_over_all_canvases():
    model, ids = small_model(), torch.randint(0, 38, (5, 12), generator=torch.Generator().manual_seed(1))
    seen: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def run(index, block, x, cos, sin, bias, arithmetic):
        q, k, v = block.project(x, cos, sin, arithmetic)
        seen.setdefault(index, []).append((k, v))
        return block.attend(x, q, k, v, bias, arithmetic)

    with torch.no_grad():
        for row in ids:
            model.hidden(row[None], layers=run)
    found = calibrate(model, ids, batch=2)
    for layer, pairs in seen.items():
        for scales, whole in zip((found.keys, found.values), (torch.cat(part) for part in zip(*pairs, strict=True)), strict=True):
            assert torch.allclose(scales[layer], whole.abs().amax(dim=(0, 2)) * 4 / 7, rtol=2**-6)
            assert torch.equal(scales, scales.bfloat16().float())


def test_static_scales_are_those_of_the_layer_whatever_is_fed():
    calibrated = KvScales(torch.rand(3, 2, 32) + 1, torch.rand(3, 2, 32) + 1)
    _, k, v = rows()
    found = Static(calibrated).scales(1, k, v)
    assert torch.equal(found.keys, calibrated.keys[1][None, :, None])
    assert torch.equal(found.values, calibrated.values[1][None, :, None])


def test_scales_come_back_from_a_checkpoint_folder(tmp_path):
    model = small_model()
    save_model(model, tmp_path)
    scales = calibrate(model, torch.arange(20)[None])
    save_scales(scales, tmp_path)
    found = load_scales(tmp_path, load_model(tmp_path))
    assert torch.equal(found.keys, scales.keys)
    assert torch.equal(found.values, scales.values)


def test_the_shipped_model_has_scales():
    assert load_scales("sotu", load_model("sotu")).keys.shape == (6, 4, 64)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"keys": torch.ones(2, 4, 4)}, "tensor values is missing"),
        ({"keys": torch.ones(2, 4, 5), "values": torch.ones(2, 4, 4)}, r"shape \[2, 4, 5\]; expected \[2, 4, 4\]"),
        ({"keys": torch.zeros(2, 4, 4), "values": torch.ones(2, 4, 4)}, "positive BF16"),
        ({"keys": torch.ones(2, 4, 4), "values": torch.full((2, 4, 4), 1 / 3)}, "positive BF16"),
        ({"keys": torch.full((2, 4, 4), torch.inf), "values": torch.ones(2, 4, 4)}, "positive BF16"),
    ],
)
def test_scales_that_do_not_fit_the_network_are_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(UnmaskError, match=message):
        load_scales(tmp_path, small_model())


def test_missing_and_damaged_scales_are_one_line(tmp_path):
    with pytest.raises(UnmaskError, match="static smoothing needs scales"):
        load_scales(tmp_path, small_model())
    (tmp_path / FILE).write_bytes(b"no safetensors")
    with pytest.raises(UnmaskError, match="not a complete safetensors file"):
        load_scales(tmp_path, small_model())


def test_every_method_that_a_machine_can_name_is_there():
    shape = (CONFIG.n_layers, CONFIG.kv_heads, CONFIG.head_dim)
    for name in get_args(MethodName):
        assert (smoothing_named(name, KvScales(torch.ones(shape), torch.ones(shape))) is None) == (name == "none")
    with pytest.raises(UnmaskError, match="needs scales"):
        smoothing_named("static")
    with pytest.raises(UnmaskError, match="unknown smoothing"):
        smoothing_named("rotation")


def test_calibration_canvases_are_windows_with_masks():
    texts = [list(range(100, 130)), list(range(5)), list(range(200, 240))]
    canvases = calibration_canvases(texts, mask_token_id=39, count=50, length=8, seed=3)
    assert canvases.shape == (50, 8)
    masks = canvases == 39
    assert 0 < int(masks.all(dim=1).sum()) + int((~masks).all(dim=1).sum()) < 25
    for row, masked in zip(canvases, masks, strict=True):
        starts = (row - torch.arange(8))[~masked].unique()
        assert len(starts) <= 1
        assert all(100 <= start <= 122 or 200 <= start <= 232 for start in starts.tolist())
    assert torch.equal(canvases, calibration_canvases(texts, mask_token_id=39, count=50, length=8, seed=3))
    with pytest.raises(UnmaskError, match="no text of at least 50 tokens"):
        calibration_canvases(texts, mask_token_id=39, length=50)
