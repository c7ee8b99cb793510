# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm evaluate`: a model folder and held-out text in, metrics and a report out."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.errors import ConfigError, UsageError
from openllm.core.files import storage_errors
from openllm.core.log import say
from openllm.data.reading.readers import ReadOptions
from openllm.engine.request import SamplingParams
from openllm.evaluate.config import EvaluateConfig
from openllm.evaluate.report import Table, finite, tables, write_report
from openllm.export.models.zoo import resolve_model

if TYPE_CHECKING:
    from openllm.evaluate.ngram import KneserNey
    from openllm.evaluate.training_text import TrainingText
    from openllm.text.tokenizer import Tokenizer


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    args = _parser().parse_args(argv)
    sampling = {
        name: getattr(args, name) for name in SamplingParams.model_fields if hasattr(args, name)
    }
    settings = {
        name: getattr(args, name) for name in EvaluateConfig.model_fields if hasattr(args, name)
    }
    cfg = EvaluateConfig.parse({**settings, "sampling": sampling}, "evaluation settings")
    if args.out is not None:
        _prove_writable(Path(args.out))
    result = evaluate(
        resolve_model(args.model),
        Path(args.data),
        cfg,
        train_data=None if args.train_data is None else Path(args.train_data),
        options=ReadOptions(text_key=args.text_key, split_paragraphs=args.split_paragraphs),
    )
    if args.json:
        sys.stdout.write(json.dumps(finite(result), ensure_ascii=False) + "\n")
    else:
        show(tables(result))
    # after the table: what was measured must not be lost to a full disk
    if args.out is not None:
        write_report(result, Path(args.out))
        say(f"wrote {Path(args.out) / 'report.md'}")
    return 0


def _prove_writable(out: Path) -> None:
    """Create the folder and write a byte there, before the work rather than after it.

    Raises:
        UsageError: `out` is a file.
        StorageError: it cannot be written.
    """
    if out.is_file():
        raise UsageError(f"--out {out} is a file; give a folder")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as handle:
            handle.write(b"1")


def _parser() -> argparse.ArgumentParser:
    default = EvaluateConfig()
    parser = Parser(
        prog="openllm evaluate",
        description="Measure a model on held-out text: bits per byte and perplexity with "
        "confidence intervals, the quality of generated text, cloze questions.",
        epilog="example: openllm evaluate runs/squad/model --data data/squad --ngram --out eval",
    )
    add = parser.add_argument
    add("model", help="model folder, such as RUN/model, or a name from 'models ls'")
    add("--data", required=True, help="prepared folder, shard folder, or a file such as a.jsonl")
    add("--split", default=default.split, help="split of the folder (default: test)")
    add("--documents", type=int, help="number of documents, drawn by the seed (default: all)")
    add("--text-key", default="text", help="text field of a jsonl, csv or parquet file")
    add("--split-paragraphs", action="store_true", help="each passage of a text file is a document")
    add("--ngram", action="store_true", help="also measure a Kneser-Ney n-gram model")
    add("--order", type=int, default=default.order, help="order of the n-gram model (default: 5)")
    add("--train-data", help="the model's prepared training data, if not found automatically")
    add("--context", type=int, help="tokens per window (default: as in training)")
    add("--stride", type=int, help="tokens between windows (default: half the context)")
    add("--samples", type=int, default=default.samples, help="texts to generate; 0: none")
    add("--prompt-tokens", type=int, default=default.prompt_tokens)
    add("--max-new-tokens", type=int, default=default.sampling.max_new_tokens)
    add("--temperature", type=float, default=default.sampling.temperature)
    add("--top-k", type=int, default=default.sampling.top_k)
    add("--top-p", type=float, default=default.sampling.top_p)
    add("--min-p", type=float, default=default.sampling.min_p)
    add("--repetition-penalty", type=float, default=default.sampling.repetition_penalty)
    add("--cloze", type=int, default=default.cloze, help="questions per group; 0: none")
    add("--resamples", type=int, default=default.resamples, help="bootstrap resamples")
    add("--seed", type=int, default=default.seed)
    add("--batch-tokens", type=int, default=default.batch_tokens, help="tokens per batch")
    add("--out", help="folder for eval.json, report.md and eval.png")
    add("--json", action="store_true", help="print all results as JSON")
    return parser


def evaluate(
    model: Path,
    data: Path,
    cfg: EvaluateConfig,
    *,
    train_data: Path | None = None,
    options: ReadOptions | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out text.

    Args:
        model: model folder.
        data: prepared folder, shard folder, or file.
        cfg: what to measure.
        train_data: prepared folder of the training text; None: found by the model's lineage.
        options: how a file is read.

    Returns:
        All results, as stored in `eval.json`.

    Raises:
        DataError: no text to measure on; or the n-gram model is requested, and the training text is
            missing.
        CheckpointError: no model there.
    """
    from openllm.checkpoint.model_dir import load_model, read_model_config
    from openllm.engine.config import EngineConfig
    from openllm.engine.llm import LLM
    from openllm.evaluate import measure
    from openllm.evaluate import training_text as training
    from openllm.evaluate.heldout import read_heldout
    from openllm.evaluate.perplexity import full_context_share
    from openllm.recipes.tokenize import tokenize
    from openllm.text.load import load_tokenizer

    shape = read_model_config(model)
    tokenizer = load_tokenizer(model)
    heldout = read_heldout(data, cfg.split, tokenizer, options).sample(cfg.documents, cfg.seed)
    lineage = training.read_lineage(model)
    training.warn_of_overlap(lineage, heldout)
    seen = None
    if cfg.ngram or cfg.samples or train_data is not None:
        seen = training.find_training_text(
            model,
            lineage,
            lambda folder: tokenize(folder, model),
            tokenizer.fingerprint,
            data=data,
            train_data=train_data,
            required=cfg.ngram,
        )
    trained = training.training_recipe(lineage).batch.seq_len if lineage else None
    context, stride = _window(cfg, trained or shape.max_positions, shape.max_positions)

    network = load_model(model)
    llm = LLM(network, tokenizer, EngineConfig(precision="fp32"))
    score = partial(
        measure.score, network, context=context, stride=stride, batch_tokens=cfg.batch_tokens
    )
    ngram = _baseline(seen, tokenizer, cfg) if cfg.ngram and seen is not None else None
    lengths = [len(tokens) for tokens in heldout.tokens]
    result = {
        "model": measure.model_facts(model, llm, lineage),
        "data": measure.data_facts(heldout),
        "settings": cfg.dump(),
        "windows": {
            "context": context,
            "stride": stride,
            "full_context_share": full_context_share(lengths, context),
        },
        **measure.measure_text(heldout, score(heldout.tokens, label="scoring"), ngram, cfg),
    }
    if cfg.cloze:
        ask = partial(score, label="cloze questions")
        result["cloze"] = measure.measure_cloze(heldout, tokenizer, ask, ngram, context, cfg)
    if cfg.samples:
        result["generation"] = measure.measure_generation(heldout, llm, seen, cfg)
    return result


def _window(cfg: EvaluateConfig, usual: int, most: int) -> tuple[int, int]:
    """Tokens per window, and from one window to the next; checks them and the prompts."""
    context = cfg.context or usual
    if context > most:
        raise ConfigError(f"--context {context} exceeds the model's {most} positions")
    stride = cfg.stride or max(1, context // 2)
    if stride > context:
        raise ConfigError(f"--stride {stride} exceeds the context of {context} tokens")
    if cfg.samples and cfg.prompt_tokens + 2 > most:
        raise ConfigError(
            f"--prompt-tokens {cfg.prompt_tokens} leaves no room to generate in the "
            f"model's {most} positions"
        )
    return context, stride


def _baseline(seen: "TrainingText", tokenizer: "Tokenizer", cfg: EvaluateConfig) -> "KneserNey":
    """The n-gram model of the model's training text."""
    from openllm.evaluate.ngram import KneserNey

    say("counting the n-grams of the training text")
    return KneserNey.train(
        seen.seen(),
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.prefix[0] if tokenizer.prefix else None,
        order=cfg.order,
    )


def show(found: Sequence[Table]) -> None:
    """Print tables to standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 120
    for table in found:
        shown = RichTable(box=SIMPLE_HEAD)
        for index, name in enumerate(table.header):
            shown.add_column(name, justify="right" if index else "left")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(Text(table.title, style="bold"))
        console.print(shown)
        console.print(Text(table.note))
        console.print()
