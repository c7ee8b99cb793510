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
    """Text to calibrate on.

    Attributes:
        text: what it was drawn from.
        pieces: token ids, each piece at most as long as the model reads and predicts.
        sizes: bytes of each piece: of those of its document as many as of the tokens.
        context: tokens that the model reads.
    """

    text: "HeldOut"
    pieces: list[np.ndarray]
    sizes: list[float]
    context: int

    @classmethod
    def draw(cls, text: "HeldOut", context: int, tokens: int, seed: int) -> "Calibration":
        """Draw pieces at random until they have so many tokens.

        Raises:
            DataError: no document has two tokens.
        """
        pieces, sizes = [], []
        for document, size in zip(text.tokens, text.doc_bytes.tolist(), strict=True):
            for start in range(0, len(document) - 1, context):
                pieces.append(document[start : start + context + 1])
                sizes.append(size * (len(pieces[-1]) - 1) / (len(document) - 1))
        if not sum(sizes):
            raise DataError(f"{text.name} is too short to calibrate on; give more text")
        order = np.random.default_rng(seed).permutation(len(pieces))
        enough = np.searchsorted(np.cumsum([len(pieces[index]) for index in order]), tokens)
        chosen = sorted(order[: int(enough) + 1].tolist())
        return cls(text, [pieces[i] for i in chosen], [sizes[i] for i in chosen], context)

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {
            "name": self.text.name,
            "split": self.text.split,
            "fingerprint": self.text.fingerprint,
            "pieces": len(self.pieces),
            "tokens": sum(map(len, self.pieces)),
        }

    def batches(self, model: "Transformer") -> list[Callable[[], object]]:
        """Each shows the model some pieces."""
        from openllm.train.scoring import score_documents

        groups: list[list[np.ndarray]] = []
        room = 0
        for piece in self.pieces:
            if len(piece) > room or not groups:
                groups.append([])
                room = BATCH_TOKENS
            groups[-1].append(piece)
            room -= len(piece)
        return [
            partial(score_documents, model, group, context=self.context, stride=self.context)
            for group in groups
        ]

    def divergence(self, model: "Transformer") -> "Divergence":
        """For trials, on a part of the pieces."""
        from openllm.evaluate.divergence import Divergence

        count = max(1, len(self.pieces) // TRIAL_SHARE)
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.pieces))[:count])
        pieces, sizes = [self.pieces[i] for i in chosen], [self.sizes[i] for i in chosen]
        return Divergence(model, pieces, sizes, context=self.context)


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
        calibration = Calibration.draw(text, context, args.tokens, args.seed)
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
    texts, size = _for_engine(heldout, shape.max_positions)
    found = llm.score(texts)
    nats = -sum(token.logprob for text in found for token in text)
    prompt = [*llm.tokenizer.prefix, *llm.tokenizer.encode("Once upon a time")]
    longest = max(1, min(NEW_TOKENS, shape.max_positions - len(prompt)))
    params = SamplingParams(max_new_tokens=longest, temperature=0)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        completion = llm.generate([prompt], params)[0]
        best = max(best, len(completion.token_ids) / (time.perf_counter() - began))
    return {
        "engine_bits_per_byte": nats / math.log(2) / size,
        "tokens_per_second": best,
    }


def _for_engine(heldout: "HeldOut", longest: int) -> tuple[list[list[int]], float]:
    """Documents without eos that fit the engine, or the start of one, and their bytes."""
    texts, size, room = [], 0.0, ENGINE_TOKENS
    for tokens, document_bytes in zip(heldout.tokens, heldout.doc_bytes.tolist(), strict=True):
        if 2 < len(tokens) <= min(room, longest):
            texts.append(tokens[:-1].tolist())
            size += document_bytes
            room -= len(tokens)
    if not texts:
        first = int(np.argmax(heldout.doc_bytes))
        tokens = heldout.tokens[first][:-1]
        start = tokens[: min(room, longest)]
        texts, size = [start.tolist()], heldout.doc_bytes[first] * len(start) / len(tokens)
    return texts, float(size)
