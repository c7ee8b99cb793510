# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training a SentencePiece BPE vocabulary (arXiv:1808.06226) and writing the tokenizer folder."""

import contextlib
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import Field, field_validator

from openllm.core.config import Config
from openllm.core.errors import TokenizerError
from openllm.core.files import atomic_folder, check_replaceable, write_json
from openllm.text.controls import BOS, CONTROLS, EOS, NAMED, NUM_BYTES, NUM_CONTROLS, PAD, UNK
from openllm.text.hf_tokenizer import hf_config, hf_json, hf_tokenizer
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.sp_worker import FAILED, send
from openllm.text.tokenizer import MODEL_FILE, SETTINGS_FILE, Tokenizer

MIN_VOCAB_SIZE = NUM_CONTROLS + NUM_BYTES + 64
FILES = (MODEL_FILE, "tokenizer.json", "tokenizer_config.json", SETTINGS_FILE)
"""The files of a tokenizer folder."""

_COMMAND = ("-P", "-m", "openllm.text.sp_worker")
_PIECE_CHARS = 8192
# Surrounds runs of newlines in the training text, so that no token joins a newline with anything
# else; U+2585 is reserved by SentencePiece, which would skip every sentence that contains it.
_BORDER = "\x1f"
_RESERVED = str.maketrans({_BORDER: " ", "\u2585": " "})
_NEWLINES = re.compile("\n+")


class TokenizerSettings(Config):
    """Settings of vocabulary training."""

    vocab_size: int = Field(32_000, le=1_000_000)
    sample_bytes: int = Field(50_000_000, ge=1, description="UTF-8 bytes of text to train on")
    seed: int = Field(0, ge=0, description="selects the sample if there is more text")
    character_coverage: float = Field(
        0.9995, ge=0.9, le=1, description="share of the text whose characters get a token"
    )

    @field_validator("vocab_size")
    @classmethod
    def _check(cls, value: int) -> int:
        if value < MIN_VOCAB_SIZE:
            raise ValueError(
                f"must be at least {MIN_VOCAB_SIZE}: {NUM_CONTROLS} control "
                f"tokens, {NUM_BYTES} bytes, and some text pieces"
            )
        return value


def sample(
    documents: Iterable[tuple[str, str]], total_bytes: int, settings: TokenizerSettings
) -> Iterator[str]:
    """Sample chunks of documents, each at most 8,192 characters, about `sample_bytes` in all.

    A chunk is chosen by a hash of the seed, the document's id and the chunk's number, so the choice
    depends on neither the order nor the sizes of the documents.

    Args:
        documents: `(id, text)` pairs, streamed; one is in memory at a time.
        total_bytes: UTF-8 bytes of all their text.
        settings: sample size and seed.
    """
    share = settings.sample_bytes / max(1, total_bytes)
    limit = int(share * 2**64)
    for identity, text in documents:
        for number, piece in enumerate(_cut(text)):
            key = f"{settings.seed}:{number}:{identity}".encode("utf-8", "replace")
            digest = hashlib.blake2b(key, digest_size=8).digest()
            if share >= 1 or int.from_bytes(digest, "little") < limit:
                yield piece


def _cut(text: str) -> Iterator[str]:
    """Chunks of a document, cut before white space where possible."""
    start = 0
    while start < len(text):
        end = start + _PIECE_CHARS
        if end < len(text):
            border = max(text.rfind("\n", start + 1, end), text.rfind(" ", start + 1, end))
            end = border if border > 0 else end
        yield text[start:end]
        start = end


def train_model(pieces: Iterable[str], settings: TokenizerSettings) -> bytes:
    """Train on chunks of text; returns the bytes of `tokenizer.model`.

    The same chunks and settings give the same bytes. Runs in its own process, which Ctrl-C ends.

    Raises:
        TokenizerError: too little text for the vocabulary, or too small a vocabulary for the text.
    """
    command = [sys.executable, *_COMMAND, json.dumps(_options(settings))]
    with tempfile.TemporaryFile() as complaints:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=complaints)
        assert process.stdin is not None and process.stdout is not None
        try:
            model = _converse(pieces, process.stdin, process.stdout)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if code == 0:
            return model
        complaints.seek(0)
        raise _explain(complaints.read().decode("utf-8", "replace"), code, settings)


def _converse(pieces: Iterable[str], to: IO[bytes], answer: IO[bytes]) -> bytes:
    """Send the training chunks; returns the model."""
    with contextlib.suppress(BrokenPipeError):  # the process has failed, and its exit code says why
        for piece in pieces:
            send(_prepare(piece), to)
        to.close()
    return answer.read()


def _prepare(piece: str) -> str:
    return _NEWLINES.sub(lambda run: f"{_BORDER}{run[0]}{_BORDER}", piece.translate(_RESERVED))


def _options(settings: TokenizerSettings) -> dict[str, Any]:
    """Options for SentencePiece's trainer."""
    return {
        "model_type": "bpe",
        "vocab_size": settings.vocab_size,
        "character_coverage": settings.character_coverage,
        "byte_fallback": True,
        "split_digits": True,
        # Leave text as it is, so that decoding restores it.
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "pretokenization_delimiter": _BORDER,
        # Control symbols, not user-defined ones, which would be parsed out of any text.
        "control_symbols": list(CONTROLS[4:]),
        "unk_piece": UNK,
        "unk_id": CONTROLS.index(UNK),
        "bos_piece": BOS,
        "bos_id": CONTROLS.index(BOS),
        "eos_piece": EOS,
        "eos_id": CONTROLS.index(EOS),
        "pad_piece": PAD,
        "pad_id": CONTROLS.index(PAD),
        # Longer sentences are skipped; ours are cut, and a character has at most four bytes.
        "max_sentence_length": 3 * 4 * _PIECE_CHARS,
        # Written into the model, so it must not vary; more threads do not make BPE faster.
        "num_threads": 1,
    }


def _explain(message: str, code: int, settings: TokenizerSettings) -> TokenizerError:
    """SentencePiece's error in words that say how to fix it."""
    if code < 0:
        return TokenizerError(
            f"tokenizer training was killed by signal {-code}, most likely because memory ran out; "
            f"train on less text: --sample-bytes {settings.sample_bytes // 4}"
        )
    if found := re.search(r"Vocabulary size too high .* <= (\d+)", message):
        smaller = f"choose --vocab-size {found[1]} or less, or "
        return TokenizerError(
            f"this text yields a vocabulary of at most {found[1]}, not {settings.vocab_size}; "
            f"{smaller if int(found[1]) >= MIN_VOCAB_SIZE else ''}give more text"
        )
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return TokenizerError(
            f"the characters of this text need a vocabulary of more than {found[1]}, not "
            f"{settings.vocab_size}; choose a larger --vocab-size, or a --character-coverage below "
            f"{settings.character_coverage} (the rarest characters are then encoded as bytes)"
        )
    if code == FAILED and "sentences_.empty()" in message:
        return TokenizerError("there is no text to train a tokenizer on; give documents with text")
    first = " ".join(message.split())[:500] or f"exit code {code}"
    return TokenizerError(f"SentencePiece could not train a tokenizer: {first}")


def write_tokenizer(folder: Path | str, model: bytes, facts: Mapping[str, Any]) -> Tokenizer:
    """Write a tokenizer folder atomically; `facts` go into `openllm_tokenizer.json`.

    Raises:
        TokenizerError: `folder` holds files that are not a tokenizer's.
    """
    check_target(folder)
    tokenizer = SentencePieceTokenizer(model)
    with atomic_folder(folder) as target:
        (target / MODEL_FILE).write_bytes(model)
        content = hf_json(hf_tokenizer(model))
        (target / "tokenizer.json").write_text(content, encoding="utf-8")
        config = json.dumps(hf_config(), indent=2, ensure_ascii=False)
        (target / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
        description = {
            "kind": "tokenizer",
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "pieces": _counts(tokenizer),
            "controls": {name: tokenizer.controls[name] for name in NAMED},
            **facts,
        }
        write_json(target / SETTINGS_FILE, description)
    return tokenizer


def check_target(folder: Path | str) -> None:
    """Refuse to replace anything but a tokenizer folder.

    Raises:
        TokenizerError: `folder` is a file, or holds files that are not a tokenizer's.
        StorageError: `folder` cannot be replaced.
    """
    check_replaceable(folder, FILES, TokenizerError)


def _counts(tokenizer: Tokenizer) -> dict[str, int]:
    """Number of tokens of each kind."""
    sorts: Counter[str] = Counter()
    for index in range(tokenizer.vocab_size):
        piece = tokenizer.piece(index)
        if piece in tokenizer.controls:
            sorts["control"] += 1
        elif index < NUM_CONTROLS + NUM_BYTES:
            sorts["byte"] += 1
        else:
            sorts["character" if len(piece) == 1 else "merged"] += 1
    return dict(sorts)
