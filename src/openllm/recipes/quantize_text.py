# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The text that `openllm quantize` calibrates on, and the one that it measures the result on."""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from openllm.core.errors import DataError
from openllm.core.log import say
from openllm.evaluate.config import EvaluateConfig

if TYPE_CHECKING:
    from openllm.evaluate.divergence import Divergence
    from openllm.evaluate.heldout import HeldOut
    from openllm.evaluate.perplexity import Totals
    from openllm.nn.config import ModelConfig
    from openllm.nn.model import Transformer
    from openllm.train.scoring import Scores

TRIAL_SHARE = 4
"""Sensitivity is measured on one in so many tokens of the calibration text."""

BATCH_TOKENS = 4096
NEW_TOKENS = 64
"""Generated to measure speed."""

ENGINE_TOKENS = 8192
"""Of whole documents that the engine scores."""


@dataclass(frozen=True)
class Calibration:
    """Documents to calibrate on."""

    text: "HeldOut"
    context: int

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {
            "name": self.text.name,
            "split": self.text.split,
            "fingerprint": self.text.fingerprint,
            "documents": len(self.text.texts),
            "tokens": sum(map(len, self.text.tokens)),
        }

    def batches(self, model: "Transformer") -> list[Callable[[], object]]:
        """Each shows the model some documents."""
        from openllm.train.scoring import score_documents

        groups: list[list[np.ndarray]] = []
        room = 0
        for document in self.text.tokens:
            if len(document) > room or not groups:
                groups.append([])
                room = BATCH_TOKENS
            groups[-1].append(document)
            room -= len(document)
        return [
            partial(score_documents, model, group, context=self.context, stride=self.context)
            for group in groups
        ]

    def divergence(self, model: "Transformer") -> "Divergence":
        """For trials, on a part of the documents."""
        from openllm.evaluate.divergence import Divergence

        part = self.text.sample(max(1, len(self.text.texts) // TRIAL_SHARE), 0)
        sizes = part.doc_bytes.tolist()
        return Divergence(model, part.tokens, sizes, context=self.context)


@dataclass(frozen=True)
class Texts:
    """What was asked for; either may be missing."""

    calibration: Calibration | None
    heldout: "HeldOut | None"
    context: int


def read_texts(model: Path, shape: "ModelConfig", args: argparse.Namespace) -> Texts:
    """Read the text that the command line names.

    Raises:
        DataError: it cannot be read, or is too short for both uses.
    """
    from openllm.evaluate import training_text as training
    from openllm.evaluate.heldout import read_heldout
    from openllm.text.load import load_tokenizer

    if args.calibrate is None and not args.report:
        return Texts(None, None, shape.max_positions)
    tokenizer = load_tokenizer(model)
    lineage = training.read_lineage(model)
    trained = training.training_recipe(lineage).batch.seq_len if lineage else 1024
    context = min(trained, shape.max_positions)
    calibration = heldout = None
    if args.calibrate is not None:
        text = read_heldout(Path(args.calibrate), "validation", tokenizer)
        if text.split is None and args.report and args.data is None:  # a file: half for each use
            text, heldout = _halves(text, args.calibrate)
        calibration = Calibration(_cut(text, args.tokens, args.seed), context)
    if args.report and heldout is None:
        heldout = read_heldout(Path(args.data or args.calibrate), "test", tokenizer)
        training.warn_of_overlap(lineage, heldout)
    return Texts(calibration, heldout, context)


def _halves(text: "HeldOut", path: str) -> tuple["HeldOut", "HeldOut"]:
    if len(text.texts) < 2:
        raise DataError(
            f"{path} has one document, but calibration and report need one each; name another text "
            "with --data"
        )
    return _some(text, range(0, len(text.texts), 2)), _some(text, range(1, len(text.texts), 2))


def _cut(text: "HeldOut", tokens: int, seed: int) -> "HeldOut":
    """Documents drawn at random until they have so many tokens."""
    order = np.random.default_rng(seed).permutation(len(text.texts))
    sizes = np.cumsum([len(text.tokens[index]) for index in order])
    count = int(np.searchsorted(sizes, tokens)) + 1
    return _some(text, sorted(order[:count].tolist()))


def _some(text: "HeldOut", chosen: Sequence[int]) -> "HeldOut":
    from dataclasses import replace

    index = np.array(chosen, np.int64)
    return replace(
        text,
        texts=[text.texts[i] for i in chosen],
        tokens=[text.tokens[i] for i in chosen],
        doc_bytes=text.doc_bytes[index],
        doc_words=text.doc_words[index],
    )


class Measured(NamedTuple):
    """What a folder can do: per document for comparisons, and as facts."""

    totals: "Totals"
    facts: dict[str, Any]


def measure(
    original: Path, quantized: Path, texts: Texts, *, dynamic: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Bits per byte, cloze questions and speed of both folders, as they load."""
    before = measure_folder(original, texts, seed=seed)
    return compare(before, measure_folder(quantized, texts, dynamic=dynamic, seed=seed), texts)


def measure_folder(folder: Path, texts: Texts, *, dynamic: bool = False, seed: int = 0) -> Measured:
    """Ask one folder; `dynamic`: with rounded activations."""
    from openllm.checkpoint.model_dir import load_model
    from openllm.evaluate import measure as measures
    from openllm.evaluate import perplexity
    from openllm.text.load import load_tokenizer
    from openllm.transform.quantize import round_inputs

    heldout, cfg = texts.heldout, EvaluateConfig(seed=seed)
    assert heldout is not None
    model = load_model(folder)
    if dynamic:
        round_inputs(model)
    score = partial(
        measures.score,
        model,
        context=texts.context,
        stride=max(1, texts.context // 2),
        batch_tokens=cfg.batch_tokens,
    )
    scores: list[Scores] = score(heldout.tokens, label="scoring")
    totals = perplexity.document_totals(
        [document.logprobs for document in scores], heldout.doc_bytes, heldout.doc_words
    )
    ask = partial(score, label="cloze questions")
    tokenizer = load_tokenizer(folder)
    cloze = measures.measure_cloze(heldout, tokenizer, ask, None, texts.context, cfg)
    facts = {
        "bits_per_byte": _value(perplexity.intervals(totals)["bits_per_byte"]),
        "cloze": None if cloze is None else cloze["model"],
        **_by_engine(folder, heldout),
    }
    return Measured(totals, facts)


def compare(before: Measured, after: Measured, texts: Texts) -> dict[str, Any]:
    """Both, and their paired difference; `loss`: the share of bits per byte that is added."""
    from openllm.evaluate import measure as measures
    from openllm.evaluate import perplexity

    assert texts.heldout is not None
    change = perplexity.difference(after.totals, before.totals)
    saved = _value(change["reduction"])
    return {
        "data": measures.data_facts(texts.heldout),
        "before": before.facts,
        "after": after.facts,
        "added": _value(change["bits_per_byte"]),
        "loss": {"value": -saved["value"], "low": -saved["high"], "high": -saved["low"]},
    }


def _value(interval: Any) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _by_engine(folder: Path, heldout: "HeldOut") -> dict[str, float]:
    """Bits per byte of some documents, and speed of one text, by the engine as it is.

    It may round activations, and run models that are not quantised in bfloat16.
    """
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.engine.llm import LLM
    from openllm.engine.request import SamplingParams

    say("asking the engine")
    llm, shape = LLM.load(folder), read_model_config(folder)
    chosen, room = [], ENGINE_TOKENS
    for index, tokens in enumerate(heldout.tokens):
        if len(tokens) <= min(room, shape.max_positions):
            chosen.append(index)
            room -= len(tokens)
    found = llm.score([heldout.tokens[index].tolist() for index in chosen])
    nats = -sum(token.logprob for document in found for token in document[:-1])
    prompt = [*llm.tokenizer.prefix, *llm.tokenizer.encode("Once upon a time")]
    longest = max(1, min(NEW_TOKENS, shape.max_positions - len(prompt)))
    params = SamplingParams(max_new_tokens=longest, temperature=0)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        completion = llm.generate([prompt], params)[0]
        best = max(best, len(completion.token_ids) / (time.perf_counter() - began))
    return {
        "engine_bits_per_byte": nats / math.log(2) / float(heldout.doc_bytes[chosen].sum()),
        "tokens_per_second": best,
    }
