# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A model folder's tokenizer and chat template as GGUF metadata.

llama.cpp has its own tokenizers: one for SentencePiece BPE, one for byte-level BPE with a list of
known ways to cut text into words. What it would encode differently is refused, or said.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from openllm.core.errors import TokenizerError
from openllm.core.log import warn
from openllm.text.sentencepiece_tokenizer import parse_model
from openllm.text.tokenizer import MODEL_FILE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens; SentencePiece has the same numbers."""

END_OF_TURN = "<|end_of_turn|>"
"""Of our own chats; llama.cpp knows the names that others give it."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PATTERNS: dict[tuple[str, bool], str] = {
    (rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", True): "llama-bpe",
    (rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", False): "dbrx",
    (rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}", False): "qwen2",
    (rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_SLASHED}", True): "tekken",
    (
        rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SLASHED}",
        False,
    ): "gpt-4o",
}
"""How words are cut, and whether a word that is a token needs no merges -> llama.cpp's name."""

KNOWN = ("gpt-2", "smollm", *PATTERNS.values())
"""Those in `PATTERNS`, and two that other steps of `tokenizers` tell."""


def tokenizer_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """All that llama.cpp needs to turn text into ids, control tokens included.

    Args:
        folder: with `tokenizer.model`, or with `tokenizer.json` of a byte-level BPE.
        vocab_size: the model's; ids beyond the tokenizer's are marked as unused.

    Raises:
        TokenizerError: no tokenizer, or one that llama.cpp does not have.
    """
    content = _json(folder / "tokenizer.json")
    path = folder / MODEL_FILE
    if path.exists():
        values = _sentencepiece(parse_model(path.read_bytes(), str(path)), content, folder)
        values |= _special(folder, values["tokenizer.ggml.tokens"])
    elif content:
        values = _byte_level(content, folder)
        values = _special(folder, values["tokenizer.ggml.tokens"]) | values
    else:
        raise TokenizerError(f"{folder} has neither {MODEL_FILE} nor tokenizer.json; copy them")
    tokens = values["tokenizer.ggml.tokens"]
    if len(tokens) > vocab_size:
        raise TokenizerError(
            f"the tokenizer in {folder} has {len(tokens)} tokens, but the model has {vocab_size}; "
            "use the tokenizer that the model was trained with"
        )
    for index in range(len(tokens), vocab_size):
        tokens.append(f"[PAD{index}]")
        values["tokenizer.ggml.token_type"].append(UNUSED)
        if "tokenizer.ggml.scores" in values:
            values["tokenizer.ggml.scores"].append(-1000.0)
    if "tokenizer.ggml.eos_token_id" not in values:
        raise TokenizerError(
            f"the tokenizer in {folder} names no token that ends a text, for which llama.cpp would "
            "take any other; name it as 'eos_token' in tokenizer_config.json"
        )
    # without one, llama.cpp takes any other; add_bos_token says whether it is used
    values.setdefault("tokenizer.ggml.bos_token_id", values["tokenizer.ggml.eos_token_id"])
    return values | chat_templates(folder)


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} does not contain a JSON object; copy it again")
    return value


def _sentencepiece(proto: ModelProto, content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    faults = {
        "is not a BPE": trainer.model_type != TrainerSpec.BPE,
        "has no byte tokens": not trainer.byte_fallback,
        "changes characters": bool(normalizer.precompiled_charsmap),
        "removes spaces": normalizer.remove_extra_whitespaces,
        "puts spaces after words": trainer.treat_whitespace_as_suffix,
    }
    if found := [fault for fault, true in faults.items() if true]:
        raise TokenizerError(
            f"llama.cpp would encode text otherwise: the tokenizer in {folder} "
            f"{' and '.join(found)}; only SentencePiece BPE that leaves text as it is will do"
        )
    tokens = [piece.piece for piece in proto.pieces]
    types = [int(piece.type) for piece in proto.pieces]
    scores = [float(piece.score) for piece in proto.pieces]
    _add_tokens(tokens, types, content.get("added_tokens", []))
    scores += [-1000.0] * (len(tokens) - len(scores))
    _warn_of_parsed_names(tokens, types)
    add_bos = _json(folder / "tokenizer_config.json").get("add_bos_token", True)
    ids = {"unknown": trainer.unk_id, "bos": trainer.bos_id, "eos": trainer.eos_id}
    ids["padding"] = trainer.pad_id
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": bool(normalizer.add_dummy_prefix),
        "tokenizer.ggml.add_bos_token": trainer.bos_id >= 0 and add_bos is not False,
        "tokenizer.ggml.add_eos_token": False,
        **{f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items() if index >= 0},
    }


def _warn_of_parsed_names(tokens: list[str], types: list[int]) -> None:
    """llama.cpp merges neighbours into any token, even into a control token or a byte's name."""
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL}
    for token, kind in zip(tokens, types, strict=True):
        splits = ((token[:at], token[at:]) for at in range(1, len(token)))
        if kind in (CONTROL, UNKNOWN, BYTE) and any(a in normal and b in normal for a, b in splits):
            warn(f"where text spells {token!r}, llama.cpp may encode it as that token")


def _add_tokens(tokens: list[str], types: list[int], added: Iterable[Mapping[str, Any]]) -> None:
    """Take over tokens that only `tokenizer.json` names."""
    for token in sorted(added, key=lambda token: token["id"]):
        kind = CONTROL if token.get("special") else USER_DEFINED
        index = token["id"]
        while len(tokens) <= index:
            tokens.append(f"[PAD{len(tokens)}]")
            types.append(UNUSED)
        if types[index] in (NORMAL, UNUSED, USER_DEFINED):
            tokens[index], types[index] = token["content"], kind


def _byte_level(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    model = content.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("unk_token"):
        raise TokenizerError(
            f"{folder / 'tokenizer.json'} is not a byte-level BPE; if it is derived from a "
            f"SentencePiece model, put that beside it as {MODEL_FILE}"
        )
    vocabulary = model["vocab"]
    tokens = [f"[PAD{index}]" for index in range(max(vocabulary.values()) + 1)]
    types = [UNUSED] * len(tokens)
    for token, index in vocabulary.items():
        tokens[index], types[index] = token, NORMAL
    _add_tokens(tokens, types, content.get("added_tokens", []))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    first = _first_id(content)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer(content, folder),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": first is not None,
        "tokenizer.ggml.add_eos_token": False,
        **({} if first is None else {"tokenizer.ggml.bos_token_id": first}),
    }


def pre_tokenizer(content: Mapping[str, Any], folder: Path) -> str:
    """llama.cpp's name of the way in which a `tokenizer.json` cuts text into words.

    Raises:
        TokenizerError: llama.cpp does not have it.
    """
    normalizer = content.get("normalizer")
    if normalizer is not None and normalizer.get("type") == "NFC":
        warn("llama.cpp does not compose characters (NFC), so it encodes decomposed ones otherwise")
    elif normalizer is not None:
        raise TokenizerError(
            f"the tokenizer in {folder} changes characters ({normalizer.get('type')}), "
            "which llama.cpp does not do"
        )
    outer = content.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers", []) if outer.get("type") == "Sequence" else [outer]
    kinds = [step.get("type") for step in steps]
    whole = bool(content["model"].get("ignore_merges"))
    name = None
    if kinds and kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        words = steps[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and words and not whole:
            name = "gpt-2"
        elif kinds == ["Digits", "ByteLevel"] and words and not whole:
            name = "smollm" if steps[0].get("individual_digits") else None
        elif kinds == ["Split", "ByteLevel"] and not words and _isolates(steps[0]):
            name = PATTERNS.get((steps[0]["pattern"].get("Regex", ""), whole))
    if name is None:
        raise TokenizerError(
            f"llama.cpp does not know the way in which the tokenizer in {folder} cuts text into "
            f"words ({json.dumps(outer)[:200]}); known are those of {', '.join(KNOWN)}"
        )
    return name


def _isolates(step: Mapping[str, Any]) -> bool:
    """Whether each match is a word; every character is in one, so the rest may be removed."""
    return (step.get("behavior"), bool(step.get("invert"))) in (
        ("Isolated", False),
        ("Removed", True),
    )


def _first_id(content: Mapping[str, Any]) -> int | None:
    """The id that the tokenizer puts before each text, if it does."""
    whole = tokenizers.Tokenizer.from_str(json.dumps(content))
    plain, marked = (whole.encode("a", add_special_tokens=on).ids for on in (False, True))
    return marked[0] if marked[1 : 1 + len(plain)] == plain else None


def _special(folder: Path, tokens: list[str]) -> dict[str, Any]:
    """Ids of the tokens that begin and end texts and turns."""
    ids = {token: index for index, token in enumerate(tokens)}
    config, named = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    values = {}
    for short, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token = named.get(f"{short}_token")
        token = token.get("content") if isinstance(token, dict) else token
        index = ids.get(token, config.get(f"{short}_token_id"))
        index = index[0] if isinstance(index, list) else index
        if isinstance(index, int) and 0 <= index < len(tokens):
            values[f"tokenizer.ggml.{long}_token_id"] = index
    if END_OF_TURN in ids:
        values["tokenizer.ggml.eot_token_id"] = ids[END_OF_TURN]
    return values


def chat_templates(folder: Path) -> dict[str, str]:
    """The chat template of a model folder, and those with other names."""
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    path = folder / "chat_template.jinja"
    if path.exists():
        template = path.read_text(encoding="utf-8")
    if isinstance(template, str):
        template = [{"name": "default", "template": template}]
    named = {entry["name"]: entry["template"] for entry in template or []}
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = path.read_text(encoding="utf-8")
    values = {f"tokenizer.chat_template.{name}": text for name, text in named.items()}
    if "default" in named:
        values["tokenizer.chat_template"] = values.pop("tokenizer.chat_template.default")
    return values
