# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests to an engine and their results. Importable without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from openllm.core.config import Config

Prompt = str | Sequence[int]
"""Text, or token ids as they are."""

FinishReason = Literal["stop", "length", "abort", "error"]
"""`stop`: end token, stop string or complete structure; `length`: no room; `abort`: cancelled."""

NO_TOKENS: tuple[int, ...] = ()


class Structure(Config):
    """What the new text must be.

    `value` is a JSON schema, a regular expression, a grammar in Lark's syntax, or a list of texts
    of which one is to be chosen; none for `json_object`, any JSON object.
    """

    kind: Literal["json_schema", "json_object", "regex", "grammar", "choice"]
    value: dict[str, Any] | str | tuple[str, ...] | bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = {
            "json_schema": (dict, bool),
            "json_object": type(None),
            "regex": str,
            "grammar": str,
            "choice": tuple,
        }
        if not isinstance(self.value, kinds[self.kind]) or self.value == ():
            raise ValueError(f"a structure of kind '{self.kind}' cannot have this value")
        return self


class SamplingParams(Config):
    """How the next token is chosen; the defaults sample from the unmodified model."""

    max_new_tokens: int = Field(128, ge=1)
    min_new_tokens: int = Field(0, ge=0, description="no end of the text before so many tokens")
    temperature: float = Field(1.0, ge=0, description="0: always the most likely token")
    top_k: int = Field(0, ge=0, description="keep the k most likely tokens; 0: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="keep the most likely tokens of total probability p"
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="drop tokens below p times the top probability"
    )
    typical_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="keep tokens of typical information, of total probability p (arXiv:2202.00666)",
    )
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: avoid tokens used before")
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="subtracted from the logits of generated tokens"
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="subtracted once per occurrence among generated tokens"
    )
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] = Field(
        {}, description="added to the logits of tokens"
    )
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="stop before any of these strings"
    )
    stop_ids: tuple[int, ...] = Field((), description="stop before any of these tokens")
    ignore_eos: bool = Field(False, description="go on after an end token")
    n: int = Field(1, ge=1, le=128, description="number of continuations")
    best_of: int | None = Field(
        None, ge=1, le=128, description="make so many and keep the n most likely per token"
    )
    logprobs: int | None = Field(
        None, ge=0, le=100, description="report log-probabilities, and so many alternatives"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    structure: Structure | None = Field(None, description="what the new text must be")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of={self.best_of} must be at least n={self.n}")
        return self

    @property
    def samples(self) -> int:
        """Number of continuations that are made."""
        return self.best_of or self.n


@dataclass(frozen=True)
class Request:
    """One prompt and what is wanted for it.

    Attributes:
        id: unique among the requests in the engine.
        prompt: token ids.
        params: for `generate`.
        kind: `score`: log-probabilities of the prompt's tokens; `embed`: a vector of the prompt.
        adapter: name of a loaded adapter; none: the model alone.
        top: number of alternatives that `score` reports for each token.
    """

    id: str
    prompt: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    kind: Literal["generate", "score", "embed"] = "generate"
    adapter: str | None = None
    top: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log-probability of a token under the unmodified model, and the likeliest others.

    `spellings` is none unless another server computed it, whose vocabulary is unknown: then ids are
    negative numbers that mean nothing but the bytes that it maps them to.
    """

    token_id: int
    logprob: float
    top: Mapping[int, float] = field(default_factory=dict)
    spellings: Mapping[int, bytes] | None = None


@dataclass(frozen=True)
class RemoteNews:
    """What another server says besides text.

    Attributes:
        tool_calls: pieces of calls that it found in the text, as OpenAI streams them: `index`, and
            at first `id`, `type` and `function.name`; then pieces of `function.arguments`.
        reasoning: a piece of what it thinks before it answers.
        prompt_tokens, new_tokens: tokens of the whole request, with its last update, if it counts.
    """

    tool_calls: Sequence[Mapping[str, Any]] = ()
    reasoning: str = ""
    prompt_tokens: int | None = None
    new_tokens: int | None = None


@dataclass(frozen=True)
class Update:
    """News of one continuation of a request; the last one has a `finish_reason`.

    Attributes:
        id: of the request.
        index: which of its continuations.
        text: what the new tokens add to the text; a part of a character or of a stop string is
            held back until it is decided.
        token_ids: new tokens, without one that ended the text.
        logprobs: one for each new token, if asked for; for `score`, one for each token of the
            prompt after the first.
        finish_reason: none while it goes on.
        error: why it failed, if `finish_reason` is "error".
        cached_tokens: tokens of the prompt that did not have to be computed.
        vector: for `embed`, of length 1.
        remote: from another server, which need not tell token ids.
    """

    id: str
    index: int = 0
    text: str = ""
    token_ids: Sequence[int] = NO_TOKENS
    logprobs: Sequence[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    error: str | None = None
    cached_tokens: int = 0
    vector: Sequence[float] | None = None
    remote: RemoteNews | None = None


@dataclass(frozen=True)
class Completion:
    """The continuation of one prompt.

    Attributes:
        text: decoded new tokens, without a stop string.
        token_ids: the new tokens, without the token that ended it.
        prompt_token_ids: the prompt, with bos if the model has it.
        finish_reason: `stop` (end-of-text token, stop string, complete structure) or `length`.
        logprobs: of the new tokens, if asked for.
        cached_tokens: tokens of the prompt that did not have to be computed.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None
    cached_tokens: int = field(default=0, compare=False)
