# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What runs an exported model, as the certificate sees it. Importable without torch."""

# T time, D model, V vocabulary

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Tokenizes(Protocol):
    """A runtime with a tokenizer of its own, such as llama.cpp."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without bos; names of control tokens in it are plain text."""
        ...


class Runtime(Protocol):
    """A loaded model in whatever runs it.

    Attributes:
        name: of the runtime, such as `onnxruntime`.
        version: of the runtime.
    """

    name: str
    version: str

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        ...

    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, with the cache, past any end token."""
        ...

    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]] | None:
        """The residual stream (T, D) after each layer; none if the runtime does not show it."""
        ...
