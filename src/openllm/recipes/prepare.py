# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm data prepare` and `openllm data inspect`."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.config import merge, parse_overrides, read_yaml
from openllm.core.errors import DataError, UsageError
from openllm.core.files import TEXT, atomic_folder, read_json, recover_folder, write_json
from openllm.core.log import say, warn
from openllm.data.document import SPLITS, Document, read_documents, read_index
from openllm.data.prepare.report import build_report, render_report
from openllm.data.prepare.steps import PrepareConfig, prepare
from openllm.data.reading.sources import Source, gather, open_builtin, open_source, open_squad

_OWN = re.compile(
    rf"({'|'.join(SPLITS)}|dropped)\.jsonl|index\.json|report\.(json|md)|tokens-[0-9a-f]+|\..*"
)
"""Files of a prepared folder, including the shards that training keeps in it."""


def prepare_main(argv: list[str]) -> int:
    """Turn sources into a prepared folder.

    Raises:
        UsageError: wrong arguments.
        DataError: a source that cannot be used, or no documents left.
        StorageError: the folder cannot be written.
    """
    args = _parser().parse_intermixed_args(argv)
    names, settings = _sort_arguments(args.sources)
    if args.source and "squad" not in names:
        raise UsageError("--source gives the location of squad; add squad as a SOURCE")
    config = _config(args, settings)
    out = Path(args.out)
    _check_output(out, args.force)
    sources = gather([_open(name, args, config) for name in names])
    workers = args.workers or os.cpu_count() or 1
    with atomic_folder(out) as folder:
        result = prepare(sources, folder, config, workers)
        report = build_report(result, sources, config, workers)
        write_json(folder / "report.json", report)
        (folder / "report.md").write_text(render_report(report), **TEXT)
    _announce(report, out, args.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="openllm data prepare",
        description="Turn sources into cleaned, deduplicated documents split by article.",
        epilog="example: openllm data prepare squad notes/ 'logs/*.jsonl.gz' --out data/mine",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="squad, builtin, a file, folder, pattern or URL, or '-' for standard input; "
        "key=value changes a setting",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="replace an earlier prepared folder")
    parser.add_argument("--workers", type=_positive, help="worker processes (default: all cores)")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    parser.add_argument("--seed", type=int, help="seed of the held-out articles (default: 0)")
    parser.add_argument("--validation", type=float, help="share of validation text (default: 0.05)")
    parser.add_argument("--test", type=float, help="share of test text (default: 0.05)")
    parser.add_argument("--min-words", type=int, help="minimum words per document (default: 5)")
    parser.add_argument("--text-key", help="field or column of the text (default: text)")
    parser.add_argument(
        "--title-key",
        action="append",
        help="field or column of the title (default: title); repeatable",
    )
    parser.add_argument(
        "--split-paragraphs",
        action="store_true",
        default=None,
        help="each passage between blank lines of a text file is a document",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="LOCATION",
        help="where to find the files of squad instead of the official site",
    )
    parser.add_argument(
        "--documents",
        type=_positive,
        default=20_000,
        help="training documents of builtin (default: 20000)",
    )
    parser.add_argument("--stdin-format", default="txt", help="format of '-' (default: txt)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _sort_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate `key=value` settings from sources; an existing path with `=` in it is a source."""
    settings = [
        item for item in arguments if re.match(r"[A-Za-z_.]+=", item) and not os.path.exists(item)
    ]
    names = [item for item in arguments if item not in settings]
    if not names:
        raise UsageError("no SOURCE given; use squad, builtin, a file, a folder or '-'")
    return names, settings


def _config(args: argparse.Namespace, settings: Sequence[str]) -> PrepareConfig:
    """Settings from --config, overridden by key=value, then by the options."""
    values: dict[str, Any] = read_yaml(Path(args.config)) if args.config else {}
    values = merge(values, parse_overrides(settings))
    options: dict[str, Any] = {
        "text_key": args.text_key,
        "title_keys": args.title_key,
        "split_paragraphs": args.split_paragraphs,
        "quality": {"min_words": args.min_words},
        "split": {"validation": args.validation, "test": args.test, "seed": args.seed},
    }
    return PrepareConfig.parse(merge(values, _given(options)), "data prepare")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options given on the command line."""
    chosen: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            value = _given(value) or None
        if value is not None:
            chosen[key] = value
    return chosen


def _open(name: str, args: argparse.Namespace, config: PrepareConfig) -> Source:
    if name == "squad":
        return open_squad(args.source)
    if name == "builtin":
        return open_builtin(args.documents, config.split.seed)
    return open_source(name, args.stdin_format)


def _check_output(out: Path, force: bool) -> None:
    """Refuse to replace a foreign folder, and a prepared one unless forced."""
    recover_folder(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        read_index(out)
    except DataError:
        raise UsageError(
            f"{out} exists and is not a prepared folder; choose another --out or remove it"
        ) from None
    if not force:
        raise UsageError(f"{out} is already a prepared folder; add --force to replace it")
    foreign = sorted(name for name in os.listdir(out) if not _OWN.fullmatch(name))
    if foreign:
        raise UsageError(
            f"{out} also contains other files ({', '.join(foreign[:3])}), which --force would "
            "delete; move them or choose another --out"
        )


def _announce(report: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report["dropped"].items())
    say(f"read {report['records']:,} records; dropped: {reasons or 'none'}")
    for split, facts in report["splits"].items():
        say(f"{split}: {facts['documents']:,} documents, {facts['bytes'] / 1e6:.2f} MB")
        if not facts["documents"]:
            warn(
                f"{split} is empty: too few documents to hold any out; add files, "
                "or use --split-paragraphs for text files with blank lines between passages"
            )
    if report["broken"]:
        warn(f"{report['broken']:,} records could not be read; see {out / 'dropped.jsonl'}")
    if report["skipped_files"]:
        names = ", ".join(report["skipped_files"][:3])
        warn(f"{len(report['skipped_files']):,} files of unknown type were skipped ({names})")
    if not report["clean"]:
        warn("the splits share text; see the leak report in report.md")
    say(f"wrote {out} (report: {out / 'report.md'})")


def inspect_main(argv: list[str]) -> int:
    """Show a prepared folder: its report, and a few documents.

    Raises:
        DataError: it is not a prepared folder, or a file of it is damaged.
    """
    parser = Parser(
        prog="openllm data inspect",
        description="Show what a prepared folder contains.",
        epilog="example: openllm data inspect data/squad --split test --samples 5",
    )
    parser.add_argument("folder", metavar="DIR", help="a folder made by 'openllm data prepare'")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="split to sample (default: train)"
    )
    parser.add_argument("--samples", type=int, default=3, help="documents to show (default: 3)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    args = parser.parse_args(argv)
    index = read_index(args.folder)
    report = read_json(Path(args.folder) / "report.json", DataError, "prepare the folder again")
    samples = _samples(args.folder, args.split, args.samples, index["splits"][args.split])
    if args.json:
        shown = {"index": index, "report": report, "samples": [asdict(item) for item in samples]}
        sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
        return 0
    sys.stdout.write(f"{args.folder}: corpus {index['corpus']}, {index['fingerprint'][:16]}\n\n")
    sys.stdout.write(render_report(report))
    for item in samples:
        head = f"{args.split} {item.id} | {item.source} | {item.title or 'no title'}"
        sys.stdout.write(f"\n--- {head}\n{_shorten(item.text)}\n")
    return 0


def _samples(folder: str, split: str, wanted: int, facts: dict[str, Any]) -> list[Document]:
    """Documents evenly spaced through a split."""
    if wanted < 0:
        raise UsageError(f"--samples {wanted}: must be 0 or more")
    step = max(1, facts["documents"] // max(1, wanted))
    found = islice(read_documents(folder, split), 0, None, step)
    return list(islice(found, wanted))


def _shorten(text: str, limit: int = 600) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
