# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The control tokens: the first 256 ids of every vocabulary.

They are SentencePiece CONTROL symbols, so no text is ever encoded to them; only code that builds a
chat or a document inserts them, by id. Enough are reserved that a vocabulary is never resized.
Thinking and tool tokens are spelled as other tools that parse model output expect.
"""

UNK, BOS, EOS, PAD = "<|unk|>", "<|bos|>", "<|eos|>", "<|pad|>"

NAMED = (
    # SentencePiece's own four, in its order. With byte fallback, no text is encoded to UNK.
    *(UNK, BOS, EOS, PAD),
    # A turn of a chat is ROLE text END_OF_TURN.
    *("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end_of_turn|>"),
    *("<think>", "</think>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    # Start and end of an embedded medium, and a placeholder for one of its embeddings.
    *("<|image_start|>", "<|image_end|>", "<|image|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio|>"),
    *("<|video_start|>", "<|video_end|>", "<|video|>"),
)
NUM_CONTROLS = 256
NUM_BYTES = 256

CONTROLS = (*NAMED, *(f"<|spare_{number}|>" for number in range(NUM_CONTROLS - len(NAMED))))
"""All control tokens; the index in this tuple is the id."""
