# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The text side of one continuation: tokens in, text out, and when it ends. Without torch."""

from collections.abc import Collection

from openllm.engine.request import FinishReason, SamplingParams, TokenLogprob, Update
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import Tokenizer


class Output:
    """Takes the tokens of one continuation, ends it, and tells what is new.

    The texts of all updates, joined, are `text` once it has ended, however often `news` is called.

    Attributes:
        tokens: all tokens, without one that ended the text.
        text: all text, without a stop string.
        logprobs: one for each of `tokens`, if the params ask for them.
        finish_reason: none while it goes on.
        ends: tokens that end the text; they must not be chosen before `min_new_tokens`.
    """

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, end_ids: Collection[int], limit: int
    ) -> None:
        """Begin a continuation.

        Args:
            tokenizer: gives tokens their bytes.
            params: stop strings and ids, limits, and whether log-probabilities are wanted.
            end_ids: ends of a text by the model; unused with `ignore_eos`.
            limit: most tokens that there is room for, at least one.
        """
        self.tokens: list[int] = []
        self.text = ""
        self.logprobs: list[TokenLogprob] | None = None if params.logprobs is None else []
        self.finish_reason: FinishReason | None = None
        self.ends = frozenset(params.stop_ids) | frozenset(() if params.ignore_eos else end_ids)
        self._limit = min(limit, params.max_new_tokens)
        self._least = params.min_new_tokens
        self._decoder = StreamDecoder(tokenizer)
        self._finders = [_StopFinder(stop) for stop in dict.fromkeys(params.stop)]
        self._total, self._counted = 0.0, 0
        self._sent_text = self._sent_tokens = 0

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens given with one, that which ended the text included."""
        return self._total / self._counted if self._counted else 0.0

    def take(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Append a token, or end; `logprob` is needed if the params ask for it."""
        assert self.finish_reason is None, "the text has ended"
        if logprob is not None:
            self._total += logprob.logprob
            self._counted += 1
        enough = len(self.tokens) >= self._least
        if enough and token in self.ends:
            self.end("stop")
            return
        self.tokens.append(token)
        if self.logprobs is not None:
            assert logprob is not None, "the params ask for log-probabilities"
            self.logprobs.append(logprob)
        self._append(self._decoder.feed(token))
        if self.finish_reason is None and len(self.tokens) >= self._limit:
            self.end("length")

    def end(self, reason: FinishReason) -> None:
        """End the text here; what was held back becomes a part of it."""
        rest = self._decoder.finish()
        self.finish_reason = reason
        if rest:
            self._append(rest)

    def news(self, request_id: str, index: int = 0, *, cached_tokens: int = 0) -> Update:
        """What was not returned yet, without a possible start of a stop string."""
        upto = len(self.text)
        if self.finish_reason is None and self._finders:
            upto -= max(finder.matched for finder in self._finders)
        text, tokens = self.text[self._sent_text : upto], self.tokens[self._sent_tokens :]
        logprobs = None if self.logprobs is None else self.logprobs[self._sent_tokens :]
        self._sent_text, self._sent_tokens = max(self._sent_text, upto), len(self.tokens)
        return Update(
            request_id,
            index,
            text,
            tokens,
            logprobs,
            finish_reason=self.finish_reason,
            cached_tokens=cached_tokens,
        )

    def _append(self, piece: str) -> None:
        """Add text, and end before the first stop string that it completes."""
        begin = len(self.text)
        self.text += piece
        found = [begin + at for finder in self._finders if (at := finder.feed(piece)) is not None]
        if found and len(self.tokens) >= self._least:
            self.text = self.text[: min(found)]
            self.finish_reason = "stop"


class _StopFinder:
    """Finds a string in a text that arrives in pieces, in time linear in the text.

    Attributes:
        matched: length of the longest start of the string that the text ends with.
    """

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self.matched = 0
        # for each start of the string: its longest shorter start that is also its end
        self._shorter = [0] * (len(stop) + 1)
        size = 0
        for at in range(1, len(stop)):
            while size and stop[at] != stop[size]:
                size = self._shorter[size]
            size += stop[at] == stop[size]
            self._shorter[at + 1] = size

    def feed(self, piece: str) -> int | None:
        """Where in the piece the string begins that the piece completes first; negative: before."""
        found: int | None = None
        stop, size = self._stop, self.matched
        for at, char in enumerate(piece):
            while size and stop[size] != char:
                size = self._shorter[size]
            size += stop[size] == char
            if size == len(stop):
                found = at + 1 - size if found is None else found
                size = self._shorter[size]
        self.matched = size
        return found
