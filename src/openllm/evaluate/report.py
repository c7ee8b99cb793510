# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""An evaluation as tables, as `eval.json`, `report.md` and a plot.

`eval.json` is the source: the tables and the plot show nothing that it does not contain.
Non-finite numbers in it are written as null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openllm.core.files import atomic_file, write_json

Result = Mapping[str, Any]

_MEASURES = {
    "loss": "loss (nats per token)",
    "token_perplexity": "token perplexity",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "word perplexity",
}
_QUALITY = {
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "repeated_4": "repeated 4-grams",
    "copy_mean": "longest copy from training, mean (tokens)",
    "copy_max": "longest copy from training, maximum (tokens)",
}


@dataclass(frozen=True)
class Table:
    """Rows under a header, with a title and a note."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(result: Result) -> list[Table]:
    """All tables of an evaluation; parts that were not measured are left out."""
    found = [_perplexity(result)]
    if result.get("cloze"):
        found.append(_cloze(result["cloze"], result.get("ngram")))
    if result.get("generation"):
        found.append(_generation(result["generation"]))
    return found


def _perplexity(result: Result) -> Table:
    values, windows, data = result["perplexity"], result["windows"], result["data"]
    baseline, less = values.get("ngram"), values.get("difference")
    header = ["", "model"]
    rows = [[name, _interval(values["model"][key])] for key, name in _MEASURES.items()]
    note = (
        f"{data['documents']:,} documents, {data['tokens']:,} tokens of text, "
        f"{data['bytes']:,} bytes; in brackets, the 95 % bootstrap interval over documents. "
        f"With windows of {windows['context']} tokens, {windows['full_context_share']:.1%} of the "
        "tokens were predicted from all the text before them in their document."
    )
    if baseline and less:
        header += [f"{result['ngram']['order']}-gram", "model minus n-gram"]
        for row, key in zip(rows, _MEASURES, strict=True):
            row += [_interval(baseline[key]), _interval(less[key], signed=True)]
        note += (
            f" The model needs {_fewer(less['reduction'])} bits per byte than the n-gram model, "
            f"which was trained on {result['ngram']['tokens']:,} tokens."
        )
    return Table("Held-out text", tuple(header), tuple(map(tuple, rows)), note)


def _generation(generation: Result) -> Table:
    sampled, written = generation["model"], generation["heldout"]
    rows = [
        (name, _number(sampled[key]), _number(written[key]))
        for key, name in _QUALITY.items()
        if sampled[key] is not None
    ]
    settings = generation["settings"]
    note = (
        f"{sampled['texts']} samples, {sampled['tokens']:,} tokens, from the first "
        f"{settings['prompt_tokens']} tokens of held-out documents (temperature "
        f"{settings['temperature']:g}, top_k {settings['top_k']}, top_p {settings['top_p']:g}, "
        f"min_p {settings['min_p']:g}, repetition_penalty {settings['repetition_penalty']:g}, "
        f"seed {settings['seed']}). Held-out: the true continuations of the same documents, cut "
        "to the length of the samples."
    )
    if sampled["copy_max"] is None:
        note += " Copies were not measured: the training shards were not found."
    return Table("Generated text", ("", "model", "held-out"), tuple(rows), note)


def _cloze(cloze: Result, ngram: Result | None) -> Table:
    header = ["last word of a sentence", "questions", "choice of 4", "recall"]
    if ngram:
        header += [f"{ngram['order']}-gram: choice", f"{ngram['order']}-gram: recall"]
    rows = []
    for group, found in cloze["model"].items():
        row = [_GROUPS[group], str(found["questions"])]
        row += [_accuracy(found["choice"]), _accuracy(found["recall"])]
        if ngram:
            theirs = cloze["ngram"][group]
            row += [_accuracy(theirs["choice"]), _accuracy(theirs["recall"])]
        rows.append(tuple(row))
    note = (
        "Choice: the true word is more likely than three words of similar length and frequency "
        "(chance 25 %). Recall: each of its tokens is the most likely one. "
        "In brackets, the 95 % Wilson interval."
    )
    return Table("Cloze", tuple(header), tuple(rows), note)


_GROUPS = {"repeated": "occurs earlier in the document", "new": "new in the document"}


def _number(value: float | None, signed: bool = False) -> str:
    """Four digits, or as many as the integer part has."""
    if value is None or not math.isfinite(value):
        return "too large"
    sign = "+" if signed else ""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def _interval(value: Mapping[str, float], signed: bool = False) -> str:
    middle, low, high = (_number(value[key], signed) for key in ("value", "low", "high"))
    return middle if middle == low == high else f"{middle} [{low}, {high}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _fewer(share: Mapping[str, float]) -> str:
    """Describe a fraction that is saved; a negative one is extra."""
    low, high, word = share["low"], share["high"], "fewer"
    if share["value"] < 0:
        low, high, word = -high, -low, "more"
    return f"{_percent(abs(share['value']))} [{100 * low:.1f}, {100 * high:.1f}] {word}"


def _accuracy(value: Mapping[str, float]) -> str:
    return f"{_percent(value['value'])} [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"


def markdown(result: Result, picture: str | None = None) -> str:
    """Render the report; `picture` is the file name of the plot next to it."""
    model, data = result["model"], result["data"]
    split = f", split {data['split']}" if data["split"] else ""
    lines = [
        f"# Evaluation of {model['name']}",
        "",
        f"- model: {model['parameters']:,} parameters, vocabulary {model['vocab_size']:,}, "
        f"training tokens {_or_unknown(model['tokens_seen'])}, "
        f"step {_or_unknown(model['step'])}",
        f"- text: {data['name']}{split}, fingerprint {str(data['fingerprint'])[:12]}",
    ]
    for table in tables(result):
        lines += ["", f"## {table.title}", "", *markdown_table(table), "", table.note]
        if table.title == "Held-out text" and picture:
            lines += ["", f"![loss by position, and bits per byte]({picture})"]
    if result.get("generation"):
        lines += _samples(result["generation"])
    return "\n".join(lines) + "\n"


def _or_unknown(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def markdown_table(table: Table) -> list[str]:
    """The lines of a table, without its title and note."""
    rules = ["---", *["---:"] * (len(table.header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (table.header, rules, *table.rows)]


def _samples(generation: Result) -> list[str]:
    lines: list[str] = []
    copy = generation.get("longest_copy")
    if copy and copy["tokens"]:
        lines += ["", f"Longest copy, {copy['tokens']} tokens of sample {copy['sample']}:", ""]
        lines += _quote(copy["text"])
    lines += ["", "## Samples", "", "In the order they were drawn; the prompt is in bold."]
    for sample in generation["samples"]:
        prompt = " ".join(sample["prompt"].split())
        lines += ["", *_quote(f"**{prompt}**{sample['text']}")]
    return lines


def _quote(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.splitlines() or [""]]


def plot(result: Result, path: Path) -> None:
    """Plot loss by position in the document, and bits per byte, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curve_axes, bar_axes = figure.subplots(1, 2, width_ratios=(3, 1))
    names = {"model": "model"}
    if result["perplexity"].get("ngram"):
        names["ngram"] = f"{result['ngram']['order']}-gram KN"
    for (key, label), colour in zip(names.items(), ("#1f5fa8", "#c2571a"), strict=False):
        curve, bar = result["curve"], result["perplexity"][key]["bits_per_byte"]
        curve_axes.plot(
            curve["position"], curve[key], marker="o", markersize=3.5, color=colour, label=label
        )
        errors = [[bar["value"] - bar["low"]], [bar["high"] - bar["value"]]]
        bar_axes.bar(label, bar["value"], yerr=errors, capsize=6, color=colour, width=0.6)
        bar_axes.annotate(
            f"{bar['value']:.3f}",
            (label, bar["value"] / 2),
            ha="center",
            va="center",
            color="white",
            fontweight="bold",
        )
    curve_axes.set_xscale("log")
    curve_axes.xaxis.set_major_formatter("{x:g}")
    curve_axes.set_xlabel("position in the document (tokens)")
    curve_axes.set_ylabel("loss (nats per token)")
    curve_axes.set_title("Loss by position in held-out documents")
    curve_axes.grid(alpha=0.3)
    curve_axes.legend()
    bar_axes.set_title("Bits per byte")
    bar_axes.tick_params(axis="x", labelsize=8)
    for axes in (curve_axes, bar_axes):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path, "wb") as handle:
        FigureCanvasAgg(figure).print_png(handle)


def write_report(result: Result, folder: Path) -> None:
    """Write `eval.json`, `report.md` and `eval.png` into `folder`."""
    write_json(folder / "eval.json", finite(result))
    plot(result, folder / "eval.png")
    with atomic_file(folder / "report.md") as handle:
        handle.write(markdown(result, "eval.png"))


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by None."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
