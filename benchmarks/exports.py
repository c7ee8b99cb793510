# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Exported models beside the model they were made from: size, exactness, speed.

    python benchmarks/exports.py MODEL DATA                  all formats
    python benchmarks/exports.py MODEL DATA --only onnx-int8

MODEL is a trained model folder, DATA a prepared data folder with held-out text. Results go to
benchmarks/results/exports.json, a format's as soon as it is measured; those of other formats stay,
if they are of the same model.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from record import RESULTS, record

from openllm.core.files import sha256_file
from openllm.core.log import say
from openllm.export.eager import EagerModel
from openllm.export.gguf.llama_cpp import LlamaCppModel
from openllm.export.gguf.writer import export_gguf
from openllm.export.onnx.runtime import OnnxModel
from openllm.export.onnx.writer import export_onnx
from openllm.export.pt2.writer import Pt2Model, export_pt2
from openllm.export.reference import log_softmax
from openllm.export.runtime import Runtime
from openllm.text.load import load_tokenizer

NEW_TOKENS = 256
PROMPT_TOKENS = 16
BATCHES = (1, 4)
THREADS = 1
WEIGHTS = re.compile(r"^model\.|\.gguf$")


class Format(NamedTuple):
    """How a format is written, and what runs it."""

    name: str
    export: Callable[[Path, Path], None]
    load: Callable[[Path], Runtime]


def llama_cpp(folder: Path) -> Runtime:
    """The GGUF file of a folder in llama.cpp."""
    return LlamaCppModel(next(folder.glob("*.gguf")), threads=THREADS)


FORMATS = [
    *(
        Format(
            f"onnx-{dtype}", partial(export_onnx, dtype=dtype), partial(OnnxModel, threads=THREADS)
        )
        for dtype in ("fp32", "fp16", "int8", "int4")
    ),
    Format("pt2", export_pt2, Pt2Model),
    *(
        Format(f"gguf-{dtype}", partial(export_gguf, dtype=dtype), llama_cpp)
        for dtype in ("f32", "f16", "bf16", "q8_0", "q4_0")
    ),
]
"""To add one, add a row."""


def texts(model: Path, data: Path, count: int, longest: int) -> list[list[int]]:
    """Ids of held-out documents that are longer than a prompt."""
    tokenizer, found = load_tokenizer(model), []
    with open(data / "test.jsonl", encoding="utf-8") as lines:
        for line in lines:
            ids = [*tokenizer.prefix, *tokenizer.encode(json.loads(line)["text"])][:longest]
            if len(ids) > PROMPT_TOKENS:
                found.append(ids)
            if len(found) == count:
                break
    return found


def distance(runtime: Runtime, eager: Runtime, held_out: Sequence[list[int]]) -> dict[str, float]:
    """How far the logits are apart, and the perplexity of both."""
    largest = divergence = ours = theirs = count = 0.0
    for ids in held_out:
        found, wanted = runtime.logits(ids), eager.logits(ids)
        largest = max(largest, float(np.abs(found - wanted).max()))
        q, p = log_softmax(found), log_softmax(wanted)
        divergence += float((np.exp(p) * (p - q)).sum())
        rows = np.arange(len(ids) - 1)
        ours -= float(q[rows, ids[1:]].sum())
        theirs -= float(p[rows, ids[1:]].sum())
        count += len(ids) - 1
    return {
        "max_logit_difference": largest,
        "mean_kl_nats": divergence / count,
        "perplexity": float(np.exp(ours / count)),
        "perplexity_over_eager": float(np.exp((ours - theirs) / count)),
        "scored_tokens": int(count),
    }


def agreement(made: Sequence[list[int]], wanted: Sequence[list[int]]) -> dict[str, Any]:
    """How many texts are the same, and how far they go together."""
    common = [
        next((at for at, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), len(y))
        for x, y in zip(made, wanted, strict=True)
    ]
    same = sum(length == len(text) for length, text in zip(common, wanted, strict=True))
    return {"identical": same, "of": len(wanted), "mean_common_tokens": float(np.mean(common))}


def decode(
    runtime: Runtime, prompts: Sequence[list[int]], new_tokens: int, batch: int
) -> tuple[list[list[int]], float]:
    """The texts, and tokens per second."""
    made: list[list[int]] = []
    began = time.perf_counter()
    for start in range(0, len(prompts), batch):
        made += runtime.greedy(prompts[start : start + batch], new_tokens)
    return made, len(prompts) * new_tokens / (time.perf_counter() - began)


class Wanted(NamedTuple):
    """What the trained model says."""

    eager: EagerModel
    held_out: list[list[int]]
    prompts: list[list[int]]
    greedy: list[list[int]]
    tokens_per_second: float


def wanted_of(model: Path, held_out: list[list[int]], new_tokens: int) -> Wanted:
    """Of 20 prompts of several lengths, so that a batch is padded."""
    eager = EagerModel.load(model)
    prompts = [ids[: PROMPT_TOKENS - number % 5] for number, ids in enumerate(held_out[:20])]
    return Wanted(eager, held_out, prompts, *decode(eager, prompts, new_tokens, 1))


def measure(form: Format, model: Path, wanted: Wanted) -> dict[str, Any]:
    """Export a model to one format and compare it."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place)
        began = time.perf_counter()
        form.export(model, target)
        seconds = time.perf_counter() - began
        size = sum(file.stat().st_size for file in target.iterdir() if WEIGHTS.search(file.name))
        runtime = form.load(target)
        facts: dict[str, Any] = {
            "runtime": f"{runtime.name} {runtime.version}",
            "megabytes": size / 1e6,
            "export_seconds": seconds,
            **distance(runtime, wanted.eager, wanted.held_out),
        }
        for batch in BATCHES:
            new_tokens = len(wanted.greedy[0])
            made, speed = decode(runtime, wanted.prompts, new_tokens, batch)
            facts[f"batch_{batch}"] = {
                "tokens_per_second": speed,
                **agreement(made, wanted.greedy),
            }
    return facts


def main() -> None:
    """Measure the formats."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", action="append", choices=[form.name for form in FORMATS])
    parser.add_argument("--texts", type=int, default=48, help="held-out documents to score")
    parser.add_argument("--tokens", type=int, default=256, help="of each, at most")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    weights = sha256_file(args.model / "model.safetensors")
    path = RESULTS / "exports.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    found = before["formats"] if before.get("weights_sha256") == weights else {}
    held_out = texts(args.model, args.data, args.texts, args.tokens)
    wanted = wanted_of(args.model, held_out, NEW_TOKENS)
    facts = {
        "model": args.model.parent.name,
        "weights_sha256": weights,
        "threads": THREADS,
        "new_tokens": NEW_TOKENS,
        "eager_tokens_per_second": wanted.tokens_per_second,
    }
    for form in FORMATS:
        if args.only and form.name not in args.only:
            continue
        found[form.name] = measure(form, args.model, wanted)
        say(f"{form.name}: {json.dumps(found[form.name])}")
        packages = ("torch", "numpy", "onnx", "onnxruntime", "gguf", "llama_cpp_python")
        record("exports", {**facts, "formats": found}, packages)


if __name__ == "__main__":
    main()
