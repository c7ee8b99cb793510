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
from openllm.engine.runner import Runner
from openllm.engine.sampler import NUMBERS_FAILURE, Choice, Row, SamplerState
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

    def row(self) -> Row:
        """What the sampler needs to choose its next token."""
        least = self.sequence.request.params.min_new_tokens
        banned = self.banned_early if len(self.output.tokens) < least else self.banned
        mask = None if self.grammar is None else self.grammar.mask()
        return Row(self.state, len(self.sequence.tokens), banned, mask)

    def take(self, choice: Choice) -> None:
        """Append a chosen token, or note why there is none."""
        if choice.failure is not None:
            broken = None if self.grammar is None else self.grammar.failure
            self.failure = (
                f"the structure cannot go on: {broken}" if broken else str(choice.failure)
            )
            self.output.end("error")
            return
        token, logprob = choice.token, None
        if choice.logprob is not None:
            logprob = TokenLogprob(token, choice.logprob, dict(choice.top))
        self.sequence.tokens.append(token)
        self.state.add(token)
        self.output.take(token, logprob)
        if self.grammar is not None and self.output.finish_reason is None:
            self.grammar.accept(token)
            if self.grammar.is_over:
                self.output.end("stop")


@dataclass(eq=False)
class Reading:
    """A request that only reads its prompt: for log-probabilities, or for a vector.

    Attributes:
        together: tokens whose logits are computed at a time.
    """

    sequence: Sequence
    together: int
    logprobs: list[TokenLogprob] = field(default_factory=list)
    total: Tensor | float = 0.0

    def add(self, runner: Runner, start: int, states_TD: Tensor) -> None:
        """Count the states of the tokens from place `start` on.

        A request that had to make place may read its prompt again, from 0.
        """
        if not start:
            self.logprobs.clear()
            self.total = 0.0
        if self.sequence.request.kind == "embed":
            self.total = self.total + states_TD.double().sum(0)
            return
        # the last token's state predicts what is not there
        rows = min(len(states_TD), len(self.sequence.tokens) - 1 - start)
        for begin in range(0, rows, self.together):
            part_TD = states_TD[begin : min(begin + self.together, rows)]
            self._add_logits(runner.logits(part_TD).all_WV, start + begin)

    def _add_logits(self, logits_TV: Tensor, start: int) -> None:
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
