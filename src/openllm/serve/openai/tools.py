# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Calls of tools: how a model's template writes them, and how to read them from its answer."""

import json
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openllm.text.tokenizer import whole_characters

CallFormat = Literal["hermes", "mistral", "llama3", "json"]
"""`hermes`: `<tool_call>{...}</tool_call>`, also Qwen's and ours; `mistral`: `[TOOL_CALLS]` and a
list, or a name and `[ARGS]`; `llama3`: the answer is `{"name": ..., "parameters": {...}}`;
`json`: the answer was constrained to be `{"name": ..., "arguments": {...}}`."""

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MISTRAL, ARGS = "[TOOL_CALLS]", "[ARGS]"
PYTHON_TAG = "<|python_tag|>"
MARKERS = (OPEN, CLOSE, MISTRAL, ARGS, PYTHON_TAG)

_NAME_AND_ARGS = re.compile(r"\s*([a-zA-Z0-9_.-]+)\s*(?:\[ARGS\])?\s*(?={)")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Call:
    """A call that a model wants; `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    def body(self) -> dict[str, Any]:
        """As chats report it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def call_format(template: str) -> CallFormat | None:
    """How a chat template writes calls; none if it does not know tools."""
    if "tools" not in template:
        return None
    if MISTRAL in template:
        return "mistral"
    if OPEN in template:
        return "hermes"
    if PYTHON_TAG in template or ("ipython" in template and "parameters" in template):
        return "llama3"
    return "hermes"


def call_id(form: CallFormat) -> str:
    """A new id; Mistral's templates accept nine letters or digits only."""
    prefix, size = ("", 9) if form == "mistral" else ("call_", 24)
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(size))


def read_calls(text: str, form: CallFormat) -> list[Call] | None:
    """The calls in a text without its marks; none if it is not what the format says."""
    text = text.strip()
    if form == "mistral":
        return _read_mistral(text)
    values: list[Any] = []
    while text:
        parsed = _first_json(text)
        if parsed is None:
            return None
        value, end = parsed
        values += value if isinstance(value, list) else [value]
        text = text[end:].lstrip(" \t\r\n;")
        if text and form != "llama3":
            return None
    return _calls(values, form)


def _read_mistral(text: str) -> list[Call] | None:
    if text.startswith("["):
        parsed = _first_json(text)
        good = parsed is not None and isinstance(parsed[0], list) and not text[parsed[1] :].strip()
        return _calls(parsed[0], "mistral") if parsed is not None and good else None
    values: list[Any] = []
    while text:
        begin = _NAME_AND_ARGS.match(text)
        parsed = _first_json(text[begin.end() :]) if begin else None
        if begin is None or parsed is None:
            return None
        values.append({"name": begin[1], "arguments": parsed[0]})
        text = text[begin.end() + parsed[1] :].strip().removeprefix(MISTRAL)
    return _calls(values, "mistral")


def _first_json(text: str) -> tuple[Any, int] | None:
    """The JSON value that a text begins with, and where it ends."""
    try:
        return json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None


def _calls(values: Sequence[Any], form: CallFormat) -> list[Call] | None:
    found = []
    for value in values:
        name = value.get("name") if isinstance(value, dict) else None
        arguments = value.get("arguments", value.get("parameters", {})) if name else None
        if isinstance(arguments, str):
            parsed = _first_json(arguments)
            arguments = parsed[0] if parsed is not None and not parsed[1] < len(arguments) else None
        good = isinstance(name, str) and _NAME.fullmatch(name)
        if not good or not isinstance(arguments, dict):
            return None
        text = whole_characters(json.dumps(arguments, ensure_ascii=False))
        found.append(Call(call_id(form), name, text))
    return found or None


def call_schema(functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A JSON schema of one call of any of these functions."""
    options = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in functions
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}
