# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Incremental decoding of ids that arrive one by one."""

import codecs

from openllm.text.tokenizer import Tokenizer


class StreamDecoder:
    """Yields text, the continuation of another, as soon as its characters are complete.

    The results of all calls, joined, equal `tokenizer.decode(ids, inside=True)` of all ids. A
    character spread over several byte tokens is held back until its last byte.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, *ids: int) -> str:
        """Take the next ids; returns the text they complete, often none for a single byte.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        return self._decoder.decode(b"".join(map(self._token_bytes, ids)))

    def finish(self) -> str:
        """End the text: returns an incomplete character as U+FFFD. A new text can then begin."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
