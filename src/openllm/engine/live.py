# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the engine keeps of a request while it works on it."""

# T tokens, D model, V vocabulary

from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from openllm.engine.output import Output
from openllm.engine.request import Request, TokenLogprob, Update
from openllm.engine.sampler import NUMBERS_FAILURE, SamplerState
from openllm.engine.sequence import Sequence
from openllm.engine.structured import GrammarState


@dataclass(eq=False)
class Live:
    """One continuation: its tokens, its text, and how its next token is chosen.

    Attributes:
        banned: tokens that may not come.
        banned_early: these, and those that end the text, until it is long enough.
        failure: why no token could be chosen.
    """

    sequence: Sequence
    output: Output
    state: SamplerState
    banned: Tensor
    banned_early: Tensor
    grammar: GrammarState | None = None
    failure: str | None = None

    def bans(self) -> Tensor:
        """Tokens that may not come now."""
        least = self.sequence.request.params.min_new_tokens
        return self.banned_early if len(self.output.tokens) < least else self.banned

    def take(self, token: int, logprob: TokenLogprob | None) -> None:
        """Append a chosen token."""
        self.sequence.tokens.append(token)
        self.state.add(token)
        self.output.take(token, logprob)
        if self.grammar is not None and self.output.finish_reason is None:
            self.grammar.accept(token)
            if self.grammar.is_over:
                self.output.end("stop")


@dataclass(eq=False)
class Reading:
    """A request that only reads its prompt: for log-probabilities, or for a vector."""

    sequence: Sequence
    logprobs: list[TokenLogprob] = field(default_factory=list)
    total: Tensor | float = 0.0

    def begin(self) -> None:
        """Forget what was read: a request that had to make place reads its prompt again."""
        self.logprobs.clear()
        self.total = 0.0

    def add_states(self, states_TD: Tensor) -> None:
        """Count states toward the vector."""
        self.total = self.total + states_TD.double().sum(0)

    def add_logits(self, logits_TV: Tensor, start: int) -> None:
        """Log-probabilities of the tokens that these logits, from place `start` on, predict."""
        tokens, top = self.sequence.tokens, self.sequence.request.top
        targets = torch.tensor(tokens[start + 1 : start + 1 + len(logits_TV)])
        logprobs_TV = logits_TV.log_softmax(1)
        found = logprobs_TV.gather(1, targets.to(logits_TV.device)[:, None])[:, 0].tolist()
        values, ids = logprobs_TV.topk(min(top, logits_TV.shape[1]))
        best = [
            dict(zip(*pair, strict=True))
            for pair in zip(ids.tolist(), values.tolist(), strict=True)
        ]
        for token, value, others in zip(targets.tolist(), found, best, strict=True):
            self.logprobs.append(TokenLogprob(token, value, others))

    def result(self) -> Update:
        """The only update of such a request."""
        request, total = self.sequence.request, self.total
        if request.kind == "score":
            if not all(isfinite(one.logprob) for one in self.logprobs):
                return Update(request.id, finish_reason="error", error=NUMBERS_FAILURE)
            return Update(request.id, logprobs=self.logprobs, finish_reason="stop")
        assert isinstance(total, Tensor)
        if not total.isfinite().all():
            return Update(request.id, finish_reason="error", error=NUMBERS_FAILURE)
        vector = total / total.norm().clamp_min(1e-12)
        return Update(request.id, vector=vector.tolist(), finish_reason="stop")


@dataclass(eq=False)
class Group:
    """The continuations of one request.

    If only the best of them are wanted, nothing is told before all have ended. `ended` counts them.
    """

    request: Request
    lives: list[Live]
    ended: int = 0

    def news(self, changed: Live) -> list[Update]:
        """What to tell after one continuation has advanced."""
        self.ended += changed.output.finish_reason is not None
        if self.request.params.samples == self.request.params.n:
            return [self._update(changed, self.lives.index(changed))]
        if not self.is_over():
            return []
        best = sorted(self.lives, key=lambda live: -live.output.mean_logprob)
        kept = best[: self.request.params.n]
        return [self._update(live, index) for index, live in enumerate(kept)]

    def is_over(self) -> bool:
        """Whether all continuations have ended."""
        return self.ended == len(self.lives)

    def _update(self, live: Live, index: int) -> Update:
        return live.output.news(self.request.id, index, cached_tokens=live.sequence.cached)
