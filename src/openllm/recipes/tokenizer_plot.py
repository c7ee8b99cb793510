# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The plot of `openllm tokenizer inspect --plot`."""

from pathlib import Path
from typing import TYPE_CHECKING

from openllm.core.files import atomic_file
from openllm.recipes.tokenizer_report import PRESETS, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 30
"""Most groups drawn; of more, an even selection is drawn."""


def draw(report: Report, path: Path) -> None:
    """Write a PNG: bytes per token by text, and what each vocabulary size costs."""
    from matplotlib.figure import Figure

    panels = 1 + 2 * bool(report.sizes)
    figure = Figure(figsize=(6 * panels, 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_groups(axes[0], report)
    if report.sizes:
        _draw_sizes(axes[1], axes[2], report)
    with atomic_file(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=120)


def _draw_groups(axes: "Axes", report: Report) -> None:
    ranked = sorted(report.groups.items(), key=lambda item: item[1].bytes_per_token)
    if len(ranked) > MANY:
        step = (len(ranked) - 1) / (MANY - 1)
        ranked = [ranked[round(number * step)] for number in range(MANY)]
    axes.barh([name for name, _ in ranked], [fit.bytes_per_token for _, fit in ranked])
    axes.set_xlabel("UTF-8 bytes per token")
    axes.set_title(f"vocabulary size {report.tokenizer.vocab_size:,}")
    axes.tick_params(axis="y", labelsize=7)


def _draw_sizes(ratio: "Axes", cost: "Axes", report: Report) -> None:
    sizes = [size.vocab_size for size in report.sizes]
    ratio.plot(sizes, [size.held_out.bytes_per_token for size in report.sizes], marker="o")
    ratio.set_ylabel("bytes per token of held-out text")
    for preset in PRESETS:
        values = [size.flops_per_byte(preset) for size in report.sizes]
        cost.plot(sizes, [value / min(values) for value in values], marker="o", label=preset)
    cost.set_ylabel("compute per byte of text (lowest = 1)")
    cost.legend(title="model")
    for axes in (ratio, cost):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel("vocabulary size")
        axes.grid(alpha=0.3)
