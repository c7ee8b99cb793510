# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The findings of `openllm data mix`, in words, tables and `report.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from openllm.core.files import atomic_file, write_json
from openllm.core.log import format_duration
from openllm.data.mixture import Mixture
from openllm.evaluate.compare import MIN_DOCUMENTS, Comparison, compare
from openllm.evaluate.report import Table, finite, markdown_table
from openllm.nn.cost import parameters
from openllm.recipes.mixing.leaks import kept
from openllm.recipes.mixing.plot import draw
from openllm.recipes.mixing.runs import Bench

Result = Mapping[str, Any]
PICTURE = "mix.png"


def build_result(
    bench: Bench,
    mixtures: Sequence[Mixture],
    seeds: range,
    leaks: Mapping[str, Mapping[str, np.ndarray]],
    resamples: int,
) -> dict[str, Any]:
    """The whole result, once every run is done."""
    runs = [[bench.result(mixture, seed) or {} for seed in seeds] for mixture in mixtures]
    found = {
        mixture.name: {
            "shares": {name: float(share) for name, share in mixture.shares.items()},
            "epochs": bench.epochs(mixture),
            "seconds": round(sum(run["seconds"] for run in by_seed), 1),
            "train_loss": [run["train_loss"] for run in by_seed],
            "targets": {},
        }
        for mixture, by_seed in zip(mixtures, runs, strict=True)
    }
    targets, verdicts = {}, {}
    for name, numbers in bench.targets.items():
        clean = kept(leaks[name])
        shards, fingerprint = bench.sources[name].validation, bench.sources[name].fingerprint
        nll = np.array([[run["nll"][fingerprint] for run in by_seed] for by_seed in runs])
        sizes = shards.doc_bytes[numbers][clean].astype(np.int64)
        comparison = compare(nll[:, :, clean], sizes, resamples=resamples)
        for mixture, standing in zip(mixtures, comparison.standings, strict=True):
            found[mixture.name]["targets"][name] = asdict(standing)
        names = [mixture.name for mixture in mixtures]
        verdicts[name] = verdict(name, names, comparison, len(seeds))
        targets[name] = {
            "documents": int(clean.sum()),
            "excluded": int((~clean).sum()),
            "leaks": {source: int(leaked.sum()) for source, leaked in leaks[name].items()},
            "bytes": int(sizes.sum()),
            "seed_limit": comparison.limit,
            "ranking": [names[number] for number in comparison.ranking],
        }
    return {
        "verdicts": verdicts,
        "mixtures": found,
        "targets": targets,
        "sources": {name: _source_facts(bench, name) for name in bench.sources},
        "seeds": list(seeds),
        "tokens": bench.tokens,
        "parameters": parameters(bench.cfg.model).total,
        "recipe": bench.cfg.dump(),
        "tokenizer": bench.tokenizer,
    }


def _source_facts(bench: Bench, name: str) -> dict[str, Any]:
    source = bench.sources[name]
    return {
        "folder": source.folder.name,
        "corpus": source.corpus,
        "fingerprint": source.fingerprint,
        "train_documents": source.train.num_documents,
        "train_tokens": len(source.train.tokens),
    }


def verdict(
    target: str, names: Sequence[str], comparison: Comparison, num_seeds: int
) -> dict[str, Any]:
    """The best mixture for a target, if there is one, in a sentence."""
    standings, (first, *others) = comparison.standings, comparison.ranking
    equal = [number for number in others if not standings[number].worse]
    best = f"{names[first]} ({standings[first].bits.value:.3f} bits per byte"
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    if not others:
        text = f"{target}: only one mixture was trained, {best})"
    elif comparison.documents < MIN_DOCUMENTS:
        text = (
            f"no verdict for {target}: {comparison.documents} documents are too few; score more "
            f"with --score-tokens, or hold out more text. Lowest is {best})"
        )
    elif not equal:
        behind = standings[others[0]].behind
        text = (
            f"best for {target}: {best}; next is {names[others[0]]}, "
            f"{behind.value:.3f} [{behind.low:.3f}, {behind.high:.3f}] worse)"
        )
        if num_seeds == 1:
            text += ". With 1 seed this may be chance; check with --seeds 2"
    elif len(equal) == len(others):
        text = f"no difference found with {seeds} for {target}; lowest is {best})"
    else:
        tied = ", ".join(names[number] for number in equal)
        text = f"no difference found with {seeds} for {target} between {best}) and {tied}"
    clear = bool(others) and not equal
    return {"best": names[first], "clear": clear, "text": text}


def tables(result: Result) -> list[Table]:
    """The table of all mixtures, then one for each target, its best mixture first."""
    return [_overview(result), *(_ranking(result, name) for name in result["targets"])]


def _overview(result: Result) -> Table:
    header = ["mixture", *result["targets"], "epochs seen", "seconds"]
    rows = []
    for name, facts in result["mixtures"].items():
        bits = [_interval(facts["targets"][target]["bits"]) for target in result["targets"]]
        epochs = ", ".join(f"{source} {facts['epochs'][source]:.2f}" for source in facts["shares"])
        rows.append((name, *bits, epochs, f"{facts['seconds']:,.0f}"))
    num_seeds = len(result["seeds"])
    note = (
        f"Bits per byte of the validation split, mean of {num_seeds} seed{'s' * (num_seeds > 1)}; "
        "in brackets, the 95 % bootstrap interval over documents, which is wide because documents "
        "differ. To compare mixtures, use the tables below."
    )
    return Table("Mixtures", tuple(header), tuple(rows), note)


def _ranking(result: Result, target: str) -> Table:
    facts = result["targets"][target]
    rows = []
    for place, name in enumerate(facts["ranking"]):
        own = result["mixtures"][name]["targets"][target]
        behind = "" if not place else _interval(own["behind"], signed=True)
        seeds = ", ".join(f"{value:.3f}" for value in own["seeds"])
        word = "worse" if own["worse"] else "not clearly different" if place else "lowest"
        rows.append((name, f"{own['bits']['value']:.3f}", behind, seeds, word))
    note = (
        f"{facts['documents']:,} documents, {facts['bytes']:,} bytes. In brackets, the paired 95 % "
        "interval over documents. "
    )
    if facts["seed_limit"] is None:
        note += "The effect of the seed is unknown with one run per mixture."
    else:
        note += (
            f"Seeds alone cause differences of up to {facts['seed_limit']:.3f} (95 %). Worse: "
            "the interval is above zero and the difference above this limit."
        )
    if facts["excluded"]:
        found = ", ".join(f"{count:,} in {name}" for name, count in facts["leaks"].items() if count)
        were = "was" if facts["excluded"] == 1 else "were"
        note += (
            f" Of the held-out documents, {facts['excluded']:,} {were} excluded for sharing 13 or "
            f"more words with a training split ({found})."
        )
    header = ("mixture", "bits per byte", "difference from lowest", "by seed", "")
    return Table(f"Best for {target}", header, tuple(rows), note)


def _interval(value: Mapping[str, float], signed: bool = False) -> str:
    sign = "+" if signed else ""
    middle, low, high = (f"{value[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def markdown(result: Result) -> str:
    """The report as Markdown."""
    seconds = sum(facts["seconds"] for facts in result["mixtures"].values())
    recipe = result["recipe"]
    lines = ["# Which mixture?", ""]
    lines += [f"- **{each['text']}**" for each in result["verdicts"].values()]
    lines += [
        "",
        f"On each mixture, a model with {result['parameters']:,} parameters was trained for "
        f"{result['tokens']:,} tokens, once per seed "
        f"({', '.join(map(str, result['seeds']))}; rows of {recipe['batch']['seq_len']} tokens, "
        f"{recipe['batch']['tokens']:,} tokens per step, {recipe['precision']} on "
        f"{recipe['device']}); {format_duration(seconds)} in total. The final weights were "
        "scored. A mixture that is best for a small model and few tokens need not be best for a "
        "large one, especially where sources are repeated.",
    ]
    for place, table in enumerate(tables(result)):
        lines += ["", f"## {table.title}", "", *markdown_table(table), "", table.note]
        if not place:
            lines += ["", f"![bits per byte by mixture and target]({PICTURE})"]
    header = ("source", "folder", "training documents", "training tokens", "fingerprint")
    rows = []
    for name, facts in result["sources"].items():
        counts = f"{facts['train_documents']:,}", f"{facts['train_tokens']:,}"
        rows.append((name, facts["folder"], *counts, facts["fingerprint"][:12]))
    lines += ["", "## Sources", "", *markdown_table(Table("", header, tuple(rows)))]
    lines += ["", f"Tokenizer {result['tokenizer'][:12]}."]
    return "\n".join(lines) + "\n"


def write_report(result: Result, folder: Path) -> None:
    """Write `report.json`, `report.md` and the plot into `folder`."""
    write_json(folder / "report.json", finite(result))
    draw(result, folder / PICTURE)
    with atomic_file(folder / "report.md") as handle:
        handle.write(markdown(result))
