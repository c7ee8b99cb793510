# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.text.imported import write_folder
from tests.tiny import SHAPES, random_model

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams, Structure
from openllm.engine.sampler import Row, SamplerState, choose
from openllm.engine.structured import GrammarState, compile_structure
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

pytest.importorskip("llguidance")

CLOSING = (b'"', b"}", b"]", b"a", b"1")
"""Tokens that the random model prefers, so that its texts come to an end."""

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3},
        "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["sentencepiece", "gpt2", "llama3"])
def tokenizer(
    request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    if request.param == "sentencepiece":
        return load_tokenizer(tokenizer_folder)
    folder = tmp_path_factory.mktemp("imported") / request.param
    write_folder(folder, request.param)
    return load_tokenizer(folder)


def vocab(tokenizer: Tokenizer) -> int:
    """Vocabulary size of the model, larger than the tokenizer's."""
    return tokenizer.vocab_size + 37


def start(kind: str, value: Any, tokenizer: Tokenizer) -> GrammarState:
    structure = Structure.model_validate({"kind": kind, "value": value})
    return compile_structure(structure, tokenizer, vocab(tokenizer)).start()


def ids(mask: torch.Tensor) -> set[int]:
    """The ids that a mask allows."""
    bits = (mask[:, None] >> torch.arange(32)) & 1
    return set(bits.flatten().nonzero()[:, 0].tolist())


def feed(state: GrammarState, tokenizer: Tokenizer, text: str) -> None:
    for token in tokenizer.encode(text):
        assert state.accept(token), tokenizer.piece(token)


def samples(
    kind: str, value: Any, tokenizer: Tokenizer, count: int, limit: int = 300
) -> list[str | None]:
    """Texts of a model whose logits are random; none where the limit cut it."""
    states = [start(kind, value, tokenizer) for _ in range(count)]
    size, ends = vocab(tokenizer), tokenizer.end_ids
    favour = torch.zeros(size)
    for token in range(tokenizer.vocab_size):
        if token in ends or (
            token not in tokenizer.banned_ids and tokenizer.token_bytes(token) in CLOSING
        ):
            favour[token] = 3
    banned = torch.tensor(sorted({*tokenizer.banned_ids, *range(tokenizer.vocab_size, size)}))
    choosers = [SamplerState(SamplingParams(), [], vocab_size=size, sample=i) for i in range(count)]
    said: list[list[int]] = [[] for _ in states]
    texts: list[str | None] = [None] * count
    generator = torch.Generator().manual_seed(1)
    for place in range(limit):
        going = [i for i in range(count) if texts[i] is None]
        rows = [Row(choosers[i], place, banned, states[i].mask()) for i in going]
        logits = torch.randn(len(going), size, generator=generator) + favour
        for i, choice in zip(going, choose(logits, rows), strict=True):
            assert choice.failure is None
            over = choice.token in ends
            assert not over or states[i].is_complete
            if not over:
                said[i].append(choice.token)
                assert states[i].accept(choice.token)
            if over or states[i].is_over:
                assert states[i].is_complete
                texts[i] = tokenizer.decode_bytes(said[i], inside=True).decode()
    return texts


def test_every_sample_fits_its_json_schema(tokenizer: Tokenizer) -> None:
    import jsonschema_rs

    found = [text for text in samples("json_schema", PERSON, tokenizer, 100) if text is not None]
    assert len(found) > 80
    validator = jsonschema_rs.validator_for(PERSON)
    for text in found:
        validator.validate(json.loads(text))
    assert len(set(found)) > 70
    assert any("tags" in json.loads(text) for text in found)


def test_any_json_object(tokenizer: Tokenizer) -> None:
    found = [text for text in samples("json_object", None, tokenizer, 60) if text is not None]
    assert len(found) > 20
    assert all(isinstance(json.loads(text), dict) for text in found)
    assert any(json.loads(text) for text in found)


def test_any_json_value(tokenizer: Tokenizer) -> None:
    found = [text for text in samples("json_schema", True, tokenizer, 60) if text is not None]
    assert len({type(json.loads(text)) for text in found}) > 2


@pytest.mark.parametrize(
    "pattern",
    [r"(ab|c)+d?", r"[0-9]{3}-\d", r"[^x]{0,5}", r"\d/\d", r"(é|ß|🙂){2}", r"(?i)yes|no", r""],
)
def test_every_sample_matches_its_regex(tokenizer: Tokenizer, pattern: str) -> None:
    found = [text for text in samples("regex", pattern, tokenizer, 60, 60) if text is not None]
    assert len(found) > 30
    assert all(re.fullmatch(pattern, text) for text in found)
    assert len(set(found)) > 1 or not pattern


def test_every_choice_comes_and_nothing_else(tokenizer: Tokenizer) -> None:
    choices = ("Anna", "Ann", 'a "b"\n', "café 🙂", "\\", "Boris found")
    assert set(samples("choice", choices, tokenizer, 300)) == set(choices)
    assert set(samples("choice", ("only",), tokenizer, 3)) == {"only"}


def test_a_grammar_with_recursion(tokenizer: Tokenizer) -> None:
    grammar = 'start: "(" start ")" | NAME\nNAME: /[a-c]+/'
    found = [text for text in samples("grammar", grammar, tokenizer, 60) if text is not None]
    assert len(found) > 40
    for text in found:
        depth = text.count("(")
        assert re.fullmatch("[a-c]+", text[depth : len(text) - depth])
        assert text.endswith(")" * depth)
    assert any("(" in text for text in found)


def test_ends_are_allowed_just_when_the_text_is_complete(tokenizer: Tokenizer) -> None:
    state = start("regex", "ab(cd)?", tokenizer)
    for text, complete in (("a", False), ("b", True), ("c", False), ("d", True)):
        assert bool(ids(state.mask()) & tokenizer.end_ids) == state.is_complete
        feed(state, tokenizer, text)
        assert state.is_complete == complete
    assert state.is_over
    assert ids(state.mask()) == tokenizer.end_ids


def test_a_mask_allows_just_what_can_be_accepted(tokenizer: Tokenizer) -> None:
    state = start("json_schema", PERSON, tokenizer)
    feed(state, tokenizer, '{"name":"A')
    mask = ids(state.mask())
    assert mask
    for token in range(tokenizer.vocab_size):
        assert (token in mask) == (state.validate_draft([token]) == 1)
        if token in mask:
            assert set(tokenizer.token_bytes(token).decode()) <= set(string.ascii_lowercase)
    assert len(state.mask()) * 32 >= vocab(tokenizer)


def test_tokens_can_be_taken_back(tokenizer: Tokenizer) -> None:
    state = start("json_schema", PERSON, tokenizer)
    tokens = tokenizer.encode('{"name": "Anna", "age": 12}')
    masks = []
    for token in tokens:
        masks.append(ids(state.mask()))
        assert state.accept(token)
    assert state.is_over
    for count in (1, 3, len(tokens) - 4):
        state.rollback(count)
        tokens, masks = tokens[:-count], masks[: len(masks) - count + 1]
        assert ids(state.mask()) == masks[len(tokens)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        token = int(rng.choice(sorted(ids(state.mask()) - tokenizer.end_ids)))
        assert state.accept(token)
        state.rollback(1)


def test_drafts_are_checked_without_being_taken(tokenizer: Tokenizer) -> None:
    state = start("regex", "[0-9]{6}", tokenizer)
    draft = tokenizer.encode("1x") if len(tokenizer.encode("1x")) == 2 else tokenizer.encode("1")
    before = ids(state.mask())
    assert state.validate_draft(draft) == 1
    assert ids(state.mask()) == before
    assert state.validate_draft([]) == 0


def test_states_of_one_grammar_are_independent(tokenizer: Tokenizer) -> None:
    first, second = (start("choice", ("ab", "cd"), tokenizer) for _ in range(2))
    feed(first, tokenizer, "a")
    assert ids(first.mask()) != ids(second.mask())
    feed(second, tokenizer, "cd")
    assert second.is_over and not first.is_over


def test_what_is_not_allowed_fails_that_text_alone(tokenizer: Tokenizer) -> None:
    state, other = (start("regex", "a+", tokenizer) for _ in range(2))
    assert not state.accept(tokenizer.encode("b")[-1])
    assert state.failure
    assert not state.is_over
    assert not ids(state.mask())
    assert other.failure is None and ids(other.mask())


def test_a_tokenizer_without_an_end_token_goes_on_while_it_can(
    tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    monkeypatch.setattr(tokenizer, "end_ids", frozenset())
    state = start("regex", "a{2,4}", tokenizer)
    feed(state, tokenizer, "aaa")
    assert state.is_complete and not state.is_over
    found = {i for i in ids(state.mask()) if i < tokenizer.vocab_size}
    assert {tokenizer.token_bytes(i) for i in found} == {b"a"}
    feed(state, tokenizer, "a")
    assert state.is_over


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("regex", "(a", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", "a" * 9000, "at most 8,192; shorten it"),
        ("regex", "[^\\s\\S]", "no text satisfies it"),
        ("grammar", "start: foo", 'unknown name: "foo"'),
        ("grammar", "start: A\nA: " + " & ".join(f"/.*x{i}.*/" for i in range(30)), "12 patterns"),
        ("grammar", "start: " + "(" * 5000 + '"a"' + ")" * 5000, "nested"),
        ("json_schema", False, "no text satisfies it"),
        ("json_schema", {"type": "object", "not": {}}, "Unimplemented keys"),
        ("json_schema", {"type": "strin"}, "strin"),
        ("json_schema", {"$ref": "#"}, "no text satisfies it"),
        ("json_schema", {"$ref": "http://example.com/schema"}, "does not fetch"),
        ("json_schema", {"$ref": "file:///etc/hostname"}, "does not fetch"),
        ("json_schema", {"enum": ["x" * 70_000]}, "at most 65,536; shorten it"),
        ("choice", ("\ud800",), "surrogates"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    tokenizer: Tokenizer, kind: str, value: Any, reason: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        start(kind, value, tokenizer)
    assert len(str(caught.value)) < 500


def test_structures_and_tokenizers_are_compiled_once(tokenizer: Tokenizer) -> None:
    structure = Structure(kind="regex", value="compiled once")
    first = compile_structure(structure, tokenizer, vocab(tokenizer))
    assert compile_structure(structure.model_copy(), tokenizer, vocab(tokenizer)) is first
    assert compile_structure(structure, tokenizer, vocab(tokenizer) + 64) is not first


def test_a_structure_that_grows_too_complex_ends_its_request_alone(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    llm = LLM(random_model(SHAPES["qwen3"]), tokenizer, EngineConfig(cache_tokens=1024))
    hard = Structure(kind="regex", value="((a{1,1000}){1,1000}){1,1000}")
    params = SamplingParams(structure=hard, min_new_tokens=100)
    with pytest.raises(EngineError, match="the structure cannot go on"):
        llm.generate(["Anna"], params)
    choice = SamplingParams(structure=Structure(kind="choice", value=("Boris", "Clara found")))
    found = llm.generate(["Anna", "Emma"] * 8, choice)
    assert {one.text for one in found} == {"Boris", "Clara found"}
    assert {one.finish_reason for one in found} == {"stop"}
