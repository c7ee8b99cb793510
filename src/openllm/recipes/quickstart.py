# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm quickstart`: from nothing to a trained, evaluated model that writes text, in minutes.

Each stage is one ordinary command, shown before it runs. Repeating the quickstart resumes it where
it stopped.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from openllm.core.arguments import Parser
from openllm.core.config import Config, as_override
from openllm.core.errors import ConfigError, TrainingError
from openllm.core.files import atomic_file, read_json, storage_errors, write_json
from openllm.core.log import format_duration, say
from openllm.core.runs import Run, read_metrics

if TYPE_CHECKING:
    from openllm.engine.llm import LLM

RECIPE = "tiny"
VOCAB_SIZE = 2048
TOKENS_PER_DOCUMENT = 170
"""Lower bound on the builtin corpus's average with this vocabulary."""
MIN_TOKENS, MAX_TOKENS = 300_000, 20_000_000
NUM_SAMPLES, MIN_SAMPLE_TOKENS, SAMPLE_TOKENS = 100, 100, 160
TEMPERATURE = 0.1
MINUTES, SEED = 4.0, 0
PLAN = "plan.json"
ENTRIES = ("data", "tokenizer", RECIPE, "evaluation", "samples.md", "summary.json", PLAN)
"""Everything that a quickstart creates in its folder."""


class Plan(Config):
    """What is fixed in advance, so that a repeated quickstart does the same."""

    tokens: int = Field(ge=1)
    documents: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**63)
    minutes: float | None = Field(None, gt=0, description="as requested; none: not recorded")

    @classmethod
    def make(cls, minutes: float, seed: int) -> "Plan":
        """Measure this machine's training speed for 5 seconds and fit the run into `minutes`."""
        from openllm.recipes.build import load_config, prepare_process, resolve
        from openllm.train.forecast import training_rate

        cfg = resolve(load_config(RECIPE), VOCAB_SIZE)
        prepare_process(cfg)
        rate = training_rate(cfg, document_tokens=TOKENS_PER_DOCUMENT, seconds=5)
        # a twentieth of the time goes to validation, checkpoints and start-up
        wanted = int(0.95 * 60 * minutes * rate)
        step = cfg.batch.tokens
        tokens = min(max(wanted, MIN_TOKENS), MAX_TOKENS) // step * step
        say(f"this machine trains at about {rate:,.0f} tokens/s; training on {tokens:,} tokens")
        documents = tokens // TOKENS_PER_DOCUMENT
        return cls(tokens=tokens, documents=documents, seed=seed, minutes=minutes)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan of an earlier quickstart.

        Raises:
            ConfigError: the file is not a plan.
        """
        mend = "choose another --out, or remove the folder yourself"
        values = read_json(path, ConfigError, mend)
        values.pop("format_version", None)
        try:
            return cls.parse(values, str(path))
        except ConfigError:
            raise ConfigError(f"{path} is not the plan of a quickstart; {mend}") from None


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm quickstart",
        description="Generate a corpus, train a tokenizer and a model on it, evaluate the model "
        "and sample from it.",
    )
    parser.add_argument("--out", default="runs/quickstart", help="folder for everything")
    minutes = f"approximate training time (default {MINUTES:g})"
    parser.add_argument("--minutes", type=float, help=minutes)
    parser.add_argument("--seed", type=int, help=f"seed of the corpus and model (default {SEED})")
    parser.add_argument("--fresh", action="store_true", help="discard an earlier quickstart")
    args = parser.parse_args(argv)
    if args.minutes is not None and not 0 < args.minutes <= 24 * 60:
        raise ConfigError(f"--minutes {args.minutes} must be between 0 and 1440")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise ConfigError(f"--seed {args.seed} must be between 0 and 2**63 - 1")
    out = Path(args.out)
    quickstart(out, find_plan(out, args.minutes, args.seed, fresh=args.fresh))
    return 0


def find_plan(out: Path, minutes: float | None, seed: int | None, *, fresh: bool) -> Plan:
    """The plan of the quickstart in `out`, or a new one, which is written there.

    Args:
        out: the folder of the quickstart.
        minutes: as the user requested; None: as planned, or the default.
        seed: likewise.
        fresh: discard what `out` holds.

    Raises:
        ConfigError: `out` holds other files, or a quickstart with other settings.
    """
    path = out / PLAN
    if path.exists():
        plan = Plan.read(path)
        if fresh:
            _discard(out)
        else:
            _refuse_other_settings(out, plan, minutes, seed)
            return plan
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} contains other files; choose a new or empty folder for --out")
    plan = Plan.make(MINUTES if minutes is None else minutes, SEED if seed is None else seed)
    write_json(path, plan.dump())
    return plan


def _refuse_other_settings(out: Path, plan: Plan, minutes: float | None, seed: int | None) -> None:
    changed = [
        f"--{name} was {old}, is now {new}"
        for name, old, new in (("minutes", plan.minutes, minutes), ("seed", plan.seed, seed))
        if old is not None and new is not None and old != new
    ]
    if changed:
        raise ConfigError(
            f"{out} contains a quickstart with different settings ({'; '.join(changed)}); use its "
            "settings to resume it, pass --fresh to discard it, or choose another --out"
        )


def _discard(out: Path) -> None:
    """Remove what a quickstart made; refuse if anything else is there."""
    ours = "|".join(map(re.escape, ENTRIES))
    # hidden files are what a kill left half-written
    known = re.compile(rf"({ours})|\.({ours})(\.\d+)?\.(tmp|old)")
    found = sorted(os.listdir(out))
    foreign = [name for name in found if not known.fullmatch(name)]
    if foreign:
        raise ConfigError(
            f"{out} contains {foreign[0]}, which is not from a quickstart; move it elsewhere, or "
            "choose another --out"
        )
    Run.discard(out / RECIPE)  # first, as it refuses while a process is training there
    # the plan goes last: while it exists, the folder is still recognised as a quickstart
    for name in sorted(set(found) - {RECIPE}, key=lambda name: name == PLAN):
        entry = out / name
        with storage_errors(entry):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def quickstart(out: Path, plan: Plan) -> None:
    """Run all stages that are not done yet and write `summary.json`."""
    from openllm.recipes import pretrain, tokenizer
    from openllm.recipes.prepare import prepare_main

    data, vocabulary, run = out / "data", out / "tokenizer", out / RECIPE
    seed = str(plan.seed)
    if not (data / "index.json").exists():
        documents = str(plan.documents)
        words = ["builtin", "--documents", documents, "--seed", seed, "--out", str(data)]
        _stage("data prepare", words, prepare_main)
    if not (vocabulary / "tokenizer.json").exists():
        words = [str(data), "--vocab-size", str(VOCAB_SIZE), "--out", str(vocabulary)]
        _stage("tokenizer train", words, tokenizer.train_main)
    folders = {"data": str(data), "tokenizer": str(vocabulary)}
    settings = [as_override(name, folder) for name, folder in folders.items()]
    settings += [f"seed={seed}", f"duration={plan.tokens} tokens"]
    words = [RECIPE, *settings, "--out", str(run)]
    _stage("train", words, pretrain.main)
    summary = _evaluate(out, data, run, plan)
    write_json(out / "summary.json", summary)
    _tell(out, summary)


def _stage(verb: str, words: Sequence[str], entry: Any) -> None:
    say(f"\n$ openllm {verb} {shlex.join(words)}")
    entry(list(words))


def _evaluate(out: Path, data: Path, run: Path, plan: Plan) -> dict[str, Any]:
    """Evaluate on held-out text beside the n-gram baseline, and sample from the model."""
    from openllm.engine.config import EngineConfig
    from openllm.engine.llm import LLM
    from openllm.evaluate.config import EvaluateConfig
    from openllm.evaluate.report import write_report
    from openllm.recipes.evaluate import evaluate

    words = [str(run / "model"), "--data", str(data), "--ngram", "--out", str(out / "evaluation")]
    say(f"\n$ openllm evaluate {shlex.join(words)}")
    cfg = EvaluateConfig(ngram=True, documents=400, samples=20, cloze=60, seed=plan.seed)
    result = evaluate(run / "model", data, cfg)
    write_report(result, out / "evaluation")
    perplexity = result["perplexity"]
    steps = [line for line in read_metrics(run) if line["kind"] == "train"]
    llm = LLM.load(run / "model", EngineConfig(precision="fp32"))
    samples = write_samples(llm, plan.seed, NUM_SAMPLES, out / "samples.md")
    if not samples:
        raise TrainingError(
            f"the model generated no text of at least {MIN_SAMPLE_TOKENS} tokens; run again with "
            "--fresh and more --minutes"
        )
    model_bpb = perplexity["model"]["bits_per_byte"]["value"]
    ngram_bpb = perplexity["ngram"]["bits_per_byte"]["value"]
    return {
        "heldout_bpb": model_bpb,
        "ngram_bpb": ngram_bpb,
        "below_ngram": 1 - model_bpb / ngram_bpb,
        "consistency": sum(sample["consistency"] for sample in samples) / len(samples),
        "train_seconds": round(sum(line["seconds"] for line in steps), 1),
        "tokens": steps[-1]["tokens"],
        "parameters": result["model"]["parameters"],
        "model": str(run / "model"),
        "samples": samples,
    }


def write_samples(llm: "LLM", seed: int, count: int, path: Path) -> list[dict[str, Any]]:
    """Continue the openings of held-out stories and score each text's consistency.

    A text of fewer than 100 tokens is replaced by the next opening's; there is no other selection.
    """
    from openllm.data.builtin.checker import consistency
    from openllm.data.builtin.corpus import prompts
    from openllm.engine.request import SamplingParams

    params = SamplingParams(max_new_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE, seed=seed)
    samples: list[dict[str, Any]] = []
    short = 0
    openings = prompts("test", seed, 3 * count)
    while len(samples) < count and openings:
        batch, openings = openings[:count], openings[count:]
        for prompt, answer in zip(batch, llm.generate(batch, params), strict=True):
            if len(answer.token_ids) < MIN_SAMPLE_TOKENS:
                short += 1
            elif len(samples) < count:
                found = consistency(answer.text, prompt=prompt)
                sample = {"prompt": prompt, "text": answer.text, "consistency": found.headline}
                samples.append(sample)
    with atomic_file(path) as handle:
        handle.write(
            f"# {len(samples)} samples\n\nNot cherry-picked: openings of held-out stories in "
            f"order, temperature {TEMPERATURE}; {short} texts of fewer than {MIN_SAMPLE_TOKENS} "
            "tokens left out. The opening is in bold.\n"
        )
        for number, sample in enumerate(samples, 1):
            handle.write(
                f"\n## {number}: consistency {sample['consistency']:.0%}\n\n"
                f"**{sample['prompt']}**{sample['text']}\n"
            )
    return samples


def _tell(out: Path, summary: dict[str, Any]) -> None:
    """Print the results, where they are, and what to try next."""
    model = summary["model"]
    first = "".join(summary["samples"][0][part] for part in ("prompt", "text"))
    bpb = [f"{summary[name]:.3f} bits per byte" for name in ("heldout_bpb", "ngram_bpb")]
    sys.stdout.write(
        f"""
{summary["parameters"] / 1e6:.1f}M parameters, {summary["tokens"]:,} tokens in \
{format_duration(summary["train_seconds"])}
held-out text   {bpb[0]}, {summary["below_ngram"]:.0%} below
5-gram baseline {bpb[1]}
consistency     {summary["consistency"]:.0%} of the claims in {len(summary["samples"])} stories

one of the samples:
{first}

where everything is
  {out}/data            documents       openllm data inspect {out}/data
  {out}/tokenizer       vocabulary      openllm tokenizer inspect {out}/tokenizer
  {out}/{RECIPE}            curves, report  {out}/{RECIPE}/report.md
  {model}      the model; transformers loads it too
  {out}/evaluation      metrics         {out}/evaluation/report.md
  {out}/samples.md      all samples
  {out}/summary.json    the numbers

what to try next
  openllm generate {model} --prompt "One morning"
  openllm data prepare YOUR_FILES --out data/mine
"""
    )
