# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The tokenizer inside a GGUF file, as llama.cpp reads it, behind our interface."""

import ctypes
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from openllm.core.errors import TokenizerError
from openllm.text.tokenizer import Tokenizer, whole_characters

UNKNOWN, UNUSED, CONTROL, BYTE = 1, 2, 8, 32
"""Bits of llama.cpp's attributes of tokens."""

NONE = -1
"""llama.cpp's id of a token that does not exist."""


class LlamaTokenizer(Tokenizer):
    """Valid as long as the model that it belongs to.

    Attributes:
        special: role, such as "bos_token" -> spelling, for the chat template.
    """

    def __init__(self, vocab: Any, metadata: Callable[[str], str | None], library: Any) -> None:
        """Read the vocabulary of a loaded model.

        Args:
            vocab: llama.cpp's handle of it.
            metadata: the values of the file.
            library: the module `llama_cpp`.

        Raises:
            TokenizerError: the file has no vocabulary.
        """
        self._lib, self._vocab = library, vocab
        self.vocab_size = library.llama_vocab_n_tokens(vocab)
        if not self.vocab_size or metadata("tokenizer.ggml.model") in (None, "none", "no_vocab"):
            raise TokenizerError(
                "the file has no tokenizer; give a folder that has it with --tokenizer"
            )
        ids = range(self.vocab_size)
        kinds = [library.llama_vocab_get_attr(vocab, index) for index in ids]
        ends = frozenset(index for index in ids if library.llama_vocab_is_eog(vocab, index))
        self._pieces = {
            i: library.llama_vocab_get_text(vocab, i).decode("utf-8", "replace") for i in ids
        }
        self._bytes = {
            index: b"" if kind & (CONTROL | UNKNOWN) else self._piece_bytes(index)
            for index, kind in enumerate(kinds)
        }
        self.byte_ids = frozenset(index for index in ids if kinds[index] & BYTE)
        self.controls = {
            self._pieces[index]: index for index in ids if kinds[index] & (CONTROL | UNKNOWN)
        }
        self.bos_id = self._role("bos")
        self.eos_id = self._role("eos")
        self.pad_id = self._role("pad")
        self.unk_id = next((i for i in ids if kinds[i] & UNKNOWN), None)
        adds_bos = library.llama_vocab_get_add_bos(vocab) and self.bos_id is not None
        self.prefix = [self.bos_id] if adds_bos and self.bos_id is not None else []
        self.end_ids = ends
        silent = {index for index in ids if kinds[index] & (UNKNOWN | UNUSED)}
        self.banned_ids = frozenset(silent | set(self.prefix)) - ends
        self._code = "H" if self.vocab_size <= 1 << 16 else "I"
        self._adds_space = self._encode("a") != [] and self._text_of("a").startswith(b" ")
        roles = {"bos_token": self.bos_id, "eos_token": self.eos_id, "pad_token": self.pad_id}
        self.special = {role: self._pieces[i] for role, i in roles.items() if i is not None}
        self.fingerprint = self._digest(kinds, metadata)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._encode(text)

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """See `Tokenizer.encode_parts`; each text begins as llama.cpp begins one."""
        return [
            index
            for part in parts
            for index in ([part] if isinstance(part, int) else self._encode(part))
        ]

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        data = whole_characters(text).encode()
        room = len(data) + 2
        while True:
            ids = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, room, False, False)
            if count >= 0:
                return ids[:count]
            room = -count

    def _piece_bytes(self, index: int) -> bytes:
        """What a token adds to a text."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_token_to_piece(self._vocab, index, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _text_of(self, text: str) -> bytes:
        return b"".join(self._bytes[index] for index in self._encode(text))

    def _role(self, name: str) -> int | None:
        found = getattr(self._lib, f"llama_vocab_{name}")(self._vocab)
        return None if found == NONE else int(found)

    def _digest(self, kinds: Iterable[int], metadata: Callable[[str], str | None]) -> str:
        digest = hashlib.sha256()
        for key in ("model", "pre", "add_space_prefix", "add_bos_token"):
            digest.update(f"{metadata(f'tokenizer.ggml.{key}')}\0".encode())
        for index, kind in enumerate(kinds):
            digest.update(f"{kind} {self._pieces[index]}\0".encode("utf-8", "replace"))
        return digest.hexdigest()
