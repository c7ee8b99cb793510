# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests and responses of `/v1/completions`."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from openllm.serve.openai.chat_schemas import UsageBody
from openllm.serve.openai.schemas import Prompts, Sampling


class CompletionRequest(Sampling):
    """Texts to continue."""

    model: str | None = Field(None, description="may be left out where only one is served")
    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="none: 16")
    n: int | None = Field(None, ge=1, le=128, description="continuations of each prompt")
    best_of: int | None = Field(
        None, ge=1, le=128, description="make so many and keep the n most likely per token"
    )
    echo: bool | None = Field(None, description="begin the answer with the prompt")
    logprobs: int | None = Field(
        None, ge=0, le=100, description="report log-probabilities, and so many alternatives"
    )
    suffix: None = Field(None, description="not offered")


class CompletionLogprobs(BaseModel):
    """Of the tokens of a text; none for the first token of all."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The continuations of all prompts: n of the first, then n of the second, and so on."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody
    system_fingerprint: str | None = None
