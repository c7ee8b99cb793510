# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The files of a batch: requests that are read one by one, and results that survive any end."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from openllm.core.errors import DataError, StorageError
from openllm.core.files import atomic_file, storage_errors

if TYPE_CHECKING:
    from openllm.serve.openai.batch import Task

MOST_SHOWN = 5
"""Faulty lines that an error names."""

SYNC_S = 1.0
"""Seconds of results that a power failure may cost; a killed process loses none."""


class Requests:
    """The input. It may be longer than memory: only ids are kept.

    Attributes:
        marks: custom id -> request id of each request, in their order.
    """

    def __init__(self, path: Path, read: "Callable[[bytes, int], Task]") -> None:
        """Check all lines.

        Raises:
            DataError: it cannot be read, is empty, or has lines that are no requests or have an id
                that was used before.
        """
        self.path, self._read = path, read
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a file, which can be read again; write one first")
        self.marks: dict[str, str] = {}
        faults = []
        first: dict[str, int] = {}
        for number, raw in self._lines():
            try:
                task = read(raw, len(self.marks))
            except DataError as error:
                faults.append(f"line {number}: {error}")
                continue
            if task.custom_id in first:
                shown = json.dumps(task.custom_id, ensure_ascii=False)
                faults.append(f"line {number}: line {first[task.custom_id]} has the id {shown} too")
                continue
            first[task.custom_id] = number
            self.marks[task.custom_id] = task.request_id
        if faults:
            more = len(faults) - MOST_SHOWN
            shown = "\n  ".join(faults[:MOST_SHOWN] + ([f"and {more} more"] if more > 0 else []))
            raise DataError(f"{path} is not a batch; correct these lines:\n  {shown}")
        if not self.marks:
            raise DataError(f"{path} has no requests; each line must be one, as a JSON object")

    def tasks(self, skip: Mapping[str, Any]) -> "Iterator[Task]":
        """The requests whose ids are not in `skip`, read again from the disk.

        Raises:
            DataError: they are not the ones that were there at first.
        """
        index = -1
        for index, (_, raw) in enumerate(self._lines()):
            task = self._read(raw, index)
            if self.marks.get(task.custom_id) != task.request_id:
                raise self._changed()
            if task.custom_id not in skip:
                yield task
        if index + 1 != len(self.marks):
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(f"{self.path} was changed meanwhile; let no other program write to it")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with open(self.path, "rb") as handle:
                for number, raw in enumerate(handle, 1):
                    if raw.strip():
                        yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read ({error.strerror}); give a file of requests"
            ) from None


class Results:
    """The output: one whole line after the other. A line that a crash tore is dropped.

    Attributes:
        done: custom id -> whether it was answered, of all lines, in their order.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle
        self.done: dict[str, bool] = {}
        self._size = 0
        self._synced = time.monotonic()

    @classmethod
    def open(cls, path: Path, marks: Mapping[str, str], *, retry_failed: bool = False) -> Self:
        """Open a new or an unfinished output.

        Args:
            path: the file.
            marks: of the requests that it is for.
            retry_failed: forget the requests that were refused or failed.

        Raises:
            DataError: it is of other requests, or is no output of a batch.
            StorageError: it cannot be written, or another process is writing it.
        """
        made = cls(path, _claim(path))
        try:
            lines = made._check(marks)
            if retry_failed and not all(made.done.values()):
                kept = [raw for raw, custom_id in lines if made.done[custom_id]]
                with atomic_file(path, "wb") as handle:
                    handle.writelines(kept)
                made.close()
                return cls.open(path, marks)
        except BaseException:
            os.close(made._handle)
            raise
        return made

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a result.

        Raises:
            StorageError: there is no room; the file is as it was before.
        """
        raw = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with storage_errors(self.path):
            left = raw
            try:
                while left:
                    left = left[os.write(self._handle, left) :]
                if time.monotonic() - self._synced >= SYNC_S:
                    self.sync()
            except BaseException:
                os.ftruncate(self._handle, self._size)
                raise
        self._size += len(raw)
        self.done[line["custom_id"]] = line["response"]["status_code"] == 200

    def sync(self) -> None:
        """Bring all to the disk."""
        os.fsync(self._handle)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Bring all to the disk, and let others write."""
        with storage_errors(self.path):
            self.sync()
        os.close(self._handle)

    def _check(self, marks: Mapping[str, str]) -> list[tuple[bytes, str]]:
        """Read what is there; returns its lines with their ids."""
        lines = []
        with open(self._handle, "rb", closefd=False) as handle:
            for number, raw in enumerate(handle, 1):
                if not raw.endswith(b"\n"):
                    break  # torn
                custom_id, mark, answered = _read_line(raw, f"{self.path}, line {number}")
                if custom_id in self.done:
                    raise DataError(
                        f"{self.path}, line {number}: there is a result for {custom_id!r} before; "
                        "remove one, or choose another output"
                    )
                if marks.get(custom_id) != mark:
                    known = "which has changed since" if custom_id in marks else "which has it not"
                    raise DataError(
                        f"{self.path}, line {number}: the result for {custom_id!r} is of another "
                        f"input than this, {known}; choose another output"
                    )
                self.done[custom_id] = answered
                self._size += len(raw)
                lines.append((raw, custom_id))
        with storage_errors(self.path):
            os.ftruncate(self._handle, self._size)
        return lines


def _claim(path: Path) -> int:
    """Open a file that no other process writes."""
    if path.is_dir():
        raise StorageError(f"{path} is a folder; give a file for the results")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StorageError(
            f"{path}: another process is writing to this file; wait until it finishes"
        ) from None
    return handle


def _read_line(raw: bytes, where: str) -> tuple[str, str, bool]:
    """Custom id, request id, and whether it was answered."""
    try:
        line = json.loads(raw)
        response = line["response"]
        custom_id, mark, status = (
            line["custom_id"],
            response["request_id"],
            response["status_code"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{where} is not a result of a batch; choose another output, or remove the line"
        ) from None
    return str(custom_id), str(mark), status == 200
