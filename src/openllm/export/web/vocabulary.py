# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the page's tokenizer needs to know, from a `tokenizer.json`."""

from pathlib import Path
from typing import Any

from openllm.core.errors import TokenizerError
from openllm.core.files import read_json

SPACE = "\u2581"


def page_vocabulary(source: Path) -> dict[str, Any]:
    """The arguments of `Tokenizer` in page/tokenizer.js.

    Raises:
        TokenizerError: the tokenizer is missing, damaged, or not BPE with byte fallback.
    """
    path = source / "tokenizer.json"
    content = read_json(path, TokenizerError, "the page needs the tokenizer in this form")
    try:
        model = content["model"]
        if model["type"] != "BPE" or not model.get("byte_fallback"):
            raise _unknown(path, "is not byte-pair encoding with byte fallback")
        prefix = _prefix(path, content)
        ids: dict[str, int] = dict(model["vocab"])
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        ids |= added
        pieces = [""] * (max(ids.values()) + 1)
        for piece, index in ids.items():
            pieces[index] = piece
        pairs = [
            merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]
        ]
        return {
            "pieces": pieces,
            "merges": [ids[part] for pair in pairs for part in pair],
            "bytes": [ids[f"<0x{byte:02X}>"] for byte in range(256)],
            "special": sorted(added.values()),
            "start": _start(content),
            "prefix": prefix,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{path} is damaged ({error!r}); copy the model again") from None


def _unknown(path: Path, what: str) -> TokenizerError:
    return TokenizerError(
        f"{path} {what}, which the page cannot do; export with --to onnx and use a tokenizer "
        "library for the browser"
    )


def _prefix(path: Path, content: dict[str, Any]) -> bool:
    """Whether a text gets a space before it; refuses other preparations of the text."""
    prefix, split = False, content.get("pre_tokenizer")
    if split is not None:
        if split["type"] != "Metaspace" or split.get("split", True):
            raise _unknown(path, f"splits text in another way ({split['type']})")
        prefix = split.get("prepend_scheme", "always") != "never"
    normal = content.get("normalizer")
    steps = [] if normal is None else normal.get("normalizers", [normal])
    for step in steps:
        if step == {"type": "Prepend", "prepend": SPACE}:
            prefix = True
        elif step != {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}:
            raise _unknown(path, f"changes text first ({step['type']})")
    return prefix


def _start(content: dict[str, Any]) -> list[int]:
    """Ids before every text, such as bos."""
    post = content.get("post_processor")
    if post is None:
        return []
    processors = post.get("processors", [post])
    start: list[int] = []
    for processor in processors:
        if processor["type"] != "TemplateProcessing":
            continue
        for part in processor["single"]:
            if "SpecialToken" not in part:
                break
            start += processor["special_tokens"][part["SpecialToken"]["id"]]["ids"]
    return start
