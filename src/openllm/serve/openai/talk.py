# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A conversation that is being answered, whichever endpoint it came to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openllm.engine.backend import Backend
from openllm.engine.request import SamplingParams, Structure, TokenLogprob, Update
from openllm.serve.errors import ApiError
from openllm.serve.openai.answers import (
    END_THINK,
    THINK,
    AnswerParser,
    RemoteParser,
    begins_thinking,
)
from openllm.serve.openai.batching import joined
from openllm.serve.openai.body import too_deep
from openllm.serve.openai.calls import CallPiece
from openllm.serve.openai.chat_schemas import (
    ChatMessage,
    ChatRequest,
    Content,
    JSONObjectFormat,
    JSONSchemaResponse,
    NamedTool,
    ToolCall,
)
from openllm.serve.openai.generation import Run, Usage, run_chat
from openllm.serve.openai.schemas import only
from openllm.serve.openai.spelling import Spelling, chat_logprob, spelling_of
from openllm.serve.openai.tools import MARKERS, CallFormat, call_format, call_schema
from openllm.serve.service import Choice

TAIL = 16
"""Tokens at the end of a prompt that are looked at for `<think>`."""


@dataclass
class Call:
    """A call that a model wants; `arguments` is JSON, unless the model erred or was cut off."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def body(self) -> dict[str, Any]:
        """As chats report it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class Answer:
    """One answer while it is made."""

    def __init__(
        self, form: CallFormat | None, thinking: bool, one_call: bool, spelling: Spelling | None
    ) -> None:
        self._parser = AnswerParser(form, thinking=thinking)
        self._spelling, self._one_call = spelling, one_call
        markers = (THINK, END_THINK, *(MARKERS if form else ()))
        self._markers = spelling.ids_of(markers) if spelling else frozenset()
        self._remote = RemoteParser()
        self._begun = False
        self.reasoning: list[str] = []
        self.content: list[str] = []
        self.calls: list[Call] = []
        self.logprobs: list[TokenLogprob] | None = None
        self.finish_reason: str | None = None

    def take(self, update: Update) -> dict[str, Any]:
        """Add what is new; returns it as the `delta` of a chunk."""
        text = self._spelling.marked(update, self._markers) if self._spelling else update.text
        found = [self._parser.feed(text)]
        if update.remote is not None:
            found.append(self._remote.feed(update.remote))
        if update.finish_reason is not None:
            found.append(self._parser.finish())
        delta: dict[str, Any] = {} if self._begun else {"role": "assistant", "content": ""}
        self._begun = True
        reasoning = "".join(part.reasoning for part in found)
        content = "".join(part.content for part in found)
        if reasoning:
            self.reasoning.append(reasoning)
            delta["reasoning_content"] = reasoning
        if content:
            self.content.append(content)
            delta["content"] = content
        if calls := self._take_calls([piece for part in found for piece in part.calls]):
            delta["tool_calls"] = calls
        if update.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *update.logprobs]
        if update.finish_reason is not None:
            reason = "length" if update.finish_reason == "length" else "stop"
            self.finish_reason = "tool_calls" if self.calls and reason == "stop" else reason
        return delta

    def _take_calls(self, pieces: Sequence[CallPiece]) -> list[dict[str, Any]]:
        """Add to the calls; returns what is new of each: at first its id, type and name."""
        news: dict[int, dict[str, Any]] = {}
        for piece in pieces:
            if self._one_call and piece.index > 0:
                continue
            if piece.index == len(self.calls):
                self.calls.append(Call(piece.id))
                news[piece.index] = {"index": piece.index, "id": piece.id, "type": "function"}
            call = self.calls[piece.index]
            call.name += piece.name
            call.arguments += piece.arguments
            new = news.setdefault(piece.index, {"index": piece.index})
            function = new.setdefault("function", {"arguments": ""})
            function["arguments"] += piece.arguments
            if piece.name:
                function["name"] = piece.name
        return list(news.values())

    def body(self, index: int) -> dict[str, Any]:
        """The whole answer."""
        content, reasoning = "".join(self.content), "".join(self.reasoning)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content if content or not self.calls else None,
            "refusal": None,
        }
        if reasoning:
            message["reasoning_content"] = reasoning
        if self.calls:
            message["tool_calls"] = [call.body() for call in self.calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self.show(self.logprobs),
            "finish_reason": self.finish_reason,
        }

    def reasoning_tokens(self) -> int:
        """Tokens of the reasoning's text."""
        text = "".join(self.reasoning)
        return self._spelling.count(text) if text and self._spelling else 0

    def show(self, logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
        """Log-probabilities as they are reported."""
        if logprobs is None:
            return None
        return {"content": [chat_logprob(one, self._spelling) for one in logprobs]}


@dataclass
class Talk:
    """A conversation that is being answered."""

    run: Run
    answers: list[Answer]
    usage: Usage

    def take(self, update: Update) -> dict[str, Any]:
        """Add what is new to its answer; returns the `delta`."""
        self.usage.take(update)
        self.usage.cached_tokens = max(self.usage.cached_tokens, update.cached_tokens)
        one = self.answers[update.index]
        delta = one.take(update)
        if update.finish_reason is not None:
            self.usage.reasoning_tokens += one.reasoning_tokens()
        return delta

    def chunks(self, updates: Sequence[Update]) -> list[bytes]:
        """The choices of a stream for what is new, one for each answer that has news."""
        by_index: dict[int, list[Update]] = {}
        for update in updates:
            by_index.setdefault(update.index, []).append(update)
        found = []
        for index, news in by_index.items():
            update = joined(news)
            delta = self.take(update)
            one = self.answers[index]
            if not delta and not update.finish_reason and not update.logprobs:
                continue
            shown = json.dumps(one.show(update.logprobs)) if update.logprobs else "null"
            reason = f'"{one.finish_reason}"' if one.finish_reason else "null"
            found.append(
                f'{{"index":{index},"delta":{_delta_json(delta)},"logprobs":{shown},'
                f'"finish_reason":{reason}}}'.encode()
            )
        return found


def _delta_json(delta: dict[str, Any]) -> str:
    """A delta as JSON; nearly all are a piece of text only, which is several times as fast so."""
    if len(delta) == 1 and "content" in delta:
        return f'{{"content":{json.dumps(delta["content"])}}}'
    return json.dumps(delta)


async def begin(backend: Backend, choice: Choice, body: ChatRequest) -> Talk:
    """Start to answer.

    Raises:
        ApiError: the request cannot be met, or is too long.
        TemplateError, ConfigError, EngineError, RemoteError: as in `Backend.chat`.
    """
    form, structure, tools = _plan(backend, body)
    logprobs = _logprobs(body)

    def make_params(limit: int) -> SamplingParams:
        return body.params(limit, n=body.n or 1, structure=structure, logprobs=logprobs)

    if (backend.tokenizer is None or backend.template is None) and form != "json":
        form = None  # another server finds the calls itself
    run = await run_chat(
        backend,
        [template_message(message) for message in body.messages],
        make_params,
        body.max_completion_tokens or body.max_tokens,
        tools=tools,
        adapter=choice.adapter,
        variables=_variables(body),
    )
    spelling = spelling_of(backend.tokenizer) if backend.tokenizer is not None else None
    ids = run.prompt_ids or []
    thinking = bool(spelling) and begins_thinking(spelling.text(ids[-TAIL:]))
    one_call = body.parallel_tool_calls is False
    answers = [Answer(form, thinking, one_call, spelling) for _ in range(run.params.n)]
    return Talk(run, answers, Usage(prompt_tokens=len(ids)))


def _plan(
    backend: Backend, body: ChatRequest
) -> tuple[CallFormat | None, Structure | None, list[Any] | None]:
    """How calls are read, what the text must be, and the tools that the template is told of."""
    structures = body.structures()
    if isinstance(body.response_format, JSONObjectFormat):
        structures.append(Structure(kind="json_object"))
    if isinstance(body.response_format, JSONSchemaResponse):
        schema = body.response_format.json_schema.schema_
        structures.append(Structure(kind="json_schema", value=schema or {}))
    wish = body.tool_choice
    if not body.tools or wish == "none":
        if wish not in (None, "none", "auto"):
            raise ApiError("'tool_choice' needs 'tools'", param="tool_choice")
        return None, only(structures), None
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    source = backend.template.source if backend.template is not None else None
    form = call_format(source) if source is not None else "hermes"
    if form is None:
        raise ApiError(
            f"the chat template of '{backend.info.name}' does not know tools; leave 'tools' out, "
            "or use a model that was trained with them",
            param="tools",
            code="unsupported_field",
        )
    functions = [tool["function"] for tool in tools]
    if isinstance(wish, NamedTool):
        functions = [one for one in functions if one["name"] == wish.function.name]
        if not functions:
            raise ApiError("'tool_choice' names no function of 'tools'", param="tool_choice")
    elif wish != "required":
        return form, only(structures), tools
    structures.append(Structure(kind="json_schema", value=call_schema(functions)))
    return "json", only(structures), tools


def _logprobs(body: ChatRequest) -> int | None:
    """How many alternatives are reported for each token; none: no log-probabilities at all."""
    if body.logprobs is False or (body.logprobs is None and body.top_logprobs is None):
        return None
    return body.top_logprobs or 0


def _variables(body: ChatRequest) -> Mapping[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        given.setdefault("reasoning_effort", body.reasoning_effort)
    return given


def template_message(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates expect it: text, and arguments as values."""
    made: dict[str, Any] = {"role": message.role, "content": text_of(message.content)}
    if message.role == "developer":  # the newer name; templates know the older one
        made["role"] = "system"
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name, None)) is not None:
            made[name] = value
    calls: list[ToolCall] | None = getattr(message, "tool_calls", None)
    if calls:
        made["tool_calls"] = [_template_call(call) for call in calls]
    return made


def text_of(content: Content | None) -> str:
    """The text of a message; each part begins a line."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _template_call(call: ToolCall) -> dict[str, Any]:
    """A call with its arguments as values, or as text if templates cannot take them as JSON."""
    try:
        arguments = json.loads(call.function.arguments)
        if too_deep(arguments):
            arguments = call.function.arguments
    except (ValueError, RecursionError):
        arguments = call.function.arguments
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
