# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Files that are either complete or absent: written to a temporary sibling, synced, renamed."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from openllm.core.errors import OpenLLMError, StorageError
from openllm.core.log import say

TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": "\n", "errors": "backslashreplace"}
"""How to open text files for writing: file names in them may hold bytes that are not UTF-8."""

FORMAT_VERSION = 1
"""Written into all our JSON files; `read_json` rejects newer ones."""


@contextlib.contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusals to write under `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full; free some space and repeat the command "
                "(nothing written earlier is lost)"
            ) from error
        if error.errno == errno.EFBIG:
            raise StorageError(
                f"{path}: the file is larger than the file system or 'ulimit -f' allows; choose "
                "another folder, or raise the limit, and repeat the command"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StorageError(
                f"{path}: cannot write here ({error.strerror}); choose another folder"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path`; on success it replaces `path`, else it is removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, mode, **({} if "b" in mode else TEXT)) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary sibling of `path`; on success it replaces the whole folder `path`.

    A kill between the two renames leaves the previous folder as `.NAME.old`; the next call, or
    `recover_folder`, restores it.

    Raises:
        StorageError: the folder cannot be written or replaced, or another process is writing it.
    """
    _check_place(path)
    path = Path(os.path.realpath(path))  # "." has no name, and a link must stay one
    temporary = path.with_name(f".{path.name}.tmp")
    old = path.with_name(f".{path.name}.old")
    with storage_errors(path), contextlib.ExitStack() as stack:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, _claim(temporary, path))
        recover_folder(path)
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
            sync_folder(temporary)
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)


def _claim(temporary: Path, path: Path) -> int:
    """Create and lock the empty folder `temporary`; closing the handle releases the lock."""
    temporary.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # its owner may finish while we look
        handle = os.open(temporary, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(temporary), os.fstat(handle)):
                for entry in temporary.iterdir():  # left by a killed process
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                return handle
        except BlockingIOError:
            pass
        except BaseException:  # whatever the error, Ctrl-C included, release the claim
            os.close(handle)
            raise
        os.close(handle)
    raise StorageError(
        f"{path}: another process is writing to this folder; wait until it finishes, then repeat "
        "the command"
    )


def check_replaceable(path: Path | str, ours: Collection[str], error: type[OpenLLMError]) -> None:
    """Refuse early what `atomic_folder` must not or cannot replace.

    Args:
        path: the folder to write; it may be missing.
        ours: names of the files that may be replaced.
        error: what to raise if `path` is a file or holds other files.

    Raises:
        StorageError: `path` is the current folder or a mount point.
    """
    _check_place(path)
    path = Path(path)
    if path.is_dir():
        foreign = sorted(file.name for file in path.iterdir() if file.name not in ours)
        if foreign:
            raise error(
                f"{path} contains other files ({foreign[0]}) and would be replaced; "
                "choose a new or empty folder"
            )
    elif path.exists():
        raise error(f"{path} is a file; choose a new or empty folder")


def _check_place(path: Path | str) -> None:
    folder = os.path.realpath(path)
    current = os.path.isdir(folder) and os.path.samefile(folder, ".")
    if current or os.path.ismount(folder):
        raise StorageError(
            f"{path} is {'the current folder' if current else 'a mount point'}, which cannot "
            f"be replaced; name a folder inside it, such as {Path(path, 'new')}"
        )


def recover_folder(path: Path | str) -> None:
    """Clean up after a killed `atomic_folder`: restore the previous folder if there is none now."""
    path = Path(os.path.realpath(path))
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, path)


@contextlib.contextmanager
def locked(path: Path | str, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which other processes may hold; it stays on the disk.

    Args:
        path: created if missing.
        waiting: what to tell the user if another process holds it; none: it is never long.

    Raises:
        StorageError: the file cannot be created.
    """
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                say(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path | str, value: dict[str, Any]) -> None:
    """Write `value` and `format_version`, atomically."""
    with atomic_file(path) as handle:
        json.dump({"format_version": FORMAT_VERSION, **value}, handle, indent=1, ensure_ascii=False)
        handle.write("\n")


def read_json(path: Path | str, error: type[OpenLLMError], mend: str) -> dict[str, Any]:
    """Read a JSON object written by `write_json`.

    Args:
        path: the file.
        error: what to raise if the file is missing, broken or too new.
        mend: the end of the message: what the user can do.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist; {mend}") from None
    except NotADirectoryError:
        raise error(f"{path.parent} is a file, not a folder; {mend}") from None
    except (ValueError, RecursionError) as problem:  # also: not UTF-8, endless digits, too deep
        raise error(f"{path} is not valid JSON ({problem}); {mend}") from None
    if not isinstance(value, dict):
        raise error(f"{path} does not contain a JSON object; {mend}")
    version = value.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise error(
            f"{path} has format_version {version}, but this OpenLLM reads only up to "
            f"{FORMAT_VERSION}; upgrade with: pip install -U openllm-lab"
        )
    return value
