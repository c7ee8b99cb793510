# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A tokenizer without a vocabulary to learn: every byte is a token."""

import hashlib
from collections.abc import Sequence

from openllm.text.tokenizer import Tokenizer, whole_characters


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are bytes; there are no control tokens."""

    def __init__(self) -> None:
        self.vocab_size = 256
        self.bos_id = self.eos_id = self.pad_id = self.unk_id = None
        self.prefix = []
        self.end_ids = self.banned_ids = frozenset()
        self.byte_ids = frozenset(range(256))
        self.controls = {}
        self.fingerprint = hashlib.sha256(b"bytes").hexdigest()
        self._bytes = {index: bytes([index]) for index in range(256)}
        self._pieces = {index: f"<0x{index:02X}>" for index in range(256)}
        self._code = "H"
        self._adds_space = False

    def encode(self, text: str) -> list[int]:
        """The bytes of the text in UTF-8."""
        return list(whole_characters(text).encode())

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """The bytes of text parts; ids are kept."""
        return [
            index
            for part in parts
            for index in ([part] if isinstance(part, int) else self.encode(part))
        ]
