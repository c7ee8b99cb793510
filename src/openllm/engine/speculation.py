# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Speculative decoding: who guesses the next tokens of the running sequences.

The engine computes a guess together with the token before it. At each place it draws its own token
with that place's own random numbers, and goes on while the guess is the same. So the output is what
it would be without guesses, for greedy decoding and for sampling (arXiv:2211.17192 keeps only the
distribution). A draft model draws with the same numbers, so it guesses right as often as it can.
"""

from collections.abc import Sequence as Many

from openllm.engine.core import ModelEngine
from openllm.engine.drafts import NgramProposer
from openllm.engine.request import Request, SamplingParams
from openllm.engine.sequence import Sequence


class NgramDrafter:
    """Guesses what followed the same words before, in the same text."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._proposers: dict[Sequence, NgramProposer] = {}

    def propose(self, sequences: Many[Sequence]) -> None:
        """See `Drafter.propose`."""
        for sequence in sequences:
            proposer = self._proposers.get(sequence)
            if proposer is None:
                proposer = self._proposers[sequence] = NgramProposer()
            sequence.draft = proposer.propose(sequence.tokens, self._tokens)

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter.forget`."""
        self._proposers.pop(sequence, None)


class ModelDrafter:
    """Guesses what a smaller model writes.

    The smaller model has an engine of its own. Each guess is a request to it, whose beginning is
    in its prefix cache.
    """

    def __init__(self, engine: ModelEngine, tokens: int) -> None:
        self._engine = engine
        self._tokens = tokens

    def propose(self, sequences: Many[Sequence]) -> None:
        """See `Drafter.propose`."""
        try:
            self._ask(sequences)
        except BaseException:
            self._engine.reset()
            raise

    def _ask(self, sequences: Many[Sequence]) -> None:
        asked: dict[str, Sequence] = {}
        for number, sequence in enumerate(sequences):
            room = min(self._engine.most_tokens, sequence.most) - len(sequence.tokens)
            if room < 1:
                continue
            params = _bare(
                sequence.request.params, min(self._tokens, room), self._engine.vocab_size
            )
            request = Request(str(number), tuple(sequence.tokens), params)
            self._engine.add(request, sample=sequence.sample)
            asked[request.id] = sequence
        while self._engine.has_work():
            for update in self._engine.step():
                asked[update.id].draft += update.token_ids

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter.forget`."""


def _bare(params: SamplingParams, tokens: int, vocab_size: int) -> SamplingParams:
    """The same choice of tokens, without what only the answer needs, for another vocabulary."""
    known = {token: bias for token, bias in params.logit_bias.items() if token < vocab_size}
    changes = {"max_new_tokens": tokens, "n": 1, "best_of": None, "logprobs": None}
    changes |= {"stop": (), "stop_ids": (), "structure": None, "min_new_tokens": 0}
    changes |= {"logit_bias": known}
    return params.model_copy(update=changes)
