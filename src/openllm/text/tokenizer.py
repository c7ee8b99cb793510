# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Text to token ids and back.

A tokenizer folder (or a model folder, which holds the same files):

    tokenizer.model          SentencePiece BPE with byte fallback; all else is derived from it
    tokenizer.json           the same vocabulary for `transformers` and `tokenizers`
    tokenizer_config.json    names of the special tokens, for `transformers`
    openllm_tokenizer.json   how it was made, and the fingerprint
"""

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from openllm.core.errors import TokenizerError
from openllm.core.files import read_json, recover_folder
from openllm.text.words import CONTROLS, SPACE, Piece, WordEncoder, code_of, word_pattern

MODEL_FILE = "tokenizer.model"
SETTINGS_FILE = "openllm_tokenizer.json"


class Tokenizer:
    """A SentencePiece BPE vocabulary.

    `decode(encode(text)) == text`, except that U+2581 comes back as a space and lone surrogates
    come back as U+FFFD.

    Attributes:
        vocab_size: number of ids.
        bos_id, eos_id, pad_id, unk_id: ids of the beginning and end of a document, of padding, and
            of the unknown token (to which no text is encoded).
        controls: name -> id of every control token.
        fingerprint: SHA-256 of `tokenizer.model` as hex.
    """

    def __init__(self, model: bytes, source: str = "the tokenizer") -> None:
        """Read the bytes of a `tokenizer.model`; `source` names them in errors."""
        proto = parse_model(model, source)
        pieces = list(proto.pieces)
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = len(pieces)
        self.unk_id, self.bos_id = self._processor.unk_id(), self._processor.bos_id()
        self.eos_id, self.pad_id = self._processor.eos_id(), self._processor.pad_id()
        if min(self.unk_id, self.bos_id, self.eos_id, self.pad_id) < 0:
            raise TokenizerError(
                f"{source} lacks one of the tokens bos, eos, pad and unk; "
                "train a tokenizer with: openllm tokenizer train DATA --out DIR"
            )
        self.controls = {
            piece.piece: index for index, piece in enumerate(pieces) if piece.type in CONTROLS
        }
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._pieces = [piece.piece for piece in pieces]
        self._bytes = dict(enumerate(_surface(piece) for piece in pieces))
        self._code = code_of(self.vocab_size)
        pattern = word_pattern(proto)
        self._words = pattern and WordEncoder(self._encode_whole, pattern, self._code)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes]]:
        return Tokenizer, (self._model,)

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Load a tokenizer folder or a model folder.

        Raises:
            TokenizerError: no such folder, no tokenizer in it, or a damaged one.
        """
        folder = Path(folder)
        recover_folder(folder)
        path = folder / MODEL_FILE
        try:
            model = path.read_bytes()
        except FileNotFoundError:
            what = f"{folder} has no {MODEL_FILE}" if folder.is_dir() else f"no folder {folder}"
            raise TokenizerError(
                f"{what}; give a tokenizer folder or a model folder, "
                "or train one with: openllm tokenizer train DATA --out DIR"
            ) from None
        except OSError as error:
            raise TokenizerError(
                f"{path} cannot be read ({error.strerror}); give a tokenizer folder"
            ) from None
        tokenizer = cls(model, str(path))
        if (folder / SETTINGS_FILE).exists():
            mend = "copy the tokenizer folder again"
            noted = read_json(folder / SETTINGS_FILE, TokenizerError, mend).get("fingerprint")
            if noted != tokenizer.fingerprint:
                raise TokenizerError(
                    f"{path} does not match {SETTINGS_FILE} (fingerprint "
                    f"{tokenizer.fingerprint[:12]}, expected {str(noted)[:12]}); {mend}"
                )
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a control token, whatever the text says."""
        if self._words is None:
            return self._encode_whole(text)
        return array(self._code, self._words.encode(text)).tolist()

    def encode_packed(self, text: str) -> bytes:
        """The same ids as bytes: uint16, or uint32 for a large vocabulary, in native byte order."""
        if self._words is None:
            return array(self._code, self._encode_whole(text)).tobytes()
        return self._words.encode(text)

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; control tokens decode to nothing, invalid UTF-8 to U+FFFD.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        try:
            return b"".join([self._bytes[index] for index in ids]).decode("utf-8", "replace")
        except KeyError as error:
            raise self._unknown_id(error.args[0]) from None

    def token_bytes(self, index: int) -> bytes:
        """The bytes that an id stands for: none for a control token, else one or more.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        try:
            return self._bytes[index]
        except KeyError:
            raise self._unknown_id(index) from None

    def piece(self, index: int) -> str:
        """SentencePiece's spelling of an id, for display: a space is U+2581, a byte `<0x0A>`."""
        self.token_bytes(index)
        return self._pieces[index]

    def _encode_whole(self, text: str) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate is not a character; nothing else fails here
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return self._processor.encode(text)

    def _unknown_id(self, index: object) -> TokenizerError:
        return TokenizerError(
            f"token {index} is outside this vocabulary of size {self.vocab_size}; "
            "use the tokenizer that the model or the shards were made with"
        )


def parse_model(model: bytes, source: str) -> ModelProto:
    """Parse the bytes of a `tokenizer.model`.

    Raises:
        TokenizerError: the bytes are not a SentencePiece model.
    """
    proto = ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        raise TokenizerError(
            f"{source} is damaged or not a SentencePiece model; copy the tokenizer folder again, "
            "or train one with: openllm tokenizer train DATA --out DIR"
        )
    return proto


def _surface(piece: Piece) -> bytes:
    """The bytes that one piece stands for."""
    if piece.type in CONTROLS:
        return b""
    if piece.type == Piece.BYTE:
        return bytes([int(piece.piece[1:-1], 16)])
    return piece.piece.replace(SPACE, " ").encode("utf-8")
