# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One answer of a model, as it comes."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from openllm.engine.backend import Backend
from openllm.serve.openai import completions, talk
from openllm.serve.openai.batching import batches
from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.completion_schemas import CompletionRequest
from openllm.serve.service import Choice

AT_ONCE_S = 0.02


@dataclass
class Answer:
    """What a model said, and how fast.

    Attributes:
        content: the answer.
        reasoning: what it thought before.
        finish_reason: none while it goes on, or if it was stopped.
        usage: tokens of the request, as the server reports them.
        first_s: seconds to the first token.
        total_s: seconds to the last token.
    """

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    first_s: float | None = None
    total_s: float = 0.0

    @property
    def speed(self) -> float | None:
        """Tokens per second after the first; none if there are too few."""
        count, first = self.usage.get("completion_tokens", 0), self.first_s
        if count < 2 or first is None:
            return None
        span = self.total_s - first
        # an answer that came all at once has hardly any time between its tokens
        return (count - 1) / span if span > AT_ONCE_S else count / self.total_s

    async def stream(
        self, backend: Backend, body: ChatRequest | CompletionRequest
    ) -> AsyncIterator[tuple[str, str]]:
        """Ask; yields what is added to the reasoning and to the answer. Closing it cancels.

        Raises:
            ApiError: the request cannot be met, or is too long.
            OpenLLMError: as in `Backend.chat`.
        """
        began = time.perf_counter()
        choice = Choice(backend.info.name, backend.info.name)
        if isinstance(body, ChatRequest):
            job = await talk.begin(backend, choice, body)
            updates, one = job.run.updates, job.answers[0]
        else:
            job = await completions.begin(backend, choice, body)
            updates, one = job.runs[0].updates, job.lines[0]
        try:
            async with aclosing(batches([updates])) as news:
                async for batch in news:
                    reasoning = content = ""
                    for index, update in batch:
                        if isinstance(job, talk.Talk):
                            delta = job.take(update)
                            reasoning += delta.get("reasoning_content", "")
                            content += delta.get("content", "")
                        else:
                            job.take(index, update)
                            content += update.text
                    if not (reasoning or content):
                        continue
                    self.total_s = time.perf_counter() - began
                    if self.first_s is None:
                        self.first_s = self.total_s
                    self.reasoning += reasoning
                    self.content += content
                    yield reasoning, content
        finally:
            self.usage = job.usage.body()
            self.finish_reason = one.finish_reason
