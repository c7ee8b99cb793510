# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Calls of tools: how a model's template writes them, and what a call must be."""

import secrets
import string
from collections.abc import Sequence
from typing import Any, Literal

CallFormat = Literal["hermes", "mistral", "llama3", "json"]
"""`hermes`: `<tool_call>{...}</tool_call>`, also Qwen's and ours; `mistral`: `[TOOL_CALLS]` and a
list, or a name and `[ARGS]`; `llama3`: the answer is `{"name": ..., "parameters": {...}}`;
`json`: the answer was constrained to be `{"name": ..., "arguments": {...}}`."""

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MISTRAL, ARGS = "[TOOL_CALLS]", "[ARGS]"
PYTHON_TAG = "<|python_tag|>"
MARKERS = (OPEN, CLOSE, MISTRAL, ARGS, PYTHON_TAG)

_LETTERS = string.ascii_letters + string.digits


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
