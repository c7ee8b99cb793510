# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests and responses of `/v1/chat/completions`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from openllm.serve.openai.body import Body
from openllm.serve.openai.generation import RESERVED
from openllm.serve.openai.schemas import Count, JSONSchemaFormat, Sampling

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError("this name is a field of the request")
    return name


Variable = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"not": {"enum": list(RESERVED)}}),
    AfterValidator(_not_reserved),
]


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = Field(
        None, description="no effect: all prefixes are reused"
    )


Content = str | Annotated[list[TextPart], Field(min_length=1)]


class SystemMessage(Body):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Body):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(Body):
    """Which function is called; `arguments` is JSON."""

    name: FunctionName
    arguments: str


class ToolCall(Body):
    """A call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(Body):
    """An answer of the model, as the server sent it."""

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class ToolMessage(Body):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function."""

    name: FunctionName


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JSONObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JSONSchemaResponse(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchemaFormat


ResponseFormat = Annotated[
    TextFormat | JSONObjectFormat | JSONSchemaResponse, Field(discriminator="type")
]


class ChatRequest(Sampling):
    """A conversation to answer."""

    model: str | None = Field(None, description="may be left out where only one is served")
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Count | None = Field(None, description="older name of max_completion_tokens")
    max_completion_tokens: Count | None = Field(None, description="none: all there is room for")
    n: int | None = Field(None, ge=1, le=128, description="number of answers")
    logprobs: bool | None = Field(None, description="report log-probabilities of the answer")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="and of so many others in the place of each token"
    )
    response_format: ResponseFormat | None = Field(None, description="what the text must be")
    tools: Annotated[list[Tool], Field(max_length=128)] | None = Field(
        None, description="what the model may call"
    )
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(
        None, description="with 'required' or a name, the answer is one call of a tool"
    )
    parallel_tool_calls: bool | None = Field(
        None, description="false: at most one call is reported"
    )
    reasoning_effort: str | None = Field(None, description="for templates that know it")
    chat_template_kwargs: dict[Variable, Any] | None = Field(
        None, description="variables of the chat template, such as enable_thinking"
    )
    store: bool | None = Field(None, description="no effect: nothing is stored")
    metadata: dict[str, str] | None = Field(None, description="no effect")
    service_tier: str | None = Field(None, description="no effect")
    prompt_cache_key: str | None = Field(None, description="no effect: all prefixes are reused")
    prompt_cache_options: dict[str, Any] | None = Field(None, description="no effect")
    prompt_cache_retention: str | None = Field(None, description="no effect")
    prediction: dict[str, Any] | None = Field(None, description="no effect: a hint for speed")
    safety_identifier: str | None = Field(None, description="no effect")
    modalities: list[Literal["text"]] | None = Field(None, description="answers are text")
    audio: None = Field(None, description="not offered")
    functions: None = Field(None, description="not offered: use tools")
    function_call: None = Field(None, description="not offered: use tool_choice")
    moderation: None = Field(None, description="not offered")
    web_search_options: None = Field(None, description="not offered")
    verbosity: str | None = Field(None, description="no effect")


class ChatAnswer(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class TopLogprob(BaseModel):
    """A token and its natural log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TopLogprob):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Of the tokens of an answer."""

    content: list[TokenLogprobs]


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class CachedTokens(BaseModel):
    """Tokens of the prompts that did not have to be computed."""

    cached_tokens: int


class OutputTokens(BaseModel):
    """Tokens of the answers that are reasoning."""

    reasoning_tokens: int


class UsageBody(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: OutputTokens


class ChatCompletion(BaseModel):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody
    system_fingerprint: str | None = None
