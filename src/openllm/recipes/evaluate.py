# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm evaluate`: a model folder and held-out text in, measures and a report out."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from openllm.core.config import Config, read_yaml
from openllm.core.errors import CheckpointError, ConfigError, DataError, UsageError
from openllm.core.files import read_json
from openllm.core.log import progress, say, warn
from openllm.core.runs import RECIPE
from openllm.data.document import read_index
from openllm.data.readers import ReadOptions
from openllm.engine.request import SamplingParams
from openllm.evaluate import cloze, generation, perplexity
from openllm.evaluate.heldout import HeldOut, read_heldout
from openllm.evaluate.ngram import KneserNey
from openllm.evaluate.report import finite, tables, write_report
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from openllm.data.loader import TokenLoader
    from openllm.engine.llm import LLM
    from openllm.evaluate.report import Table
    from openllm.nn.model import Transformer
    from openllm.text.tokenizer import Tokenizer
    from openllm.train.scoring import Scores


class EvaluateConfig(Config):
    """What is measured, and how."""

    split: str = "test"
    documents: int | None = Field(None, ge=1, description="held-out documents to draw; none: all")
    context: int | None = Field(None, ge=2, description="tokens in a window; none: as in training")
    stride: int | None = Field(None, ge=1, description="none: half the context")
    batch_tokens: int = Field(8192, ge=1, description="tokens read at once")
    ngram: bool = False
    order: int = Field(5, ge=1, le=10, description="longest n-gram of the baseline")
    samples: int = Field(20, ge=0)
    prompt_tokens: int = Field(16, ge=1)
    sampling: SamplingParams = SamplingParams(temperature=0.8, top_p=0.95)
    cloze: int = Field(100, ge=0, description="questions of each group")
    resamples: int = Field(1000, ge=40)
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class _Training:
    """The text a model was trained on."""

    loader: "TokenLoader"
    steps: int


def main(argv: list[str]) -> int:
    """Entry of the command line."""
    args = _parser().parse_args(argv)
    sampling = {
        name: getattr(args, name) for name in SamplingParams.model_fields if hasattr(args, name)
    }
    settings = {
        name: getattr(args, name) for name in EvaluateConfig.model_fields if hasattr(args, name)
    }
    cfg = EvaluateConfig.parse({**settings, "sampling": sampling}, "evaluation settings")
    if args.out is not None and Path(args.out).is_file():
        raise UsageError(f"--out {args.out} is a file; give a folder")
    result = evaluate(
        Path(args.model),
        Path(args.data),
        cfg,
        train_data=None if args.train_data is None else Path(args.train_data),
        options=ReadOptions(text_key=args.text_key, split_paragraphs=args.split_paragraphs),
    )
    if args.out is not None:
        write_report(result, Path(args.out))
        say(f"report in {Path(args.out) / 'report.md'}")
    if args.json:
        sys.stdout.write(json.dumps(finite(result), ensure_ascii=False) + "\n")
    else:
        _show(tables(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    default = EvaluateConfig()
    parser = argparse.ArgumentParser(
        prog="openllm evaluate",
        description="Measure a model on held-out text: bits per byte and perplexity with "
        "intervals, the quality of generated text, cloze questions.",
        epilog="example: openllm evaluate runs/squad/model --data data/squad --ngram --out eval",
    )
    add = parser.add_argument
    add("model", help="model folder, such as RUN/model")
    add("--data", required=True, help="prepared folder, shard folder, or a file such as a.jsonl")
    add("--split", default=default.split, help="side of the folder (default: test)")
    add("--documents", type=int, help="measure on this many, drawn by the seed (default: all)")
    add("--text-key", default="text", help="field of the text in a jsonl, csv or parquet file")
    add("--split-paragraphs", action="store_true", help="passages of a text file are documents")
    add("--ngram", action="store_true", help="measure a Kneser-Ney n-gram model beside it")
    add("--order", type=int, default=default.order, help="its longest n-gram (default: 5)")
    add("--train-data", help="the model's prepared training data, where it is not found")
    add("--context", type=int, help="tokens in a window (default: as in training)")
    add("--stride", type=int, help="tokens from window to window (default: half the context)")
    add("--samples", type=int, default=default.samples, help="texts to generate; 0: none")
    add("--prompt-tokens", type=int, default=default.prompt_tokens)
    add("--max-new-tokens", type=int, default=default.sampling.max_new_tokens)
    add("--temperature", type=float, default=default.sampling.temperature)
    add("--top-k", type=int, default=default.sampling.top_k)
    add("--top-p", type=float, default=default.sampling.top_p)
    add("--min-p", type=float, default=default.sampling.min_p)
    add("--repetition-penalty", type=float, default=default.sampling.repetition_penalty)
    add("--cloze", type=int, default=default.cloze, help="questions of each group; 0: none")
    add("--resamples", type=int, default=default.resamples, help="of the bootstrap")
    add("--seed", type=int, default=default.seed)
    add("--batch-tokens", type=int, default=default.batch_tokens, help="tokens read at once")
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
        train_data: prepared folder of the training text; none: found by the model's lineage.
        options: how a file is read.

    Returns:
        Everything that was measured, as `eval.json` holds it.

    Raises:
        DataError: no text to measure on; or the n-gram model is asked for, and the training text
            is not there.
        CheckpointError: no model there.
    """
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.engine.llm import LLM
    from openllm.text.tokenizer import Tokenizer

    shape = read_model_config(model)
    tokenizer = Tokenizer.load(model)
    heldout = read_heldout(data, cfg.split, tokenizer, options).sample(cfg.documents, cfg.seed)
    lineage = _lineage(model)
    _check_overlap(lineage, heldout)
    training = None
    if cfg.ngram or cfg.samples:
        training = _find_training(model, lineage, data, train_data, required=cfg.ngram)
    trained_context = _recipe(lineage).batch.seq_len if lineage else shape.max_positions
    context = cfg.context or trained_context
    if context > shape.max_positions:
        raise ConfigError(
            f"--context {context} is more than the {shape.max_positions} positions of the model"
        )
    stride = cfg.stride or max(1, context // 2)
    if stride > context:
        raise ConfigError(f"--stride {stride} is longer than the context; use {context} or less")

    llm = LLM.load(model)
    score = partial(_score, llm.model, cfg=cfg, context=context, stride=stride)
    ngram = None
    if cfg.ngram and training is not None:
        say("counting n-grams of the training text")
        ngram = KneserNey.train(
            training.loader.seen(training.steps),
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            order=cfg.order,
        )
    result = {
        "model": _model_facts(model, llm, lineage),
        "data": _data_facts(heldout),
        "settings": cfg.dump(),
        **_perplexity(heldout, score("scoring", heldout.tokens), ngram, cfg),
        "windows": {
            "context": context,
            "stride": stride,
            "full_context_share": perplexity.full_context_share(
                [len(tokens) for tokens in heldout.tokens], context
            ),
        },
    }
    if cfg.cloze:
        result["cloze"] = _cloze(heldout, tokenizer, partial(score, "cloze"), ngram, context, cfg)
    if cfg.samples:
        result["generation"] = _generation(heldout, llm, training, cfg)
    return result


def _lineage(model: Path) -> dict[str, Any] | None:
    """What the model says of its making; None where it was not made here."""
    path = model / "openllm.json"
    if not path.exists():
        return None
    return read_json(path, CheckpointError, "copy the whole model folder anew")


def _recipe(lineage: dict[str, Any]) -> PretrainConfig:
    return PretrainConfig.parse(lineage["recipe"], "the recipe in openllm.json")


def _check_overlap(lineage: dict[str, Any] | None, heldout: HeldOut) -> None:
    """Warn where the text may be a part of what the model was trained on."""
    if lineage is None:
        warn("the model does not say what it was trained on; it may have seen this text")
    elif lineage["data"]["fingerprint"] != heldout.fingerprint:
        warn(
            f"{heldout.name} was not prepared together with the training text; "
            "whether the model has seen it was not checked"
        )
    elif heldout.split == "train":
        warn("this is the training text; the model has seen it")


def _find_training(
    model: Path,
    lineage: dict[str, Any] | None,
    data: Path,
    train_data: Path | None,
    *,
    required: bool,
) -> _Training | None:
    """The model's training tokens in their training order; None where they are not here.

    Raises:
        DataError: they are required and not here, or `train_data` is other text.
    """
    from openllm.data.loader import TokenLoader
    from openllm.data.shards import Shards
    from openllm.recipes.tokenize import tokenize
    from openllm.text.tokenizer import Tokenizer

    if lineage is None:
        if required or train_data is not None:
            raise DataError(
                f"{model} has no openllm.json, so the tokens it was trained on are not known; "
                "leave out --ngram and --train-data"
            )
        return None
    wanted = lineage["data"]
    recorded = model.parent / RECIPE
    places = [data]
    if recorded.exists():
        places.append(Path(str(read_yaml(recorded).get("data"))))
    if train_data is not None:
        places = [train_data]
    for place in places:
        is_prepared = (place / "train.jsonl").exists()
        if is_prepared and read_index(place).get("fingerprint") == wanted["fingerprint"]:
            break
    else:
        problem = (
            f"the training text of the model ('{wanted['name']}', fingerprint "
            f"{wanted['fingerprint'][:12]}) is not in {' or '.join(str(p) for p in places)}; "
            "give its prepared folder with --train-data DIR"
        )
        if required or train_data is not None:
            raise DataError(problem)
        warn(f"{problem}; copies from it are not measured")
        return None
    recipe = _recipe(lineage)
    loader = TokenLoader(
        Shards.open(tokenize(place, model), "train", Tokenizer.load(model).fingerprint),
        seq_len=recipe.batch.seq_len,
        rows_per_step=recipe.batch.rows,
        micro_rows=1,
        seed=recipe.seed,
    )
    return _Training(loader, lineage["steps"])


def _score(
    model: "Transformer",
    label: str,
    documents: Sequence[np.ndarray],
    *,
    cfg: EvaluateConfig,
    context: int,
    stride: int,
) -> "list[Scores]":
    """Score documents in portions, so that progress can be shown."""
    from openllm.train.scoring import score_documents

    lengths = [len(document) for document in documents]
    portions = np.cumsum(lengths) // (16 * cfg.batch_tokens)
    borders = [0, *(np.flatnonzero(np.diff(portions)) + 1).tolist(), len(documents)]
    scores: list[Scores] = []
    with progress(label, sum(lengths), "tokens") as meter:
        for begin, end in zip(borders[:-1], borders[1:], strict=True):
            scores += score_documents(
                model,
                documents[begin:end],
                context=context,
                stride=stride,
                batch_tokens=cfg.batch_tokens,
            )
            meter.advance(sum(lengths[begin:end]))
    return scores


def _model_facts(folder: Path, llm: "LLM", lineage: dict[str, Any] | None) -> dict[str, Any]:
    resolved = folder.resolve()
    name = resolved.parent.name if resolved.name == "model" else resolved.name
    return {
        "name": name,
        "parameters": sum(weight.numel() for weight in llm.model.parameters()),
        "vocab_size": llm.tokenizer.vocab_size,
        "tokenizer": llm.tokenizer.fingerprint,
        "tokens_seen": lineage["tokens_seen"] if lineage else None,
        "step": lineage["steps"] if lineage else None,
    }


def _data_facts(heldout: HeldOut) -> dict[str, Any]:
    return {
        "name": heldout.name,
        "split": heldout.split,
        "fingerprint": heldout.fingerprint,
        "documents": len(heldout.texts),
        "tokens": sum(len(tokens) - 2 for tokens in heldout.tokens),
        "bytes": int(heldout.doc_bytes.sum()),
        "words": int(heldout.doc_words.sum()),
    }


def _perplexity(
    heldout: HeldOut, scores: "Sequence[Scores]", ngram: KneserNey | None, cfg: EvaluateConfig
) -> dict[str, Any]:
    """The parts `perplexity`, `curve` and, where it was asked for, `ngram`."""
    logprobs = {"model": [score.logprobs for score in scores]}
    if ngram is not None:
        logprobs["ngram"] = ngram.score(heldout.tokens)
    totals = {
        name: perplexity.document_totals(found, heldout.doc_bytes, heldout.doc_words)
        for name, found in logprobs.items()
    }
    draws = {"resamples": cfg.resamples, "seed": cfg.seed}
    values = {name: perplexity.intervals(total, **draws) for name, total in totals.items()}
    if ngram is not None:
        values["difference"] = perplexity.difference(totals["model"], totals["ngram"], **draws)
    result: dict[str, Any] = {
        "perplexity": {
            name: {measure: asdict(interval) for measure, interval in found.items()}
            for name, found in values.items()
        },
        "curve": perplexity.loss_by_position(logprobs),
    }
    if ngram is not None:
        result["ngram"] = {
            "order": ngram.order,
            "tokens": ngram.tokens,
            "ngrams": ngram.sizes,
            "discounts": ngram.discounts,
        }
    return result


def _cloze(
    heldout: HeldOut,
    tokenizer: "Tokenizer",
    score: cloze.Score,
    ngram: KneserNey | None,
    context: int,
    cfg: EvaluateConfig,
) -> dict[str, Any] | None:
    questions = cloze.make_questions(
        heldout.texts,
        tokenizer.encode,
        bos_id=tokenizer.bos_id,
        per_group=cfg.cloze,
        longest=context,
        seed=cfg.seed,
    )
    if not questions:
        warn("the text holds no sentences that cloze questions can be made of")
        return None
    found = {"model": cloze.ask(questions, score)}
    if ngram is not None:
        found["ngram"] = cloze.ask_ngram(questions, ngram)
    return {
        name: {group: asdict(right) for group, right in groups.items()}
        for name, groups in found.items()
    }


def _generation(
    heldout: HeldOut, llm: "LLM", training: _Training | None, cfg: EvaluateConfig
) -> dict[str, Any] | None:
    texts = [tokens[1:-1] for tokens in heldout.tokens]
    prompts = generation.choose_prompts(texts, cfg.samples, length=cfg.prompt_tokens, seed=cfg.seed)
    if not prompts:
        warn(f"no document has {2 * cfg.prompt_tokens} tokens; lower --prompt-tokens")
        return None
    say(f"generating {len(prompts)} texts")
    starts = [llm.tokenizer.decode(prompt.tokens.tolist()) for prompt in prompts]
    completions = llm.generate(starts, cfg.sampling)
    sampled = [np.array(completion.token_ids, np.int64) for completion in completions]
    written = [prompt.rest[: len(sample)] for prompt, sample in zip(prompts, sampled, strict=True)]
    tokens = training.loader.shards.tokens if training else None
    quality, copies = generation.text_quality(sampled, tokens)
    reference, _ = generation.text_quality(written, tokens)
    longest = None
    if copies:
        index = max(range(len(copies)), key=lambda i: copies[i].length)
        copy = copies[index]
        text = llm.tokenizer.decode(sampled[index][copy.start :][: copy.length].tolist())
        longest = {"tokens": copy.length, "sample": index + 1, "text": text}
    return {
        "settings": {"prompt_tokens": cfg.prompt_tokens, **cfg.sampling.dump()},
        "model": asdict(quality),
        "heldout": asdict(reference),
        "longest_copy": longest,
        "samples": [
            {"prompt": start, "text": completion.text, "finish_reason": completion.finish_reason}
            for start, completion in zip(starts, completions, strict=True)
        ],
    }


def _show(found: "Sequence[Table]") -> None:
    """Print tables to standard output."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 120
    for table in found:
        console.print(_rich(table))


def _rich(table: "Table") -> "RichTable":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    shown = RichTable(
        title=table.title,
        caption=table.note,
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for index, name in enumerate(table.header):
        shown.add_column(name, justify="right" if index else "left")
    for row in table.rows:
        # Brackets are intervals here, not rich's markup.
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))
    return shown
