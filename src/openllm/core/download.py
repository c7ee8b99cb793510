# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Downloads that resume, retry and verify, and leave either the whole file or a resumable part."""

import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from openllm.core.errors import DownloadError
from openllm.core.files import sha256_file, storage_errors, sync_folder
from openllm.core.log import Meter, progress, say

_BLOCK = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes worth a retry."""


class _PassingError(Exception):
    """A failure that a retry may fix."""


def cache_folder() -> Path:
    """Where downloads are kept: `OPENLLM_CACHE`, else `~/.cache/openllm`."""
    chosen = os.environ.get("OPENLLM_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "openllm"


def download(
    url: str,
    folder: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    token: str | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """Fetch `url` into `folder` unless it is already there; returns the file.

    Partial data is kept as `NAME.part`, and a retry asks for the rest only: within this call if the
    server names the file's version or a checksum is given, in later calls only with a checksum.
    The file gets its name once size and checksum are verified.

    Args:
        url: an http or https address.
        folder: created if missing.
        size: expected size in bytes.
        sha256: expected checksum, hex.
        token: sent as a bearer token to the host of `url`, never to one it redirects to.
        attempts: tries before giving up.
        pause: seconds before the second try; doubled each time.
        timeout: seconds without a response before a try counts as failed.

    Raises:
        DownloadError: not http(s), permanently refused, wrong content, or every try failed.
        StorageError: the disk is full or not writable.
    """
    target = _target(url, folder)
    if target.exists():
        if sha256 is None or sha256_file(target) == sha256:
            return target
        say(f"{target} does not have the expected checksum; downloading it again")
    transfer = _Transfer(url, target.with_name(target.name + ".part"), size, sha256, timeout, token)
    problem = ""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if sha256 is None:  # nothing would reveal that the file has changed since
            transfer.part.unlink(missing_ok=True)
        for attempt in range(attempts):
            if attempt:
                say(f"{problem}; trying again in {pause:g} s")
                time.sleep(pause)
                pause *= 2
            try:
                transfer.fetch()
                transfer.verify()
            except _PassingError as error:
                problem = str(error)
                continue
            os.replace(transfer.part, target)
            sync_folder(folder)
            return target
    raise DownloadError(
        f"{url}: {problem}; gave up after {attempts} attempts. Check the network and repeat the "
        "command, or download the file yourself and give its path"
    )


def _target(url: str, folder: Path) -> Path:
    address = urlsplit(url)
    name = PurePosixPath(address.path).name
    on_web = address.scheme in ("http", "https") and address.netloc
    if not on_web or name in ("", ".."):
        raise DownloadError(f"{url}: not the http or https URL of a file")
    return folder / name


@dataclass
class _Transfer:
    """A download in progress; `validator` identifies the version that the part belongs to."""

    url: str
    part: Path
    size: int | None
    sha256: str | None
    timeout: float
    token: str | None = None
    validator: str = ""

    def fetch(self) -> None:
        """Append what is missing to the part; starts over where the server cannot resume."""
        have = self._resumable()
        if self.size is not None and have >= self.size:
            return
        address = quote(self.url, safe="%/:?#[]@!$&'()*+,;=~")  # may hold spaces and accents
        request = urllib.request.Request(address, headers={"User-Agent": "openllm"})
        if self.token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        if have:
            request.add_header("Range", f"bytes={have}-")
            if self.validator:
                request.add_header("If-Range", self.validator)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                self._save(answer, self._begin(answer, have))
        except urllib.error.HTTPError as error:
            if error.code == 416:  # our part is not a prefix of that file
                self._start_over(f"the server cannot resume at byte {have}")
            if error.code in _PASSING:
                raise _PassingError(f"HTTP {error.code} {error.reason}") from None
            raise DownloadError(
                f"{self.url}: HTTP {error.code} {error.reason}; check the address, or download "
                "the file yourself and give its path"
            ) from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            raise _PassingError(str(getattr(error, "reason", None) or repr(error))) from None
        except TimeoutError:
            raise _PassingError(f"no response within {self.timeout:g} s") from None

    def verify(self) -> None:
        """Check size and checksum; a wrong file is deleted, so that the next try starts over."""
        have = self.part.stat().st_size
        if self.size is not None and have < self.size:
            raise _PassingError(f"received {have:,} of {self.size:,} bytes")
        right = self.size is None or have == self.size
        if right and self.sha256 is not None:
            right = sha256_file(self.part) == self.sha256
        if not right:
            self._start_over("the content does not have the expected size and checksum")

    def _start_over(self, problem: str) -> NoReturn:
        self.part.unlink(missing_ok=True)
        raise _PassingError(problem)

    def _resumable(self) -> int:
        """Bytes of the part to resume from; 0 without a validator or checksum to check it."""
        if not self.part.exists() or not (self.validator or self.sha256):
            return 0
        return self.part.stat().st_size

    def _begin(self, answer: Any, have: int) -> int:
        """The byte at which a response begins."""
        self.validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if self.validator.startswith("W/"):  # weak: similar, not equal
            self.validator = ""
        if answer.status != 206:
            return 0
        given = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if given != str(have):
            self._start_over(f"asked to resume at byte {have}, but the server sent from '{given}'")
        return have

    def _save(self, answer: Any, have: int) -> None:
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        name = self.part.name.removesuffix(".part")
        megabytes = None if total is None else total / 1e6
        with (
            open(self.part, "r+b" if have else "wb") as handle,
            progress(name, megabytes, "MB", start=have / 1e6) as meter,
        ):
            handle.seek(have)
            handle.truncate()
            _copy(answer, handle, meter)
            handle.flush()
            os.fsync(handle.fileno())
        arrived = self.part.stat().st_size
        if total is not None and arrived < total:
            raise _PassingError(f"the connection closed after {arrived:,} bytes")


def _copy(answer: Any, handle: Any, meter: Meter) -> None:
    while True:
        try:
            block = answer.read(_BLOCK)
        except (http.client.HTTPException, OSError) as error:
            raise _PassingError(f"the connection was lost: {error!r}") from None
        if not block:
            return
        handle.write(block)
        meter.advance(len(block) / 1e6)
