# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Plots and report of a run, from its folder alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openllm.core.files import atomic_file, storage_errors
from openllm.core.log import format_duration
from openllm.core.runs import read_metrics


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Average each value with up to `span` - 1 values before it."""
    result, total = [], 0.0
    for index, value in enumerate(values):
        total += value
        if index >= span:
            total -= values[index - span]
        result.append(total / min(index + 1, span))
    return result


def write_plots(folder: Path) -> list[Path]:
    """Plot loss, learning rate, gradient norm and speed; return the files."""
    metrics = read_metrics(folder)
    steps = [line for line in metrics if line["kind"] == "train" and line["applied"]]
    if not steps:
        return []
    checks = _checks(metrics)
    plots = folder / "plots"
    with storage_errors(plots):
        plots.mkdir(exist_ok=True)
    facts = _facts(folder)
    return [
        _plot_loss(plots / "loss.png", steps, checks, facts),
        _plot_health(plots / "health.png", steps),
    ]


def _checks(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Validations with a finite loss."""
    return [line for line in metrics if line["kind"] == "validation" and line["loss"] is not None]


def _facts(folder: Path) -> Mapping[str, Any]:
    path = folder / "forecast.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _loss_name(steps: Sequence[Mapping[str, Any]]) -> str:
    taught = "distillation" in steps[0]["terms"]
    return "training (distillation)" if taught else "training"


def _figure(rows: int) -> tuple[Any, Any]:
    # object-oriented API: no display, no global state
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * rows + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def _save(figure: Any, path: Path) -> Path:
    with atomic_file(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=120)
    return path


def _plot_loss(
    path: Path,
    steps: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> Path:
    figure, (axes,) = _figure(1)
    bits = facts.get("bits_per_byte_per_nat", 1.0)
    tokens = [line["tokens"] for line in steps]
    losses = [line["loss"] * bits for line in steps]
    name = _loss_name(steps)
    axes.plot(tokens, losses, color="#c7d3e3", linewidth=0.8, label=f"{name}, each step")
    axes.plot(tokens, smooth(losses, 20), color="#1f4e8c", label=f"{name}, mean of 20 steps")
    if checks:
        axes.plot(
            [line["tokens"] for line in checks],
            [line["bits_per_byte"] for line in checks],
            color="#c0392b",
            marker="o",
            markersize=3.5,
            label="validation",
        )
    band = facts.get("band")
    if band:
        width = band["width"]
        xs = [x for x, _ in band["curve"] if x <= tokens[-1]]
        ys = [y for x, y in band["curve"] if x <= tokens[-1]]
        axes.fill_between(
            xs,
            [y * (1 - width) for y in ys],
            [y * (1 + width) for y in ys],
            color="#8fbc8f",
            alpha=0.25,
            label=f"expected (like {band['reference']})",
        )
    axes.set_xlabel("tokens seen")
    axes.set_ylabel("bits per byte")
    top = smooth(losses, 20)[min(len(losses) - 1, 10)]
    axes.set_ylim(0, top * 1.1)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return _save(figure, path)


def _plot_health(path: Path, steps: Sequence[Mapping[str, Any]]) -> Path:
    figure, axes = _figure(3)
    x = [line["tokens"] for line in steps]
    speed = [line["tokens"] / line["step"] / line["seconds"] for line in steps]
    for axis, values, label in (
        (axes[0], [line["lr"] for line in steps], "learning rate"),
        (axes[1], [line["grad_norm"] for line in steps], "gradient norm"),
        (axes[2], speed, "tokens/s"),
    ):
        axis.plot(x, values, color="#1f4e8c", linewidth=0.9)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    axes[-1].set_xlabel("tokens seen")
    return _save(figure, path)


def write_report(folder: Path, title: str, facts: Sequence[tuple[str, str]]) -> Path:
    """Write `report.md`: the given facts, final metrics, plots and events."""
    metrics = read_metrics(folder)
    steps = [line for line in metrics if line["kind"] == "train"]
    checks = _checks(metrics)
    rows = list(facts)
    if steps:
        seconds = sum(line["seconds"] for line in steps)
        rate = steps[-1]["tokens"] / seconds
        tail = [line["loss"] for line in steps if line["applied"]][-20:] or [math.nan]
        rows += [
            ("steps", f"{steps[-1]['step']:,}"),
            ("tokens seen", f"{steps[-1]['tokens']:,}"),
            ("time in steps", f"{format_duration(seconds)} ({rate:,.0f} tokens/s)"),
            ("training loss, last 20 steps", f"{sum(tail) / len(tail):.4f} nats/token"),
        ]
    if checks:
        best = min(checks, key=lambda line: line["loss"])
        rows.append(
            (
                "best validation",
                f"{best['bits_per_byte']:.4f} bits per byte, {best['loss']:.4f} nats/token at "
                f"step {best['step']:,} (these weights are in model/)",
            )
        )
    text = [f"# {title}", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows), ""]
    for plot in write_plots(folder):
        text += [f"![{plot.stem}](plots/{plot.name})", ""]
    text += ["## Events", "", *_events(folder), ""]
    path = folder / "report.md"
    with atomic_file(path) as handle:
        handle.write("\n".join(text))
    return path


def _events(folder: Path) -> list[str]:
    path = folder / "events.jsonl"
    if not path.exists():
        return ["none"]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        f"- step {line['step']}: {line['message']}"
        for line in lines
        if line["kind"] != "checkpoint"
    ] or ["none"]
