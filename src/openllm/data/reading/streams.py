# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Byte streams of plain, gzip and Zstandard files, with the bytes read counted."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from openllm.core.plugins import require

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix of a compressed file -> how it is read."""

Count = Callable[[int], None]


class DamagedStreamError(ValueError):
    """Compressed data that cannot be decompressed to its end."""


DAMAGE = (OSError, EOFError, zlib.error, DamagedStreamError)
"""Errors raised by reading a damaged or truncated file."""


def open_stream(path: str, compression: str, count: Count) -> BinaryIO:
    """Open a file for reading; `-` is standard input.

    Args:
        path: the file.
        compression: a suffix of `COMPRESSIONS`, or "".
        count: called with the number of bytes of the file, as stored, that have just been read.

    Raises:
        OSError: the file cannot be opened.
        MissingExtra: Zstandard is not installed.
    """
    raw = sys.stdin.buffer if path == "-" else open(path, "rb", buffering=0)  # noqa: SIM115
    counted = _Counted(cast(BinaryIO, raw), count)
    if compression == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=io.BufferedReader(counted, 1 << 18)))
    if compression == ".zst":
        return io.BufferedReader(_Zstandard(counted), 1 << 18)
    return io.BufferedReader(counted, 1 << 18)


class _Counted(io.RawIOBase):
    """A raw stream that reports the bytes read from it."""

    def __init__(self, raw: BinaryIO, count: Count) -> None:
        self._raw, self._count = raw, count

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        size = self._raw.readinto(buffer) or 0  # type: ignore[attr-defined]
        self._count(size)
        return size

    def close(self) -> None:
        if not self.closed and self._raw is not sys.stdin.buffer:
            self._raw.close()
        super().close()


class _Zstandard(io.RawIOBase):
    """Decompresses Zstandard frames; unlike the library's reader, it refuses a truncated one."""

    def __init__(self, packed: io.RawIOBase) -> None:
        self._packed = packed
        self._library = require("zstandard")
        self._frame: Any = None
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            data = self._packed.read(1 << 16)
            if not data:
                if self._frame is not None:
                    raise DamagedStreamError("the file ends within a Zstandard frame")
                return 0
            self._pending = self._unpack(data)
        given = self._pending[: len(buffer)]
        buffer[: len(given)] = given
        self._pending = self._pending[len(given) :]
        return len(given)

    def _unpack(self, data: bytes) -> bytes:
        parts = []
        try:
            while data:
                if self._frame is None:
                    self._frame = self._library.ZstdDecompressor().decompressobj()
                parts.append(self._frame.decompress(data))
                data = b""
                if self._frame.eof:
                    data, self._frame = self._frame.unused_data, None
        except self._library.ZstdError as error:
            raise DamagedStreamError(str(error)) from None
        return b"".join(parts)

    def close(self) -> None:
        self._packed.close()
        super().close()
