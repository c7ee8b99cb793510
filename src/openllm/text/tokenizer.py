# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Text to token ids and back: what every tokenizer offers; `load.py` reads one from its folder."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence

from openllm.core.errors import TokenizerError
from openllm.text.hf_folder import TokenizerFacts

MODEL_FILE = "tokenizer.model"
FAST_FILE = "tokenizer.json"
SETTINGS_FILE = "openllm_tokenizer.json"


class Tokenizer(ABC):
    """A vocabulary and the rule that cuts text into its tokens.

    `decode(encode(text)) == text` unless the tokenizer normalises text; lone surrogates come back
    as U+FFFD.

    Attributes:
        vocab_size: one more than the highest id.
        bos_id, eos_id, pad_id, unk_id: ids of the beginning and end of a document, of padding, and
            of the unknown token; None if there is no such token.
        prefix: the ids that a document begins with: [bos_id], or none.
        end_ids: ids that end a generation.
        banned_ids: ids that must not be generated.
        byte_ids: ids of single bytes that are used for characters without a token.
        controls: name -> id of every control token. No text is encoded to them, except to the
            unknown token, by a vocabulary that lacks a character and has no byte fallback.
        fingerprint: SHA-256 of the vocabulary and the rule, as hex.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    unk_id: int | None
    prefix: list[int]
    end_ids: frozenset[int]
    banned_ids: frozenset[int]
    byte_ids: frozenset[int]
    controls: dict[str, int]
    fingerprint: str
    _bytes: Mapping[int, bytes]
    _pieces: Mapping[int, str]
    _code: str
    _adds_space: bool

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a control token, whatever the text says."""

    @abstractmethod
    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of text with control ids between: a string is ordinary text, an int a control id."""

    def encode_packed(self, text: str) -> bytes:
        """The same ids as bytes: uint16, or uint32 for a large vocabulary, in native byte order."""
        return array(self._code, self.encode(text)).tobytes()

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int], *, inside: bool = False) -> str:
        """The text of `ids`; control tokens decode to nothing, invalid UTF-8 to U+FFFD.

        Args:
            ids: tokens.
            inside: they continue a text. A tokenizer that puts a space before each text removes it
                only from the beginning of one.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        return self.decode_bytes(ids, inside=inside).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, inside: bool = False) -> bytes:
        """The bytes of `ids`, which need not be valid UTF-8; else like `decode`."""
        try:
            found = b"".join([self._bytes[index] for index in ids])
        except KeyError as error:
            raise self._unknown_id(error.args[0]) from None
        return found[1:] if self._adds_space and not inside and found[:1] == b" " else found

    def token_bytes(self, index: int) -> bytes:
        """The bytes that an id stands for inside a text: none for a control token.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        try:
            return self._bytes[index]
        except KeyError:
            raise self._unknown_id(index) from None

    def piece(self, index: int) -> str:
        """The spelling of an id in the vocabulary's own alphabet, for display."""
        self.token_bytes(index)
        return self._pieces[index]

    def require_eos(self) -> int:
        """The id that ends a document.

        Raises:
            TokenizerError: there is none.
        """
        if self.eos_id is None:
            raise TokenizerError(
                "this tokenizer has no eos token, so documents cannot be told apart; name one as "
                "eos_token in its tokenizer_config.json"
            )
        return self.eos_id

    def _find_end_ids(self, facts: TokenizerFacts, source: str) -> frozenset[int]:
        """The ids that end a generation: eos, and those of the generation settings."""
        found = facts.end_ids if self.eos_id is None else facts.end_ids | {self.eos_id}
        beyond = sorted(index for index in found if index >= self.vocab_size)
        if beyond:
            raise TokenizerError(
                f"eos_token_id {beyond[0]} is outside the vocabulary of {source}, whose size is "
                f"{self.vocab_size}; correct it in generation_config.json or config.json"
            )
        return found

    def _unknown_id(self, index: object) -> TokenizerError:
        return TokenizerError(
            f"token {index} is outside this vocabulary of size {self.vocab_size}; "
            "use the tokenizer that the model or the shards were made with"
        )


def whole_characters(text: str) -> str:
    """The text with each lone surrogate, which is not a character, as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # nothing else fails here
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
