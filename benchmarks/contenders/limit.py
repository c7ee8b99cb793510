# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The matrix products of a training step of our shape, timed alone.

A step also needs norms, softmax, the loss and the optimizer; here they cost nothing, and each
product has its operands ready and its output allocated. Attention is counted in full; a causal
kernel skips masked parts, so it may exceed its share of the limit.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from contenders.job import Job
from openllm.nn.config import SwiGLUConfig

PEAK_SIZE = 2048


class Row(NamedTuple):
    """A product (M, K) x (K, N), `batch` times per call, `count` calls per layer or step."""

    name: str
    M: str
    K: str
    N: str
    batch: str
    count: int
    per: str
    layout: str


TABLE = (
    Row("query, output: y = x W'", "tokens", "dim", "query", "1", 2, "layer", "a b'"),
    Row("query, output: dx = dy W", "tokens", "query", "dim", "1", 2, "layer", "a b"),
    Row("query, output: dW = dy' x", "query", "tokens", "dim", "1", 2, "layer", "a' b"),
    Row("key, value: y = x W'", "tokens", "dim", "key", "1", 2, "layer", "a b'"),
    Row("key, value: dx = dy W", "tokens", "key", "dim", "1", 2, "layer", "a b"),
    Row("key, value: dW = dy' x", "key", "tokens", "dim", "1", 2, "layer", "a' b"),
    Row("gate, up: y = x W'", "tokens", "dim", "hidden", "1", 2, "layer", "a b'"),
    Row("gate, up: dx = dy W", "tokens", "hidden", "dim", "1", 2, "layer", "a b"),
    Row("gate, up: dW = dy' x", "hidden", "tokens", "dim", "1", 2, "layer", "a' b"),
    Row("down: y = x W'", "tokens", "hidden", "dim", "1", 1, "layer", "a b'"),
    Row("down: dx = dy W", "tokens", "dim", "hidden", "1", 1, "layer", "a b"),
    Row("down: dW = dy' x", "dim", "tokens", "hidden", "1", 1, "layer", "a' b"),
    Row("attention: S = Q K'", "time", "head", "time", "heads", 1, "layer", "a b'"),
    Row("attention: O = P V", "time", "time", "head", "heads", 1, "layer", "a b"),
    Row("attention: dV = P' dO", "time", "time", "head", "heads", 1, "layer", "a' b"),
    Row("attention: dP = dO V'", "time", "head", "time", "heads", 1, "layer", "a b'"),
    Row("attention: dQ = dS K", "time", "time", "head", "heads", 1, "layer", "a b"),
    Row("attention: dK = dS' Q", "time", "time", "head", "heads", 1, "layer", "a' b"),
    Row("head: y = x W'", "tokens", "dim", "vocab", "1", 1, "step", "a b'"),
    Row("head: dx = dy W", "tokens", "vocab", "dim", "1", 1, "step", "a b"),
    Row("head: dW = dy' x", "vocab", "tokens", "dim", "1", 1, "step", "a' b"),
)
"""All matrix products of a step; attention in full, as if it were not causal.

A prime marks a transposed view: a weight W is (out, in), and x and dy are (tokens, width).
"""


class Product(NamedTuple):
    """A row of the table with concrete sizes."""

    M: int
    K: int
    N: int
    batch: int
    layout: str


def products(job: Job) -> list[tuple[str, Product, int]]:
    """Name, sizes and calls per step of each row of the table."""
    cfg = job.recipe().model
    if not isinstance(cfg.mlp, SwiGLUConfig):
        raise ValueError("the table is that of a gated MLP")
    sizes = {
        "1": 1,
        "tokens": job.tokens,
        "time": job.seq_len,
        "dim": cfg.dim,
        "query": cfg.attention.num_heads * cfg.attention.head_dim,
        "key": cfg.attention.kv_heads * cfg.attention.head_dim,
        "head": cfg.attention.head_dim,
        "heads": job.rows * cfg.attention.num_heads,
        "hidden": cfg.mlp.hidden_dim,
        "vocab": cfg.vocab_size,
    }
    calls = {"layer": cfg.num_layers, "step": 1}
    return [
        (
            row.name,
            Product(sizes[row.M], sizes[row.K], sizes[row.N], sizes[row.batch], row.layout),
            row.count * calls[row.per],
        )
        for row in TABLE
    ]


class Limit:
    """Times each distinct product of a step; their weighted sum is the limit."""

    def __init__(self, job: Job) -> None:
        self.rows = products(job)
        self._device = torch.device(job.device)
        dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
        self._calls = {
            product: _call(product, dtype, self._device)
            for product in sorted({product for _, product, _ in self.rows})
        }
        peak = Product(PEAK_SIZE, PEAK_SIZE, PEAK_SIZE, 1, "a b")
        self._peak = _call(peak, dtype, self._device)

    def sweep(self) -> tuple[float, float, list[float]]:
        """Seconds of the step's products, FLOP/s of a large one, seconds of each row's product."""
        peak = 2 * PEAK_SIZE**3 / self._seconds(self._peak)
        times = {product: self._seconds(call) for product, call in self._calls.items()}
        step = sum(times[product] * count for _, product, count in self.rows)
        return step, peak, [times[product] for _, product, _ in self.rows]

    def _seconds(self, call: Callable[[], Tensor]) -> float:
        """Seconds of one call, after a warm-up."""
        on_gpu = self._device.type == "cuda"
        repeats = 20 if on_gpu else 1  # amortise launches
        call()
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        if on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / repeats


def _call(product: Product, dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    M, K, N, batch, layout = product
    a = torch.randn(*((batch, K, M) if layout == "a' b" else (batch, M, K)), device=device)
    b = torch.randn(*((batch, N, K) if layout == "a b'" else (batch, K, N)), device=device)
    a, b = a.to(dtype), b.to(dtype)
    a = a.mT if layout == "a' b" else a
    b = b.mT if layout == "a b'" else b
    out = torch.empty(batch, M, N, dtype=dtype, device=device)
    if batch == 1:
        a, b, out = a[0], b[0], out[0]
        return lambda: torch.mm(a, b, out=out)
    return lambda: torch.bmm(a, b, out=out)
