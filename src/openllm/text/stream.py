# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Text from ids that arrive one by one."""

import codecs

from openllm.text.tokenizer import Tokenizer


class StreamDecoder:
    """Gives text as soon as its characters are whole.

    The strings of all calls, joined, are `tokenizer.decode` of all ids. A character that is spread
    over several byte tokens waits for its last byte.
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
        """End the text: what was left of a broken character, as U+FFFD. It can then start anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
