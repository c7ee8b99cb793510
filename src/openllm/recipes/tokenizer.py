# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm tokenizer train` and `openllm tokenizer inspect`."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from openllm.core.arguments import Parser
from openllm.core.errors import DataError, UsageError
from openllm.core.files import storage_errors
from openllm.core.log import format_duration, progress, say
from openllm.data.document import read_documents, read_index
from openllm.export.models.zoo import find_model
from openllm.recipes.tokenizer_report import TextSource, inspect
from openllm.text.measure import Fit
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import (
    TokenizerSettings,
    check_target,
    sample,
    train_model,
    write_tokenizer,
)

HELD_OUT_BYTES = 2_000_000
"""Bytes of held-out text measured right after training."""


def train_main(argv: list[str]) -> int:
    """Entry point of `openllm tokenizer train`."""
    default = TokenizerSettings()
    parser = Parser(
        prog="openllm tokenizer train",
        description="Train a SentencePiece BPE vocabulary on the training split of a folder.",
        epilog="example: openllm tokenizer train data/squad --out data/tokenizer",
    )
    parser.add_argument("data", help="folder made by 'openllm data prepare'")
    parser.add_argument("--out", required=True, help="tokenizer folder")
    parser.add_argument("--vocab-size", type=int, default=default.vocab_size, help="default: 32000")
    _add_sampling(parser, default)
    args = parser.parse_args(argv)
    train(args.data, args.out, _settings(args, args.vocab_size))
    return 0


def inspect_main(argv: list[str]) -> int:
    """Entry point of `openllm tokenizer inspect`."""
    parser = Parser(
        prog="openllm tokenizer inspect",
        description="Measure a tokenizer on text, and compare vocabulary sizes.",
        epilog="example: openllm tokenizer inspect data/tokenizer --data data/squad "
        "--vocab-sizes 4096,8192,16384,32000 --plot sizes.png",
    )
    parser.add_argument("folder", help="tokenizer folder or model")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="PATH",
        help="prepared folders, or text files (.jsonl with a 'lang' field is measured by language)",
    )
    parser.add_argument("--vocab-sizes", metavar="N,N,...", help="train and compare these sizes")
    parser.add_argument("--plot", metavar="FILE", help="write a plot (.png)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    _add_sampling(parser, TokenizerSettings())
    args = parser.parse_args(argv)
    sizes = _sizes(args.vocab_sizes)
    if not args.data and (sizes or args.plot):
        raise UsageError("--vocab-sizes and --plot need text; add --data PATH")
    settings = [_settings(args, size) for size in sizes]
    folder = find_model(args.folder) or Path(args.folder)
    report = inspect(folder, TextSource.open(args.data), settings)
    sys.stdout.write(json.dumps(report.facts(), indent=1) + "\n" if args.json else report.text())
    if args.plot:
        from openllm.recipes.tokenizer_plot import draw

        draw(report, Path(args.plot))
    return 0


def _add_sampling(parser: argparse.ArgumentParser, default: TokenizerSettings) -> None:
    parser.add_argument(
        "--sample-bytes", type=int, default=default.sample_bytes, help="bytes of text to train on"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the sample")
    parser.add_argument(
        "--character-coverage",
        type=float,
        default=default.character_coverage,
        help="share of the text whose characters get a token; default: 0.9995",
    )


def _settings(args: argparse.Namespace, vocab_size: int) -> TokenizerSettings:
    values = {
        "vocab_size": vocab_size,
        "sample_bytes": args.sample_bytes,
        "seed": args.seed,
        "character_coverage": args.character_coverage,
    }
    return TokenizerSettings.parse(values, "tokenizer")


def _sizes(text: str | None) -> list[int]:
    try:
        return sorted({int(size) for size in text.split(",")}) if text else []
    except ValueError:
        raise UsageError(
            f"--vocab-sizes {text}: give comma-separated integers, such as 4096,8192"
        ) from None


def train(data: Path | str, out: Path | str, settings: TokenizerSettings) -> Tokenizer:
    """Train on a sample of the training documents of `data` and write the folder `out`.

    Raises:
        DataError: no prepared folder, or no training documents in it.
        TokenizerError: text and vocabulary size do not match, or `out` is something else.
    """
    index = read_index(data)
    facts = index["splits"].get("train", {})
    total = facts.get("bytes", 0)
    if not total:
        raise DataError(f"{data} has no training documents; prepare more text")
    check_target(out)
    with storage_errors(out):
        Path(out).parent.mkdir(parents=True, exist_ok=True)  # fail on a bad --out now, not after
    began = time.monotonic()
    documents = ((document.id, document.text) for document in read_documents(data, "train"))
    counted = _Counted(sample(documents, total, settings), min(total, settings.sample_bytes))
    model = train_model(counted, settings)
    trained_on = {
        "corpus": index["corpus"],
        "data_fingerprint": index["fingerprint"],
        "documents": facts["documents"],
        "bytes": total,
        "sampled_bytes": counted.bytes,
    }
    tokenizer = write_tokenizer(
        out,
        model,
        {
            "settings": settings.dump(),
            "trained_on": trained_on,
            "sentencepiece": sentencepiece.__version__,
        },
    )
    say(
        f"{out}: {tokenizer.vocab_size:,} tokens from {counted.bytes / 1e6:,.1f} MB of text "
        f"in {format_duration(time.monotonic() - began)}"
    )
    held_out = held_out_fit(tokenizer, data)
    if held_out.tokens:
        say(f"held-out text: {held_out.bytes_per_token:.3f} bytes per token")
    return tokenizer


def held_out_fit(tokenizer: Tokenizer, data: Path | str) -> Fit:
    """Measure the tokenizer on the first validation documents."""
    fit = Fit()
    for document in read_documents(data, "validation"):
        fit.add(document.text, tokenizer.encode(document.text))
        if fit.bytes >= HELD_OUT_BYTES:
            break
    return fit


class _Counted:
    """Passes chunks on, counts their bytes and shows progress."""

    def __init__(self, pieces: Iterable[str], expected: int) -> None:
        self._pieces, self._expected = pieces, expected
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        with progress("reading text", self._expected / 1e6, "MB") as meter:
            for piece in self._pieces:
                size = len(piece.encode("utf-8", "replace"))
                self.bytes += size
                meter.advance(size / 1e6)
                yield piece
        say(f"training the tokenizer on {self.bytes / 1e6:,.1f} MB ...")
