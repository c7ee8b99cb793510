# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests and responses of `/v1/responses`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from openllm.serve.openai.body import Body
from openllm.serve.openai.chat_schemas import FunctionName, JSONObjectFormat, TextFormat
from openllm.serve.openai.schemas import Count, JSONSchemaFormat, Sampling


def _off(value: bool) -> bool:
    if value:
        raise ValueError("not offered")
    return value


Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "enum": [False]})]
"""A switch that can only be off; a literal would take 0 as well."""


class InputText(Body):
    """A part of a message."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Parts = str | Annotated[list[InputText], Field(min_length=1)]


class InputMessage(Body):
    """A turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class InputCall(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: FunctionName
    arguments: str
    id: str | None = None
    status: str | None = None


class InputResult(Body):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Parts
    id: str | None = None
    status: str | None = None


class ReasoningText(Body):
    """A part of the reasoning."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class InputReasoning(Body):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[ReasoningText] = Field([])
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: str | None = None


InputItem = InputMessage | InputCall | InputResult | InputReasoning


class FlatFunction(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: FunctionName


class FlatSchema(JSONSchemaFormat):
    """JSON of a schema."""

    type: Literal["json_schema"]


class TextSettings(Body):
    """What the text must be."""

    format: (
        Annotated[TextFormat | JSONObjectFormat | FlatSchema, Field(discriminator="type")] | None
    ) = None
    verbosity: str | None = Field(None, description="no effect")


class ReasoningSettings(Body):
    """How much the model thinks, if its template knows that."""

    effort: str | None = None
    summary: str | None = Field(None, description="no effect")
    generate_summary: str | None = Field(None, description="no effect")


class ResponsesRequest(Sampling):
    """A conversation to answer. Nothing is stored: each request holds the whole conversation."""

    model: str | None = Field(None, description="may be left out where only one is served")
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = Field(None, description="a system message before all others")
    max_output_tokens: Count | None = Field(None, description="none: all there is room for")
    text: TextSettings | None = None
    tools: Annotated[list[FlatFunction], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningSettings | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[str] | None = Field(
        None, description="'message.output_text.logprobs'; others have no effect"
    )
    background: Off | None = Field(None, description="not offered")
    previous_response_id: None = Field(None, description="not offered")
    conversation: None = Field(None, description="not offered")
    truncation: Literal["disabled"] | None = Field(None, description="too long is an error")
    store: bool | None = Field(None, description="no effect: nothing is stored")
    metadata: dict[str, str] | None = None
    service_tier: str | None = Field(None, description="no effect")
    prompt_cache_key: str | None = Field(None, description="no effect: all prefixes are reused")
    prompt_cache_options: dict[str, Any] | None = Field(None, description="no effect")
    prompt_cache_retention: str | None = Field(None, description="no effect")
    safety_identifier: str | None = Field(None, description="no effect")
    max_tool_calls: int | None = Field(None, description="no effect: all tools are the client's")
    access_programs: None = Field(None, description="not offered")
    background_options: None = Field(None, description="not offered")
    context_management: None = Field(None, description="not offered")
    image: None = Field(None, description="not offered")
    moderation: None = Field(None, description="not offered")
    prompt: None = Field(None, description="not offered")


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(BaseModel):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class OutputCall(BaseModel):
    """A call that the model wants."""

    id: str
    type: Literal["function_call"]
    status: Literal["in_progress", "completed", "incomplete"]
    call_id: str
    name: str
    arguments: str


class OutputReasoning(BaseModel):
    """What the model thought."""

    id: str
    type: Literal["reasoning"]
    status: Literal["in_progress", "completed", "incomplete"]
    summary: list[Any]
    content: list[ReasoningText]


class InputDetails(BaseModel):
    """Tokens of the prompt that did not have to be computed."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Tokens of the answer that are reasoning."""

    reasoning_tokens: int


class ResponsesUsage(BaseModel):
    """Tokens of a request."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(BaseModel):
    """Why an answer ends early."""

    reason: Literal["max_output_tokens"]


class ResponseBody(BaseModel):
    """The answer to a conversation, and the settings that it was made with."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[OutputReasoning | OutputMessage | OutputCall]
    usage: ResponsesUsage | None
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float
    truncation: Literal["disabled"]
    metadata: dict[str, str]
