# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm quickstart`: from nothing to a trained, measured, talking model in minutes.

Each stage is one ordinary command, which is shown before it runs. Repeating the quickstart takes
it up where it stopped.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.errors import ConfigError, TrainingError
from openllm.core.files import atomic_file, read_json, write_json
from openllm.core.log import format_duration, say
from openllm.core.runs import read_metrics

if TYPE_CHECKING:
    from openllm.engine.llm import LLM

RECIPE = "tiny"
VOCAB_SIZE = 2048
TOKENS_PER_DOCUMENT = 170
"""What the built-in corpus has at least on average with this vocabulary."""
MIN_TOKENS, MAX_TOKENS = 300_000, 20_000_000
NUM_SAMPLES, MIN_SAMPLE_TOKENS, SAMPLE_TOKENS = 100, 100, 160
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Plan:
    """What is fixed before anything is made, so that a repeated quickstart does the same."""

    tokens: int
    documents: int
    seed: int

    @classmethod
    def make(cls, minutes: float, seed: int) -> "Plan":
        """Measure this machine's training speed for 5 seconds and fit the run into `minutes`."""
        from openllm.recipes.pretrain import load_config, resolve
        from openllm.train.forecast import training_rate

        cfg = resolve(load_config(RECIPE), VOCAB_SIZE)
        rate = training_rate(cfg, document_tokens=TOKENS_PER_DOCUMENT, seconds=5)
        # a tenth of the time goes to validation, checkpoints and start-up
        wanted = int(0.9 * 60 * minutes * rate)
        step = cfg.batch.tokens
        tokens = min(max(wanted, MIN_TOKENS), MAX_TOKENS) // step * step
        say(f"this machine trains at about {rate:,.0f} tokens/s, so {tokens:,} tokens will be read")
        return cls(tokens, tokens // TOKENS_PER_DOCUMENT, seed)


def main(argv: list[str]) -> int:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(
        prog="openllm quickstart",
        description="Make a corpus, train a tokenizer and a model on it, measure it, let it talk.",
    )
    parser.add_argument("--out", default="runs/quickstart", help="folder for all of it")
    parser.add_argument("--minutes", type=float, default=4.0, help="training time to aim at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="discard an earlier quickstart")
    args = parser.parse_args(argv)
    if not 0 < args.minutes <= 24 * 60:
        raise ConfigError(f"--minutes {args.minutes} must lie between 0 and 1440")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed} must not be negative")
    out = Path(args.out)
    plan_path = out / "plan.json"
    if args.fresh and plan_path.exists():
        shutil.rmtree(out)
    if out.exists() and any(out.iterdir()) and not plan_path.exists():
        raise ConfigError(f"{out} holds other files; give --out an empty or new folder")
    if not plan_path.exists():
        write_json(plan_path, vars(Plan.make(args.minutes, args.seed)))
    values = read_json(plan_path, ConfigError, "give --fresh to begin anew")
    plan = Plan(values["tokens"], values["documents"], values["seed"])
    quickstart(out, plan)
    return 0


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
    settings = [f"data={data}", f"tokenizer={vocabulary}", f"seed={seed}"]
    words = [RECIPE, *settings, f"duration={plan.tokens} tokens", "--out", str(run)]
    _stage("train", words, pretrain.main)
    summary = _evaluate(out, data, run, plan)
    write_json(out / "summary.json", summary)
    _tell(out, summary)


def _stage(verb: str, words: Sequence[str], entry: Any) -> None:
    say(f"\n$ openllm {verb} {shlex.join(words)}")
    entry(list(words))


def _evaluate(out: Path, data: Path, run: Path, plan: Plan) -> dict[str, Any]:
    """Measure on held-out text beside the n-gram baseline, and let the model talk."""
    from openllm.engine.llm import LLM
    from openllm.evaluate.config import EvaluateConfig
    from openllm.evaluate.report import write_report
    from openllm.recipes.evaluate import evaluate

    say(f"\n$ openllm evaluate {run / 'model'} --data {data} --ngram --out {out / 'evaluation'}")
    cfg = EvaluateConfig(ngram=True, documents=400, samples=20, cloze=60, seed=plan.seed)
    result = evaluate(run / "model", data, cfg)
    write_report(result, out / "evaluation")
    perplexity = result["perplexity"]
    steps = [line for line in read_metrics(run) if line["kind"] == "train"]
    llm = LLM.load(run / "model")
    samples = write_samples(llm, plan.seed, NUM_SAMPLES, out / "samples.md")
    if not samples:
        raise TrainingError(
            f"the model wrote no text of {MIN_SAMPLE_TOKENS} tokens; repeat with --fresh and "
            "more --minutes"
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

    A text that ends before 100 tokens is replaced by the next opening's; nothing else is chosen.
    """
    from openllm.data.builtin.checker import consistency
    from openllm.data.builtin.corpus import prompts
    from openllm.engine.request import SamplingParams

    params = SamplingParams(max_new_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE, seed=seed)
    samples: list[dict[str, Any]] = []
    short = 0
    openings = prompts("test", seed, 3 * count)
    while len(samples) < count and openings:
        batch, openings = openings[: llm.max_batch], openings[llm.max_batch :]
        for prompt, answer in zip(batch, llm.generate(batch, params), strict=True):
            if len(answer.token_ids) < MIN_SAMPLE_TOKENS:
                short += 1
            elif len(samples) < count:
                found = consistency(answer.text, prompt=prompt)
                sample = {"prompt": prompt, "text": answer.text, "consistency": found.headline}
                samples.append(sample)
    with atomic_file(path) as handle:
        handle.write(
            f"# {len(samples)} samples\n\nUnpicked: openings of held-out stories in their order, "
            f"temperature {TEMPERATURE}; {short} texts of less than {MIN_SAMPLE_TOKENS} tokens "
            "left out. The opening is in bold.\n"
        )
        for number, sample in enumerate(samples, 1):
            handle.write(
                f"\n## {number}: consistency {sample['consistency']:.0%}\n\n"
                f"**{sample['prompt']}**{sample['text']}\n"
            )
    return samples


def _tell(out: Path, summary: dict[str, Any]) -> None:
    """What was reached, where it lies, what to try next."""
    model = summary["model"]
    first = "".join(summary["samples"][0][part] for part in ("prompt", "text"))
    bpb = [f"{summary[name]:.3f} bits per byte" for name in ("heldout_bpb", "ngram_bpb")]
    sys.stdout.write(
        f"""
{summary["parameters"] / 1e6:.1f}M parameters, {summary["tokens"]:,} tokens in \
{format_duration(summary["train_seconds"])}
held-out text   {bpb[0]}, {summary["below_ngram"]:.0%} below
5-gram baseline {bpb[1]}
consistency     {summary["consistency"]:.0%} of what {len(summary["samples"])} sampled stories claim

one of them:
{first}

where everything lies
  {out}/data            documents       openllm data inspect {out}/data
  {out}/tokenizer       vocabulary      openllm tokenizer inspect {out}/tokenizer
  {out}/{RECIPE}            curves, report  {out}/{RECIPE}/report.md
  {model}      the model; transformers loads it, too
  {out}/evaluation      measures        {out}/evaluation/report.md
  {out}/samples.md      all samples
  {out}/summary.json    the numbers

what to try next
  openllm generate {model} --prompt "One morning"
  openllm data prepare YOUR_FILES --out data/mine
"""
    )
