# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What `openllm quantize` says of its result: report, heat map, model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.files import atomic_file, write_json
from openllm.evaluate.report import finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("quantization.json", "report.md", "sensitivity.png")
FACTS, REPORT, PICTURE = FILES

KINDS = ("qkv", "out", "up", "down")
NAMES = {
    "qkv": "query, key, value",
    "out": "attention output",
    "up": "MLP, in",
    "down": "MLP, out",
    "embed": "embedding",
    "head": "head",
}
WORDS = {"repeated": "seen earlier in the document", "new": "new in the document"}
FRONT = re.compile(r"\A\s*---\n.*?\n---\n", re.DOTALL)
LOADS = re.compile(r"^It loads with `transformers.*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
"""What a card says of a folder that is not quantised."""


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The summary for the terminal and the head of the report."""
    size, bits = facts["size"], _bits(facts)
    found = [
        f"weights      {size['before'] / 1e6:,.1f} MB -> {size['after'] / 1e6:,.1f} MB "
        f"({size['after'] / size['before']:.0%})",
        f"bits         {', '.join(_parts(count, name) for name, count in bits.items())}",
        f"method       {_method(facts)}",
    ]
    measured = facts["measured"]
    if measured:
        before, after, loss = measured["before"], measured["after"], measured["loss"]
        found.append(
            f"bits/byte    {before['bits_per_byte']['value']:.4f} -> "
            f"{after['bits_per_byte']['value']:.4f} ({_loss(loss)})"
        )
    found.append(f"loads in     {_readers(facts)}")
    return found


def _bits(facts: Mapping[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for unit in facts["units"].values():
        name = "left as they are" if unit["bits"] is None else f"of {unit['bits']} bits"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _parts(count: int, name: str) -> str:
    return f"{count} part{'' if count == 1 else 's'} {name}"


def _method(facts: Mapping[str, Any]) -> str:
    if facts["method"] == "rounding":
        return "rounding"
    text = facts["calibration"]
    return f"GPTQ on {text['tokens']:,} tokens of {text['name']} at 4 bits, rounding at 8"


def _readers(facts: Mapping[str, Any]) -> str:
    if facts["portable"]:
        return "OpenLLM, vLLM, transformers with compressed-tensors"
    return "OpenLLM; elsewhere after 'openllm export', or made with --portable"


def _loss(loss: Mapping[str, float]) -> str:
    """Relative, with its interval."""
    return f"{loss['value']:+.2%}, 95 % interval {loss['low']:+.2%} to {loss['high']:+.2%}"


def write_report(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write `FILES`; the picture if sensitivity was measured."""
    write_json(folder / FACTS, finite(dict(facts)))
    parts = [f"# {name}, quantised", "", "```", *lines(facts), "```", ""]
    if facts["measured"]:
        parts += _measured(facts["measured"], facts["scheme"]["dynamic"])
    if facts["trials"]:
        parts += [f"![sensitivity]({PICTURE})", "", *_sensitivity(facts)]
        with atomic_file(folder / PICTURE, "wb") as handle:
            draw(facts).savefig(handle, format="png", dpi=120)
    with atomic_file(folder / REPORT) as handle:
        handle.write("\n".join(parts))


def _measured(measured: Mapping[str, Any], dynamic: bool) -> list[str]:
    before, after, data = measured["before"], measured["after"], measured["data"]
    rows = [
        ("bits per byte", *(f"{part['bits_per_byte']['value']:.4f}" for part in (before, after))),
        ("the same, by the engine", *(f"{p['engine_bits_per_byte']:.4f}" for p in (before, after))),
        ("tokens per second", *(f"{part['tokens_per_second']:,.0f}" for part in (before, after))),
    ]
    for group, right in (before["cloze"] or {}).items():
        for kind in ("choice", "recall"):
            pair = (right[kind]["value"], after["cloze"][group][kind]["value"])
            label = f"cloze, word {WORDS[group]}, {kind}"
            rows.append((label, *(f"{value:.1%}" for value in pair)))
    split = f", split {data['split']}" if data["split"] else ""
    note = [
        f"Measured on {data['documents']:,} documents ({data['bytes']:,} bytes) of "
        f"{data['name']}{split}: {_loss(measured['loss'])} bits per byte, paired by document.",
        "The engine, which may round activations, was asked a part of it; its speed is that of one "
        "text on this machine.",
    ]
    if dynamic:
        note.append("Activations were rounded to 8 bits per token in ordinary arithmetic.")
    return [*_table(("", "before", "after"), rows), "", *note, ""]


def _sensitivity(facts: Mapping[str, Any]) -> list[str]:
    """A table of trials, the most sensitive first."""
    units: dict[str, dict[int, Mapping[str, float]]] = {}
    for trial in facts["trials"]:
        units.setdefault(trial["unit"], {})[trial["bits"]] = trial["change"]
    ranked = sorted(units, key=lambda unit: -units[unit][4]["divergence"])
    rows = [
        (
            title(unit),
            *(f"{units[unit][bits]['divergence']:.2e}" for bits in (8, 4)),
            *(f"{units[unit][bits]['added']:+.2e}" for bits in (8, 4)),
            str(facts["units"][unit]["bits"] or "as it is"),
        )
        for unit in ranked
    ]
    head = ("only this part quantised", "divergence, 8", "4", "added, 8", "4", "chosen bits")
    return [
        "## Sensitivity",
        "",
        *_table(head, rows),
        "",
        "Divergence of the predictions from the original's, and bits per byte added, both in bits "
        "per byte of the calibration text. The first is never below zero and much less noisy.",
        "",
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, ruler, *rows)]


def title(unit: str) -> str:
    """`3.up` -> `layer 3, MLP, in`."""
    layer, _, kind = unit.rpartition(".")
    return f"layer {layer}, {NAMES[kind]}" if layer else NAMES[kind]


def draw(facts: Mapping[str, Any]) -> "Figure":
    """Heat maps of the divergence, by kind and layer, at 8 and 4 bits."""
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    values = {(t["unit"], t["bits"]): t["change"]["divergence"] for t in facts["trials"]}
    layers = 1 + max((int(unit.split(".")[0]) for unit, _ in values if "." in unit), default=0)
    tails = [kind for kind in ("embed", "head") if (kind, 8) in values]
    figure = Figure(figsize=(5 + 0.55 * (layers + 1), 5.5), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=[max(2, layers), 1], squeeze=False)
    for (wide, narrow), bits in zip(panels, (8, 4), strict=True):
        inner = [[values.get((f"{n}.{k}", bits), np.nan) for n in range(layers)] for k in KINDS]
        ends = [[values[kind, bits]] for kind in tails] or [[np.nan]]
        shown = [value for (_, b), value in values.items() if b == bits and value > 0] or [1.0]
        norm = LogNorm(min(shown), max(max(shown), 1.001 * min(shown)))
        for axes, grid in ((wide, inner), (narrow, ends)):
            image = axes.imshow(np.array(grid), norm=norm, aspect="auto", cmap="magma_r")
        wide.set_title(f"{bits} bits")
        wide.set_yticks(range(len(KINDS)), [NAMES[kind] for kind in KINDS])
        wide.set_xticks(range(0, layers, max(1, layers // 12)))
        narrow.set_yticks(range(len(tails)), [NAMES[kind] for kind in tails])
        narrow.set_xticks([])
        figure.colorbar(image, ax=[wide, narrow])
    panels[1][0].set_xlabel("layer")
    figure.suptitle("Divergence if only this part is quantised, bits per byte", fontsize=11)
    return figure


def card(original: str, name: str, facts: Mapping[str, Any]) -> str:
    """The card of the original with a section on what was done, which comes first."""
    front = FRONT.match(original)
    head, body = (front[0].lstrip(), original[front.end() :]) if front else ("", original)
    if not facts["portable"]:
        body = LOADS.sub("", body)
    below = re.sub(r"^(#+ )", r"##\1", body.strip(), flags=re.MULTILINE)
    form = "No matrix is quantised: within the limit all keep 16 bits"
    if any(unit["bits"] for unit in facts["units"].values()):
        form = (
            "Weights are small integers times a scale per group, in the format of "
            "compressed-tensors"
        )
    parts = [
        f"# {name}, quantised",
        "\n".join(f"- {line}" for line in map(_item, lines(facts))),
        f"{form}; details in quantization.json and openllm.json.",
        '    openllm generate . --prompt "Once"',
    ]
    if below:
        parts += ["## The original", "What its own card says:", below]
    return head + "\n\n".join(parts) + "\n"


def _item(line: str) -> str:
    label, _, rest = line.partition("  ")
    return f"{label}: {rest.strip()}"
