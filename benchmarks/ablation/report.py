# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The table and the picture of the ablation."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablation.rows import ROWS, SIZES, Row

Results = Mapping[tuple[str, int], dict[str, Any]]
"""(label, seed) -> what a run gave."""


def seeds_of(results: Results, label: str) -> list[dict[str, Any]]:
    """All runs of a row."""
    return [found for (name, _), found in results.items() if name == label]


def noise(results: Results, size: str) -> float:
    """Standard deviation of the test loss over the seeds of a size's rows with several."""
    spreads = []
    for row in ROWS:
        values = [found["test_bpb"] for found in seeds_of(results, row.label)]
        if row.size == size and len(values) > 1:
            spreads.append(stdev(values))
    return max(spreads, default=0.0)


def gap(results: Results, row: Row) -> float | None:
    """Test loss of a row less that of the row it is compared with."""
    runs, others = (seeds_of(results, label) for label in (row.label, f"{row.size}:{row.against}"))
    if row.name == row.against or not runs or not others:
        return None
    return mean(run["test_bpb"] for run in runs) - mean(run["test_bpb"] for run in others)


def tokens_to(bits: float, curve: Sequence[Sequence[float]]) -> float | None:
    """Tokens after which a validation curve stands at `bits`, between two checks by a line."""
    for (x0, _, y0), (x1, _, y1) in pairwise([(0, 0, math.inf), *curve]):
        if y1 <= bits:
            share = 1.0 if math.isinf(y0) else (y0 - bits) / (y0 - y1)
            return x0 + share * (x1 - x0)
    return None


def claim(results: Results, size: str, pace: Mapping[str, Any] | None) -> str:
    """How many tokens and how much time the recipe needs for what the baseline reaches."""
    label = best_baseline(results, size)
    own = seeds_of(results, f"{size}:recipe")
    if label is None or not own:
        return ""
    theirs = seeds_of(results, label)
    final, budget = mean(run["curve"][-1][2] for run in theirs), theirs[0]["tokens"]
    needed = [tokens_to(final, run["curve"]) for run in own]
    if None in needed:
        return f"The recipe does not reach the final {final:.4f} of the {label}.\n"
    shares = sorted(tokens / budget for tokens in needed if tokens is not None)
    words = (
        f"The {label.partition(':')[2]} ({len(theirs)} seeds) ends at {final:.4f} bits per byte of "
        f"validation text after {budget:,} tokens. The recipe is there after {shares[0]:.0%} to "
        f"{shares[-1]:.0%} of these tokens"
    )
    if pace:
        times = [share / pace["ratio"] for share in shares]
        words += f" and {times[0]:.0%} to {times[-1]:.0%} of the time"
    return words + f" ({len(own)} seeds).\n"


def table(results: Results, paces: Mapping[str, Any]) -> str:
    """Markdown: one line a row, and its difference to the recipe."""
    lines = []
    for size in SIZES:
        if not any(label.startswith(f"{size}:") for label, _ in results):
            continue
        spread = noise(results, size)
        lines += [
            f"\n### {size}\n",
            f"Two runs that differ by less than {2 * 2**0.5 * spread:.4f} may differ by their "
            "seeds alone.\n",
            claim(results, size, paces.get(size)),
            "| row | seeds | tokens | bits per byte, test | more than | by |",
            "|---|---|---|---|---|---|",
        ]
        for row in ROWS:
            runs = seeds_of(results, row.label)
            if row.size != size or not runs:
                continue
            bits = mean(run["test_bpb"] for run in runs)
            more = gap(results, row)
            compared = "|" if more is None else f"{row.against} | {more:+.4f}"
            lines.append(
                f"| {row.name} | {len(runs)} | {runs[0]['tokens']:,} | {bits:.4f} | {compared} |"
            )
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Left: curves of baseline and recipe. Right: what each change makes worse or better."""
    shown = [size for size in SIZES if seeds_of(results, f"{size}:recipe")]
    if not shown:
        return
    figure = Figure(figsize=(13, 5.2 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 2, squeeze=False)
    for (curves, bars), size in zip(panels, shown, strict=True):
        _curves(curves, results, size)
        _bars(bars, results, size)
    figure.savefig(path, dpi=110)


def best_baseline(results: Results, size: str) -> str | None:
    """Label of the textbook row with the lowest test loss."""
    rows = [row.label for row in ROWS if row.size == size and row.kind == "plain"]
    scored = [
        (mean(run["test_bpb"] for run in runs), label)
        for label in rows
        if (runs := seeds_of(results, label))
    ]
    return min(scored)[1] if scored else None


def _curves(axes: Any, results: Results, size: str) -> None:
    baseline = best_baseline(results, size)
    for label, color in ((baseline, "C7"), (f"{size}:recipe", "C0")):
        runs = seeds_of(results, label) if label else []
        for number, run in enumerate(runs):
            tokens, _, bits = zip(*run["curve"], strict=True)
            millions = [count / 1e6 for count in tokens]
            name = label.partition(":")[2] if number == 0 else None
            axes.plot(millions, bits, color=color, marker="o", markersize=3, label=name)
    if baseline:
        final = mean(run["curve"][-1][2] for run in seeds_of(results, baseline))
        axes.axhline(final, color="C7", linestyle=":", linewidth=1)
    axes.set_xlabel("millions of tokens seen")
    axes.set_ylabel("bits per byte, validation articles")
    axes.set_title(f"{size}: baseline and recipe, each seed a line", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _bars(axes: Any, results: Results, size: str) -> None:
    gaps = [
        (more, row.name)
        for row in ROWS
        if row.size == size and row.kind == "ours"
        if (more := gap(results, row)) is not None
    ]
    gaps.sort(reverse=True)
    width = 2 * 2**0.5 * noise(results, size)
    axes.axvspan(-width, width, color="0.9", zorder=0, label="what seeds alone may make")
    axes.barh(
        [name for _, name in gaps],
        [gap for gap, _ in gaps],
        color=["C3" if gap > width else "C2" if gap < -width else "0.6" for gap, _ in gaps],
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("bits per byte more (right: worse) than the same without, test articles")
    axes.set_title(f"{size}: one change at a time", loc="left")
    axes.legend(frameon=False, loc="upper right")
