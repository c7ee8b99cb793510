# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Look into a `.pt2` archive without torch: does loading it run anything but arithmetic?"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openllm.core.errors import CheckpointError

_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIG = re.compile(r"data/(weights/model_weights|constants/model_constants)_config\.json")
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/serialization_id|\.data/version"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
"""Members that hold raw numbers or a word."""

_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|_operator\.[a-z]\w*")
_NAMES = re.compile(
    r"[su]\d+|Symbol|Integer|Add|Mul|Pow|Min|Max|Mod|FloorDiv|positive|integer|True"
)
"""Names in an expression for a size, which torch evaluates."""


def check_archive(path: Path) -> None:
    """Refuse what `torch.export.load` would execute.

    Raises:
        CheckpointError: the archive is missing or damaged, or has pickled objects, evaluated code
            or functions other than tensor operations.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            whole = len(members) == len(archive.infolist())
            graph = json.loads(archive.read(members[_GRAPH]))
            stored = [
                json.loads(archive.read(info))["config"]
                for name, info in members.items()
                if _CONFIG.fullmatch(name)
            ]
            problems = [*_in_members(members), *_in_graph(graph), *_in_tensors(stored)]
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; export the model again") from None
    except (
        *(zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError),
        *(ValueError, KeyError, TypeError, AttributeError),
    ) as error:
        raise CheckpointError(f"{path} is damaged ({error}); export the model again") from None
    if not whole:
        problems.append("two members of one name")
    if problems:
        raise CheckpointError(
            f"{path} could run code when it is loaded ({problems[0][:100]}); "
            "export the model again with: openllm export MODEL --to pt2"
        )


def _in_members(members: dict[str, zipfile.ZipInfo]) -> Iterator[str]:
    for name, info in members.items():
        known = name == _GRAPH or _CONFIG.fullmatch(name) or _PLAIN.fullmatch(name)
        if not known and not (name == _SAMPLES and info.file_size == 0):
            yield f"the member {name}"


def _in_tensors(stored: list[dict[str, Any]]) -> Iterator[str]:
    for config in stored:
        for name, part in config.items():
            if part["use_pickle"] is not False:
                yield f"{name} is pickled"
            elif not re.fullmatch(r"(weight|tensor)_\d+", part["path_name"]):
                yield f"{name} is in {part['path_name']}"


def _in_graph(graph: dict[str, Any]) -> Iterator[str]:
    if graph.get("guards_code"):
        yield "it has guards"
    for text in graph["range_constraints"]:
        yield from _in_expression(text)
    for key, value in _pairs(graph):
        if key == "expr_str":
            yield from _in_expression(value)
        elif key in ("as_operator", "as_custom_obj"):
            yield key
        elif key == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value):
            yield f"the function {value}"


def _in_expression(text: str) -> Iterator[str]:
    strange = [name for name in re.findall(r"[^\W\d]\w*", text) if not _NAMES.fullmatch(name)]
    if strange or "__" in text:
        yield f"the expression {text}"


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of a nested JSON value."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
