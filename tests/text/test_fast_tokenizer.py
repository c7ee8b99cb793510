# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Imported tokenizers give the ids of `transformers`, and no text spells a control token."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tests.text.imported import KINDS, write_folder
from tests.text.strategies import TEXTS
from tests.tiny import sentences
from transformers import PreTrainedTokenizerFast

from openllm.core.errors import TokenizerError
from openllm.text.fast_tokenizer import FastTokenizer
from openllm.text.load import load_tokenizer
from openllm.text.quoting import Spellings
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import MODEL_FILE, Tokenizer

Pair = tuple[Tokenizer, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("imported")
    return {kind: write_folder(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pairs(folders: dict[str, Path]) -> dict[str, Pair]:
    """Ours and that of `transformers`, for each kind."""
    return {
        kind: (load_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder))
        for kind, folder in folders.items()
    }


def change(folder: Path, edit: Callable[[dict[str, Any]], None], name: str = "tokenizer.json"):
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    edit(content)
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_facts_are_those_of_transformers(pairs: dict[str, Pair], kind: str) -> None:
    ours, peer = pairs[kind]
    assert isinstance(ours, FastTokenizer)
    assert ours.vocab_size == len(peer)
    for role in ("bos", "eos", "pad", "unk"):
        assert getattr(ours, f"{role}_id") == getattr(peer, f"{role}_token_id")
    assert ours.prefix == ([] if kind == "gpt2" else [peer.bos_token_id])
    for text in [*sentences(20, 9), "", " ", "  x", "a\n\n\tb", "if x:\n    y = 1\n      z"]:
        assert [*ours.prefix, *ours.encode(text)] == peer(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
    assert not ours.banned_ids and ours.end_ids == {ours.eos_id}
    singles = [index for index in ours.encode("日") if index in ours.byte_ids]
    assert len(singles) == 3 and not ours.byte_ids & set(ours.encode("Anna"))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_fuzzed_text(pairs: dict[str, Pair], kind: str, text: str) -> None:
    ours, peer = pairs[kind]
    if any(name in text for name in ours.controls) or "\u2581" in text or "<0x" in text:
        return
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids = ours.encode(text)
    assert ids == peer(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ids) == text
    surfaces = b"".join(map(ours.token_bytes, ids))
    assert surfaces.removeprefix(b" " if kind == "llama2" else b"") == text.encode()
    stream = StreamDecoder(ours)
    pieces = "".join([*map(stream.feed, ids), stream.finish()])
    assert pieces == ours.decode(ids, inside=True)


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_text_gives_a_control(pairs: dict[str, Pair], kind: str, data: st.DataObject) -> None:
    ours, _ = pairs[kind]
    names = st.sampled_from([*ours.controls, *(f"<{name}" for name in ours.controls)])
    parts = data.draw(st.lists(st.one_of(names, st.text(max_size=3)), min_size=1, max_size=8))
    text = "".join(parts)
    if "\u2581" in text:
        return
    ids = ours.encode(text)
    assert not set(ids) & set(ours.controls.values())
    assert ours.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_decode_takes_any_ids(pairs: dict[str, Pair], kind: str, data: st.DataObject) -> None:
    ours, peer = pairs[kind]
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=12))
    theirs = peer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if "\ufffd" not in theirs:
        assert ours.decode(ids) == theirs
    silent = [index for index in ours.controls.values() if not ours.token_bytes(index)]
    assert ours.decode([*ids[:3], *silent, *ids[3:]]) == ours.decode(ids)


def test_tokens_that_are_added_but_not_special(pairs: dict[str, Pair]) -> None:
    ours, peer = pairs["gpt2"]
    # the library would take <think> from any text; runs of spaces are text
    assert ours.controls["<think>"] in peer("a <think> b")["input_ids"]
    assert ours.controls["<think>"] not in ours.encode("a <think> b")
    assert ours.piece(ours.encode("a\n    b")[2]) == "    "
    assert ours.decode([ours.controls["<think>"], ours.eos_id or 0]) == "<think>"


def test_spaces_are_removed_only_from_the_beginning(pairs: dict[str, Pair]) -> None:
    ours, _ = pairs["llama2"]
    ids = ours.encode("Anna found")
    assert ours.decode(ids) == "Anna found"
    assert ours.decode(ids, inside=True) == " Anna found"
    assert ours.decode(ours.encode("  two")) == "  two"


def test_lone_surrogates(pairs: dict[str, Pair]) -> None:
    for ours, _ in pairs.values():
        assert ours.decode(ours.encode("a\ud800b \udfff")) == "a\ufffdb \ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_copy_is_the_same(pairs: dict[str, Pair], kind: str) -> None:
    ours, _ = pairs[kind]
    copy = pickle.loads(pickle.dumps(ours))
    assert (copy.fingerprint, copy.prefix) == (ours.fingerprint, ours.prefix)
    assert copy.encode_packed("Anna <s> ☕") == ours.encode_packed("Anna <s> ☕")


def test_parts_are_encoded_as_one_text(pairs: dict[str, Pair]) -> None:
    for ours, peer in pairs.values():
        name = next(iter(ours.controls))
        parts = ["Anna", ours.controls[name], " found", "<think>", " a lamp"]
        text = f"Anna{name} found\u241ethink> a lamp"
        ids = ours.encode_parts([part if part != "<think>" else "\u241ethink>" for part in parts])
        assert ids == peer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["llama2", "gpt2"])
def test_controls_that_take_the_spaces_beside_them(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "m", kind)
    size = load_tokenizer(folder).vocab_size
    flags = {"single_word": False, "normalized": False, "special": True}
    added = [
        {"id": size, "content": "<|user|>", "lstrip": False, "rstrip": True, **flags},
        {"id": size + 1, "content": "<|end|>", "lstrip": True, "rstrip": False, **flags},
    ]
    change(folder, lambda c: c["added_tokens"].extend(added))
    ours, peer = load_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    text = "<|user|>\n Anna found  <|end|><|end|> <|user|>a<|end|> b"
    ids = ours.encode_parts([*Spellings(ours.controls).split(text)])
    assert ids == peer(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("value", [2, [2, 5]])
def test_ids_that_end_a_generation(tmp_path: Path, value: object) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    eos = load_tokenizer(folder).eos_id
    assert load_tokenizer(folder).end_ids == {7, eos}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    assert load_tokenizer(folder).end_ids == {eos, *([2] if value == 2 else [2, 5])}


def test_the_post_processor_decides_on_bos(tmp_path: Path) -> None:
    for kind, add in (("llama3", False), ("gpt2", True)):
        folder = write_folder(tmp_path / kind, kind, add_bos_token=add, bos_token="<|endoftext|>")
        peer = PreTrainedTokenizerFast.from_pretrained(folder)
        ours = load_tokenizer(folder)
        assert peer("a")["input_ids"] == [*ours.prefix, *ours.encode("a")]
        assert len(ours.prefix) == (kind == "llama3")


def test_names_in_older_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "older", "llama3")
    (folder / "tokenizer_config.json").write_text("{}")
    names = {"eos_token": {"content": "<|eot_id|>", "lstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, tokenizer.controls["<|eot_id|>"])
    assert tokenizer.prefix == [tokenizer.controls["<|begin_of_text|>"]]


def test_two_tokens_before_a_text_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    begin = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    change(folder, lambda c: c["post_processor"]["processors"][1]["single"].insert(0, begin))
    with pytest.raises(TokenizerError, match="one token of the vocabulary or none"):
        load_tokenizer(folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "added_tokens.json"])
def test_tokens_that_other_files_add(tmp_path: Path, file: str) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    size = load_tokenizer(folder).vocab_size
    token = {"content": "<|tool|>", "special": True, "normalized": False}
    if file == "added_tokens.json":
        change(folder, lambda c: c.update({"<|tool|>": size + 2}), file)
    else:
        change(folder, lambda c: c.update({"added_tokens_decoder": {size + 2: token}}), file)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.vocab_size == size + 3 and tokenizer.controls["<|tool|>"] == size + 2
    assert tokenizer.banned_ids == {size, size + 1}
    assert size + 2 not in tokenizer.encode("a <|tool|>")
    assert tokenizer.encode_parts(["a", size + 2])[-1] == size + 2
    with pytest.raises(TokenizerError, match=f"token {size} is outside"):
        tokenizer.decode([size])


def test_a_limit_on_the_length_of_texts_is_ignored(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    whole = load_tokenizer(folder).encode("Anna found a lamp in the garden.")
    limit = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    change(folder, lambda c: c.update(truncation=limit))
    assert load_tokenizer(folder).encode("Anna found a lamp in the garden.") == whole


def test_the_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    before = load_tokenizer(folder).fingerprint
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(dict(reversed(content.items())), indent=3))
    assert load_tokenizer(folder).fingerprint == before
    change(folder, lambda c: c["model"]["merges"].pop())
    assert load_tokenizer(folder).fingerprint != before


def _drop_piece(content: dict[str, Any]) -> None:
    content["model"]["vocab"].pop(next(p for p in content["model"]["vocab"] if len(p) == 3))


BAD = {
    "empty": (lambda c: c.clear(), "has no vocabulary"),
    "other ids": (lambda c: c["model"]["vocab"].update(a=-1), "has no vocabulary"),
    "twice": (lambda c: c["model"]["vocab"].update(new=5), "has no vocabulary"),
    "a text": (lambda c: c["model"]["vocab"].update(a="1"), "has no vocabulary"),
    "no merge": (_drop_piece, "is not a tokenizer"),
    "model": (lambda c: c["model"].update(type="Other"), "is not a tokenizer"),
    "added": (lambda c: c["added_tokens"].append({"id": 3}), "without a content or an id"),
    "merges": (lambda c: c["model"]["merges"].append(["a"]), "not pairs of pieces"),
    "processor": (
        lambda c: c["post_processor"]["processors"][1].update(special_tokens={"x": 1}),
        "is not a tokenizer",
    ),
    "space": (
        lambda c: c.update(decoder={"type": "Replace", "pattern": 3, "content": " "}),
        "cannot undo",
    ),
    "far": (lambda c: c["added_tokens"][0].update(id=900_000), "too high"),
    "taken": (lambda c: c["added_tokens"][0].update(id=3), "cannot have id 3"),
    "decoder": (lambda c: c.update(decoder={"type": "WordPiece"}), "cannot undo"),
    "no decoder": (lambda c: c.update(decoder=None), "cannot undo"),
}


@pytest.mark.integration
@pytest.mark.parametrize("damage", BAD)
def test_a_damaged_tokenizer(tmp_path: Path, damage: str) -> None:
    edit, message = BAD[damage]
    folder = change(write_folder(tmp_path / "m", "llama3"), edit)
    with pytest.raises(TokenizerError, match=f"{message}.*(copy|can be used)"):
        load_tokenizer(folder)


def test_a_unigram_without_an_unknown_piece(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "gemma")
    change(folder, lambda c: c["model"].update(unk_id=None))
    with pytest.raises(TokenizerError, match=r"no unknown piece.*copy the model folder again"):
        load_tokenizer(folder)


def test_a_truncated_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "gemma")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(TokenizerError, match=r"not valid JSON .*copy the model folder again"):
        load_tokenizer(folder)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        load_tokenizer(folder)


CONFIGS = [
    ("tokenizer_config.json", {"eos_token": 3}, "'eos_token' must be a token"),
    ("tokenizer_config.json", {"bos_token": {"lstrip": True}}, "'bos_token' must be a token"),
    ("tokenizer_config.json", {"add_bos_token": "yes"}, "'add_bos_token' must be true or false"),
    ("tokenizer_config.json", {"additional_special_tokens": 1}, "must be a list of tokens"),
    ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "must be an object"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "must be an object of ids"),
    ("added_tokens.json", {"<x>": "7"}, "'<x>' must be an id"),
    ("generation_config.json", {"eos_token_id": "2"}, "must be an id or a list of ids"),
    ("generation_config.json", {"eos_token_id": [2, 10**6]}, "eos_token_id 1000000 is outside"),
]


@pytest.mark.parametrize(("file", "content", "message"), CONFIGS)
def test_values_of_the_wrong_type(
    tmp_path: Path, file: str, content: dict[str, Any], message: str
) -> None:
    folder = write_folder(tmp_path / "m", "llama3")
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


def test_ours_goes_before_its_copy(tokenizer_folder: Path) -> None:
    assert (tokenizer_folder / "tokenizer.json").exists()
    assert isinstance(load_tokenizer(tokenizer_folder), SentencePieceTokenizer)


def foreign_model(kind: str = "bpe", *, dummy: bool = True, **options: Any) -> bytes:
    """A SentencePiece model as others train them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(200, 5)),
        model_writer=model,
        model_type=kind,
        vocab_size=500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=dummy,
        hard_vocab_limit=False,
        user_defined_symbols=["<start>", "<end>", "\n\n"],
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("dummy", [True, False])
def test_a_folder_with_only_a_foreign_model(tmp_path: Path, kind: str, dummy: bool) -> None:
    model = foreign_model(kind, dummy=dummy)
    (tmp_path / MODEL_FILE).write_bytes(model)
    ours = load_tokenizer(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert ours.prefix == [reference.bos_id()] and ours.pad_id is None
    for text in [*sentences(20, 6), "", " a", "  日本 ☕", "one\n\ntwo", "<s> </s>"]:
        ids = ours.encode(text)
        assert ids == reference.encode(text)
        assert ours.decode(ids) == text
    text = "a <start> b <end>"
    assert reference.piece_to_id("<start>") in reference.encode(text)
    assert not set(ours.encode(text)) & set(ours.controls.values())
    assert ours.decode(ours.encode(text)) == text
    copy = pickle.loads(pickle.dumps(ours))
    assert copy.encode(text) == ours.encode(text)


def test_a_foreign_model_with_added_tokens(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(foreign_model())
    size = load_tokenizer(tmp_path).vocab_size
    added = {size: {"content": "<|im_end|>", "special": True}, 1: {"content": "<s>"}}
    config = {"added_tokens_decoder": added, "eos_token": "<|im_end|>", "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_id, tokenizer.prefix, tokenizer.vocab_size) == (size, [], size + 1)
    assert size not in tokenizer.encode("<|im_end|>")
    change(
        tmp_path,
        lambda c: c["added_tokens_decoder"].update({str(size + 5): {"content": "<x>"}}),
        "tokenizer_config.json",
    )
    with pytest.raises(TokenizerError, match=r"does not fit .*add the model's tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_foreign_model_of_words_is_refused(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 9),
        model_writer=model,
        model_type="word",
        vocab_size=6,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / MODEL_FILE).write_bytes(model.getvalue())
    with pytest.raises(TokenizerError, match=r"cannot use .*add the model's tokenizer\.json"):
        load_tokenizer(tmp_path)
