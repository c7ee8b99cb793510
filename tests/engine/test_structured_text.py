# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Structured output from a request to its text; `test_structured.py` tests the masks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.engine.engines import is_empty, make_engine, make_llm
from tests.tiny import sentences

from openllm.core.errors import ConfigError
from openllm.engine.request import Request, SamplingParams, Structure
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


STRUCTURES = {
    "regex": ("[0-9]{3}-[a-z]{2,5}", lambda text: re.fullmatch("[0-9]{3}-[a-z]{2,5}", text)),
    "choice": (("yes", "no", "perhaps"), lambda text: text in ("yes", "no", "perhaps")),
    "json_schema": (
        {
            "type": "object",
            "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["age"],
            "additionalProperties": False,
        },
        lambda text: 0 <= json.loads(text)["age"] <= 99,
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"speculation": {"tokens": 3}}, {"cache_tokens": 128, "preemption": "swap"}],
    ids=["plain", "guessed", "displaced"],
)
def test_structured_text(tokenizer: Tokenizer, kind: str, settings: dict[str, Any]) -> None:
    pytest.importorskip("llguidance")
    value, is_right = STRUCTURES[kind]
    structure = Structure.model_validate({"kind": kind, "value": value})
    # else the random model writes spaces and line ends for long
    ids = set(range(tokenizer.vocab_size)) - tokenizer.banned_ids - tokenizer.end_ids
    blank = {index: -100.0 for index in ids if not tokenizer.token_bytes(index).strip()}
    params = SamplingParams(structure=structure, seed=2, n=2, max_new_tokens=60, logit_bias=blank)
    prompts = ["Anna", sentences(3, 5)[2], "Boris " * 6]
    found = make_llm(tokenizer, "exact", **settings).generate(prompts, params)
    for one in found:
        assert one.finish_reason == "stop" and is_right(one.text), one.text
    assert len({one.text for one in found}) > 1, "the seed decides among what is allowed"
    assert found == make_llm(tokenizer, "exact").generate(prompts, params)


def test_a_structure_that_cannot_be_used_is_refused(tokenizer: Tokenizer) -> None:
    pytest.importorskip("llguidance")
    engine = make_engine(tokenizer)
    structure = Structure(kind="regex", value="(")
    with pytest.raises(ConfigError, match="structure"):
        engine.add(Request("a", (5, 6), SamplingParams(structure=structure)))
    assert is_empty(engine)
