# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training speed, ours against the peers in one run, and the limit set by matrix products.

    python benchmarks/train_speed.py [--preset small] [--rounds 5] [--steps-per-round 3]
    python benchmarks/train_speed.py --packed [--data DIR --tokenizer DIR]

Ours is the trainer that `openllm train` builds, with AdamW and its kernels. That command also keeps
freed memory and lets threads spin only briefly; here the peers do, too. The peers are Llama and
GPT-2 of transformers, litgpt, and a plain textbook GPT (plain_gpt.py), each eager and under
torch.compile. All have the same shape, batch, precision, optimizer and clipping; GPT-2 and the
plain GPT have GPT-2's MLP (two layers, four times as wide), litgpt its default, an untied head, and
ours alone normalises queries and keys. Each contender runs in a separate process; they take turns,
only one computes at a time, and each round starts with another one. Ratios are taken within a
round, against the fastest peer of that round, so that a temporary slowdown of the machine affects
both sides; the load from other programs is recorded. A maximum over many noisy peers is hard on
us, so the ratio to the one peer with the highest median is recorded, too. The first step is that of
a new machine: it includes compilation, also for ours. The limit is the total time of the step's
matrix products (contenders/limit.py), measured in the same rounds.

With `--packed`, on real documents: rows packed without padding against batches padded to their
longest document and an unbroken stream, all in predicted tokens per second, and the fraction of
the step spent waiting for data. By default the documents are those of SQuAD.

Writes benchmarks/results/train_speed_PRESET.json, or train_speed_PRESET_packed.json, and the plot
beside it. litgpt requires older libraries than we use, so install it without dependencies:

    pip install --no-deps litgpt==0.5.13 lightning==2.6.6
    pip install --no-deps lightning-utilities==0.15.3 torchmetrics==1.9.0
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from contenders.job import DOCUMENTS, LIMIT, SPEED, Job, is_compiled, is_ours
from contenders.pool import Outcome, compete, main
from record import RESULTS, SHARED, record

from openllm.cli.main import bound_spinning
from openllm.core.errors import UsageError
from openllm.core.log import say
from openllm.recipes.build import load_config, resolve
from openllm.recipes.quickstart import VOCAB_SIZE

PRESETS = ("tiny", "small", "medium", "large")
WORK = Path("runs/train_speed")
PACKAGES = {"llama": "transformers", "gpt2": "transformers", "litgpt": "litgpt"}
"""First part of a contender's name -> the package whose version is recorded."""
QUIET = 0.1
"""Cores that other programs may keep busy."""

OURS, PEER, PEER_COMPILED, BOUND = "#0b6e99", "#a3acb5", "#6b7682", "#c2410c"


class Parser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        raise UsageError(message)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check the command line.

    Raises:
        UsageError: it is invalid.
    """
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--contenders", metavar="A,B,...", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps-per-round", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--spin",
        choices=("bounded", "default"),
        default="bounded",
        help="how long threads spin: as with `openllm`, or the default of libgomp",
    )
    parser.add_argument("--packed", action="store_true", help="on real documents")
    parser.add_argument("--data", type=Path, help="prepared folder, for --packed")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer folder, for --packed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name in ("rows", "seq_len", "rounds", "steps_per_round"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be 1 or more")
    longest = load_config(args.preset).model.max_positions
    if not 2 <= args.seq_len <= longest:
        raise UsageError(f"--seq-len {args.seq_len}: {args.preset} takes 2 to {longest}")
    if (args.data is None) != (args.tokenizer is None):
        raise UsageError("--data and --tokenizer belong together")
    if args.data is not None and not args.packed:
        raise UsageError("--data and --tokenizer are for --packed")
    known = DOCUMENTS if args.packed else SPEED
    args.contenders = args.contenders.split(",") if args.contenders else list(known)
    for name in args.contenders:
        if name not in known:
            raise UsageError(f"unknown contender '{name}'; there are {', '.join(known)}")
    if len(set(args.contenders)) < len(args.contenders):
        raise UsageError("--contenders names one twice")
    return args


def make_job(args: argparse.Namespace) -> Job:
    """The contenders' task on this machine."""
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA GPU here")
    cfg = load_config(args.preset, [f"device={args.device}"])
    vocab_size = VOCAB_SIZE if args.preset == "tiny" else cfg.model.vocab_size
    shards = fingerprint = None
    if args.packed:
        vocab_size, shards, fingerprint = tokenized(args, vocab_size)
    return Job(
        preset=args.preset,
        vocab_size=vocab_size,
        rows=args.rows,
        seq_len=args.seq_len,
        device=args.device,
        precision=resolve(cfg, cfg.model.vocab_size).precision,
        threads=len(os.sched_getaffinity(0)),
        shards=shards,
        fingerprint=fingerprint,
    )


def tokenized(args: argparse.Namespace, vocab_size: int) -> tuple[int, str, str]:
    """Vocabulary size, shard folder and tokenizer fingerprint; created if missing."""
    from openllm.recipes import tokenizer
    from openllm.recipes.prepare import prepare_main
    from openllm.recipes.tokenize import tokenize
    from openllm.text.load import load_tokenizer

    data, vocabulary = args.data, args.tokenizer
    if data is None:
        data, vocabulary = WORK / "squad", WORK / f"tokenizer-{vocab_size}"
        if not (data / "index.json").exists():
            source = ["squad", "--source", str(SHARED / "squad")]
            prepare_main([*source, "--title-key", "title", "--out", str(data)])
        if not (vocabulary / "tokenizer.json").exists():
            words = ["--vocab-size", str(vocab_size), "--out", str(vocabulary)]
            tokenizer.train_main([str(data), *words])
    shards = tokenize(data, vocabulary)
    loaded = load_tokenizer(vocabulary)
    return loaded.vocab_size, str(shards.resolve()), loaded.fingerprint


def facts(outcomes: Sequence[Outcome], names: dict[str, str]) -> dict[str, Any]:
    """What is recorded of each contender, by name."""
    rates = {o.name: np.array(o.rates()) for o in outcomes if o.reason is None}
    compiled = {o.name: o.facts.get("compiled") for o in outcomes}
    peers = [name for name in rates if name != LIMIT and not is_ours(name)]
    found: dict[str, Any] = {}
    for outcome in outcomes:
        row: dict[str, Any] = {"what": names[outcome.name]}
        found[outcome.name] = row
        if outcome.reason is not None:
            row["missing"] = outcome.reason
            continue
        own = rates[outcome.name]
        seconds = [s for turn in outcome.turns for s in turn["seconds"]]
        row["median_step_seconds"] = round(statistics.median(seconds), 5)
        row["tokens_per_second"] = round(float(np.median(own)), 1)
        row["tokens_per_second_by_round"] = [round(float(rate), 1) for rate in own]
        others = [turn["cores_of_others"] for turn in outcome.turns if "cores_of_others" in turn]
        if others:
            middle, largest = statistics.median(others), max(others)
            row["cores_of_others"] = {"median": round(middle, 2), "largest": round(largest, 2)}
        if outcome.name == LIMIT:
            row |= _limit_facts(outcome)
            continue
        row["parameters"] = outcome.facts["parameters"]
        row["build_seconds"] = round(outcome.facts["build_seconds"], 2)
        row["first_step_seconds"] = round(outcome.facts["first_step_seconds"], 2)
        row["peak_mib"] = round(outcome.peak_bytes / 2**20)
        row["compiled"] = compiled[outcome.name]
        alike = [name for name in peers if compiled[name] == compiled[outcome.name]]
        for key, group in (("fastest_peer", peers), ("fastest_peer_of_its_mode", alike)):
            if group:
                best = np.max([rates[name] for name in group], axis=0)
                row[f"over_{key}"] = _spread(own / best)
                one = max(group, key=lambda name: np.median(rates[name]))
                row[f"over_one_{key}"] = {"peer": one, **_spread(own / rates[one])}
        if LIMIT in rates:
            row["over_limit"] = _spread(own / rates[LIMIT])
        if names is DOCUMENTS:
            row |= _reading(outcome)
    return found


def _spread(ratios: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    return {"median": round(middle, 4), "p10": round(low, 4), "p90": round(high, 4)}


def _limit_facts(outcome: Outcome) -> dict[str, Any]:
    peaks = [rate for turn in outcome.turns for rate in turn["peak_flops"]]
    times = np.array([row for turn in outcome.turns for row in turn["product_seconds"]])
    products = [
        {**row, "median_seconds": round(float(seconds), 7)}
        for row, seconds in zip(outcome.facts["products"], np.median(times, 0), strict=True)
    ]
    return {
        "matmul_2048_gflops": {
            "median": round(statistics.median(peaks) / 1e9, 1),
            "best": round(max(peaks) / 1e9, 1),
        },
        "products": products,
    }


def _reading(outcome: Outcome) -> dict[str, Any]:
    """Fraction of tokens that are predicted, and of the time spent waiting for data."""

    def total(key: str) -> float:
        return sum(sum(turn[key]) for turn in outcome.turns)

    waiting = [
        wait / seconds
        for turn in outcome.turns
        for wait, seconds in zip(turn["waiting"], turn["seconds"], strict=True)
    ]
    return {
        "predicted_share_of_tokens": round(total("predicted") / total("cells"), 4),
        "loader_share_of_step": {
            "total": round(total("waiting") / total("seconds"), 5),
            "median": round(statistics.median(waiting), 5),
            "largest": round(max(waiting), 5),
        },
    }


def table(found: dict[str, Any]) -> str:
    """Format the facts as text."""
    packed = any("loader_share_of_step" in row for row in found.values())
    last = f"{'predicted':>11}{'loader':>9}" if packed else f"{'of limit':>11}"
    head = f"{'contender':<34}{'first step':>11}{'step':>10}{'tokens/s':>10}"
    lines = [f"{head}{'peak MiB':>10}{'over fastest peer (p10-p90)':>29}{last}"]
    for row in found.values():
        if "missing" in row:
            lines.append(f"{row['what']:<34}  left out: {row['missing']}")
            continue
        first = f"{row['first_step_seconds']:.1f} s" if "first_step_seconds" in row else ""
        step = f"{row['median_step_seconds'] * 1e3:,.0f} ms"
        line = f"{row['what']:<34}{first:>11}{step:>10}{row['tokens_per_second']:>10,.0f}"
        ratio, limit = row.get("over_fastest_peer"), row.get("over_limit")
        over = f"{ratio['median']:.2f} ({ratio['p10']:.2f}-{ratio['p90']:.2f})" if ratio else ""
        line += f"{row.get('peak_mib', ''):>10}{over:>29}"
        if packed:
            loader = row["loader_share_of_step"]["total"]
            line += f"{row['predicted_share_of_tokens']:>11.1%}{loader:>9.2%}"
        elif limit:
            line += f"{limit['median']:>11.1%}"
        lines.append(line.rstrip())
    if "matmul_2048_gflops" in found.get(LIMIT, {}):
        peak = found[LIMIT]["matmul_2048_gflops"]["median"]
        lines.append(f"matrix product 2048 x 2048 x 2048: {peak:,.0f} GFLOP/s")
    busy = max(row.get("cores_of_others", {"largest": 0.0})["largest"] for row in found.values())
    if busy > QUIET:
        lines.append(
            f"other programs kept up to {busy:.1f} cores busy in a contender's turn, so figures "
            "are too low and differ by chance; repeat on a quiet machine"
        )
    return "\n".join(lines)


def plot(found: dict[str, Any], title: str, unit: str, rounds: int, path: Path) -> None:
    """Plot tokens per second as bars, the fastest on top, and the limit as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {name: row for name, row in found.items() if "missing" not in row}
    limit = rows.pop(LIMIT, None)
    names = sorted(rows, key=lambda name: rows[name]["tokens_per_second"])
    if not names:
        return
    figure = Figure(figsize=(8.5, 1.5 + 0.42 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rates = [rows[name]["tokens_per_second"] for name in names]
    ends = [np.percentile(rows[name]["tokens_per_second_by_round"], (10, 90)) for name in names]
    axes.barh(range(len(names)), rates, color=[_color(name) for name in names], height=0.66)
    axes.hlines(range(len(names)), *zip(*ends, strict=True), color="#1f2933", linewidth=1.2)
    bound = limit["tokens_per_second"] if limit else 0.0
    farthest = max(high for _, high in ends)
    right = 1.04 * max(farthest, bound)
    for place, rate in enumerate(rates):
        weight = "bold" if is_ours(names[place]) else "normal"
        words = f"{rate:,.0f}"
        style = {"va": "center", "fontsize": 9, "weight": weight}
        axes.text(0.012 * right, place, words, color="white", **style)
    axes.set_yticks(range(len(names)), [rows[name]["what"] for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if is_ours(name) else "normal")
    if limit:
        axes.axvline(bound, color=BOUND, linewidth=1.6, linestyle=(0, (5, 2)))
        words = f"matrix products alone: {bound:,.0f}"
        axes.annotate(
            words,
            (bound, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            color=BOUND,
            fontsize=9,
            ha="right",
            va="bottom",
        )
    axes.set_xlim(0, right)
    axes.set_xlabel(f"{unit}; median of {rounds} rounds, thin line: 10th to 90th percentile")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    figure.savefig(path, dpi=130)


def _color(name: str) -> str:
    if is_ours(name):
        return OURS
    return PEER_COMPILED if is_compiled(name) else PEER


def versions(found: dict[str, Any]) -> list[str]:
    """Packages whose versions are recorded."""
    used = [PACKAGES.get(name.partition("-")[0]) for name, row in found.items()]
    packages = ["torch", "numpy"]
    for package in dict.fromkeys(package for package in used if package):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        packages.append(package)
    return packages


def hardware(device: str) -> str:
    """Name of the CPU or GPU in use."""
    from openllm.core.runs import cpu_name

    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return cpu_name()


def run(args: argparse.Namespace) -> None:
    """Measure, store, show."""
    if args.spin == "bounded":
        bound_spinning()  # the contenders inherit it
    load = os.getloadavg()[0]
    job = make_job(args)
    names = DOCUMENTS if args.packed else SPEED
    with tempfile.TemporaryDirectory(prefix="train_speed-") as folder:
        outcomes = compete(
            args.contenders,
            job,
            script=Path(__file__).resolve(),
            folder=Path(folder),
            rounds=args.rounds,
            steps=args.steps_per_round,
            say=say,
        )
    found = facts(outcomes, names)
    model = job.recipe().model
    kind = "predicted tokens of real documents" if args.packed else "tokens"
    result = {
        "what": f"{kind} a second in training steps, contenders taking turns",
        "preset": job.preset,
        "shape": model.model_dump(mode="json"),
        "rows": job.rows,
        "seq_len": job.seq_len,
        "device": hardware(job.device),
        "precision": job.precision,
        "threads": job.threads,
        "spin": args.spin,
        "rounds": args.rounds,
        "steps_per_round": args.steps_per_round,
        "load_average_before": round(load, 2),
        "contenders": found,
    }
    name = f"train_speed_{job.preset}{'_packed' if args.packed else ''}"
    record(name, result, versions(found))
    batch = f"{job.rows} x {job.seq_len} tokens"
    if args.packed:
        batch = f"about {job.tokens:,} tokens a step, rows of up to {job.seq_len}"
    title = (
        f"Training {job.preset}: {model.num_layers} layers, {model.dim} wide, vocabulary "
        f"{model.vocab_size:,}; {batch}\n{hardware(job.device)}, {job.threads} threads, "
        f"{job.precision}; grey: peers, darker with torch.compile"
    )
    unit = "predicted tokens a second" if args.packed else "tokens a second"
    plot(found, title, unit, args.rounds, RESULTS / f"{name}.png")
    print(table(found))


if __name__ == "__main__":
    sys.exit(main(arguments, run, "contenders.worker"))
