# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One continuation of a request while the engine works on it. Without torch."""

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Any, Protocol

from openllm.engine.request import Request


@dataclass(eq=False)
class Sequence:
    """Tokens, and how far they are computed.

    There is no phase of reading a prompt and none of writing: `computed` has to catch up with
    `tokens`, and when it has, a new token is chosen.

    Attributes:
        request: that it belongs to.
        sample: which of the request's continuations.
        tokens: prompt and new tokens.
        most: tokens that it may have in all.
        computed: tokens whose keys and values are in its blocks.
        blocks: of the cache, in order.
        keys: of its full blocks.
        salt: what the content of its blocks depends on besides the tokens.
        draft: tokens guessed to follow, computed together with the last one.
        saved: keys and values put aside when it had to make place; none if not.
        cached: tokens of the prompt that were found in the cache when it first ran.
        admitted: whether it ever ran.
    """

    request: Request
    sample: int
    tokens: list[int]
    most: int
    salt: bytes = b""
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    saved: Any = None
    cached: int = 0
    admitted: bool = False

    @property
    def num_prompt(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet, without the draft."""
        return len(self.tokens) - self.computed

    @property
    def shares_prefix(self) -> bool:
        """Whether it may begin with blocks of others: not if every token's state is wanted."""
        return self.request.kind == "generate"


class Drafter(Protocol):
    """Sets the `draft` of sequences (`speculation.py`)."""

    def propose(self, sequences: Many[Sequence]) -> None:
        """Guess what follows each sequence."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        ...
