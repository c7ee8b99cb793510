# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""onnxruntime-web: fetched once, checked, kept; and bytes as scripts that a page may read.

It is not shipped with OpenLLM. A browser lets a page opened from a folder load scripts beside it,
but nothing else, so all bytes become scripts: gzip in base64, in pieces.
"""

import base64
import gzip
import json
import shutil
import tarfile
from pathlib import Path

from openllm.core.download import cache_folder, download
from openllm.core.errors import ConfigError, DownloadError

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"

SCRIPT = "ort.wasm.min.js"
PACKED = {"glue": "ort-wasm-simd-threaded.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""Name of the scripts that hold a file of the runtime -> the file."""

PIECE = 6_000_000
"""Bytes in a script; a multiple of 3, which base64 encodes without padding."""

LICENCE = Path(__file__).with_name("page") / "onnxruntime-LICENSE.txt"


def find_runtime(folder: Path | None) -> Path:
    """The folder that holds the runtime's files: the given one, or the downloaded package.

    Raises:
        ConfigError: the given folder lacks a file.
        DownloadError: the package cannot be fetched.
    """
    wanted = (SCRIPT, *PACKED.values())
    if folder is not None:
        for place in (folder, folder / "dist", folder / "package" / "dist"):
            if all((place / name).is_file() for name in wanted):
                return place
        raise ConfigError(
            f"{folder} does not hold onnxruntime-web ({', '.join(wanted)}); give the folder that "
            f"'npm pack onnxruntime-web@{VERSION}' unpacks to, or leave --runtime out"
        )
    place = cache_folder() / "onnxruntime-web" / VERSION
    if not all((place / name).is_file() for name in wanted):
        try:
            package = download(URL, place, sha256=SHA256)
        except DownloadError as error:
            raise DownloadError(
                f"{error}; or give an unpacked copy of onnxruntime-web with --runtime FOLDER"
            ) from None
        _unpack(package, place, wanted)
    return place


def _unpack(package: Path, place: Path, wanted: tuple[str, ...]) -> None:
    with tarfile.open(package) as archive:
        for name in wanted:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the checksum was right
            part = place / f"{name}.part"
            with open(part, "wb") as file:
                shutil.copyfileobj(member, file)
            part.replace(place / name)
    package.unlink()


def write_runtime(place: Path, target: Path) -> dict[str, int]:
    """Write `runtime/` into a page's folder; returns the number of pieces of each part."""
    folder = target / "runtime"
    folder.mkdir()
    shutil.copyfile(place / SCRIPT, folder / SCRIPT)
    shutil.copyfile(LICENCE, folder / "LICENSE.txt")
    return {
        part: write_pieces(target, f"runtime/{part}", (place / name).read_bytes())
        for part, name in PACKED.items()
    }


def write_pieces(target: Path, name: str, data: bytes) -> int:
    """Write `NAME-000.js` and so on; returns how many."""
    packed = gzip.compress(data, 9, mtime=0)
    starts = range(0, len(packed), PIECE)
    for number, start in enumerate(starts):
        text = base64.b64encode(packed[start : start + PIECE]).decode()
        line = f'OpenLLM.parts["{name}-{number}"]="{text}";\n'
        (target / f"{name}-{number:03}.js").write_text(line)
    return len(starts)


def read_pieces(target: Path, name: str) -> bytes:
    """The data that `write_pieces` was given."""
    files = sorted(target.glob(f"{name}-[0-9][0-9][0-9].js"))
    pieces = [json.loads(file.read_text().partition("=")[2].rstrip(";\n")) for file in files]
    return gzip.decompress(b"".join(base64.b64decode(piece) for piece in pieces))
