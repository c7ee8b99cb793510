# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Each CPU kernel against its plain torch reference, forward and backward, at `small`'s shape.

    python benchmarks/kernels.py [--rounds 15]

Kernel and reference take turns; the ratio is the median over rounds. bf16, as in training; the
softmax gradient has a vocabulary of 32,000. Writes results/kernels.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from record import record
from torch import Tensor

from openllm.nn.context import AttentionContext
from openllm.nn.kernels import attention as att
from openllm.nn.kernels import rows
from openllm.nn.kernels.orthogonalize import orthogonalize_, orthogonalize_reference_
from openllm.transform.memory import keep_freed_memory

ROWS, DIM, HEADS, HEAD_DIM, HIDDEN, VOCAB = 2048, 512, 8, 64, 1536, 32_000
DOCUMENTS = {"4 documents of 512": 512, "documents of 160": 160, "documents of 40": 40}

Pair = tuple[Callable[[], object], Callable[[], object]]


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Random input that requires a gradient."""
    return torch.randn(*shape).to(dtype).requires_grad_()


def both_ways(operation: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """Forward and backward pass under bf16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        slope = torch.ones_like(operation(*inputs))

    def run() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            out = operation(*inputs)
        return torch.autograd.grad(out, inputs, slope)

    return run


def pairs() -> dict[str, Pair]:
    """Name -> (kernel, reference)."""
    x, gain = normal(ROWS, DIM, dtype=torch.float32), normal(DIM, dtype=torch.float32)
    heads, head_gain = normal(ROWS, HEADS, HEAD_DIM), normal(HEAD_DIM, dtype=torch.float32)
    angles = torch.randn(ROWS, HEAD_DIM // 2)
    cos, sin = angles.cos(), angles.sin()
    gate, up = normal(ROWS, HIDDEN), normal(ROWS, HIDDEN)
    scores = torch.randn(rows_at_a_time(), VOCAB).bfloat16()
    targets = torch.randint(VOCAB, (len(scores),))
    found: dict[str, Pair] = {
        "RMS norm": (
            both_ways(lambda x, g: rows.rms_norm(x, g, 1e-6), x, gain),
            # the next product needs bf16
            both_ways(lambda x, g: rows.rms_norm_reference(x, g, 1e-6).bfloat16(), x, gain),
        ),
        "norm and rotation of heads": (
            both_ways(lambda x, g: rows.norm_rotate(x, g, 1e-6, cos, sin), heads, head_gain),
            both_ways(
                lambda x, g: rows.norm_rotate_reference(x, g, 1e-6, cos, sin), heads, head_gain
            ),
        ),
        "SwiGLU": (
            both_ways(rows.swiglu, gate, up),
            both_ways(rows.swiglu_reference, gate, up),
        ),
        "softmax gradient": (
            lambda: rows.softmax_slope_(scores, targets),
            lambda: rows.softmax_slope_reference_(scores, targets),
        ),
    }
    q, k, v = (normal(ROWS, HEADS, HEAD_DIM) for _ in range(3))
    for name, length in DOCUMENTS.items():
        context = AttentionContext((*range(0, ROWS, length), ROWS))
        found[f"attention, {name}"] = (
            both_ways(lambda q, k, v, c=context: att.attention(q, k, v, c), q, k, v),
            both_ways(lambda q, k, v, c=context: att.attention_reference(q, k, v, c), q, k, v),
        )
    for name, size in {"tiny": (16, 256, 256), "small": (24, 512, 512)}.items():
        stack = torch.randn(size)
        found[f"Muon's iterations, {name}"] = (
            lambda s=stack: orthogonalize_(s.clone(), 5, torch.bfloat16),
            lambda s=stack: orthogonalize_reference_(s.clone(), 5, torch.bfloat16),
        )
    return found


def rows_at_a_time() -> int:
    """Rows of logits that the loss passes to the kernel at a time."""
    from openllm.nn.heads import CACHED_LOGITS

    return CACHED_LOGITS // VOCAB


def seconds(run: Callable[[], object]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    facts = {}
    for name, (kernel, reference) in pairs().items():
        for run in (kernel, reference, kernel, reference):
            run()
        times = [(seconds(kernel), seconds(reference)) for _ in range(args.rounds)]
        facts[name] = {
            "kernel_ms": round(1e3 * statistics.median(ours for ours, _ in times), 3),
            "reference_ms": round(1e3 * statistics.median(theirs for _, theirs in times), 3),
            "times_as_fast": round(statistics.median(b / a for a, b in times), 2),
        }
        print(f"{name:32s} {facts[name]}", flush=True)
    shape = {"rows": ROWS, "dim": DIM, "heads": HEADS, "hidden": HIDDEN, "vocabulary": VOCAB}
    record("kernels", {"what": "forward and backward, bf16", "shape": shape, "kernels": facts})


if __name__ == "__main__":
    main()
