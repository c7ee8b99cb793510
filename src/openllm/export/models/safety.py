# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which files may leave this machine, and which may come from elsewhere."""

import fnmatch
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from openllm.core.errors import DownloadError, UploadError
from openllm.export.inventory import WEIGHTS, name_problem, printable

SAFE = {*WEIGHTS, ".json", ".txt", ".md", ".model", ".jinja"}
"""Suffixes of files that are read as data, never run."""
NOTICES = {"LICENSE", "LICENCE", "NOTICE"}
"""Names without a suffix that are text for people."""
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
"""Suffixes of files that may run code when they are loaded."""

SECRET_NAMES = re.compile(
    r"(id_(rsa|dsa|ecdsa|ed25519)\b.*|.*\.(pem|key|p12|pfx|env)|(hf_?)?tokens?(\.txt)?|"
    r"(credentials?|secrets?|passwords?)(\..*)?)",
    re.IGNORECASE,
)
SECRET_TEXT = re.compile(
    rb"\bhf_[A-Za-z]{30,}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bgh[pousr]_[A-Za-z0-9]{36}\b|"
    rb"\bAKIA[A-Z0-9]{16}\b|\bsk-(proj-)?[A-Za-z0-9]{32,}"
)
"""Access tokens of the Hub, of GitHub, of clouds, and private keys."""
LARGEST_TEXT = 20_000_000
"""Bytes; longer files are not searched for secrets."""


def check_upload(folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse a folder with files that should not be published.

    These are pickles, which run code on the machine that loads them; what looks like a secret, by
    name or content; hidden files; links that lead out of the folder.

    Raises:
        UploadError: it names every such file.
    """
    problems = [
        f"{printable(name)}: {problem}"
        for name, path in files.items()
        if (problem := _upload_problem(folder, name, path)) is not None
    ]
    if problems:
        raise UploadError(
            f"{folder} holds files that should not be uploaded; move them elsewhere:\n  "
            + "\n  ".join(problems)
        )


def _upload_problem(folder: Path, name: str, path: Path) -> str | None:
    if not path.resolve().is_relative_to(folder.resolve()):
        return "a link that leads out of the folder"
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") for part in parts) and name != ".gitattributes":
        return "a hidden file"
    if SECRET_NAMES.fullmatch(parts[-1]):
        return "its name is that of a secret"
    if is_pickle(path):
        return "a pickle, which may run code when it is loaded; save it as safetensors"
    if not name.endswith(WEIGHTS) and path.stat().st_size <= LARGEST_TEXT:
        found = SECRET_TEXT.search(path.read_bytes())
        if found is not None:
            return f"it holds what looks like a secret ({found[0][:6].decode()}...)"
    return None


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle or holds one, by its suffix or its content."""
    if path.suffix.lower() in PICKLES:
        return True
    with open(path, "rb") as handle:
        start = handle.read(2)
    if len(start) == 2 and start[0] == 0x80 and start[1] in range(2, 6):  # protocols 2 to 5
        return True
    if start == b"PK" and zipfile.is_zipfile(path):  # as torch writes it
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
        except zipfile.BadZipFile:
            return True  # its contents are unknown
    return False


def choose_downloads(
    names: Iterable[str], include: Sequence[str] = (), *, allow_pickle: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Part the files of a repository into those to download and those to skip.

    Args:
        names: of all files.
        include: patterns such as `*.json`; only files that match one are downloaded.
        allow_pickle: also download files that may run code when they are loaded.

    Returns:
        The names to download; the names to skip, each with the reason.

    Raises:
        DownloadError: a name would lead out of the folder.
    """
    wanted, skipped = [], {}
    for name in names:
        problem = name_problem(name)
        if problem:
            raise DownloadError(
                f"the repository holds a file named '{printable(name)}', which is not safe: "
                f"{problem}; nothing was downloaded"
            )
        reason = _skip_reason(name, include, allow_pickle)
        if reason is None:
            wanted.append(name)
        else:
            skipped[name] = reason
    return wanted, skipped


def _skip_reason(name: str, include: Sequence[str], allow_pickle: bool) -> str | None:
    path = PurePosixPath(name)
    if include and not any(fnmatch.fnmatchcase(name, pattern) for pattern in include):
        return "does not match --include"
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    if path.suffix.lower() in PICKLES:
        return None if allow_pickle else "a pickle; it comes only with --allow-pickle"
    if name.lower().endswith(tuple(SAFE)) or path.name in NOTICES:
        return None
    return "neither weights nor text"
