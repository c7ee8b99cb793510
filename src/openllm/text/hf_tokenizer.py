# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export of the vocabulary to `tokenizer.json`, for `transformers` and `tokenizers`."""

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from openllm.text.controls import BOS, EOS, PAD, UNK
from openllm.text.sentencepiece_tokenizer import ModelProto, parse_model
from openllm.text.words import SPACE, Piece

NO_LIMIT = int(1e30)
"""What `transformers` writes as `model_max_length` if there is no limit."""


def hf_tokenizer(model: bytes) -> Tokenizer:
    """The `tokenizers` object that yields the same ids as a `tokenizer.model`.

    It differs in two ways. Names of control tokens in text are parsed, unless it is called with
    `encode_special_tokens` (`split_special_tokens=True` in `transformers`). And with
    `add_special_tokens`, the default, it puts bos first, as a model expects of a document.
    """
    proto = parse_model(model, "the tokenizer")
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=list(merges(proto)),
            unk_token=UNK,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(piece.piece, special=True, normalized=False)
            for piece in proto.pieces
            if piece.type in (Piece.CONTROL, Piece.UNKNOWN)
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS}:0 $A:0",
        pair=f"{BOS}:0 $A:0 {BOS}:1 $B:1",
        special_tokens=[(BOS, vocabulary[BOS])],
    )
    return tokenizer


def hf_json(tokenizer: Tokenizer) -> str:
    """The contents of `tokenizer.json`.

    Merges are written as "left right", which `tokenizers` before and after 0.20 can read; no piece
    contains a space.
    """
    content = json.loads(tokenizer.to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    return json.dumps(content, ensure_ascii=False) + "\n"


def merges(proto: ModelProto) -> Iterator[tuple[str, str]]:
    """The BPE merges, in order of priority.

    SentencePiece merges any two neighbours whose union is a piece, best score first. So every split
    of a piece into two normal pieces is a merge, ranked by the score of the whole.
    """
    normal = {
        piece.piece: index for index, piece in enumerate(proto.pieces) if piece.type == Piece.NORMAL
    }
    ranked = sorted(
        (piece for piece in proto.pieces if piece.type == Piece.NORMAL),
        key=lambda piece: -piece.score,
    )
    for piece in ranked:
        text = piece.piece
        splits = [(text[:at], text[at:]) for at in range(1, len(text))]
        pairs = [(left, right) for left, right in splits if left in normal and right in normal]
        yield from sorted(pairs, key=lambda pair: (normal[pair[0]], normal[pair[1]]))


def hf_config(model_max_length: int = NO_LIMIT) -> dict[str, Any]:
    """The contents of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNK,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
    }
