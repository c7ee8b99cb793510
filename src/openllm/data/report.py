# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""report.json and report.md of a prepared folder."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from openllm.data.document import SPLITS
from openllm.data.prepare import PrepareConfig, Result
from openllm.data.sources import Source
from openllm.data.store import DISK_BYTES, MEMORY_BYTES

BROKEN = (
    "bad-json",
    "bad-utf8",
    "bad-row",
    "no-text",
    "too-large",
    "damaged-file",
    "not-squad-schema",
)
"""Reasons of records that could not be read; all other reasons are decisions about documents."""


def build_report(
    result: Result, sources: Sequence[Source], config: PrepareConfig, workers: int
) -> dict[str, Any]:
    """The plain values of report.json."""
    reasons: Counter[str] = Counter()
    for (_, reason), count in result.dropped.items():
        reasons[reason] += count
    records = sum(result.records.values())
    kept = sum(facts["documents"] for facts in result.splits.values())
    seconds = sum(result.seconds.values())
    return {
        "records": records,
        "kept": kept,
        "dropped": dict(reasons.most_common()),
        "broken": sum(reasons[reason] for reason in BROKEN),
        "splits": {
            split: {**result.splits[split], "titles": result.titles[split]} for split in SPLITS
        },
        "sources": _per_source(result),
        "skipped_files": [path for source in sources for path in source.skipped],
        "leaks": {pair: report.as_dict() for pair, report in result.leaks.items()},
        "clean": all(report.clean for report in result.leaks.values()),
        "throughput": {
            "workers": workers,
            "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
            "total_seconds": round(seconds, 3),
            "bytes_read": result.bytes_read,
            "text_bytes": result.text_bytes,
            "mb_per_second": round(result.text_bytes / 1e6 / max(seconds, 1e-9), 2),
        },
        "bytes_per_document": {"disk": DISK_BYTES, "memory": MEMORY_BYTES},
        "config": config.dump(),
    }


def _per_source(result: Result) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(result.records):
        dropped = {reason: n for (source, reason), n in result.dropped.items() if source == name}
        rows[name] = {
            "records": result.records[name],
            **{split: result.kept.get(name, Counter())[split] for split in SPLITS},
            "dropped": dict(sorted(dropped.items())),
        }
    return rows


def render_report(report: dict[str, Any]) -> str:
    """report.md."""
    return ""
