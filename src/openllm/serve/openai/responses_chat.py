# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A request to `/v1/responses` as one to `/v1/chat/completions`."""

from collections.abc import Sequence
from typing import Any

from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.responses_schemas import (
    InputCall,
    InputItem,
    InputMessage,
    InputReasoning,
    InputResult,
    InputText,
    ReasoningText,
    ResponsesRequest,
)
from openllm.serve.openai.schemas import Sampling

LOGPROBS = "message.output_text.logprobs"


def as_chat(body: ResponsesRequest) -> ChatRequest:
    """The same conversation and wishes.

    Raises:
        ApiError: they are no conversation.
    """
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else None
    messages = items or _messages(body.input if not isinstance(body.input, str) else [])
    if body.instructions is not None:
        messages.insert(0, {"role": "system", "content": body.instructions})
    shared = {name: getattr(body, name) for name in Sampling.model_fields}
    wanted = LOGPROBS in (body.include or ())
    values = {
        **{name: value for name, value in shared.items() if value is not None},
        "model": body.model,
        "messages": messages,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": True if wanted else None,
        "top_logprobs": body.top_logprobs,
        "response_format": _response_format(body),
        "tools": [_tool(tool.model_dump(exclude_none=True)) for tool in body.tools or ()] or None,
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
    }
    return ChatRequest.parse(values)


def _messages(items: Sequence[InputItem]) -> list[dict[str, Any]]:
    """Messages; an assistant's reasoning, text and calls, which stand apart, become one."""
    messages: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, InputResult):
            content = _text(item.output)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
            continue
        if isinstance(item, InputMessage) and item.role != "assistant":
            messages.append({"role": item.role, "content": _text(item.content)})
            continue
        if not messages or messages[-1]["role"] != "assistant" or _begins(item, messages[-1]):
            messages.append({"role": "assistant"})
        turn = messages[-1]
        if isinstance(item, InputReasoning):
            turn["reasoning_content"] = _text(item.content or item.summary)
        elif isinstance(item, InputCall):
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            turn.setdefault("tool_calls", []).append(call)
        else:
            turn["content"] = _text(item.content)
    return messages


def _begins(item: InputItem, turn: dict[str, Any]) -> bool:
    """Whether an item cannot belong to the assistant's turn before it."""
    if isinstance(item, InputCall):
        return False
    return "content" in turn or "tool_calls" in turn or isinstance(item, InputReasoning)


def _text(content: str | Sequence[InputText] | Sequence[ReasoningText]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _response_format(body: ResponsesRequest) -> dict[str, Any] | None:
    if body.text is None or body.text.format is None:
        return None
    given = body.text.format.model_dump(by_alias=True, exclude_none=True)
    kind = given.pop("type")
    return {"type": kind, "json_schema": given} if kind == "json_schema" else {"type": kind}


def _tool(given: dict[str, Any]) -> dict[str, Any]:
    return {"type": given.pop("type"), "function": given}


def _tool_choice(body: ResponsesRequest) -> str | dict[str, Any] | None:
    wish = body.tool_choice
    return wish if wish is None or isinstance(wish, str) else _tool(wish.model_dump())
