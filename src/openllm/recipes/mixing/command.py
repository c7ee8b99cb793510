# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm data mix`: which mixture of prepared folders trains the best model for given text.

OUT/results/     one file per mixture and seed (runs.py)
OUT/leaks/       held-out documents that another folder trains on (leaks.py)
OUT/report.md    report.json  mix.png
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.errors import ConfigError
from openllm.core.files import storage_errors
from openllm.core.log import format_duration, progress, say, warn
from openllm.data.document import read_index
from openllm.data.mixture import Mixture
from openllm.recipes.mixing.request import Request, build_parser, read_request
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.recipes.mixing.runs import Bench, Source
    from openllm.text.tokenizer import Tokenizer

ENTRIES = ("results", "leaks", "report.md", "report.json", "mix.png")
"""Everything that the command creates in its folder."""
SAMPLE_SEED = 0
"""Seed of the validation documents; the same ones for all runs."""
LEAST_DOCUMENTS = 20
"""Minimum scored, if a target has so many; intervals from fewer cannot be trusted."""
PROBE_SECONDS = 2.0
MOST_EPOCHS = 4
"""Repeated more often than this, text is worth much less than new text (arXiv:2305.16264)."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    args = build_parser().parse_intermixed_args(argv)
    request = read_request(args)
    result = mix(request, Path(args.out), dry_run=args.dry_run)
    if args.json:
        from openllm.evaluate.report import finite

        sys.stdout.write(json.dumps(finite(result), ensure_ascii=False) + "\n")
    elif not args.dry_run:
        from openllm.recipes.evaluate import show
        from openllm.recipes.mixing.report import tables

        show(tables(result))
        sys.stdout.write("\n".join(each["text"] for each in result["verdicts"].values()) + "\n")
    return 0


def mix(request: Request, out: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """Do the missing runs and write the report.

    Returns:
        The contents of `report.json`; for a dry run, the plan.

    Raises:
        ConfigError: sources or mixtures that cannot be compared, or `out` holds other files.
        DataError: a folder that is not prepared, or no held-out text free of leaks.
        KeyboardInterrupt: it was interrupted; finished runs are kept.
    """
    from openllm.recipes.build import memory_errors, prepare_process, resolve
    from openllm.recipes.mixing.leaks import survey
    from openllm.recipes.mixing.report import build_result, write_report
    from openllm.text.load import load_tokenizer

    _check_output(out)
    tokenizer = load_tokenizer(request.tokenizer)
    recipe = resolve(request.recipe, tokenizer.vocab_size)
    prepare_process(recipe)
    bench = _open_bench(request, out, recipe, tokenizer)
    sizes = {name: len(source.train.tokens) for name, source in bench.sources.items()}
    mixtures = request.find_mixtures(sizes)
    seeds = range(recipe.seed, recipe.seed + request.cfg.seeds)
    plan = make_plan(bench, mixtures, seeds)
    _tell_plan(bench, plan)
    with memory_errors(recipe):
        plan |= _forecast(bench, plan["runs"] - plan["done"])
        if dry_run:
            return plan
        leaks = survey(bench)
        _tell_leaks(leaks)
        _work(bench, mixtures, seeds)
    result = build_result(bench, mixtures, seeds, leaks, request.cfg.resamples)
    write_report(result, out)
    say(f"wrote {out / 'report.md'}")
    return result


def _check_output(out: Path) -> None:
    """Refuse a folder that holds anything this command did not create."""
    if out.is_file():
        raise ConfigError(f"--out {out} is a file; give a folder")
    with storage_errors(out):
        found = sorted(os.listdir(out)) if out.exists() else []
    foreign = [name for name in found if name not in ENTRIES and not name.startswith(".")]
    if foreign:
        raise ConfigError(
            f"{out} contains other files ({foreign[0]}); choose a new or empty folder for --out"
        )


def _open_bench(
    request: Request, out: Path, recipe: PretrainConfig, tokenizer: "Tokenizer"
) -> "Bench":
    from openllm.data.loader import sample_numbers
    from openllm.recipes.mixing.runs import Bench

    sources = _open_sources(request.folders, request.tokenizer, tokenizer.fingerprint)
    wanted = request.cfg.score_tokens
    targets = {
        name: sample_numbers(sources[name].validation, wanted, SAMPLE_SEED, LEAST_DOCUMENTS)
        for name in request.targets
    }
    return Bench(out, recipe, tokenizer.fingerprint, sources, targets)


def _open_sources(
    folders: Mapping[str, Path], tokenizer: Path, fingerprint: str
) -> dict[str, "Source"]:
    """Read all indexes, refuse duplicates, then find or make the token shards."""
    from openllm.data.shards import Shards
    from openllm.recipes.mixing.runs import Source
    from openllm.recipes.tokenize import tokenize

    indexes = {name: read_index(folder) for name, folder in folders.items()}
    seen: dict[str, str] = {}
    for name, index in indexes.items():
        twin = seen.setdefault(index["fingerprint"], name)
        if twin != name:
            raise ConfigError(f"'{twin}' and '{name}' contain the same documents; remove one")
    sources = {}
    for name, folder in folders.items():
        shards = tokenize(folder, tokenizer)
        index = indexes[name]
        train, validation = (
            Shards.open(shards, split, fingerprint) for split in ("train", "validation")
        )
        facts = index["corpus"], index["fingerprint"], train, validation
        sources[name] = Source(name, folder, *facts)
    return sources


def make_plan(bench: "Bench", mixtures: Sequence[Mixture], seeds: range) -> dict[str, Any]:
    """What each run reads, and how many are done already."""
    done = [bench.path(mixture, seed).exists() for mixture in mixtures for seed in seeds]
    return {
        "runs": len(done),
        "done": sum(done),
        "tokens": bench.tokens,
        "mixtures": {
            mixture.name: {
                "shares": {name: float(share) for name, share in mixture.shares.items()},
                "epochs": bench.epochs(mixture),
            }
            for mixture in mixtures
        },
    }


def _tell_plan(bench: "Bench", plan: Mapping[str, Any]) -> None:
    for name, facts in plan["mixtures"].items():
        parts = [
            f"{share:.0%} {source} ({facts['epochs'][source]:.2f} epochs)"
            for source, share in facts["shares"].items()
        ]
        say(f"mixture {name}: {', '.join(parts)}")
        often = [source for source, count in facts["epochs"].items() if count > MOST_EPOCHS]
        if often:
            warn(
                f"mixture {name} reads {', '.join(often)} more than {MOST_EPOCHS} times; "
                "its result also reflects the repetition"
            )


def _forecast(bench: "Bench", missing: int) -> dict[str, Any]:
    """Expected time and memory of the missing runs, printed and returned."""
    from openllm.train.forecast import peak_bytes, training_rate

    if not missing:
        say("all runs are already done")
        return {"seconds": 0.0}
    sides = [source.train for source in bench.sources.values()]
    documents = sum(side.num_documents for side in sides)
    mean = max(2, sum(len(side.tokens) for side in sides) // documents)
    rate = training_rate(bench.cfg, document_tokens=mean, seconds=PROBE_SECONDS)
    # a forward pass takes about a third of a training pass
    seconds = missing * (bench.tokens + bench.scored_tokens / 3) / rate
    peak = peak_bytes(bench.cfg)
    say(
        f"forecast: {missing} runs of {bench.steps:,} steps, {missing * bench.tokens:,} tokens in "
        f"about {format_duration(seconds)} at {rate:,.0f} tokens/s; peak memory about "
        f"{peak / 2**30:.1f} GiB"
    )
    return {"seconds": round(seconds, 1), "tokens_per_second": round(rate, 1), "peak_bytes": peak}


def _tell_leaks(leaks: Mapping[str, Mapping[str, Any]]) -> None:
    for target, by_source in leaks.items():
        found = {name: int(leaked.sum()) for name, leaked in by_source.items() if leaked.any()}
        if found:
            parts = ", ".join(f"{count} in {name}" for name, count in found.items())
            warn(
                f"some held-out documents of {target} share 13 or more words with the training "
                f"split of a source: {parts}; they are excluded from all scores"
            )


def _work(bench: "Bench", mixtures: Sequence[Mixture], seeds: range) -> None:
    """Do the missing runs, seed by seed, so that an early stop leaves complete comparisons."""
    from openllm.recipes.mixing.runs import run

    queue = [(mixture, seed) for seed in seeds for mixture in mixtures]
    done = sum(bench.result(*item) is not None for item in queue)
    if done == len(queue):
        return
    try:
        total, start = len(queue) * bench.tokens, done * bench.tokens
        with progress("training", total, "tokens", start=start) as meter:
            for number, (mixture, seed) in enumerate(queue, start=1):
                if bench.result(mixture, seed) is None:  # another process may have done it
                    label = f"run {number} of {len(queue)}, {mixture.name}, seed {seed}"
                    run(bench, mixture, seed, meter, label)
    except KeyboardInterrupt:
        done = sum(bench.path(*item).exists() for item in queue)
        raise KeyboardInterrupt(
            f"{done} of {len(queue)} runs are done; repeat the command to continue"
        ) from None
