# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm data tokenize`: prepared documents and a tokenizer in, token shards out."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.errors import DataError, UsageError
from openllm.core.files import check_replaceable, recover_folder
from openllm.core.log import format_duration, progress, say
from openllm.data.document import SPLITS, read_index
from openllm.data.shard_writer import write_shards
from openllm.data.shards import INDEX, Shards, read_shard_index, split_files
from openllm.export.models.zoo import find_model
from openllm.text.load import load_tokenizer

SMALL_BYTES = 8_000_000
"""Less text than this is encoded before more processes could start."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm data tokenize",
        description="Turn a prepared folder into token shards for training and evaluation.",
        epilog="example: openllm data tokenize data/squad --tokenizer data/tokenizer",
    )
    parser.add_argument("data", help="folder made by 'openllm data prepare'")
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder or model")
    parser.add_argument("--out", help="shard folder (default: DATA/tokens-FINGERPRINT)")
    parser.add_argument("--workers", type=int, help="number of processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print the index as JSON")
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise UsageError(f"--workers {args.workers}: must be 1 or more")
    tokenizer = find_model(args.tokenizer) or args.tokenizer
    folder = tokenize(args.data, tokenizer, args.out, workers=args.workers)
    index = read_shard_index(folder)
    sys.stdout.write(json.dumps(index, indent=1) + "\n" if args.json else _table(folder, index))
    return 0


def tokenize(
    data: Path | str,
    tokenizer: Path | str,
    out: Path | str | None = None,
    *,
    workers: int | None = None,
) -> Path:
    """Write the shards of a prepared folder, or reuse existing ones.

    Args:
        data: a prepared folder.
        tokenizer: a tokenizer folder or a model folder.
        out: the shard folder; default `DATA/tokens-` and the start of the tokenizer's fingerprint.
        workers: number of processes; default one per core, and only this one for little text.

    Returns:
        The shard folder.

    Raises:
        DataError: no prepared folder, or `out` holds something other than shards.
        TokenizerError: no tokenizer.
    """
    prepared = read_index(data)
    fingerprint = load_tokenizer(tokenizer).fingerprint
    folder = Path(data) / f"tokens-{fingerprint[:12]}" if out is None else Path(out)
    recover_folder(folder)
    if _is_current(folder, prepared["fingerprint"], fingerprint):
        say(f"{folder}: the token shards are up to date")
        return folder
    ours = {INDEX, *(name for split in SPLITS for name in split_files(split).values())}
    check_replaceable(folder, ours, DataError)
    size = sum(split.get("bytes", 0) for split in prepared["splits"].values())
    if workers is None:
        workers = 1 if size < SMALL_BYTES else os.cpu_count() or 1
    began = time.monotonic()
    with progress("tokenising", size / 1e6, "MB") as meter:
        index = write_shards(
            data,
            tokenizer,
            folder,
            workers=workers,
            report=lambda amount: meter.advance(amount / 1e6),
        )
    seconds = time.monotonic() - began
    tokens = sum(split["tokens"] for split in index["splits"].values())
    say(
        f"{folder}: {tokens:,} tokens from {size / 1e6:,.1f} MB of text "
        f"in {format_duration(seconds)} ({size / 1e6 / seconds:.1f} MB/s)"
    )
    return folder


def _is_current(folder: Path, data_fingerprint: str, tokenizer_fingerprint: str) -> bool:
    """Whether the folder holds complete shards of these documents and this tokenizer."""
    try:
        index = read_shard_index(folder)
        made_of = (index["data_fingerprint"], index["tokenizer_fingerprint"])
        if made_of != (data_fingerprint, tokenizer_fingerprint):
            return False
        for split in index["splits"]:
            Shards.open(folder, split, tokenizer_fingerprint)
    except DataError:
        return False  # missing or damaged: write it again
    return True


def _table(folder: Path, index: dict[str, Any]) -> str:
    """Table of the counts by split."""
    lines = [f"{'split':<12}{'documents':>12}{'tokens':>15}{'bytes':>15}{'bytes/token':>13}"]
    for name, split in index["splits"].items():
        tokens = split["tokens"] - 2 * split["documents"]  # bos and eos stand for no text
        ratio = f"{split['bytes'] / tokens:.3f}" if tokens else "-"
        lines.append(
            f"{name:<12}{split['documents']:>12,}{split['tokens']:>15,}"
            f"{split['bytes']:>15,}{ratio:>13}"
        )
    return "\n".join([*lines, f"\n{folder}"]) + "\n"
