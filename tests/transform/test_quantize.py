# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import SHAPES, random_model

from openllm.nn.quantized import LIMITS, QuantizedTensor, Scheme, round_to
from openllm.transform.quantize import fitting, quantize, scales, stored_bytes, units

SCHEMES = [Scheme(bits, group) for bits in (8, 4) for group in (32, 64, None)]


def weights(rows: int = 12, columns: int = 128, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(rows, 1, generator=generator) + 0.1
    return spread * torch.randn(rows, columns, generator=generator)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_weight_is_rounded_to_the_nearest_step(scheme: Scheme) -> None:
    weight = weights()
    found = quantize(weight, scheme)
    assert found.scheme == scheme and found.shape == weight.shape
    low, high = LIMITS[scheme.bits]
    assert low <= int(found.q.min()) and int(found.q.max()) <= high
    steps = found.scale.float().abs().repeat_interleave(found.group, 1)
    error = (found.dequantize() - weight).abs()
    clipped = (found.q == low) | (found.q == high)
    assert bool((error <= steps / 2 * 1.001)[~clipped].all())


def test_eight_bits_reach_the_largest_weight() -> None:
    weight = weights()
    found = quantize(weight, Scheme(8, 32))
    steps = found.scale.float().repeat_interleave(32, 1)
    assert bool(((found.dequantize() - weight).abs() <= steps * 0.51).all())
    assert int(found.q.min()) >= -127


def test_the_search_at_four_bits_beats_scales_of_the_largest_weight() -> None:
    weight = weights(64, 256)
    largest = weight.unflatten(1, (-1, 32)).abs().amax(-1)
    plain = round_to(weight, (largest / 7).half(), 4)
    found = quantize(weight, Scheme(4, 32))

    def error(tensor: QuantizedTensor) -> float:
        return float((tensor.dequantize() - weight).square().sum())

    assert error(found) < 0.85 * error(plain)


def test_matrices_of_zeros_and_of_large_and_small_values() -> None:
    zero = quantize(torch.zeros(3, 64), Scheme(4, 32))
    assert zero.dequantize().equal(torch.zeros(3, 64))
    large = quantize(torch.full((2, 32), 1e8), Scheme(8, 32))
    assert large.scale.dtype == torch.float32 and large.dequantize().isfinite().all()


@pytest.mark.parametrize("bits", [8, 4])
def test_small_weights_lose_no_more_than_others(bits: int) -> None:
    """Below 1e-5, float16 would round the scales away."""
    usual = (
        quantize(weights(), Scheme(bits, 32)).dequantize() - weights()
    ).norm() / weights().norm()
    for size in (1e-3, 1e-5, 1e-7, 1e-20):
        weight = size * weights()
        made = quantize(weight, Scheme(bits, 32)).dequantize()
        assert (made - weight).norm() / weight.norm() < 1.2 * usual, size


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_on_the_grid_stays_there(scheme: Scheme) -> None:
    found = quantize(weights(), scheme)
    again = round_to(found.dequantize(), found.scale, scheme.bits)
    assert again.q.equal(found.q)


def test_float16_scales_make_exact_products() -> None:
    found = quantize(weights(), Scheme(8, 32))
    assert found.scale.dtype == torch.float16
    wide = found.q.double().unflatten(1, (-1, 32)) * found.scale.double()[..., None]
    assert found.dequantize().double().equal(wide.flatten(1))


@given(st.integers(1, 400), st.sampled_from([32, 64, 128]))
def test_groups_divide_the_rows(columns: int, group: int) -> None:
    found = fitting(Scheme(4, group), columns)
    if found is None:
        assert columns % 32
    else:
        assert found.group is not None and columns % found.group == 0 and found.group <= group
    assert fitting(Scheme(8, None), columns) == Scheme(8, None)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sizes(scheme: Scheme) -> None:
    assert quantize(weights(), scheme).stored_bytes == stored_bytes((12, 128), scheme)


def test_units_hold_each_matrix_once() -> None:
    for cfg in SHAPES.values():
        state = random_model(cfg).state_dict()
        found = units(state)
        names = [name for unit in found.values() for name in unit]
        wanted = {n for n, t in state.items() if t.ndim == 2 and "embed_positions" not in n}
        assert len(names) == len(set(names)) and set(names) == wanted
        for unit, matrices in found.items():
            assert len({state[name].shape[1] for name in matrices}) == 1, unit


def test_parts_of_a_matrix() -> None:
    found = quantize(weights(), Scheme(4, 32))
    part = found.rows(3, 7)
    assert part.dequantize().equal(found.dequantize()[3:7])


def test_the_integers_are_those_of_torchao() -> None:
    """The integers are those of torchao's primitives for the same scales."""
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    weight = weights()
    for bits in (8, 4):
        scale = scales(weight, Scheme(bits, 32)).float()
        low, high = LIMITS[bits]
        zero = torch.zeros_like(scale, dtype=torch.int32)
        theirs = primitives.quantize_affine(
            weight, (1, 32), scale, zero, torch.int8, quant_min=low, quant_max=high
        )
        ours = round_to(weight, scale, bits).q
        assert float((ours != theirs).float().mean()) < 1e-3  # theirs multiplies by 1 / scale
        assert int((ours - theirs).abs().max()) <= 1
