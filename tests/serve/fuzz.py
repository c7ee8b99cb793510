# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Hooks for schemathesis: what valid requests to the echo model must keep that no schema can say.

Schemathesis loads this as a module: `SCHEMATHESIS_HOOKS=tests.serve.fuzz schemathesis run URL`.
"""

from typing import Any

import schemathesis

STRUCTURES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Mend a case that is meant to be valid; one that is meant to be wrong stays as it is."""
    generation = getattr(case.meta, "generation", None)
    positive = generation is not None and generation.mode.value == "positive"
    if positive and isinstance(case.body, dict):
        mend(case.body)
    if "model" in (case.path_parameters or {}) and positive:
        case.path_parameters["model"] = "echo"


def mend(body: dict[str, Any]) -> None:
    """Change a body so that it keeps the rules between its fields, and those of the model."""
    body["model"] = "echo"
    for name in ("prompt", "input"):
        if name in body:
            body[name] = _mended_prompt(body[name])
    only_one_structure(body)
    if isinstance(body.get("best_of"), int | float):
        body["best_of"] = max(body["best_of"], body.get("n") or 1)
    if isinstance(body.get("dimensions"), int | float):
        body["dimensions"] = min(body["dimensions"], 8)
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    if choice == "required" and not tools:
        body["tool_choice"] = None
    if isinstance(choice, dict):
        names = [tool.get("function", tool)["name"] for tool in tools]
        if choice.get("function", choice)["name"] not in names:
            body["tool_choice"] = None


def only_one_structure(body: dict[str, Any]) -> None:
    """Leave one wish of what the text must be."""
    for name in STRUCTURES:
        if name in body:
            body[name] = None
    if body.get("structured_outputs"):
        body["structured_outputs"] = {"json_object": True}
    taken = bool(body.get("structured_outputs"))
    for name in ("response_format", "text"):
        if body.get(name):
            body[name] = None if taken else body[name]
            taken = taken or body.get(name) is not None
    if taken and body.get("tool_choice") not in (None, "none", "auto"):
        body["tool_choice"] = "auto"


def _mended_prompt(prompt: Any) -> Any:
    """A prompt that is not empty, of tokens that the model has."""
    if isinstance(prompt, str):
        return prompt or "a"
    if isinstance(prompt, int | float):
        return int(prompt) % 256
    if isinstance(prompt, list):
        return [_mended_prompt(one) for one in prompt]
    return prompt
