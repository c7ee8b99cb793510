# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""report.json and report.md of a prepared folder."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from openllm.data.document import SPLITS
from openllm.data.prepare.output import Written
from openllm.data.prepare.steps import PrepareConfig, Result, Scan
from openllm.data.prepare.store import DISK_BYTES, MEMORY_BYTES
from openllm.data.reading.sources import Source

_MOST_SOURCES = 50


def build_report(
    result: Result, sources: Sequence[Source], config: PrepareConfig, workers: int
) -> dict[str, Any]:
    """The plain values of report.json."""
    scan, written = result.scan, result.written
    reasons: Counter[str] = Counter()
    for (_, reason), count in (scan.dropped + written.dropped).items():
        reasons[reason] += count
    seconds = sum(result.seconds.values())
    return {
        "records": sum(scan.records.values()),
        "kept": sum(facts["documents"] for facts in written.splits.values()),
        "dropped": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "broken": scan.broken,
        "splits": {
            split: {**written.splits[split], "titles": written.titles[split]} for split in SPLITS
        },
        "sources": _per_source(scan, written),
        "shared_phrases": dict(written.phrases.most_common(10)),
        "lengths": written.lengths,
        "skipped_files": [path for source in sources for path in source.skipped],
        "leaks": {pair: report.as_dict() for pair, report in result.leaks.items()},
        "clean": all(report.clean for report in result.leaks.values()),
        "throughput": {
            "workers": workers,
            "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
            "total_seconds": round(seconds, 3),
            "cpu_seconds": round(result.cpu_seconds, 3),
            "bytes_read": scan.bytes_read,
            "text_bytes": scan.text_bytes,
            "mb_per_second": round(scan.text_bytes / 1e6 / max(seconds, 1e-9), 2),
        },
        "bytes_per_document": {"disk": DISK_BYTES, "memory": MEMORY_BYTES},
        "config": config.dump(),
    }


def _per_source(scan: Scan, written: Written) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    dropped = scan.dropped + written.dropped
    for name in sorted(scan.records):
        kept = written.kept.get(name, Counter())
        reasons = {reason: n for (source, reason), n in dropped.items() if source == name}
        rows[name] = {
            "records": scan.records[name],
            **{split: kept[split] for split in SPLITS},
            "dropped": dict(sorted(reasons.items())),
        }
    return rows


def render_report(report: dict[str, Any]) -> str:
    """The text of report.md."""
    parts = [
        "# Prepared documents",
        f"{report['records']:,} records were read, {report['kept']:,} documents kept; "
        f"{report['broken']:,} records could not be read. "
        "`dropped.jsonl` lists everything left out, with file, line and reason.",
        _splits(report),
        "## Dropped",
        _table(
            ["reason", "documents"],
            [[reason, f"{count:,}"] for reason, count in report["dropped"].items()],
        ),
        _phrases(report),
        "## Sources",
        _sources(report),
        "## Leak report",
        _leaks(report),
        "## Length",
        "Number of training documents by length in words (separated by white space).",
        histogram(report["lengths"]["train"]),
        "## Speed and size",
        _speed(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    if not rows:
        return "None."
    line = "|".join(["---", *["---:"] * (len(head) - 1)])
    body = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )
    return f"| {' | '.join(head)} |\n|{line}|\n{body}"


def _splits(report: dict[str, Any]) -> str:
    rows = [
        [
            split,
            f"{facts['documents']:,}",
            f"{facts['titles']:,}",
            f"{facts['words']:,}",
            f"{facts['bytes'] / 1e6:,.2f}",
        ]
        for split, facts in report["splits"].items()
    ]
    return _table(["split", "documents", "titles", "words", "MB of text"], rows)


def _phrases(report: dict[str, Any]) -> str:
    if not report["shared_phrases"]:
        return ""
    rows = [[phrase, f"{count:,}"] for phrase, count in report["shared_phrases"].items()]
    lead = "Shared phrases that removed the most documents from the training split:"
    return f"{lead}\n\n{_table(['phrase', 'documents'], rows)}"


def _sources(report: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{facts['records']:,}",
            *(f"{facts[split]:,}" for split in SPLITS),
            f"{sum(facts['dropped'].values()):,}",
        ]
        for name, facts in report["sources"].items()
    ]
    table = _table(["source", "records", *SPLITS, "dropped"], rows[:_MOST_SOURCES])
    if len(rows) > _MOST_SOURCES:
        table += f"\n\nAnd {len(rows) - _MOST_SOURCES:,} more in report.json."
    skipped = report["skipped_files"]
    if skipped:
        shown = ", ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        table += f"\n\nSkipped because of an unknown type: {len(skipped):,} files ({shown})."
    return table


def _leaks(report: dict[str, Any]) -> str:
    rows = [
        [pair, *(f"{facts[kind]:,}" for kind in ("titles", "exact", "near", "grams"))]
        for pair, facts in report["leaks"].items()
    ]
    table = _table(
        ["splits", "shared titles", "equal texts", "near duplicates", "shared 13-grams"], rows
    )
    verdict = (
        "Nothing is shared: titles, equal texts (comparing words only), near duplicates "
        f"(Jaccard similarity of word 5-grams at least {report['config']['near_threshold']}) and "
        "13-grams were recounted from the written files."
        if report["clean"]
        else "**The splits share text; see the examples in report.json.**"
    )
    return f"{table}\n\n{verdict}"


def histogram(counts: Sequence[int]) -> str:
    """Bars for the number of documents of 1, 2-3, 4-7, 8-15, ... words."""
    most = max(counts, default=0)
    lines = []
    for power, count in enumerate(counts):
        bar = "#" * round(40 * count / most)
        lines.append(f"{1 << power:>9,} - {(2 << power) - 1:<9,} {count:>9,} {bar}".rstrip())
    return "```\n" + "\n".join(lines) + "\n```"


def _speed(report: dict[str, Any]) -> str:
    facts = report["throughput"]
    steps = ", ".join(f"{name} {value:.1f} s" for name, value in facts["seconds"].items())
    size = report["bytes_per_document"]
    return (
        f"{facts['text_bytes'] / 1e6:,.1f} MB of text in {facts['total_seconds']:.1f} s with "
        f"{facts['workers']} workers: {facts['mb_per_second']:.1f} MB/s ({steps}; CPU time of "
        f"all processes {facts['cpu_seconds']:.1f} s).\n\n"
        f"While preparing, each document took {size['disk']} bytes on disk besides its text, and "
        f"at most {size['memory']} bytes in memory."
    )
