# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Folders of small tokenizers as imported models bring them, trained on little stories."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import sentences
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def special(content: str, **flags: bool) -> AddedToken:
    """A special added token."""
    return AddedToken(content, special=True, normalized=False, **flags)


def begin_with(tokenizer: Tokenizer, bos: str) -> None:
    """Let the tokenizer put bos before a document."""
    index = tokenizer.token_to_id(bos)
    template = processors.TemplateProcessing(
        single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, index)]
    )
    old = tokenizer.post_processor
    tokenizer.post_processor = processors.Sequence([old, template]) if old else template


def gpt2() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE without bos, chat tokens, runs of spaces, and `<think>`, not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(sentences(200, 1), trainer)
    tokenizer.add_special_tokens([special("<|im_start|>"), special("<|im_end|>")])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.add_tokens([AddedToken("</think>", normalized=False)])
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
    return tokenizer, names


def llama3() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE of words by a pattern, whole words first, bos by a template."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sentences(200, 2), trainer)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"]
    tokenizer.add_special_tokens([special(name) for name in names])
    begin_with(tokenizer, names[0])
    return tokenizer, {"bos_token": names[0], "eos_token": names[2]}


def llama2() -> tuple[Tokenizer, dict[str, Any]]:
    """BPE with U+2581 and byte fallback; a space is put before each text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *BYTES], show_progress=False
    )
    words = [f" {word}" for text in sentences(200, 3) for word in text.split()]
    tokenizer.train_from_iterator(words, trainer)
    keep = {"<unk>", "<s>", "</s>"}
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in keep]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    begin_with(tokenizer, "<s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma() -> tuple[Tokenizer, dict[str, Any]]:
    """Unigram with U+2581 and byte fallback; turns of a chat; `<b>` is added, but not special."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=[*names, "<b>"], unk_token="<unk>", show_progress=False
    )
    words = [f" {word}" for text in sentences(300, 4) for word in text.split()]
    tokenizer.train_from_iterator(words, trainer)
    content = json.loads(tokenizer.to_str())
    known = {piece for piece, _ in content["model"]["vocab"]}
    content["model"]["vocab"] += [[byte, -20.0] for byte in BYTES if byte not in known]
    content["model"]["byte_fallback"] = True
    for token in content["added_tokens"]:
        token["special"] = token["content"] != "<b>"
    tokenizer = Tokenizer.from_str(json.dumps(content))
    begin_with(tokenizer, "<bos>")
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return tokenizer, {**roles, "unk_token": "<unk>"}


KINDS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    "gpt2": gpt2,
    "llama3": llama3,
    "llama2": llama2,
    "gemma": gemma,
}


def write_folder(folder: Path, kind: str, **config: Any) -> Path:
    """Write the tokenizer files of a model folder."""
    folder.mkdir(parents=True)
    tokenizer, names = KINDS[kind]()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
