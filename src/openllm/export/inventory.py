# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a model folder holds: its files, their digests, and facts read without torch."""

import hashlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from openllm.core.config import Config
from openllm.core.errors import CheckpointError
from openllm.core.files import recover_folder
from openllm.core.log import Meter, progress

CONFIG = "config.json"
LINEAGE = "openllm.json"
CERTIFICATE = "certificate.json"
CARD = "README.md"
REFERENCE = "reference.safetensors"
"""Beside an export: the original's answers, which are no weights."""
WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx.data")
"""Suffixes of weight files that hold numbers only, no code."""

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses longer headers."""
DTYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "I8": "int8", "U8": "uint8"}
"""Names in safetensors headers -> ours; others are shown as they are."""
_BLOCK = 1 << 20


class FileDigest(Config):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Facts(Config):
    """What a model is; None where its files do not say."""

    architecture: str | None = None
    family: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    licence: str | None = None


def name_problem(name: str) -> str | None:
    """Why a file name from elsewhere is unsafe under a folder; None if it is safe.

    Names are relative, with `/` between parts. Parts that lead elsewhere, control characters and
    what another system would read as a path are unsafe.
    """
    if not name or not name.isprintable():
        return "it is empty or holds control characters"
    if "\\" in name or ":" in name:
        return "it holds a backslash or a colon"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it leads out of the folder"
    if len(name.encode("utf-8", "surrogatepass")) > 255:
        return "it is too long"
    return None


def list_files(folder: Path | str) -> dict[str, Path]:
    """The files of a folder, by name relative to it (`/` between parts), in order.

    Links to files are followed: caches keep files elsewhere and link to them.

    Raises:
        CheckpointError: no folder, or it holds links to folders, broken links or devices.
    """
    folder = Path(folder)
    recover_folder(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}; give a model folder, such as RUN/model")
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or not path.exists():
            what = "a link to a folder" if path.is_dir() else "a link that leads nowhere"
            raise CheckpointError(f"{path} is {what}; replace it by what it should hold")
        problem = name_problem(name)
        if problem or not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path} cannot be kept: {problem or 'not a file'}; remove it")
        found[name] = path
    return found


def model_name(folder: Path) -> str:
    """What to call a model: by its run or its name in the zoo, else by its folder."""
    folder = folder.resolve()
    return folder.parent.name.replace("--", "/", 1) if folder.name == "model" else folder.name


def check_model(files: Mapping[str, Path], where: str) -> None:
    """Refuse files that are not a model.

    A model has weights, and a `config.json` unless they are GGUF, which holds its own.

    Raises:
        CheckpointError: it names what is missing or damaged; `where` says whose files they are.
    """
    weights = [name for name in files if _holds_weights(name)]
    if not weights:
        raise CheckpointError(
            f"{where} holds no weights ({', '.join('*' + suffix for suffix in WEIGHTS)}); give a "
            "model folder, such as RUN/model"
        )
    if CONFIG in files:
        _read_object(files[CONFIG])
    elif not any(name.endswith(".gguf") for name in weights):
        raise CheckpointError(f"{where} holds no {CONFIG}; copy the whole model folder")
    for name in weights:
        if name.endswith(".safetensors"):
            read_header(files[name])
    for name in files:
        if name.endswith(".safetensors.index.json"):
            shards = _read_object(files[name]).get("weight_map")
            missing = set(shards.values()) - set(files) if isinstance(shards, dict) else {"all"}
            if missing:
                raise CheckpointError(
                    f"{where} lacks a shard that {name} names ({min(map(repr, missing))}); copy "
                    "the whole model folder"
                )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:  # ValueError: not JSON, or not UTF-8
        raise CheckpointError(f"{path} is not valid JSON ({problem}); copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not contain a JSON object; copy it again")
    return value


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape of each tensor of a safetensors file, from its header alone.

    Raises:
        CheckpointError: the header is broken, or the file is shorter or longer than it says.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > min(size - 8, LARGEST_HEADER):
                raise ValueError("the file is too short for its header")
            header = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        found, end = {}, 0
        for name, tensor in header.items():
            shape = tuple(int(n) for n in tensor["shape"])
            if not all(0 <= n < 2**63 for n in (*shape, math.prod(shape))):
                raise ValueError(f"the shape of a tensor, {name[:80]!r}, is impossible")
            found[name] = (str(tensor["dtype"]), shape)
            end = max(end, int(tensor["data_offsets"][1]))
        if size != 8 + length + end:
            raise ValueError(f"it has {size:,} bytes instead of {8 + length + end:,}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as problem:
        raise CheckpointError(f"{path} is damaged ({problem}); copy or train it again") from None
    return found


def model_facts(files: Mapping[str, Path]) -> Facts:
    """Facts about a model; `check_model` has accepted its files."""
    config = _read_object(files[CONFIG]) if CONFIG in files else {}
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    counts: Counter[str] = Counter()
    for name, path in files.items():
        if name.endswith(".safetensors") and _holds_weights(name):
            counts += _weights(read_header(path), config)
    return Facts(
        architecture=_short(first),
        family=_short(config.get("model_type")),
        parameters=counts.total() or None,
        dtype=_short(counts.most_common(1)[0][0]) if counts else None,
        licence=_licence(files),
    )


def _weights(
    header: Mapping[str, tuple[str, tuple[int, ...]]], config: Mapping[str, Any]
) -> Counter[str]:
    """Data type -> number of weights; integers that are packed into words are counted one by one.

    Which bits a packed module has is in `config.json`, by its name or for all modules alike.
    """
    quantization = config.get("quantization_config")
    groups = quantization.get("config_groups") if isinstance(quantization, dict) else None
    bits, usual = {}, 8
    for group in groups.values() if isinstance(groups, dict) else ():
        scheme = group.get("weights") if isinstance(group, dict) else None
        targets = group.get("targets") if isinstance(group, dict) else None
        if isinstance(scheme, dict) and scheme.get("num_bits") in (4, 8):
            usual = scheme["num_bits"]
            bits |= dict.fromkeys(map(str, targets if isinstance(targets, list) else ()), usual)
    counts: Counter[str] = Counter()
    for name, (dtype, shape) in header.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight_packed":
            width = bits.get(module, usual)
            counts[f"int{width}"] += math.prod(shape) * 32 // width
        elif leaf not in ("weight_scale", "weight_shape"):
            counts[DTYPES.get(dtype, dtype)] += math.prod(shape)
    return counts


def _licence(files: Mapping[str, Path]) -> str | None:
    """The licence that the head of the model card states."""
    if CARD not in files:
        return None
    with open(files[CARD], encoding="utf-8", errors="replace") as handle:
        lines = handle.read(1 << 16).splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return None
    try:
        head = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except (yaml.YAMLError, ValueError, RecursionError):  # a card is for people: no error
        return None
    return _short(head.get("license")) if isinstance(head, dict) else None


def _short(value: Any) -> str | None:
    """Text from a file of others, without control characters; None if it is not text."""
    return printable(value)[:80] if isinstance(value, str) and value else None


def printable(text: str) -> str:
    """`text` on one line, without the control characters that could rewrite a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def read_lineage(files: Mapping[str, Path]) -> dict[str, Any]:
    """The contents of `openllm.json`; empty if there is none.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    return _read_object(files[LINEAGE]) if LINEAGE in files else {}


def verdict(files: Mapping[str, Path]) -> str | None:
    """The verdict of the model's certificate; None if it has none.

    Raises:
        CheckpointError: the certificate is not a JSON object.
    """
    if CERTIFICATE not in files:
        return None
    return _short(_read_object(files[CERTIFICATE]).get("verdict")) or "not stated"


def place(
    files: Mapping[str, Path], target: Path, label: str, *, link_from: int = 1 << 20
) -> dict[str, FileDigest]:
    """Put files under `target` by hard link, or by copy where that fails, and digest them.

    Args:
        files: name relative to `target` -> the file.
        target: an existing folder.
        label: of the progress bar.
        link_from: bytes; smaller files are copied, for people edit those in place.
    """
    total = sum(path.stat().st_size for path in files.values()) / 1e6
    digests = {}
    with progress(label, total, "MB") as meter:
        for name, path in files.items():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            linked = path.stat().st_size >= link_from and _link(path, copy)
            digests[name] = _digest(path, meter, None if linked else copy)
    return digests


def _link(path: Path, copy: Path) -> bool:
    try:
        os.link(os.path.realpath(path), copy)
    except OSError:  # another disk, or a file system without hard links
        return False
    return True


def _digest(path: Path, meter: Meter, copy: Path | None = None) -> FileDigest:
    """Read a file once: digest it and, if asked, copy it."""
    hasher, size = hashlib.sha256(), 0
    with open(path, "rb") as source, open(copy or os.devnull, "wb") as target:
        while block := source.read(_BLOCK):
            hasher.update(block)
            target.write(block)
            size += len(block)
            meter.advance(len(block) / 1e6)
    return FileDigest(size=size, sha256=hasher.hexdigest())


def digest_files(files: Mapping[str, Path], label: str) -> dict[str, FileDigest]:
    """Size and SHA-256 of each file."""
    total = sum(path.stat().st_size for path in files.values()) / 1e6
    with progress(label, total, "MB") as meter:
        return {name: _digest(path, meter) for name, path in files.items()}


def fingerprint(digests: Mapping[str, FileDigest]) -> str:
    """The identity of a model: SHA-256 over names and digests of weights and `config.json`.

    Each file adds the line `NAME SHA256`, in order of names; cards and tokenizers may change
    without making another model.
    """
    hasher = hashlib.sha256()
    for name in sorted(filter(_identifies, digests)):
        hasher.update(f"{name} {digests[name].sha256}\n".encode())
    return hasher.hexdigest()


def model_fingerprint(folder: Path | str) -> str:
    """The `fingerprint` of a model folder."""
    files = list_files(folder)
    chosen = {name: path for name, path in files.items() if _identifies(name)}
    return fingerprint(digest_files(chosen, "reading"))


def _identifies(name: str) -> bool:
    return name == CONFIG or _holds_weights(name)


def _holds_weights(name: str) -> bool:
    return name.endswith(WEIGHTS) and name != REFERENCE
