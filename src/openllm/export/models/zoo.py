# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model zoo: a folder of models with names, tags, digests and lineage.

    ROOT/owner--name/entry.json    what was registered, and the digest of each file
    ROOT/owner--name/model/        the model folder
    ROOT/.locks/owner--name        held while an entry is written, tagged or removed

An entry appears and disappears whole; readers need no lock.
"""

import contextlib
import difflib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from openllm.core.errors import CheckpointError, UsageError
from openllm.core.files import (
    atomic_folder,
    locked,
    recover_folder,
    storage_errors,
    write_json,
)
from openllm.export.inventory import (
    check_model,
    digest_files,
    fingerprint,
    list_files,
    model_facts,
    place,
)
from openllm.export.models.entry import (
    MODEL,
    RECORD,
    Entry,
    Origin,
    Record,
    all_text,
    read_entry,
    readable,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEFTOVER = re.compile(r"\.(.+)\.(tmp|old|gone)")


def zoo_folder() -> Path:
    """Where models are registered: `OPENLLM_MODELS`, else `~/.local/share/openllm/models`."""
    chosen = os.environ.get("OPENLLM_MODELS")
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "openllm" / "models"


def valid_name(name: str) -> bool:
    """Whether a model may have this name: `name` or `owner/name`."""
    return len(name) <= 96 and "--" not in name and NAME.fullmatch(name) is not None


class Zoo:
    """The models registered under one folder, which need not exist yet."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or zoo_folder()

    def entries(self) -> list[Entry]:
        """All models by name, damaged ones included."""
        self._sweep()
        if not self.root.is_dir():
            return []
        folders = [path for path in self.root.iterdir() if not path.name.startswith(".")]
        entries = [read_entry(path) for path in sorted(folders) if path.is_dir()]
        return sorted((entry for entry in entries if entry), key=lambda entry: entry.name)

    def find(self, name: str) -> Entry | None:
        """The model of that name; None if there is none."""
        if not valid_name(name):
            return None
        self._sweep()
        return read_entry(self._place(name))

    def get(self, name: str) -> Entry:
        """The model of that name.

        Raises:
            CheckpointError: there is none; the message has the nearest name.
        """
        entry = self.find(name)
        if entry is not None:
            return entry
        close = difflib.get_close_matches(name, [entry.name for entry in self.entries()], n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; see: openllm models ls"
        raise CheckpointError(f"there is no model '{name}' in {self.root}{hint}")

    def add(
        self,
        files: Mapping[str, Path],
        name: str,
        *,
        tags: Sequence[str] = (),
        origin: Origin | None = None,
        replace: bool = False,
    ) -> Entry:
        """Register a model, by hard links where possible.

        Args:
            files: name in the model folder -> the file.
            name: `name` or `owner/name`.
            tags: words to find it by.
            origin: where the files came from.
            replace: a model of that name may be replaced.

        Raises:
            CheckpointError: the files are not a model, or the name is taken.
            UsageError: the name or a tag is not valid.
        """
        for tag in tags:
            _check_tag(tag)
        self.check_free(name, replace=replace)
        check_model(files, "the folder")
        with self._locked(name):
            self.check_free(name, replace=replace)
            with atomic_folder(self._place(name)) as target:
                (target / MODEL).mkdir()
                digests = place(files, target / MODEL, f"adding {name}")
                kept = {file: target / MODEL / file for file in files}
                record = Record(
                    name=name,
                    added=datetime.now(UTC).isoformat(timespec="seconds"),
                    origin=origin or Origin(),
                    tags=sorted(set(tags)),
                    fingerprint=fingerprint(digests),
                    facts=model_facts(kept),
                    files=digests,
                )
                write_json(target / RECORD, record.dump())
        return self.get(name)

    def check_free(self, name: str, *, replace: bool = False) -> None:
        """Refuse a name that is not valid, or taken.

        Raises:
            UsageError, CheckpointError: as said.
        """
        if not valid_name(name):
            raise UsageError(
                f"'{name}' cannot be the name of a model; use NAME or OWNER/NAME of letters, "
                "digits, '.', '_' and single '-', starting with a letter or digit"
            )
        if not replace and self._place(name).exists():
            raise CheckpointError(
                f"a model '{name}' exists already; choose another --name, or add --replace"
            )

    def remove(self, name: str) -> int:
        """Remove a model; returns the bytes freed: a file linked elsewhere frees none."""
        with self._locked(name):
            entry = self.get(name)
            stats = [path.lstat() for path in entry.model.rglob("*") if path.is_file()]
            freed = sum(stat.st_size for stat in stats if stat.st_nlink == 1)
            gone = self.root / f".{entry.folder.name}.gone"
            with storage_errors(self.root):
                shutil.rmtree(gone, ignore_errors=True)  # left by a killed command
                os.replace(entry.folder, gone)
                shutil.rmtree(gone)
        return freed

    def tag(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
        """Add and remove tags; returns those the model now has.

        Raises:
            UsageError: an invalid tag, or one to remove that the model does not have.
        """
        for tag in (*add, *remove):
            _check_tag(tag)
        with self._locked(name):
            entry = self.get(name)
            record = readable(entry)
            absent = sorted(set(remove) - set(record.tags))
            if absent:
                raise UsageError(f"{name} has no tag '{absent[0]}'; it has: {record.tags}")
            tags = sorted((set(record.tags) | set(add)) - set(remove))
            record = record.model_copy(update={"tags": tags})
            write_json(entry.folder / RECORD, record.dump())
        return tags

    def search(self, words: Sequence[str]) -> list[Entry]:
        """Models in whose name, tags, facts, card and lineage all words occur."""
        wanted = [word.casefold() for word in words]
        return [e for e in self.entries() if all(word in all_text(e) for word in wanted)]

    def check(self, entry: Entry) -> dict[str, list[str]]:
        """Digest every file again: names of the `damaged`, `missing` and `extra` ones.

        Raises:
            CheckpointError: `entry.json` cannot be read, so that nothing can be compared.
        """
        record = readable(entry)
        files = list_files(entry.model) if entry.model.is_dir() else {}
        known = {name: path for name, path in files.items() if name in record.files}
        found = digest_files(known, f"checking {entry.name}")
        return {
            "damaged": [name for name in found if found[name] != record.files[name]],
            "missing": sorted(set(record.files) - set(files)),
            "extra": sorted(set(files) - set(record.files)),
        }

    def ancestors(self, entry: Entry) -> list[tuple[int, str]]:
        """Parents, their parents and so on: depth from 0, and a line of text each."""
        known = {e.record.fingerprint: e for e in self.entries() if e.record}
        found: list[tuple[int, str]] = []

        def climb(child: Entry, depth: int, path: tuple[str, ...]) -> None:
            for parent in child.parents():
                name, mark = parent["name"] or "unnamed", parent["fingerprint"]
                here = known.get(mark)
                if mark in path:  # no honest digest can be part of itself
                    found.append((depth, f"{name}, which claims to come from itself"))
                elif here is None:
                    found.append((depth, f"{name}, not in the zoo{mark and f' ({mark[:16]})'}"))
                else:
                    found.append((depth, f"{name}: {here.name}" if name != here.name else name))
                    climb(here, depth + 1, (*path, mark))

        climb(entry, 0, (entry.record.fingerprint,) if entry.record else ())
        return found

    def children(self, entry: Entry) -> list[Entry]:
        """Models whose lineage names this one as a parent."""
        own = entry.record.fingerprint if entry.record else None
        return [
            other
            for other in self.entries()
            if own and any(parent["fingerprint"] == own for parent in other.parents())
        ]

    def _place(self, name: str) -> Path:
        return self.root / name.replace("/", "--")

    def _locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        if not valid_name(name):
            self.get(name)  # raises
        waiting = f"waiting for another command that is changing the model '{name}'"
        return locked(self.root / ".locks" / self._place(name).name, waiting)

    def _sweep(self) -> None:
        """Clean up after killed commands, unless a running one still holds the entry."""
        with contextlib.suppress(OSError):  # a zoo that is missing, or may only be read
            for path in list(self.root.iterdir()):
                found = _LEFTOVER.fullmatch(path.name)
                if found is None:
                    continue
                with _unclaimed(self.root / ".locks" / found[1]) as ours:
                    if ours:
                        recover_folder(self.root / found[1])
                        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _unclaimed(lock: Path) -> Iterator[bool]:
    """Whether nobody else holds a lock file; if so, it is held meanwhile."""
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _check_tag(tag: str) -> None:
    if TAG.fullmatch(tag) is None:
        raise UsageError(f"'{tag}' cannot be a tag; use letters, digits, '.', '_' and '-'")


def find_model(text: str) -> Path | None:
    """The folder that an argument names: a path or, if there is none, a model of the zoo.

    Raises:
        CheckpointError: the model of the zoo is damaged.
    """
    path = Path(text)
    recover_folder(path)
    if path.exists():
        return path
    entry = Zoo().find(text)
    if entry is None:
        return None
    if entry.problems:
        raise CheckpointError(
            f"the model '{text}' is damaged: {entry.problems[0]}; see: openllm models show {text} "
            "--check"
        )
    return entry.model


def resolve_model(text: str) -> Path:
    """The folder of a model that an argument names: `find_model`, or an error.

    Raises:
        CheckpointError: there is neither such a folder nor such a model, or it is damaged.
    """
    found = find_model(text)
    if found is None:
        raise CheckpointError(
            f"{text} does not exist, and no model has that name; give a model folder, such as "
            "RUN/model, or a name from: openllm models ls"
        )
    return found
