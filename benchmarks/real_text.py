# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The whole pipeline on real text: documents to evaluated model, by recipe and vocabulary.

    python benchmarks/real_text.py [NAME ...]       all of RUNS, or those named

Every stage resumes what an earlier, interrupted call left in runs/real_text. Results go to
benchmarks/results/real_text.json, the plot beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from record import RESULTS, SHARED, record

from openllm.core.errors import DataError
from openllm.core.files import read_json
from openllm.core.runs import read_metrics
from openllm.evaluate.config import EvaluateConfig
from openllm.evaluate.report import finite, write_report
from openllm.recipes import pretrain, tokenizer
from openllm.recipes.evaluate import evaluate
from openllm.recipes.prepare import prepare_main

WORK = Path("runs/real_text")
SQUAD = ["squad", "--source", str(SHARED / "squad")]
SOURCES = {"squad": SQUAD, "english": [str(SHARED / "pretrain_en"), *SQUAD]}
TITLES = ["--title-key", "title", "--title-key", "source"]
"""Chapters of a book have its name as their source; a book goes to one split."""


class Plan(NamedTuple):
    """A run: its text and vocabulary size, the recipe, and overrides."""

    text: str
    vocab_size: int
    recipe: str = "small"
    settings: tuple[str, ...] = ()


RUNS = {
    "squad-32k": Plan("squad", 32_000, settings=("duration=2_500_000 tokens",)),
    "squad-8k": Plan("squad", 8_192, settings=("duration=1_000_000 tokens",)),
    "english-32k": Plan(
        "english", 32_000, settings=("duration=400_000 tokens", "validation.every=20")
    ),
    "english-8k": Plan("english", 8_192, settings=("duration=1_000_000 tokens",)),
    "squad-small-32k": Plan("squad", 32_000, "squad-small"),
    "squad-small-8k": Plan("squad", 8_192, "squad-small"),
}
MEASURED = ("model", "ngram")


def run(name: str) -> dict[str, Any]:
    """Run all stages of one run; finished ones are not repeated."""
    text, vocab_size, recipe, settings = RUNS[name]
    data, vocabulary, out = WORK / text, WORK / f"{name}-tokenizer", WORK / name
    if not (data / "index.json").exists():
        prepare_main([*SOURCES[text], *TITLES, "--out", str(data)])
    if not (vocabulary / "tokenizer.json").exists():
        words = [str(data), "--vocab-size", str(vocab_size), "--out", str(vocabulary)]
        tokenizer.train_main(words)
    words = [recipe, f"data={data}", f"tokenizer={vocabulary}", *settings]
    pretrain.main([*words, "--out", str(out)])
    evaluation = WORK / f"{name}-evaluation"
    if not (evaluation / "eval.json").exists():
        documents = None if text == "squad" else 80
        cfg = EvaluateConfig(ngram=True, documents=documents)
        write_report(evaluate(out / "model", data, cfg), evaluation)
    return summary(name, data, out, evaluation)


def summary(name: str, data: Path, out: Path, evaluation: Path) -> dict[str, Any]:
    """Entry of one run in the results file."""
    text, vocab_size, recipe, settings = RUNS[name]
    mend = "delete the folder and repeat"
    report = read_json(data / "report.json", DataError, mend)
    measured = json.loads((evaluation / "eval.json").read_text())
    metrics = read_metrics(out)
    steps = [line for line in metrics if line["kind"] == "train"]
    seconds = sum(line["seconds"] for line in steps)
    return {
        "text": text,
        "vocab_size": vocab_size,
        "recipe": recipe,
        "settings": list(settings),
        "commit": read_json(out / "env.json", DataError, mend)["commit"],
        "preparation": {key: value for key, value in report.items() if key != "files"},
        "parameters": measured["model"]["parameters"],
        "tokens_seen": steps[-1]["tokens"],
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(steps[-1]["tokens"] / seconds, 1),
        "validation": [
            [line["tokens"], round(line["bits_per_byte"], 4)]
            for line in metrics
            if line["kind"] == "validation"
        ],
        "training": [
            [line["tokens"], round(line["loss"], 4)] for line in steps if line["step"] % 10 == 0
        ],
        "heldout": measured["data"],
        "perplexity": measured["perplexity"],
        "cloze": measured.get("cloze"),
        "generation": {
            key: value
            for key, value in (measured.get("generation") or {}).items()
            if key != "samples"
        },
    }


def plot(results: dict[str, Any], path: Path) -> None:
    """Plot validation curves of all runs; beside them model and 5-gram on the test text."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    colored = zip(TABLEAU_COLORS, results.items(), strict=False)
    for place, (color, (name, facts)) in enumerate(colored):
        tokens, bits = zip(*facts["validation"], strict=True)
        millions = [count / 1e6 for count in tokens]
        axes.plot(millions, bits, color=color, marker="o", markersize=3, label=name)
        model, ngram = (facts["perplexity"][of]["bits_per_byte"]["value"] for of in MEASURED)
        bars.barh(place, model, 0.7, color=color)
        bars.plot([ngram, ngram], [place - 0.4, place + 0.4], color="black", linewidth=2)
        bars.text(0.05, place, f"{model:.3f}, 5-gram {ngram:.3f}", color="white", va="center")
    axes.set_xlabel("millions of tokens seen")
    axes.set_ylabel("bits per byte, validation articles")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    bars.set_yticks(range(len(results)), results)
    bars.invert_yaxis()
    bars.set_xlabel("bits per byte, test articles; black: 5-gram Kneser-Ney")
    bars.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what was requested and record it beside earlier results."""
    names = sys.argv[1:] or list(RUNS)
    path = RESULTS / "real_text.json"
    results = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name in names:
        results[name] = finite(run(name))
        record("real_text", {"runs": {key: results[key] for key in RUNS if key in results}})
        plot(results, RESULTS / "real_text.png")


if __name__ == "__main__":
    main()
