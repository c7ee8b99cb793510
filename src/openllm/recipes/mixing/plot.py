# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The plot of `openllm data mix`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, TIED, WORSE = "#c0392b", "#1f4e8c", "#8a99ad"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: a panel per target, a line per mixture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, targets = list(result["mixtures"]), list(result["targets"])
    figure = Figure(
        figsize=(2.2 + 3.6 * len(targets), 1.8 + 0.42 * len(names)), layout="constrained"
    )
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for axes, target in zip(panels, targets, strict=True):
        _panel(axes, result, target)
    panels[0].set_yticks(range(len(names)), [_folded(name) for name in names], fontsize=9)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(
        "bits per byte of held-out text; bar: 95 % interval of the difference from the lowest; "
        "small dots: seeds\nred: lowest; grey: worse; blue: not clearly different from the lowest",
        fontsize=8,
        color="#444444",
    )
    with atomic_file(path, "wb") as handle:
        FigureCanvasAgg(figure)
        figure.savefig(handle, format="png", dpi=130)


def _panel(axes: "Axes", result: Mapping[str, Any], target: str) -> None:
    facts = result["targets"][target]
    lowest = facts["ranking"][0]
    floor = result["mixtures"][lowest]["targets"][target]["bits"]["value"]
    axes.axvline(floor, color=BEST, linewidth=0.8, linestyle=":")
    for place, (name, mixture) in enumerate(result["mixtures"].items()):
        own = mixture["targets"][target]
        value, behind = own["bits"]["value"], own["behind"]
        colour = BEST if name == lowest else WORSE if own["worse"] else TIED
        if name != lowest:
            ends = [floor + behind["low"], floor + behind["high"]]
            axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        heights = [place + 0.22] * len(own["seeds"])
        axes.plot(own["seeds"], heights, "o", color=colour, markersize=2.5, alpha=0.6)
        axes.plot(value, place, "o", color=colour, markersize=7)
        above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        label = axes.annotate(f"{value:.3f}", (value, place), fontsize=8, color=colour, **above)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.2})
    axes.set_title(f"{target} ({facts['documents']:,} documents)", fontsize=10)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _folded(name: str) -> str:
    """Wrap a long name into lines of about 24 characters."""
    lines = [""]
    for part in name.replace(",", ",\0").replace(" (", "\0(").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > 24:
            lines.append("")
        lines[-1] += part if not part.startswith("(") or not lines[-1] else f" {part}"
    return "\n".join(lines)
