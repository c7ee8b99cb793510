# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Parts of an evaluation: a model's scores and texts in, plain values for the report out."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from openllm.core.log import progress, say, warn
from openllm.engine.llm import LLM
from openllm.evaluate import cloze, generation, perplexity
from openllm.evaluate.config import EvaluateConfig
from openllm.evaluate.heldout import HeldOut
from openllm.evaluate.ngram import KneserNey
from openllm.evaluate.training_text import TrainingText
from openllm.nn.model import Transformer
from openllm.text.tokenizer import Tokenizer
from openllm.train.scoring import Scores, score_documents


def score(
    model: Transformer,
    documents: Sequence[np.ndarray],
    *,
    label: str,
    context: int,
    stride: int,
    batch_tokens: int,
) -> list[Scores]:
    """Run `score_documents` in portions, with a progress bar named `label`."""
    lengths = [len(document) for document in documents]
    portions = np.cumsum(lengths) // (16 * batch_tokens)
    borders = [0, *(np.flatnonzero(np.diff(portions)) + 1).tolist(), len(documents)]
    scores: list[Scores] = []
    with progress(label, sum(lengths), "tokens") as meter:
        for begin, end in pairwise(borders):
            scores += score_documents(
                model,
                documents[begin:end],
                context=context,
                stride=stride,
                batch_tokens=batch_tokens,
            )
            meter.advance(sum(lengths[begin:end]))
    return scores


def model_facts(folder: Path, llm: LLM, lineage: dict[str, Any] | None) -> dict[str, Any]:
    """Name, size and training of a model."""
    resolved = folder.resolve()
    name = resolved.parent.name if resolved.name == "model" else resolved.name
    return {
        "name": name,
        "parameters": llm.info.parameters,
        "vocab_size": llm.tokenizer.vocab_size,
        "tokenizer": llm.tokenizer.fingerprint,
        "tokens_seen": lineage["tokens_seen"] if lineage else None,
        "step": lineage["steps"] if lineage else None,
    }


def data_facts(heldout: HeldOut) -> dict[str, Any]:
    """Name and size of the held-out text; tokens are those that a model predicts, but for eos."""
    return {
        "name": heldout.name,
        "split": heldout.split,
        "fingerprint": heldout.fingerprint,
        "documents": len(heldout.texts),
        "tokens": sum(len(tokens) - 2 for tokens in heldout.tokens),
        "bytes": int(heldout.doc_bytes.sum()),
        "words": int(heldout.doc_words.sum()),
    }


def measure_text(
    heldout: HeldOut, scores: Sequence[Scores], ngram: KneserNey | None, cfg: EvaluateConfig
) -> dict[str, Any]:
    """Compute the parts `perplexity`, `curve` and, if requested, `ngram`."""
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


def measure_cloze(
    heldout: HeldOut,
    tokenizer: Tokenizer,
    score: cloze.Score,
    ngram: KneserNey | None,
    context: int,
    cfg: EvaluateConfig,
) -> dict[str, Any] | None:
    """Compute the part `cloze`; None, with a warning, if no questions can be made."""
    questions = cloze.make_questions(
        heldout.texts,
        tokenizer.encode,
        prefix=tokenizer.prefix,
        per_group=cfg.cloze,
        longest=context,
        seed=cfg.seed,
    )
    if not questions:
        warn("the text has no sentences suitable for cloze questions")
        return None
    found = {"model": cloze.ask(questions, score)}
    if ngram is not None:
        found["ngram"] = cloze.ask_ngram(questions, ngram)
    return {
        name: {group: asdict(right) for group, right in groups.items()}
        for name, groups in found.items()
    }


def measure_generation(
    heldout: HeldOut, llm: LLM, training: TrainingText | None, cfg: EvaluateConfig
) -> dict[str, Any] | None:
    """Compute the part `generation`; None, with a warning, if all documents are too short."""
    begin = len(llm.tokenizer.prefix)
    texts = [tokens[begin:-1] for tokens in heldout.tokens]
    prompts = generation.choose_prompts(texts, cfg.samples, length=cfg.prompt_tokens, seed=cfg.seed)
    if not prompts:
        warn(f"no document has at least {2 * cfg.prompt_tokens} tokens; lower --prompt-tokens")
        return None
    say(f"generating {len(prompts)} texts")
    starts = [llm.tokenizer.decode(prompt.tokens.tolist()) for prompt in prompts]
    completions = llm.generate(starts, cfg.sampling)
    sampled = [np.array(completion.token_ids, np.int64) for completion in completions]
    written = [prompt.rest[: len(sample)] for prompt, sample in zip(prompts, sampled, strict=True)]
    tokens = training.tokens if training else None
    quality, copies = generation.text_quality(sampled, tokens)
    reference, _ = generation.text_quality(written, tokens)
    longest = None
    if copies:
        index = max(range(len(copies)), key=lambda i: copies[i].length)
        copy = copies[index]
        copied = sampled[index][copy.start :][: copy.length].tolist()
        text = llm.tokenizer.decode(copied, inside=True)
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
