# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What all requests for text share: how tokens are chosen, and what the text must be."""

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from openllm.engine.request import Prompt, SamplingParams, Structure
from openllm.serve.errors import ApiError
from openllm.serve.openai.body import Body

Count = Annotated[int, Field(ge=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1)]
TokenIdText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[
    dict[TokenIdText, Bias], Field(json_schema_extra={"additionalProperties": False})
]

MAX_TEXTS = 2048
"""Most texts in one request."""

TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompts = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_TEXTS)]
)
"""One text or several, as text or as token ids."""

SMALLEST_TOP_P = 1e-9


def as_list(prompts: str | list[str] | list[int] | list[list[int]]) -> list[Prompt]:
    """The texts of a request one by one."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts[0], int):
        return [[index for index in prompts if isinstance(index, int)]]
    return [one for one in prompts if not isinstance(one, int)]


class StreamOptions(Body):
    """How a stream is written."""

    include_usage: bool | None = Field(None, description="send the usage in a last chunk")
    include_obfuscation: bool | None = Field(None, description="no effect: nothing is padded")


class StructuredOutputs(Body):
    """What the text must be: one of these (as vLLM has it)."""

    json_: dict[str, Any] | str | None = Field(None, alias="json", description="a JSON schema")
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = Field(None, description="in the syntax of Lark")
    json_object: bool | None = None


class JSONSchemaFormat(Body):
    """A named JSON schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="no effect: the schema always holds")


class Sampling(Body):
    """How tokens are chosen; the defaults sample from the unmodified model."""

    temperature: float | None = Field(None, ge=0, le=2, description="0: the most likely token")
    top_p: float | None = Field(
        None, ge=0, le=1, description="keep the most likely tokens of total probability p"
    )
    top_k: int | None = Field(
        None, ge=-1, description="keep the k most likely tokens; 0 and -1: all"
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="drop tokens below p times the top probability"
    )
    typical_p: float | None = Field(None, gt=0, le=1, description="arXiv:2202.00666")
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="above 1: avoid tokens used before"
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="subtracted from the logits of generated tokens"
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="subtracted once per occurrence"
    )
    logit_bias: Biases | None = Field(None, description="token id -> bias")
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = Field(
        None, description="end before any of these"
    )
    stop_token_ids: list[TokenId] | None = Field(None, description="end before any of these")
    ignore_eos: bool | None = Field(None, description="go on after an end token")
    min_tokens: int | None = Field(None, ge=0, description="no end before so many tokens")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="none: a random one")
    stream: bool | None = Field(None, description="send the answer as it is made")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="no effect")
    guided_json: dict[str, Any] | str | None = Field(None, description="a JSON schema")
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1)] | None = None
    guided_grammar: str | None = Field(None, description="in the syntax of Lark")
    structured_outputs: StructuredOutputs | None = None

    def params(
        self,
        max_new_tokens: int,
        *,
        n: int = 1,
        structure: Structure | None = None,
        logprobs: int | None = None,
        best_of: int | None = None,
    ) -> SamplingParams:
        """The engine's settings, from what is given.

        Raises:
            ApiError: settings exclude each other.
        """
        if best_of is not None and best_of < n:
            raise ApiError(f"'best_of' must be at least n={n}", param="best_of")
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**63
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        given = {
            "temperature": self.temperature,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "top_p": None if self.top_p is None else max(self.top_p, SMALLEST_TOP_P),
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "ignore_eos": self.ignore_eos,
            "min_new_tokens": self.min_tokens,
            "best_of": best_of,
            "logprobs": logprobs,
            "structure": structure,
        }
        return SamplingParams(
            max_new_tokens=max_new_tokens,
            n=n,
            seed=seed,
            stop=stop,
            stop_ids=tuple(self.stop_token_ids or ()),
            logit_bias={int(key): value for key, value in (self.logit_bias or {}).items()},
            **{name: value for name, value in given.items() if value is not None},
        )

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def structures(self) -> list[Structure]:
        """All that the text must be; more than one cannot be had."""
        more = self.structured_outputs or StructuredOutputs()
        found = [
            _json_structure(schema)
            for schema in (self.guided_json, more.json_)
            if schema is not None
        ]
        for kind, values in {
            "regex": (self.guided_regex, more.regex),
            "grammar": (self.guided_grammar, more.grammar),
        }.items():
            found += [Structure(kind=kind, value=value) for value in values if value is not None]
        found += [
            Structure(kind="choice", value=tuple(value))
            for value in (self.guided_choice, more.choice)
            if value is not None
        ]
        return [*found, Structure(kind="json_object")] if more.json_object else found


def only(structures: Sequence[Structure]) -> Structure | None:
    """The one structure, or none. Clients may give it by its older and its newer name.

    Raises:
        ApiError: there are several.
    """
    if any(one != structures[0] for one in structures):
        raise ApiError("the text can have one structure only; give one of them")
    return structures[0] if structures else None


def _json_structure(schema: dict[str, Any] | str) -> Structure:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:
            raise ApiError("'guided_json' is not valid JSON", param="guided_json") from None
        if not isinstance(schema, dict):
            raise ApiError("'guided_json' must be a JSON schema", param="guided_json")
    return Structure(kind="json_schema", value=schema)
