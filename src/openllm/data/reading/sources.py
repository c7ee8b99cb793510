# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The SOURCE arguments of `openllm data prepare`, and the records they yield."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from openllm.core.download import cache_folder, download
from openllm.core.errors import DataError, UsageError
from openllm.data.builtin.corpus import KINDS, generate
from openllm.data.document import SPLITS, Document
from openllm.data.reading import squad
from openllm.data.reading.readers import FORMATS, ONE_DOCUMENT, read_file
from openllm.data.reading.records import Broken, Place, ReadOptions
from openllm.data.reading.streams import COMPRESSIONS, Count


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Attributes:
        name: source name of its documents.
        path: the file; `-` is standard input.
        format: a key of `FORMATS`.
        compression: a key of `COMPRESSIONS`, or "".
        size: bytes as stored; 0 if unknown.
    """

    name: str
    path: str
    format: str
    compression: str
    size: int


@dataclass(frozen=True)
class Source:
    """One SOURCE argument, or several that name single files.

    Attributes:
        name: as shown in reports.
        corpus: "squad", "builtin" or "user".
        licence: of the texts, if known.
        files: what to read; empty for "builtin".
        loose: the files were named one by one; see `gather`.
        skipped: files that were found but are not read, mostly of unknown format.
        split_paragraphs: text files hold passages separated by blank lines.
        documents: number of training documents to generate; only for "builtin".
        seed: of the generator.
    """

    name: str
    corpus: str
    licence: str = "not stated"
    files: tuple[InputFile, ...] = ()
    loose: bool = False
    skipped: tuple[str, ...] = ()
    split_paragraphs: bool = False
    documents: int = 0
    seed: int = 0


def supported_suffixes() -> str:
    """All readable suffixes, in words."""
    packed = " or ".join(COMPRESSIONS)
    return f"{' '.join(FORMATS)}, each also with {packed}"


def classify(path: str) -> tuple[str, str, str] | None:
    """Stem, format and compression of a file name, or None if the suffix is unknown."""
    name = PurePosixPath(path).name
    compression = next((end for end in COMPRESSIONS if name.lower().endswith(end)), "")
    stem = name[: len(name) - len(compression)]
    end = PurePosixPath(stem).suffix
    if end.lower() not in FORMATS:
        return None
    return stem[: len(stem) - len(end)], end.lower(), compression


def open_source(argument: str, stdin_format: str = "txt") -> Source:
    """The source that a path, folder, pattern, URL or `-` stands for.

    Raises:
        DataError: nothing there, nothing readable there, or an unknown suffix.
        DownloadError: a URL could not be fetched.
    """
    if argument == "-":
        file = InputFile("stdin", "-", f".{stdin_format}", "", 0)
        if file.format not in FORMATS:
            raise UsageError(f"unknown --stdin-format {stdin_format}; use txt or jsonl")
        return Source("stdin", "user", files=(file,), loose=True)
    if urlsplit(argument).scheme in ("http", "https"):
        return _from_url(argument)
    path = Path(argument)
    if path.is_dir():
        return _from_folder(path)
    if path.exists():
        return Source(_one_file(argument).name, "user", files=(_one_file(argument),), loose=True)
    return _from_pattern(argument)


def _from_pattern(pattern: str) -> Source:
    """All files that match, and all in matching folders; `**` matches those files itself."""
    files: list[InputFile] = []
    skipped: list[str] = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(match):
            files.append(_in_folder(_one_file(match), PurePosixPath(Path(match).parent.name)))
        elif os.path.isdir(match) and "**" not in pattern:
            below = _walk(Path(match))
            files += below[0]
            skipped += below[1]
    if not files:
        raise DataError(
            f"no file, folder or match for '{pattern}'; give a path, a pattern in quotes, "
            "a URL, '-', squad or builtin"
        )
    return Source(pattern, "user", files=tuple(files), loose=True, skipped=tuple(skipped))


def _stem(path: str) -> str:
    parts = classify(path)
    return parts[0] if parts else ""


def _one_file(path: str) -> InputFile:
    parts = classify(path)
    if parts is None:
        raise DataError(f"{path}: unknown file type; supported: {supported_suffixes()}")
    stem, file_format, compression = parts
    return InputFile(stem, path, file_format, compression, os.path.getsize(path))


def _from_folder(folder: Path) -> Source:
    files, skipped = _walk(folder)
    if not files:
        raise DataError(
            f"{folder} contains no files of a known type; supported: {supported_suffixes()}"
        )
    return Source(folder.resolve().name, "user", files=tuple(files), skipped=tuple(skipped))


def _walk(folder: Path) -> tuple[list[InputFile], list[str]]:
    """Readable and other files below a folder; hidden ones are neither."""
    files, skipped = [], []
    root = folder.resolve().name
    seen = set()  # links may form cycles
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        below = PurePosixPath(root, Path(parent).relative_to(folder).as_posix())
        for item in sorted(item for item in names if not item.startswith(".")):
            path = os.path.join(parent, item)
            if classify(path) and os.path.isfile(path):
                files.append(_in_folder(_one_file(path), below))
            else:
                skipped.append(path)
    return files, skipped


def _in_folder(file: InputFile, folder: PurePosixPath) -> InputFile:
    """Name a file of many documents by its path, a one-document file by its folder."""
    whole = file.format in ONE_DOCUMENT
    return replace(file, name=str(folder if whole else folder / file.name))


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename} cannot be read ({error.strerror}); check its permissions"
    ) from None


def _from_url(url: str) -> Source:
    name = PurePosixPath(urlsplit(url).path).name
    if classify(name) is None:
        raise DataError(f"{url}: unknown file type; supported: {supported_suffixes()}")
    place = hashlib.sha256(url.encode()).hexdigest()[:16]
    file = _one_file(str(download(url, cache_folder() / "downloads" / place)))
    file = replace(file, name=f"{urlsplit(url).hostname}/{file.name}")
    return Source(file.name, "user", files=(file,), loose=True)


def gather(sources: Sequence[Source]) -> list[Source]:
    """Merge all files that were named one by one into one source.

    Each source is split separately, and a one-document file cannot be split: `*.txt` on the command
    line must mean the same as the folder.
    """
    loose = [source for source in sources if source.loose]
    if len(loose) < 2:
        return list(sources)
    files = []
    for file in (file for source in loose for file in source.files):
        if file.format in ONE_DOCUMENT and file.name == _stem(file.path):
            file = replace(file, name=Path(file.path).resolve().parent.name)
        files.append(file)
    skipped = tuple(path for source in loose for path in source.skipped)
    merged = Source("files", "user", files=tuple(files), loose=True, skipped=skipped)
    return [merged, *(source for source in sources if not source.loose)]


def open_squad(locations: Sequence[str]) -> Source:
    """SQuAD: the official files, or those at `locations`.

    Files in SQuAD's JSON schema are read, and text files with blank lines between passages.

    Raises:
        DataError: there is no such file at a location.
        DownloadError: the official site could not be reached.
    """
    skipped: list[str] = []
    if locations:
        given = [open_source(location) for location in locations]
        found = [file for source in given for file in source.files]
        files = [file for file in found if file.format in (".json", ".txt")]
        skipped = [path for source in given for path in source.skipped]
        skipped += [file.path for file in found if file not in files]
        if not files:
            raise DataError(
                f"--source {' '.join(locations)}: no .json or .txt files found (plain, .gz "
                "or .zst); give files in SQuAD's JSON schema"
            )
    else:
        folder = cache_folder() / "squad"
        files = [
            _one_file(str(download(squad.OFFICIAL_URL + name, folder, size=size, sha256=sha256)))
            for name, (size, sha256) in squad.OFFICIAL_FILES.items()
        ]
    plain = [_one_file(file.path) for file in files]
    named = tuple(replace(file, name=f"squad/{file.name}") for file in plain)
    return Source(
        "squad", "squad", squad.LICENCE, named, skipped=tuple(skipped), split_paragraphs=True
    )


def open_builtin(documents: int, seed: int) -> Source:
    """The corpus that OpenLLM generates itself."""
    return Source("builtin", "builtin", "generated, free to use", documents=documents, seed=seed)


class Record(NamedTuple):
    """One record read from a source.

    Attributes:
        source: index of the source.
        file: index of the file, see `file_names`.
        split: the split stated by the source itself, or None.
        item: the document, or why it could not be read.
    """

    source: int
    file: int
    split: str | None
    item: Document | Broken


def records(sources: Sequence[Source], options: ReadOptions, count: Count) -> Iterator[Record]:
    """All records of all sources, in order; files are numbered across sources."""
    number = 0
    for index, source in enumerate(sources):
        if source.corpus == "builtin":
            yield from _generated(source, index, number)
            number += len(KINDS)
        chosen = replace(
            options, split_paragraphs=options.split_paragraphs or source.split_paragraphs
        )
        for file in source.files:
            place = Place(file.name, file.path)
            reading = read_file(file.path, file.format, file.compression, place, chosen, count)
            for item in reading:
                yield Record(index, number, None, item)
            number += 1


def _generated(source: Source, index: int, number: int) -> Iterator[Record]:
    """Training documents, then a twentieth as many for each held-out split."""
    kinds = {f"builtin/{kind}": number + i for i, kind in enumerate(KINDS)}
    heldout = max(1, source.documents // 20)
    for split in SPLITS:
        wanted = source.documents if split == "train" else heldout
        for line, document in enumerate(islice(generate(split, source.seed), wanted), start=1):
            yield Record(index, kinds[document.source], split, replace(document, line=line))


def file_names(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Source name and path of each file, numbered as in `records`."""
    names = []
    for source in sources:
        if source.corpus == "builtin":
            names += [(f"builtin/{kind}", "") for kind in KINDS]
        names += [(file.name, file.path) for file in source.files]
    return names
