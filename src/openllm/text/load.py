# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The tokenizer of a folder, of whichever kind it is.

A tokenizer folder (or a model folder, which holds the same files) has one of

    tokenizer.model     SentencePiece; ours, if openllm_tokenizer.json is beside it
    tokenizer.json      the `tokenizers` library; in our folders only a copy for other programs

and small JSON files that name special tokens (`hf_folder.py`).
"""

from pathlib import Path

from openllm.core.files import recover_folder
from openllm.text.fast_tokenizer import FastTokenizer
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.tokenizer import FAST_FILE, SETTINGS_FILE, Tokenizer


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Load the tokenizer of a tokenizer folder or a model folder.

    Raises:
        TokenizerError: no such folder, no tokenizer in it, or a damaged one.
    """
    folder = Path(folder)
    recover_folder(folder)
    ours = (folder / SETTINGS_FILE).exists()
    if (folder / FAST_FILE).exists() and not ours:
        return FastTokenizer.load(folder)
    return SentencePieceTokenizer.load(folder)
