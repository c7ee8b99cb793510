# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Packed matrices: what comes back, products beside the reference, and rows without companions."""

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import SHAPES as SHAPES_OF_MODELS
from tests.tiny import random_model
from tests.tolerances import assert_close, difference
from torch import Tensor

from openllm.core.errors import EngineError
from openllm.nn.kernels import library as kernels
from openllm.nn.kernels.decoder import pack_model
from openllm.nn.kernels.decoder_reference import decoder_reference
from openllm.nn.kernels.decoder_step import Step
from openllm.nn.kernels.library import library
from openllm.nn.kernels.packed import (
    BEST,
    KINDS,
    Kind,
    pack,
    pack_quantized,
    product,
    product_reference,
    round_scales,
    round_to_nearest,
)

SHAPES = [(16, 32), (48, 48), (37, 96), (200, 12), (640, 64)]
CAPABILITY = torch.backends.cpu.get_cpu_capability()
OTHER_CPUS = {
    "any x86": ("-march=x86-64",),
    "with AVX2": ("-march=x86-64-v3",),
    "with AVX-512": ("-march=x86-64-v4",),
    "with all but tiles": ("-march=native", "-mno-amx-tile", "-mno-amx-bf16", "-mno-amx-int8"),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def kernels_stay() -> Iterator[None]:
    """A test with other kernels must not leave them to the next."""
    yield
    library.cache_clear()


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENLLM_KERNELS", "0")
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_come_back(shape: tuple[int, int]) -> None:
    weight = normal(*shape)
    assert torch.equal(pack(weight, "fp32").unpack(), weight)
    assert torch.equal(pack(weight, "bf16").unpack(), weight.bfloat16().float())
    assert torch.equal(pack(weight.bfloat16(), "bf16").unpack(), weight.bfloat16().float())


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -8, 7)])
@pytest.mark.parametrize("group", [32, 64, 128, 256], ids=str)
def test_integers_and_scales_come_back(bits: int, low: int, high: int, group: int) -> None:
    q_NK = torch.randint(low, high + 1, (40, 256), generator=torch.Generator().manual_seed(1))
    q_NK[0, 0], q_NK[0, 1] = low, high
    scale_NG = normal(40, 256 // group) * 1e-3  # at 4 bits, quantisers choose either sign
    matrix = pack_quantized(q_NK.to(torch.int8), scale_NG, bits, group)
    found_q, found_scale = matrix.quantized()
    assert torch.equal(found_q, q_NK.to(torch.int8))
    assert torch.equal(found_scale, round_scales(scale_NG))
    assert_close(found_scale, scale_NG, torch.bfloat16)
    expected = q_NK.float() * found_scale.repeat_interleave(group, 1)
    assert torch.equal(matrix.unpack(), expected)
    ids = torch.tensor([0, 39, 17])
    assert torch.equal(matrix.rows(ids), expected[ids])
    x_RK = normal(5, 256, seed=2)
    assert_close(product(x_RK, matrix), product_reference(x_RK, matrix))


def test_four_bits_take_four_bits() -> None:
    weight = normal(512, 512)
    sizes = {kind: pack(weight, kind).num_bytes * 8 / weight.numel() for kind in KINDS}
    assert sizes == {"fp32": 32, "bf16": 16, "int8": 8.5, "int4": 4.5}


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.01), (4, 0.12)])
def test_rounding_to_nearest_is_close(bits: int, allowed: float) -> None:
    weight = normal(64, 256)
    q_NK, scale_NG = round_to_nearest(weight, bits, 32)
    error = q_NK.float() * scale_NG.repeat_interleave(32, 1) - weight
    assert error.norm() / weight.norm() < allowed
    assert torch.equal(round_to_nearest(torch.zeros(2, 32), bits, 32)[0], torch.zeros(2, 32).char())


@EVERY_KIND
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_the_reference(kind: Kind, shape: tuple[int, int]) -> None:
    matrix = pack(normal(*shape) * 0.1, kind)
    for rows in (1, 2, 5, 16, 17, 33, 70):
        x_RK = normal(rows, shape[1], seed=rows)
        assert_close(product(x_RK, matrix), product_reference(x_RK, matrix))
    ids = torch.tensor([0, shape[0] - 1, 3])
    assert torch.equal(matrix.rows(ids), matrix.unpack()[ids])


@EVERY_KIND
def test_products_are_close_to_those_of_the_weights(kind: Kind) -> None:
    weight, x_RK = normal(96, 512) * 0.1, normal(9, 512, seed=1)
    allowed = {"fp32": 1e-6, "bf16": 1e-2, "int8": 2e-2, "int4": 0.2}[kind]
    assert difference(product(x_RK, pack(weight, kind)), x_RK @ weight.T) < allowed


@pytest.mark.skipif(library() is None, reason="no kernels on this machine")
@EVERY_KIND
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_does_not_depend_on_its_companions(kind: Kind, threads: int) -> None:
    before = torch.get_num_threads()
    matrix, x_RK = pack(normal(100, 160) * 0.1, kind), normal(70, 160, seed=1)
    alone = torch.cat([product(row[None], matrix) for row in x_RK])
    torch.set_num_threads(threads)
    try:
        for first, last in [(0, 70), (0, 2), (3, 6), (1, 18), (5, 39), (30, 70)]:
            assert torch.equal(product(x_RK[first:last], matrix), alone[first:last])
    finally:
        torch.set_num_threads(before)


def test_logits_are_capped() -> None:
    matrix, x_RK = pack(normal(50, 64), "fp32"), normal(3, 64, seed=1)
    plain = x_RK @ matrix.unpack().T
    assert_close(product(x_RK, matrix, softcap=5.0), 5 * torch.tanh(plain / 5))
    out = torch.empty(3, 50)
    assert product(x_RK, matrix, softcap=5.0, out=out) is out
    assert torch.equal(out, product(x_RK, matrix, softcap=5.0))


def test_a_row_of_zeros_gives_zeros() -> None:
    for kind in KINDS:
        assert not product(torch.zeros(2, 64), pack(normal(20, 64), kind)).any()


@EVERY_KIND
@pytest.mark.parametrize("compiled", [True, False])
def test_numbers_that_are_not_finite_are_not_lost(
    kind: Kind, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do very small ones become such."""
    if not compiled:
        monkeypatch.setattr("openllm.nn.kernels.packed.library", lambda: None)
    matrix = pack(normal(20, 80), kind)
    for rows in (1, 16):  # by vectors and by tiles
        for place in (0, 17, 40, 79):
            for strange in (torch.nan, torch.inf):
                x_RK = normal(rows, 80, seed=1)
                x_RK[0, place] = strange
                found = product(x_RK, matrix)
                assert not found[0].isfinite().any() and found[1:].isfinite().all()
    for size in (1e-25, 1e-36, 1e-39):
        x_RK = torch.zeros(2, 80)
        x_RK[0, 3] = x_RK[1] = size
        assert product(x_RK, matrix).abs().max() <= 400 * size


@EVERY_KIND
def test_without_a_compiler(kind: Kind, without_kernels: None) -> None:
    matrix, x_RK = pack(normal(40, 64), kind), normal(3, 64, seed=1)
    assert library() is None
    assert_close(product(x_RK, matrix), product_reference(x_RK, matrix))
    assert torch.equal(matrix.rows(torch.tensor([7])), matrix.unpack()[7:8])


def test_what_does_not_fit_is_refused() -> None:
    q_NK, scale_N1 = torch.zeros(4, 48, dtype=torch.int8), torch.ones(4, 1)
    with pytest.raises(EngineError, match="group of 32"):
        pack_quantized(q_NK, torch.ones(4, 1), 8, 32)
    with pytest.raises(EngineError, match="group of 16"):
        pack_quantized(q_NK, torch.ones(4, 3), 8, 16)
    with pytest.raises(EngineError, match="scales"):
        pack_quantized(q_NK, torch.ones(4, 2), 8, 48)
    with pytest.raises(EngineError, match="4-bit"):
        pack_quantized(q_NK + 8, scale_N1, 4, 48)
    with pytest.raises(EngineError, match="int8"):
        pack_quantized(q_NK.float(), scale_N1, 8, 48)
    with pytest.raises(EngineError, match="finite"):
        pack_quantized(q_NK, scale_N1 * torch.nan, 8, 48)
    with pytest.raises(EngineError, match="matrix"):
        pack(torch.ones(3), "bf16")
    with pytest.raises(EngineError, match="do not fit"):
        product(torch.ones(2, 5), pack(torch.ones(3, 4), "fp32"))
    for out in (torch.empty(2, 4), torch.empty(2, 3).double(), torch.empty(3, 2).T):
        with pytest.raises(EngineError, match="out must be"):
            product(torch.ones(2, 4), pack(torch.ones(3, 4), "fp32"), out=out)
    with pytest.raises(EngineError, match="row 3"):
        pack(torch.ones(3, 4), "fp32").rows(torch.tensor([3]))


@pytest.mark.integration
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86 compilers")
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_other_cpus_have_the_same_results(
    cpu: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Built for less than this machine can do: other instructions, the same integers."""
    needed = {"with AVX2": ("AVX2", "AVX512"), "with AVX-512": ("AVX512",)}
    if CAPABILITY not in needed.get(cpu, (CAPABILITY,)):
        pytest.skip(f"this processor has {CAPABILITY} only")
    cases = [(kind, rows) for kind in KINDS for rows in (1, 3, 40)]
    here = [product(normal(rows, 96), pack(normal(70, 96, seed=1), kind)) for kind, rows in cases]
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path))
    flags = [flag for flag in kernels.FLAGS if flag != "-march=native"]
    monkeypatch.setattr(kernels, "FLAGS", [*flags, *OTHER_CPUS[cpu]])
    monkeypatch.setattr(kernels, "SOURCES", ("decoder.cpp",))
    library.cache_clear()
    built = library()
    assert built is not None and not built.has_tile_unit()
    for (kind, rows), expected in zip(cases, here, strict=True):
        matrix, x_RK = pack(normal(70, 96, seed=1), kind), normal(rows, 96)
        found = product(x_RK, matrix)
        assert_close(found, expected)
        for row in range(rows):
            assert torch.equal(product(x_RK[row : row + 1], matrix)[0], found[row])
    cfg = SHAPES_OF_MODELS["gemma2"]
    decoder = pack_model(random_model(cfg), cfg, "bf16")
    tokens = torch.arange(20)
    caches = [torch.zeros(2, 2, 2, 16, 16, dtype=torch.bfloat16) for _ in range(2)]
    rest = torch.tensor([[1, 0]]), *caches, tokens
    found = decoder.forward(tokens, tokens, 0 * tokens, *rest)
    assert_close(found, decoder_reference(decoder, _step(tokens, *rest)), torch.bfloat16)


def _step(tokens: Tensor, tables: Tensor, k_cache: Tensor, v_cache: Tensor, wanted: Tensor) -> Step:
    numbers = (x.int() for x in (tokens, tokens, 0 * tokens, tables, wanted))
    return Step(*numbers, torch.zeros_like(k_cache), torch.zeros_like(v_cache))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("outputs", [5, 64, 200])
def test_the_best_of_each_row(outputs: int, softcap: float | None) -> None:
    torch.manual_seed(outputs)
    matrix, x = pack(torch.randn(outputs, 32), "fp32"), torch.randn(9, 32)
    best = np.empty(9, BEST)
    product(x, matrix, softcap, best_R=best)
    plain = product(x, matrix)  # a cap keeps the order
    assert best["place"].tolist() == plain.argmax(1).tolist()
    assert torch.equal(torch.from_numpy(best["value"]), plain.amax(1))
    weight = torch.randn(outputs, 32)
    weight[outputs // 2] = -3e38  # beyond float32 in one output
    strange = pack(weight, "fp32")
    for sign in (1, -1):
        product(sign * (x.abs() + 1), strange, softcap, best_R=best)
        assert not np.isfinite(best["value"]).any()
    x[3, 5], x[7, 1] = torch.nan, torch.inf
    product(x, matrix, softcap, best_R=best)
    assert np.flatnonzero(~np.isfinite(best["value"])).tolist() == [3, 7]
