# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests to the engine and their results. Importable without torch."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from openllm.core.config import Config


class SamplingParams(Config):
    """How the next token is chosen; the defaults sample from the unmodified model."""

    max_new_tokens: int = Field(128, ge=1)
    temperature: float = Field(1.0, ge=0, description="0: always the most likely token")
    top_k: int = Field(0, ge=0, description="keep the k most likely tokens; 0: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="keep the most likely tokens of total probability p"
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="drop tokens below p times the top probability"
    )
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: avoid tokens used before")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="stop before any of these strings"
    )
    seed: int = Field(0, ge=0, lt=2**63)


@dataclass(frozen=True)
class Completion:
    """The continuation of one prompt.

    Attributes:
        text: decoded new tokens, without a stop string.
        token_ids: the new tokens, without the token that ended it.
        prompt_token_ids: the prompt, with bos if the model has it.
        finish_reason: `stop` (end-of-text token or stop string) or `length`.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
