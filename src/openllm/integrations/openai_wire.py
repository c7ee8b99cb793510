# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our requests in OpenAI's format, and its answers in ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openllm.core.errors import ConfigError, RemoteError
from openllm.engine.request import (
    FinishReason,
    RemoteNews,
    SamplingParams,
    Structure,
    TokenLogprob,
    Update,
)

EXTRAS = {
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
    "stop_ids": "stop_token_ids",
    "ignore_eos": "ignore_eos",
}
"""Our params that are not in OpenAI's API -> vLLM's names; sent unless they have their defaults."""

Spelled = tuple[bytes, float]
"""Bytes of a token and its log-probability."""


def sampling_body(params: SamplingParams, *, chat: bool) -> dict[str, Any]:
    """The part of a request's body that says how to sample.

    Raises:
        ConfigError: a chat cannot ask for `best_of`.
    """
    body: dict[str, Any] = {
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "n": params.n,
        "seed": params.seed,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
    }
    if params.stop:
        body["stop"] = list(params.stop)
    if params.logit_bias:
        body["logit_bias"] = {str(index): bias for index, bias in params.logit_bias.items()}
    if params.logprobs is not None:
        wish = {"logprobs": True, "top_logprobs": params.logprobs}
        body |= wish if chat else {"logprobs": params.logprobs}
    if params.best_of is not None:
        if chat:
            raise ConfigError("another server's chat has no 'best_of'; leave it out")
        body["best_of"] = params.best_of
    defaults = SamplingParams()
    for ours, theirs in EXTRAS.items():
        value = getattr(params, ours)
        if value != getattr(defaults, ours):
            body[theirs] = list(value) if isinstance(value, tuple) else value
    return body | ({} if params.structure is None else _structure(params.structure))


def _structure(structure: Structure) -> dict[str, Any]:
    """What the text must be, in OpenAI's format where that can say it, else in vLLM's."""
    kind, value = structure.kind, structure.value
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind == "json_schema":
        schema = {"name": "answer", "schema": {} if value is True else value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    plain = list(value) if isinstance(value, tuple) else value
    # the older name, and the newer: servers ignore the one that they do not know
    return {f"guided_{kind}": plain, "structured_outputs": {kind: plain}}


@dataclass(frozen=True)
class Usage:
    """Tokens of a whole request; none if the server does not count."""

    prompt_tokens: int | None = None
    new_tokens: int | None = None
    cached_tokens: int = 0


class StreamReader:
    """Turns the chunks of one streamed answer into updates.

    The last update of each continuation is held back until the end of the stream, since the number
    of tokens comes after it.
    """

    def __init__(self, request_id: str, count: int, source: str) -> None:
        self._id, self._count, self._source = request_id, count, source
        self._ended: dict[int, FinishReason] = {}
        self._usage = Usage()

    def read(self, chunk: Any) -> list[Update]:
        """What a chunk brings.

        Raises:
            RemoteError: it has another format.
        """
        try:
            if chunk.get("usage"):
                self._usage = read_usage(chunk["usage"])
            return [update for choice in chunk["choices"] for update in self._choice(choice)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise not_understood(self._source, error) from None

    def finish(self) -> list[Update]:
        """The last updates.

        Raises:
            RemoteError: a continuation has not ended.
        """
        if self._ended.keys() != set(range(self._count)):
            raise RemoteError(f"{self._source} ended its answer too early; try again")
        last = [
            Update(self._id, index, finish_reason=reason, cached_tokens=self._usage.cached_tokens)
            for index, reason in sorted(self._ended.items())
        ]
        counts = RemoteNews((), "", self._usage.prompt_tokens, self._usage.new_tokens)
        last[-1] = replace(last[-1], remote=counts)
        return last

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Update]:
        index = int(choice.get("index", 0))
        if choice.get("finish_reason"):
            self._ended[index] = "length" if choice["finish_reason"] == "length" else "stop"
        delta = choice.get("delta")
        if delta is None:
            text, remote = choice.get("text") or "", None
        else:
            text, remote = delta.get("content") or "", _news(delta)
        logprobs = None
        if choice.get("logprobs"):
            read = completion_logprobs if delta is None else chat_logprobs
            logprobs = read(choice["logprobs"])
        if text or remote or logprobs:
            if not isinstance(text, str):
                raise TypeError("the text is not a string")
            yield Update(self._id, index, text, logprobs=logprobs, remote=remote)


def _news(delta: Mapping[str, Any]) -> RemoteNews | None:
    calls = delta.get("tool_calls") or ()
    for call in calls:
        function = call.get("function") or {}
        said = (call.get("id"), function.get("name"), function.get("arguments"))
        if not all(isinstance(one, str | None) for one in said):
            raise TypeError("a part of a call is not a string")
        int(call.get("index") or 0)
    reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
    if not isinstance(reasoning, str):
        raise TypeError("the reasoning is not a string")
    return RemoteNews(tuple(calls), reasoning) if calls or reasoning else None


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """Tokens of a request."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        int(details.get("cached_tokens") or 0),
    )


def chat_logprobs(logprobs: Mapping[str, Any]) -> list[TokenLogprob]:
    """Log-probabilities of a chat's answer."""
    return [
        spelled(_pair(one), [_pair(other) for other in one.get("top_logprobs") or ()])
        for one in logprobs.get("content") or ()
    ]


def completion_logprobs(logprobs: Mapping[str, Any]) -> list[TokenLogprob]:
    """Log-probabilities of a completion; those of a first token without any are left out."""
    tokens, values = logprobs["tokens"], logprobs["token_logprobs"]
    tops: Sequence[Any] = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        spelled(
            (token.encode("utf-8", "replace"), float(value)),
            [(name.encode("utf-8", "replace"), float(v)) for name, v in (top or {}).items()],
        )
        for token, value, top in zip(tokens, values, tops, strict=True)
        if value is not None
    ]


def spelled(
    chosen: Spelled, others: Sequence[Spelled], token_id: int | None = None
) -> TokenLogprob:
    """A token and its alternatives, of which only spellings are known; `token_id` if it is, too."""
    own = -1 if token_id is None else token_id
    spellings, top = {own: chosen[0]}, {}
    for number, (name, value) in enumerate(others, 2):
        index = own if name == chosen[0] else -number
        spellings[index], top[index] = name, value
    return TokenLogprob(own, chosen[1], top, spellings)


def _pair(entry: Mapping[str, Any]) -> Spelled:
    given = entry.get("bytes")
    name = entry["token"].encode("utf-8", "replace") if given is None else bytes(given)
    return name, float(entry["logprob"])


def not_understood(source: str, error: Exception) -> RemoteError:
    """The error for an answer that is JSON, but not what OpenAI's API answers."""
    return RemoteError(
        f"{source} answers in another format than OpenAI's API ({type(error).__name__}: {error}); "
        "check the address"
    )
