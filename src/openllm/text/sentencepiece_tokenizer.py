# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""SentencePiece vocabularies: ours, and those of imported models that have no `tokenizer.json`."""

import hashlib
import secrets
from array import array
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from openllm.core.errors import TokenizerError
from openllm.core.files import read_json, recover_folder
from openllm.text.hf_folder import TokenizerFacts, read_facts
from openllm.text.tokenizer import MODEL_FILE, SETTINGS_FILE, Tokenizer, whole_characters
from openllm.text.words import CONTROLS, SPACE, Piece, WordEncoder, code_of, word_pattern

_KINDS = (TrainerSpec.BPE, TrainerSpec.UNIGRAM)


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece vocabulary, BPE or unigram.

    `decode(encode(text)) == text` for ours, except that U+2581 comes back as a space and lone
    surrogates come back as U+FFFD. User-defined symbols, which SentencePiece finds in any text, are
    control tokens here, unless they are white space.
    """

    def __init__(
        self,
        model: bytes,
        source: str = "the tokenizer",
        facts: TokenizerFacts = TokenizerFacts(),  # noqa: B008  (frozen)
    ) -> None:
        """Read the bytes of a `tokenizer.model`.

        Args:
            model: the bytes.
            source: names them in errors.
            facts: from the files beside it.

        Raises:
            TokenizerError: the bytes are no model, or one of another kind.
        """
        self._state = (model, source, facts)
        proto = parse_model(model, source)
        if _add_tokens(proto, facts, source):
            model = proto.SerializeToString()
        pieces = list(proto.pieces)
        self.vocab_size = len(pieces)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._pieces = {index: piece.piece for index, piece in enumerate(pieces)}
        self._bytes = {index: _surface(piece) for index, piece in enumerate(pieces)}
        self.byte_ids = frozenset(i for i, piece in enumerate(pieces) if piece.type == Piece.BYTE)
        self._code = code_of(self.vocab_size)
        self._adds_space = proto.normalizer_spec.add_dummy_prefix
        parsed = {i for i, piece in enumerate(pieces) if _is_parsed(piece)}
        self.controls = {
            piece.piece: index
            for index, piece in enumerate(pieces)
            if piece.type in CONTROLS or index in parsed
        }
        pattern = word_pattern(proto) if proto.trainer_spec.model_type == TrainerSpec.BPE else None
        if parsed:
            # under a name that no text contains
            for index in parsed:
                proto.pieces[index].piece = f"{secrets.token_hex(16)}-{index}"
            model = proto.SerializeToString()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._words = pattern and WordEncoder(self._encode_whole, pattern, self._code)
        self._name_ids(facts, source)

    def _name_ids(self, facts: TokenizerFacts, source: str) -> None:
        """Set the ids of special tokens: those that `facts` name, else SentencePiece's own."""
        found: dict[str, int | None] = {}
        for role in ("bos", "eos", "pad", "unk"):
            own = getattr(self._processor, f"{role}_id")()
            index = self.controls.get(facts.special.get(f"{role}_token", ""), own)
            found[role] = index if index >= 0 else None
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = found.values()
        self.prefix = []
        if self.bos_id is not None and facts.add_bos is not False:
            self.prefix = [self.bos_id]
        self.end_ids = self._find_end_ids(facts, source)
        self.banned_ids = frozenset(self.controls.values()) - self.end_ids

    def __reduce__(self) -> tuple[type["SentencePieceTokenizer"], tuple[object, ...]]:
        return SentencePieceTokenizer, self._state

    @classmethod
    def load(cls, folder: Path | str) -> "SentencePieceTokenizer":
        """Load the `tokenizer.model` of a folder.

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
                f"{what} or tokenizer.json; give a tokenizer folder or a model folder, "
                "or train one with: openllm tokenizer train DATA --out DIR"
            ) from None
        except OSError as error:
            raise TokenizerError(
                f"{path} cannot be read ({error.strerror}); give a tokenizer folder"
            ) from None
        tokenizer = cls(model, str(path), read_facts(folder))
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

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of text with control ids between; each text is encoded alone."""
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else self.encode(part)
        return ids

    def _encode_whole(self, text: str) -> list[int]:
        return self._processor.encode(whole_characters(text))


def _add_tokens(proto: ModelProto, facts: TokenizerFacts, source: str) -> bool:
    """Append the tokens that other files add to the vocabulary; says whether there are any."""
    size = len(proto.pieces)
    for token in sorted(facts.added, key=lambda token: token["id"]):
        index, spelling = token["id"], token["content"]
        kind = Piece.CONTROL if token["special"] else Piece.USER_DEFINED
        if index == len(proto.pieces):
            proto.pieces.add(piece=spelling, type=kind)
        elif index > len(proto.pieces) or proto.pieces[index].piece != spelling:
            raise TokenizerError(
                f"the added token {spelling!r} has id {index}, which does not fit {source} with "
                f"its {size} pieces; add the model's tokenizer.json to the folder"
            )
    return len(proto.pieces) > size


def _is_parsed(piece: Piece) -> bool:
    """Whether SentencePiece would find this control token in any text."""
    blank = not piece.piece.replace(SPACE, "").strip()
    return piece.type == Piece.USER_DEFINED and not blank


def parse_model(model: bytes, source: str) -> ModelProto:
    """Parse the bytes of a `tokenizer.model`.

    Raises:
        TokenizerError: the bytes are not a SentencePiece model, or one of another kind.
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
    if proto.trainer_spec.model_type not in _KINDS or proto.trainer_spec.treat_whitespace_as_suffix:
        raise TokenizerError(
            f"{source} is a SentencePiece model of a kind that OpenLLM cannot use (only BPE and "
            "unigram, with the space before a word); add the model's tokenizer.json to the folder"
        )
    return proto


def _surface(piece: Piece) -> bytes:
    """The bytes that one piece stands for."""
    if piece.type in CONTROLS:
        return b""
    if piece.type == Piece.BYTE:
        return bytes([int(piece.piece[1:-1], 16)])
    return piece.piece.replace(SPACE, " ").encode("utf-8")
