# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The table and the plot of the ablation."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, variance
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablation.rows import ROWS, SIZES, Row
from openllm.evaluate.compare import student_t

Results = Mapping[tuple[str, int], dict[str, Any]]
"""(label, seed) -> result of a run."""
CUT = 0.12
"""Bits per byte beyond which a bar is clipped."""


def seeds_of(results: Results, label: str) -> list[dict[str, Any]]:
    """All runs of a row."""
    return [found for (name, _), found in results.items() if name == label]


def spread(results: Results, size: str) -> tuple[float, int]:
    """Standard deviation of test loss over seeds, pooled over rows, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for row in ROWS:
        values = [found["test_bpb"] for found in seeds_of(results, row.label)]
        if row.size == size and len(values) > 1:
            squares += (len(values) - 1) * variance(values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan, freedom


def gap(results: Results, row: Row) -> tuple[float, float] | None:
    """Test loss of a row minus that of its reference row, and the 95 % half-width."""
    runs, others = (seeds_of(results, label) for label in (row.label, f"{row.size}:{row.against}"))
    if row.kind == "plain" or row.name == row.against or not runs or not others:
        return None
    more = mean(run["test_bpb"] for run in runs) - mean(run["test_bpb"] for run in others)
    deviation, freedom = spread(results, row.size)
    quantile = student_t(freedom) if freedom else math.nan
    return more, quantile * deviation * math.sqrt(1 / len(runs) + 1 / len(others))


def best_at(run: Mapping[str, Any]) -> int:
    """Tokens at the lowest validation loss; ours is scored with those weights."""
    return min(run["curve"], key=lambda check: check[2])[0]


def tokens_to(bits: float, curve: Sequence[Sequence[float]]) -> float | None:
    """Tokens at which a validation curve reaches `bits`, interpolated linearly."""
    for (x0, _, y0), (x1, _, y1) in pairwise([(0, 0, math.inf), *curve]):
        if y1 <= bits:
            share = 1.0 if math.isinf(y0) else (y0 - bits) / (y0 - y1)
            return x0 + share * (x1 - x0)
    return None


def claim(results: Results, size: str, pace: Mapping[str, Any] | None) -> str:
    """How many tokens and how much time the recipe needs to match the baseline."""
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
        f"validation text after {budget:,} tokens. The recipe is there after "
        f"{_span(shares)} of these tokens"
    )
    if pace:
        words += f" and {_span([share / pace['ratio'] for share in shares])} of the time"
    return words + f" ({len(own)} seeds).\n"


def _span(shares: list[float]) -> str:
    """`19 % to 21 %`, from sorted shares."""
    ends = dict.fromkeys(f"{share:.0%}" for share in (shares[0], shares[-1]))
    return " to ".join(ends)


def table(results: Results, paces: Mapping[str, Any]) -> str:
    """Markdown: one line per row, with its difference to the row it changes."""
    lines = []
    for size in SIZES:
        if not any(label.startswith(f"{size}:") for label, _ in results):
            continue
        lines += [
            f"\n### {size}\n",
            claim(results, size, paces.get(size)),
            "| row | seeds | tokens | best at | bits per byte, test | more than | by |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in ROWS:
            runs = seeds_of(results, row.label)
            if row.size != size or not runs:
                continue
            bits = mean(run["test_bpb"] for run in runs)
            best = mean(best_at(run) for run in runs)
            found = gap(results, row)
            compared = "|"
            if found:
                # no interval before a row has two seeds
                width = "" if math.isnan(found[1]) else f" ± {found[1]:.3f}"
                compared = f"{row.against} | {found[0]:+.4f}{width}"
            lines.append(
                f"| {row.name} | {len(runs)} | {runs[0]['tokens']:,} | {best:,.0f} | {bits:.4f} "
                f"| {compared} |"
            )
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Two panels for each row that others change: curves, and the effect of each change."""
    groups = [
        (size, against)
        for size in SIZES
        for against in ("recipe", "8 epochs")
        if seeds_of(results, f"{size}:{against}")
    ]
    if not groups:
        return
    figure = Figure(figsize=(13.5, 6 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 2, squeeze=False)
    for (curves, bars), (size, against) in zip(panels, groups, strict=True):
        _curves(curves, results, size, against)
        _bars(bars, results, size, against)
    figure.savefig(path, dpi=110)


def best_baseline(results: Results, size: str) -> str | None:
    """Label of the textbook row with the lowest final validation loss."""
    rows = [row.label for row in ROWS if row.size == size and row.kind == "plain"]
    ends = [
        (mean(run["curve"][-1][2] for run in runs), label)
        for label in rows
        if (runs := seeds_of(results, label))
    ]
    return min(ends)[1] if ends else None


def _curves(axes: Any, results: Results, size: str, against: str) -> None:
    """The recipe and the baseline; all rows for other groups."""
    baseline = best_baseline(results, size) if against == "recipe" else None
    labels = [baseline] if baseline else []
    labels += [
        row.label
        for row in ROWS
        if row.size == size and row.against == against
        if row.name == against or not baseline
    ]
    if f"{size}:{against}" not in labels:
        labels.append(f"{size}:{against}")
    for number, label in enumerate(labels):
        for seed, run in enumerate(seeds_of(results, label)):
            tokens, _, bits = zip(*run["curve"], strict=True)
            millions = [count / 1e6 for count in tokens]
            name = label.partition(":")[2] if seed == 0 else None
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            axes.plot(millions, bits, marker="o", markersize=3, label=name, **style)
    if baseline:
        final = mean(run["curve"][-1][2] for run in seeds_of(results, baseline))
        name = "where the baseline ends"
        axes.axhline(final, color="C0", linestyle=":", linewidth=1, label=name)
    axes.set_xlabel("millions of tokens seen")
    axes.set_ylabel("bits per byte, validation articles")
    axes.set_title(f"{size}: {against}, a line for each seed", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _bars(axes: Any, results: Results, size: str, against: str) -> None:
    gaps = [
        (*found, row.name)
        for row in ROWS
        if row.size == size and row.against == against
        if (found := gap(results, row)) is not None
    ]
    for place, (more, width, _) in enumerate(sorted(gaps, reverse=True)):
        color = "C3" if more > width else "C2" if more < -width else "0.6"
        shown = max(-CUT, min(CUT, more))
        bar = {"color": color, "xerr": width if shown == more else None, "ecolor": "0.3"}
        axes.barh(place, shown, capsize=2, **bar)
        axes.text(1.02 * CUT, place, f"{more:+.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(gaps)), [name for *_, name in sorted(gaps, reverse=True)])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-CUT, 1.25 * CUT)
    axes.set_xlabel(f"bits per byte more (right: worse) than '{against}', test articles")
    axes.set_title(f"{size}: one change at a time, with 95 % intervals", loc="left")
