# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm models ls|show|add|rm|tag|search`: the zoo of models on this machine."""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.errors import CheckpointError, UsageError
from openllm.core.log import say
from openllm.export.inventory import CERTIFICATE, list_files, printable, verdict
from openllm.export.models.entry import Entry
from openllm.export.models.zoo import Zoo

WIDTH = 100
"""Columns of long paragraphs."""


def ls_main(argv: list[str]) -> int:
    """Entry point of `openllm models ls`."""
    parser = _parser("ls", "List the models registered on this machine.")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    zoo = Zoo()
    _list(zoo.entries(), args.json, f"no models in {zoo.root}; add one: openllm models add FOLDER")
    return 0


def search_main(argv: list[str]) -> int:
    """Entry point of `openllm models search`."""
    parser = _parser("search", "List the models in whose name, tags, card or lineage words occur.")
    parser.add_argument("words", nargs="+", help="all must occur; case does not matter")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    _list(Zoo().search(args.words), args.json, "no model matches")
    return 0


def show_main(argv: list[str]) -> int:
    """Entry point of `openllm models show`; exit code 1 if `--check` finds damage."""
    parser = _parser("show", "Show a model: lineage, files, certificate.")
    parser.add_argument("name", help="name from 'openllm models ls'")
    parser.add_argument("--check", action="store_true", help="digest every file again and compare")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    zoo = Zoo()
    entry = zoo.get(args.name)
    facts = _facts(entry)
    facts["ancestors"] = [{"depth": d, "model": text} for d, text in zoo.ancestors(entry)]
    facts["children"] = [child.name for child in zoo.children(entry)]
    found = zoo.check(entry) if args.check else None
    if found is not None:
        facts["check"] = found
    if args.json:
        _write(json.dumps(facts, indent=1, ensure_ascii=False).splitlines())
    else:
        _write(_show(entry, facts))
    return 1 if found is not None and any(found.values()) else 0


def add_main(argv: list[str]) -> int:
    """Entry point of `openllm models add`."""
    parser = _parser("add", "Register a model folder, by hard links where possible.")
    parser.add_argument("folder", help="model folder, such as RUN/model")
    parser.add_argument("--name", help="NAME or OWNER/NAME (default: that of the folder or run)")
    parser.add_argument("--tag", action="append", default=[], help="may be repeated")
    parser.add_argument("--replace", action="store_true", help="replace a model of that name")
    args = parser.parse_args(argv)
    folder = Path(args.folder).absolute()
    name = args.name or (folder.parent if folder.name == "model" else folder).name
    zoo = Zoo()
    zoo.check_free(name, replace=args.replace)
    entry = zoo.add(list_files(args.folder), name, tags=args.tag, replace=args.replace)
    say(f"added {entry.name} ({_size(entry.size)}) to {zoo.root}")
    return 0


def rm_main(argv: list[str]) -> int:
    """Entry point of `openllm models rm`."""
    parser = _parser("rm", "Remove a model from this machine; asks first.")
    parser.add_argument("name", help="name from 'openllm models ls'")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    args = parser.parse_args(argv)
    zoo = Zoo()
    entry = zoo.get(args.name)
    children = [child.name for child in zoo.children(entry)]
    if children:
        say(f"these models name it as a parent: {', '.join(children)}")
    if not args.yes:
        _confirm(f"remove {entry.name} ({_size(entry.size)})?")
    freed = zoo.remove(entry.name)
    rest = "" if freed >= entry.size else "; the other files are still linked elsewhere"
    say(f"removed {entry.name}, {_size(freed)} freed{rest}")
    return 0


def tag_main(argv: list[str]) -> int:
    """Entry point of `openllm models tag`."""
    parser = _parser("tag", "Add and remove tags of a model.")
    parser.add_argument("name", help="name from 'openllm models ls'")
    parser.add_argument("changes", nargs="*", metavar="+TAG|-TAG", help="tags to add and remove")
    # argparse would take -TAG for an option
    changes = [word for word in argv if re.match(r"[+-][^-]", word) and word != "-h"]
    args = parser.parse_args([word for word in argv if word not in changes])
    if args.changes or not changes:
        raise UsageError("give +TAG for each tag to add and -TAG for each tag to remove")
    add, remove = ([w[1:] for w in changes if w[0] == sign] for sign in "+-")
    tags = Zoo().tag(args.name, add, remove)
    say(f"{args.name}: {', '.join(tags) or 'no tags'}")
    return 0


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return Parser(
        prog=f"openllm models {command}",
        description=description,
        epilog="The models are in $OPENLLM_MODELS, else in ~/.local/share/openllm/models.",
    )


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on; add --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was removed")


def _write(lines: Iterable[str]) -> None:
    """Print lines; names and cards of others must not rewrite the terminal."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


def _size(size: int) -> str:
    """`12_300_000` -> `12.3 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def _facts(entry: Entry) -> dict[str, Any]:
    """All facts about an entry, as `--json` prints them."""
    record = {} if entry.record is None else entry.record.dump()
    return {
        "name": entry.name,
        "folder": str(entry.model),
        "size": entry.size,
        **{key: value for key, value in record.items() if key != "name"},
        "lineage": entry.lineage(),
        "certificate": _verdict(entry),
        "problems": entry.problems,
    }


def _verdict(entry: Entry) -> str | None:
    path = entry.model / CERTIFICATE
    try:
        return verdict({CERTIFICATE: path} if path.is_file() else {})
    except CheckpointError:
        return "damaged"


def _list(entries: Sequence[Entry], as_json: bool, none: str) -> None:
    if as_json:
        found = [_facts(entry) for entry in entries]
        short = [{k: v for k, v in f.items() if k not in ("files", "lineage")} for f in found]
        _write(json.dumps(short, indent=1, ensure_ascii=False).splitlines())
    elif entries:
        _write(_columns([HEADER, *map(_row, entries)]))
    else:
        say(none)


HEADER = ("name", "family", "parameters", "dtype", "size", "added", "licence", "tags")


def _row(entry: Entry) -> tuple[str, ...]:
    if entry.record is None:
        return (entry.name, *["-"] * 6, f"DAMAGED: {entry.problems[0]}")
    facts = entry.record.facts
    damage = [f"DAMAGED: {entry.problems[0]}"] if entry.problems else []
    return (
        entry.name,
        facts.family or facts.architecture or "-",
        "-" if facts.parameters is None else f"{facts.parameters:,}",
        facts.dtype or "-",
        _size(entry.size),
        entry.record.added[:10],
        facts.licence or "-",
        " ".join([*entry.record.tags, *damage]),
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of aligned columns; the last one is as wide as it likes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _show(entry: Entry, facts: dict[str, Any]) -> list[str]:
    """The text of `openllm models show`."""
    lines = [entry.name, *_about(entry, facts), *_history(facts)]
    lines += [f"{'  ' * depth}└── {text}" for depth, text in _tree(facts)]
    if entry.record is not None:
        rows = [(f"{f.size:,}", f.sha256, name) for name, f in entry.record.files.items()]
        lines += ["", *_columns([("bytes", "sha256", "file"), *rows])]
    lines += [f"DAMAGED: {problem}" for problem in entry.problems]
    if "check" in facts:
        bad = [f"{kind}: {name}" for kind, names in facts["check"].items() for name in names]
        lines += ["", *(bad or ["all files are as they were registered"])]
    return lines


def _about(entry: Entry, facts: dict[str, Any]) -> list[str]:
    rows = [("folder", facts["folder"]), ("size", _size(entry.size))]
    if entry.record is not None:
        model, origin = entry.record.facts, entry.record.origin
        count = "unknown" if model.parameters is None else f"{model.parameters:,}"
        rows += [
            ("architecture", f"{model.architecture or 'unknown'} ({model.family or 'unknown'})"),
            ("parameters", f"{count}, {model.dtype or 'unknown precision'}"),
            ("licence", model.licence or "not stated"),
            ("tags", ", ".join(entry.record.tags) or "none"),
            ("added", entry.record.added),
            ("fingerprint", entry.record.fingerprint),
        ]
        if origin.repository:
            rows.append(("from", f"{origin.repository}, commit {origin.commit}"))
    rows.append(("certificate", facts["certificate"] or "none"))
    return [f"{label:<13}{value}" for label, value in rows]


def _history(facts: dict[str, Any]) -> list[str]:
    """Data, recipe and commit; the lineage may come from elsewhere, so nothing is certain of it."""
    lineage = facts["lineage"]
    if not lineage:
        return [f"{'lineage':<13}none (no openllm.json)"]
    data = lineage.get("data")
    data = data if isinstance(data, dict) else {}
    sources = data.get("sources")
    rows = [("made by", lineage.get("made_by")), ("commit", lineage.get("commit"))]
    rows += [("data", data.get("name")), ("data digest", data.get("fingerprint"))]
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict):
            licence = source.get("licence") or "not stated"
            rows.append(("source", f"{source.get('name')}: licence {licence}"))
    lines = [f"{label:<13}{value}" for label, value in rows if value is not None]
    settings = " ".join(_settings(lineage.get("recipe"), ""))
    wrapped = textwrap.wrap(settings, WIDTH - 13, break_on_hyphens=False)
    return lines + [f"{'' if i else 'recipe':<13}{text}" for i, text in enumerate(wrapped)]


def _settings(value: Any, path: str) -> list[str]:
    """The settings of a recipe as `key=value`, without those that are off."""
    if isinstance(value, dict):
        return [
            setting
            for key, below in value.items()
            for setting in _settings(below, f"{path}.{key}" if path else str(key))
        ]
    return [] if value is None or value is False or not path else [f"{path}={value}"]


def _tree(facts: dict[str, Any]) -> list[tuple[int, str]]:
    rows = [(0, f"child: {name}") for name in facts["children"]]
    return [(a["depth"], f"parent: {a['model']}") for a in facts["ancestors"]] + rows
