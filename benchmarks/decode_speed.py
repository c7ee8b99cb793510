# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tokens per second of one stream, greedily, beside peers and the limit of the memory.

    python benchmarks/decode_speed.py                  the shape small
    python benchmarks/decode_speed.py medium 1b        others

Every token reads all weights, so the memory's bandwidth bounds the speed. It is measured by a read
loop over as many bytes as a contender's weights have, in the same rounds. Contenders have
processes of their own and take turns; weights are random. Results go to
benchmarks/results/decode_speed.json, a shape's as soon as it is measured; other shapes stay.
`decode_speed_avx512.json` is of a machine without AMX, `decode_speed_avx2.json` of one without
AVX-512.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contenders.pool import Failed, Worker, main
from record import RESULTS, record

from openllm.core.errors import EngineError, OpenLLMError
from openllm.core.files import read_json
from openllm.core.log import say
from openllm.nn.config import AttentionConfig, ModelConfig, SwiGLUConfig

NAME = "decode_speed"
SHAPES = {
    "small": ModelConfig(),
    "medium": ModelConfig(
        dim=768,
        num_layers=12,
        attention=AttentionConfig(num_heads=12),
        mlp=SwiGLUConfig(hidden_dim=2304),
    ),
    "1b": ModelConfig(
        dim=2048,
        num_layers=16,
        attention=AttentionConfig(num_heads=32, num_kv_heads=8),
        mlp=SwiGLUConfig(hidden_dim=8192),
    ),
}
LIMIT = "limit"
OURS = (
    *("ours-fp32", "ours-bf16", "ours-int8", "ours-int4"),
    *("decoder-bf16", "decoder-int8", "decoder-int4"),
)
"""`LLM.generate`, and its compiled decoder alone, in a bare loop as the peers' run."""
PEERS = (
    *("transformers", "litgpt", "llama.cpp-f16", "llama.cpp-q8_0", "llama.cpp-q8_0-plain"),
    *("llama.cpp-q4_0", "llama.cpp-q4_0-plain"),
)
RIVALS = {
    "ours-bf16": "llama.cpp-f16",
    "ours-int8": "llama.cpp-q8_0",
    "ours-int4": "llama.cpp-q4_0",
    "decoder-bf16": "llama.cpp-f16",
    "decoder-int8": "llama.cpp-q8_0",
    "decoder-int4": "llama.cpp-q4_0",
}
"""The peers with as many bits a weight, by the start of their names; the fastest counts."""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="decoding speed of one stream, beside peers")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, help="new tokens a turn; default: by the shape")
    parser.add_argument("--prompt", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contenders", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument(
        "--litgpt-python",
        help="Python of an environment with litgpt, torch, pydantic, pyyaml and rich",
    )
    parser.add_argument("--result", default=NAME, help="name of its file; one for each machine")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.shapes = args.shapes or ["small"]
    unknown = [shape for shape in args.shapes if shape not in SHAPES]
    if unknown:
        parser.error(f"unknown shape '{unknown[0]}': there are {', '.join(SHAPES)}")
    return args


def measure(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """Let the contenders take turns; facts by contender."""
    cfg = SHAPES[shape]
    tokens = args.tokens or {"small": 128, "medium": 64, "1b": 24}[shape]
    context = -(-(args.prompt + tokens) // 64) * 64
    task = {
        "model": cfg.model_dump(mode="json"),
        "threads": args.threads,
        "prompt": args.prompt,
        "context": context,
    }
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decode_speed-")))
        workers = {}
        for name in (LIMIT, *args.contenders):
            python = args.litgpt_python if name == "litgpt" else None
            worker = Worker(Path(__file__).resolve(), name, folder / name, python=python)
            stack.enter_context(worker)
            try:
                found[name] = worker.ask("build", task=task)
                if name != LIMIT:
                    worker.ask("generate", tokens=4)
            except Failed as failure:
                found[name] = {"missing": str(failure)}
                say(f"{name}: left out: {failure}")
                continue
            workers[name] = worker
            say(f"{name}: ready after {found[name]['build_seconds']:.1f} s")
        _rounds(workers, found, args.rounds, tokens)
    return {"tokens": tokens, "prompt": args.prompt, "contenders": _facts(found)}


def _rounds(
    workers: dict[str, Worker], found: dict[str, dict[str, Any]], rounds: int, tokens: int
) -> None:
    names = [name for name in workers if name != LIMIT]
    if not names:
        raise EngineError("no contender is left; the reasons are above")
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            row = found[name]
            answer = workers[name].ask("generate", tokens=tokens)
            row.setdefault("rates", []).append(tokens / answer["seconds"])
            if LIMIT in workers:
                read = workers[LIMIT].ask("bandwidth", bytes=[row["bytes"]])["bytes_per_second"]
                row.setdefault("bandwidths", []).append(read[0])
        say(f"round {number + 1} of {rounds}")


def _facts(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, row in found.items():
        if "missing" in row:
            facts[name] = {"missing": row["missing"]}
        elif name != LIMIT:
            facts[name] = _contender(name, row, found)
    return facts


def _contender(name: str, row: dict[str, Any], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rate = statistics.median(row["rates"])
    facts: dict[str, Any] = {
        "tokens_per_second": round(rate, 2),
        "tokens_per_second_by_round": [round(one, 2) for one in row["rates"]],
        "weight_bytes": row["bytes"],
        "build_seconds": round(row["build_seconds"], 2),
    }
    if "bandwidths" in row:
        bandwidth = statistics.median(row["bandwidths"])
        facts["read_gb_per_second"] = round(bandwidth / 1e9, 2)
        facts["limit_tokens_per_second"] = round(bandwidth / row["bytes"], 2)
        shares = [
            r * row["bytes"] / b for r, b in zip(row["rates"], row["bandwidths"], strict=True)
        ]
        facts["share_of_limit"] = round(statistics.median(shares), 4)
    rival = RIVALS.get(name)
    rivals = [peer for peer in found if rival and peer.startswith(rival)]
    for key, peers in (("over_rival", rivals), ("over_transformers", ["transformers"])):
        rates = [found[peer]["rates"] for peer in peers if "rates" in found.get(peer, {})]
        if rates and name not in peers:
            fastest = max(rates, key=statistics.median)
            ratios = [a / b for a, b in zip(row["rates"], fastest, strict=True)]
            facts[key] = round(statistics.median(ratios), 3)
    return facts


def table(found: dict[str, Any]) -> str:
    """Format the facts of a shape as text."""
    columns = f"{'tokens/s':>10}{'of limit':>10}{'over rival':>12}{'over transformers':>19}"
    lines = [f"{'contender':<22}{columns}"]
    for name, row in found["contenders"].items():
        if "missing" in row:
            lines.append(f"{name:<22}  left out: {row['missing']}")
            continue
        share = f"{row['share_of_limit']:.1%}" if "share_of_limit" in row else ""
        over, last = (
            f"{row[key]:.2f}" if key in row else "" for key in ("over_rival", "over_transformers")
        )
        line = f"{name:<22}{row['tokens_per_second']:>10,.1f}{share:>10}{over:>12}{last:>19}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Measure, store, show."""
    path = RESULTS / f"{args.result}.json"
    for shape in args.shapes:
        load = os.getloadavg()[0]
        found = measure(shape, args)
        found |= {"threads": args.threads, "rounds": args.rounds}
        found["load_average_before"] = round(load, 2)
        before = read_json(path, OpenLLMError, "remove it") if path.exists() else {}
        shapes = before.get("shapes", {}) | {shape: found}
        what = "tokens a second of one stream, contenders taking turns"
        record(args.result, {"what": what, "shapes": shapes}, _packages())
        print(f"{shape}\n{table(found)}")


def _packages() -> list[str]:
    from importlib import metadata

    found = ["torch", "numpy"]
    for package in ("transformers", "llama-cpp-python"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        found.append(package)
    return found


if __name__ == "__main__":
    sys.exit(main(arguments, run, "contenders.decoding"))
