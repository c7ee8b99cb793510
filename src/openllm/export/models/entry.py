# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One model of the zoo: what was registered, and whether its files are still that."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.core.config import Config
from openllm.core.errors import CheckpointError, OpenLLMError
from openllm.core.files import read_json
from openllm.export.inventory import CARD, LINEAGE, Facts, FileDigest, name_problem, read_lineage

RECORD = "entry.json"
MODEL = "model"


class Origin(Config):
    """Where an entry's files came from; paths are not kept."""

    kind: str = "folder"
    repository: str | None = None
    commit: str | None = None


class Record(Config):
    """The contents of `entry.json`."""

    name: str
    added: str
    origin: Origin
    tags: list[str]
    fingerprint: str
    facts: Facts
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class Entry:
    """A registered model; `record` is None if `entry.json` cannot be read."""

    name: str
    folder: Path
    record: Record | None
    problems: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / MODEL

    @property
    def size(self) -> int:
        """Bytes of all files, as registered."""
        return sum(file.size for file in self.record.files.values()) if self.record else 0

    def lineage(self) -> dict[str, Any]:
        """The contents of `openllm.json`; empty if it is missing or damaged."""
        path = self.model / LINEAGE
        with contextlib.suppress(CheckpointError):
            return read_lineage({LINEAGE: path} if path.is_file() else {})
        return {}

    def parents(self) -> list[dict[str, str]]:
        """`name` and `fingerprint` of each parent that the lineage names; either may be empty."""
        named = self.lineage().get("parents")
        found = []
        for parent in named if isinstance(named, list) else []:
            facts = parent if isinstance(parent, dict) else {"name": parent}
            texts = {key: facts.get(key) for key in ("name", "fingerprint")}
            found.append({k: v if isinstance(v, str) else "" for k, v in texts.items()})
        return found


def read_entry(folder: Path) -> Entry | None:
    """The entry in a folder; None if the folder is gone by now."""
    name = folder.name.replace("--", "/", 1)
    try:
        values = read_json(folder / RECORD, CheckpointError, "remove the entry, or add it anew")
        values.pop("format_version", None)
        record = Record.parse(values, str(folder / RECORD))
    except (OpenLLMError, OSError, ValueError, RecursionError) as problem:
        return Entry(name, folder, None, [str(problem)]) if folder.is_dir() else None
    if record.name != name:
        return Entry(name, folder, None, [f"{RECORD} is that of the model '{record.name}'"])
    return Entry(name, folder, record, list(_differences(folder / MODEL, record)))


def readable(entry: Entry) -> Record:
    """The record of an entry.

    Raises:
        CheckpointError: it is damaged.
    """
    if entry.record is None:
        raise CheckpointError(
            f"the entry of {entry.name} is damaged ({entry.problems[0]}); the model itself is in "
            f"{entry.model}: add it again, with --replace"
        )
    return entry.record


def _differences(model: Path, record: Record) -> Iterator[str]:
    """What is wrong with the files of an entry, as far as their sizes tell."""
    for name, file in record.files.items():
        problem = name_problem(name)
        if problem:
            yield f"{RECORD} names an unsafe file: {problem}"
            continue
        try:
            size = (model / name).stat().st_size
        except OSError:
            yield f"{name} is missing"
        else:
            if size != file.size:
                yield f"{name} has {size:,} bytes instead of {file.size:,}"


def all_text(entry: Entry) -> str:
    """All text of a model that a search looks through."""
    texts = [entry.name]
    if entry.record is not None:
        texts += [*entry.record.tags, *map(str, entry.record.facts.dump().values())]
    for name in (CARD, LINEAGE):
        with contextlib.suppress(OSError):
            texts.append((entry.model / name).read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts).casefold()
