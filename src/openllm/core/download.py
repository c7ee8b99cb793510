# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Downloads that resume, retry, verify, and leave either the whole file or a part to go on from."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from openllm.core.errors import DownloadError
from openllm.core.files import sha256_file, storage_errors, sync_folder
from openllm.core.log import Meter, progress, say

_BLOCK = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers worth another attempt."""


class _PassingError(Exception):
    """A failure that another attempt may mend."""


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
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """Fetch `url` into `folder` unless it is there already; returns the file.

    What has arrived is kept as `NAME.part`, and the next attempt, in this call or a later one, asks
    for the rest only. The file takes its name after size and checksum are found right.

    Args:
        url: an http or https address.
        folder: is created.
        size: expected bytes.
        sha256: expected checksum, hex.
        attempts: tries before giving up.
        pause: seconds before the second try; doubled each time.
        timeout: seconds without any answer before a try counts as failed.

    Raises:
        DownloadError: not http(s), refused for good, wrong content, or no try succeeded.
        StorageError: the disk is full or not writable.
    """
    target = _target(url, folder)
    if target.exists():
        if sha256 is None or sha256_file(target) == sha256:
            return target
        say(f"{target} does not have the expected checksum; downloading it again")
    part = target.with_name(target.name + ".part")
    problem = ""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(attempts):
            if attempt:
                say(f"{problem}; trying again in {pause:g} s")
                time.sleep(pause)
                pause *= 2
            try:
                _fetch(url, part, size, timeout)
                _verify(url, part, size, sha256)
            except _PassingError as error:
                problem = str(error)
                continue
            os.replace(part, target)
            sync_folder(folder)
            return target
    raise DownloadError(
        f"{url}: {problem}; gave up after {attempts} attempts. Check the network and repeat the "
        "command (what has arrived is kept), or download the file yourself and give its path"
    )


def _target(url: str, folder: Path) -> Path:
    address = urlsplit(url)
    name = PurePosixPath(address.path).name
    if address.scheme not in ("http", "https") or not address.netloc or not name:
        raise DownloadError(f"{url}: not the http or https address of a file")
    return folder / name


def _fetch(url: str, part: Path, size: int | None, timeout: float) -> None:
    """Append to `part` what is missing; starts over where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "openllm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            resumed = answer.status == 206 and _range_start(answer) == have
            have = have if resumed else 0
            _save(answer, part, have)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # our part is no beginning of that file
            part.unlink(missing_ok=True)
            raise _PassingError(f"{url}: the server cannot resume at byte {have}") from None
        if error.code in _PASSING:
            raise _PassingError(f"{url}: HTTP {error.code} {error.reason}") from None
        raise DownloadError(
            f"{url}: HTTP {error.code} {error.reason}; check the address, or download the file "
            "yourself and give its path"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise _PassingError(f"{url}: {getattr(error, 'reason', None) or error!r}") from None


def _range_start(answer: Any) -> int:
    """First byte of a `Content-Range: bytes 5-9/10` header, or -1."""
    given = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(given) if given.isdigit() else -1


def _save(answer: Any, part: Path, have: int) -> None:
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    name = part.name.removesuffix(".part")
    with (
        open(part, "r+b" if have else "wb") as handle,
        progress(name, None if total is None else total / 1e6, "MB", start=have / 1e6) as meter,
    ):
        handle.seek(have)
        handle.truncate()
        _copy(answer, handle, meter)
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and part.stat().st_size < total:
        raise _PassingError(f"{name}: the connection ended after {part.stat().st_size:,} bytes")


def _copy(answer: Any, handle: Any, meter: Meter) -> None:
    while True:
        try:
            block = answer.read(_BLOCK)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            handle.flush()
            raise _PassingError(f"the connection broke: {error!r}") from None
        if not block:
            return
        handle.write(block)
        meter.advance(len(block) / 1e6)


def _verify(url: str, part: Path, size: int | None, sha256: str | None) -> None:
    """A wrong file is deleted, so that the next attempt starts over."""
    have = part.stat().st_size
    if size is not None and have < size:
        raise _PassingError(f"{url}: {have:,} of {size:,} bytes arrived")
    wrong_size = size is not None and have != size
    if wrong_size or (sha256 is not None and sha256_file(part) != sha256):
        part.unlink()
        raise _PassingError(f"{url}: the content has not the expected size and checksum")
