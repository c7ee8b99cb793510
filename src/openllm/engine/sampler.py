# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Choose the next token of each sequence of a batch.

A token is a function of its row's logits, the request's settings and seed, its position and the
tokens before it; never of the rows beside it. The maths is in `nn/kernels/sampling.py`.
"""

# R rows, V vocabulary

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.request import SamplingParams
from openllm.nn.kernels.sampling import ALL_FORBIDDEN, NOT_FINITE, Drawn, RowSettings, sample

NUMBERS_FAILURE = (
    "the model's logits are not finite numbers: its weights are damaged, or its "
    "precision is too low; import it again, or run it in float32"
)

_FAILURES = {
    ALL_FORBIDDEN: "no token is allowed here: the structure has become too complex, or it and the "
    "banned tokens rule out all of them; simplify it, or ask for fewer min_new_tokens",
    NOT_FINITE: NUMBERS_FAILURE,
}


class TokenCounts:
    """The distinct tokens of a sequence and how often each was generated, for penalties.

    A new token costs the same however long the sequence is.
    """

    def __init__(self, prompt: Sequence[int] = ()) -> None:
        self.used = array("i", dict.fromkeys(prompt))
        self.counts = array("i", bytes(4 * len(self.used)))
        self._places = {token: place for place, token in enumerate(self.used)}

    def add(self, token: int) -> None:
        """Count a generated token."""
        place = self._places.setdefault(token, len(self.used))
        if place == len(self.used):
            self.used.append(token)
            self.counts.append(0)
        self.counts[place] += 1

    def after(self, tokens: Sequence[int]) -> "TokenCounts":
        """A copy, with more generated tokens."""
        copy = TokenCounts()
        copy.used, copy.counts = self.used[:], self.counts[:]
        copy._places = dict(self._places)
        for token in tokens:
            copy.add(token)
        return copy


class SamplerState:
    """What the sampler keeps of one sequence: prepared settings and, for penalties, counts."""

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], *, vocab_size: int, sample: int = 0
    ) -> None:
        """Prepare a sequence.

        Args:
            params: of the request.
            prompt: token ids.
            vocab_size: of the model.
            sample: index among the request's `n` or `best_of` continuations.

        Raises:
            ConfigError: `logit_bias` or `stop_ids` names a token outside the vocabulary.
        """
        for name, tokens in (("logit_bias", params.logit_bias), ("stop_ids", params.stop_ids)):
            beyond = [token for token in tokens if not 0 <= token < vocab_size]
            if beyond:
                raise ConfigError(
                    f"{name} names token {beyond[0]}, which is outside the vocabulary of "
                    f"{vocab_size} tokens; use ids of this model's tokenizer"
                )
        self.params = params
        # choosing the best of several continuations needs their log-probabilities
        ranked = params.best_of is not None and params.best_of > params.n
        num_top = -1 if params.logprobs is None else min(params.logprobs, vocab_size)
        self._settings: dict[str, Any] = {
            "sample": sample,
            "seed": params.seed,
            "temperature": params.temperature,
            "top_k": min(params.top_k, vocab_size),
            "top_p": params.top_p,
            "min_p": params.min_p,
            "typical_p": params.typical_p,
            "repetition": params.repetition_penalty,
            "presence": params.presence_penalty,
            "frequency": params.frequency_penalty,
            "num_top": max(num_top, 0) if ranked else num_top,
            "bias_ids": array("i", params.logit_bias),
            "bias": array("f", params.logit_bias.values()),
        }
        penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
        self._counts = TokenCounts(prompt) if penalties != (1, 0, 0) else None
        plain = self._counts is None and not params.logit_bias
        self.takes_best = plain and params.temperature == 0 and num_top < 0 and not ranked
        """Whether the token is always the model's best one."""

    def add(self, token: int) -> None:
        """Note a generated token."""
        if self._counts is not None:
            self._counts.add(token)

    def after(self, tokens: Sequence[int]) -> "SamplerState":
        """The state that further tokens would lead to, as at a drafted position."""
        if self._counts is None or not tokens:
            return self
        later = object.__new__(SamplerState)
        later.__dict__.update(self.__dict__, _counts=self._counts.after(tokens))
        return later

    def settings(self, position: int, banned: Tensor, mask: Tensor | None) -> RowSettings:
        """What the kernel needs for one row."""
        counts = self._counts
        seen = {} if counts is None else {"used": counts.used, "counts": counts.counts}
        return RowSettings(position, banned=banned, mask=mask, **self._settings, **seen)


class Row(NamedTuple):
    """One row of logits and the sequence whose next token it predicts.

    Attributes:
        state: of the sequence; at a drafted position, `state.after(the drafts before it)`.
        position: number of tokens before the new one, prompt and drafts included.
        banned: int64 ids that may not come, on the CPU. Share one tensor among rows.
        mask: packed bits of the ids that a structure allows, int32, on the CPU.
    """

    state: SamplerState
    position: int
    banned: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The token chosen for one row.

    Log-probabilities are the model's own: log softmax of its logits before bans, penalties,
    temperature and filters.

    Attributes:
        token: its id; -1 after a failure.
        logprob: of the token, if the request needs it.
        top: the most likely tokens with their log-probabilities, best first, as many as the request
            asks for. Banned tokens, which may have no text, are left out.
        failure: why there is no token.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    failure: EngineError | None = None


def choose(
    logits_RV: Tensor, rows: Sequence[Row], best_R: NDArray[np.void] | None = None
) -> list[Choice]:
    """Choose the next token of each row; a row that fails does not disturb the others.

    Args:
        logits_RV: float32, on any device; overwritten.
        rows: one for each row of logits.
        best_R: the greatest of each row, of type `BEST`, if known.
    """
    if not rows:
        return []
    first = rows[0].banned
    if all(r.state.takes_best and r.mask is None and r.banned is first for r in rows):
        return [_choice(token) for token in _best(logits_RV, first, best_R)]
    settings = [row.state.settings(*row[1:]) for row in rows]
    return _choices(settings, sample(logits_RV, settings))


def _best(logits_RV: Tensor, banned: Tensor, best_R: NDArray[np.void] | None) -> list[int]:
    """The most likely allowed token of each row, or the number of a failure.

    In plain Python: after a model run the caches hold nothing of numpy's or torch's code.
    """
    if best_R is None:
        scores = logits_RV.cpu().numpy()  # on a CPU, numpy finds the best many times faster
        places = scores.argmax(1)
        tokens, values = places.tolist(), scores[np.arange(len(places)), places].tolist()
    else:
        tokens, values = best_R["place"].tolist(), best_R["value"].tolist()
    forbidden = _as_set(banned)
    for row, token in enumerate(tokens):
        # masking every row would cost more than finding its best
        if token in forbidden:
            allowed = logits_RV[row].cpu().numpy()
            allowed[banned.numpy()] = -np.inf
            tokens[row] = int(allowed.argmax())
            values[row] = float(allowed[tokens[row]])
        if not math.isfinite(values[row]):
            tokens[row] = ALL_FORBIDDEN if values[row] == -math.inf else NOT_FINITE
    return tokens


@lru_cache(maxsize=64)
def _as_set(banned: Tensor) -> frozenset[int]:
    """Cached by the identity of the tensor, which all rows of an engine share."""
    return frozenset(banned.tolist())


def _choices(settings: Sequence[RowSettings], drawn: Drawn) -> list[Choice]:
    results = []
    listed, values = drawn.best_RN.tolist(), drawn.best_logprobs_RN.tolist()
    logprobs = drawn.logprobs_R.tolist()
    for index, token in enumerate(drawn.tokens_R.tolist()):
        num_top = settings[index].num_top
        if token < 0 or num_top < 0:
            results.append(_choice(token))
            continue
        pairs = zip(listed[index][:num_top], values[index], strict=False)
        top = tuple((other, value) for other, value in pairs if other >= 0)
        results.append(Choice(token, logprobs[index], top))
    return results


def _choice(token: int) -> Choice:
    if token >= 0:
        return Choice(token)
    return Choice(-1, failure=EngineError(_FAILURES[token]))
