# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our GGUF files in llama.cpp: the same logits, text and tokens."""

from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from tests.export.gguf.models import (
    GGUF_SHAPES,
    LLAMA3,
    QWEN2,
    byte_level,
    changed,
    difference,
    exported,
    our_logits,
    tokens,
    written,
)
from tests.text.strategies import TEXTS
from tests.tiny import random_model

from openllm.core.errors import CheckpointError, ConfigError
from openllm.export.eager import EagerModel
from openllm.export.gguf.file import Dtype
from openllm.export.gguf.llama_cpp import LlamaCppModel, load
from openllm.export.gguf.reader import read_gguf
from openllm.export.gguf.writer import export_gguf
from openllm.text.controls import CONTROLS
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

pytest.importorskip("llama_cpp", reason="needs the extra 'llama', which is built from source")

PATTERNS = [(None, False), (QWEN2, False), (LLAMA3, False), (LLAMA3, True)]
TABLE = 3e-3
"""llama.cpp looks GELU up in a table of float16."""


@pytest.mark.parametrize("case", GGUF_SHAPES)
def test_logits_are_the_same(case: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    _, cfg = GGUF_SHAPES[case]
    model = random_model(cfg).eval()
    path = exported(tmp_path, model, tokenizer_folder, "f32")
    runtime = LlamaCppModel(path, threads=1)
    ids = tokens(min(runtime.context, 100))
    most = TABLE if cfg.mlp.kind in ("gelu", "geglu") else 1e-5
    assert difference(runtime.logits(ids), our_logits(model, ids)) < most
    runtime.close()


def test_longrope_depends_on_the_context(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_model(GGUF_SHAPES["phi3"][1]).eval()
    path = exported(tmp_path, model, tokenizer_folder, "f32")
    short = LlamaCppModel(path, threads=1)
    assert short.context == 256
    long = LlamaCppModel(path, context=512, threads=1)
    ids = tokens(300)
    assert difference(long.logits(ids), our_logits(model, ids)) < 1e-5
    assert difference(long.logits(ids[:100]), short.logits(ids[:100])) > 0.1


@pytest.mark.parametrize("case", ["qwen3", "llama with llama3", "smollm3"])
def test_greedy_text_is_the_same(case: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    # larger weights: a model of small ones repeats itself from the first token on
    model = random_model(GGUF_SHAPES[case][1], spread=0.4).eval()
    runtime = LlamaCppModel(exported(tmp_path, model, tokenizer_folder, "f32"), threads=1)
    prompts = [tokens(length) for length in (1, 9, 40)]
    found = runtime.greedy(prompts, 30)
    assert found == runtime.greedy(prompts, 30)
    for prompt, new in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(30):
            ids.append(int(our_logits(model, ids)[-1].argmax()))
        assert new == ids[len(prompt) :]
        assert len(set(new)) > 5


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0", "q4_0"])
def test_llama_cpp_reads_each_dtype_as_we_do(
    dtype: Dtype, tmp_path: Path, tokenizer_folder: Path
) -> None:
    cfg = changed("llama", mlp__hidden_dim=128)
    path = exported(tmp_path, random_model(cfg).eval(), tokenizer_folder, dtype)
    # llama.cpp rounds activations too
    most = {"f16": 1e-3, "bf16": 1e-2, "q8_0": 4e-2, "q4_0": 5e-2}[dtype]
    runtime = LlamaCppModel(path, threads=1)
    assert difference(runtime.logits(tokens()), our_logits(read_gguf(path), tokens())) < most


def test_layers_are_those_of_the_file(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_model(GGUF_SHAPES["gemma2"][1]).eval()
    runtime = LlamaCppModel(exported(tmp_path, model, tokenizer_folder, "f32"), threads=1)
    expected = EagerModel(model).layers(tokens())
    found = runtime.layers(tokens())
    assert len(found) == len(expected) == model.cfg.num_layers
    assert [part.shape for part in found] == [(60, model.cfg.dim)] * len(found)
    assert max(map(difference, found, expected)) < 1e-5
    with torch.no_grad():
        model.layers[3].mlp.gate_proj.weight.mul_(2)
    wrong = list(map(difference, found, EagerModel(model).layers(tokens())))
    assert max(wrong[:3]) < 1e-5 < 1e-2 < wrong[3]


def test_texts_beyond_the_context_are_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_model(GGUF_SHAPES["qwen3"][1])
    path = exported(tmp_path, model, tokenizer_folder, "f16")
    runtime = load(path.parent)
    assert runtime.context == 128
    with pytest.raises(ConfigError, match="texts of 128 tokens, not 129"):
        runtime.logits([5] * 129)
    with pytest.raises(ConfigError, match="texts of 128 tokens, not 130"):
        runtime.greedy([[5] * 100], 30)
    with pytest.raises(CheckpointError, match="does not exist"):
        LlamaCppModel(tmp_path / "missing.gguf")
    with pytest.raises(CheckpointError, match="0 files"):
        load(tmp_path)


def test_special_tokens_and_chat_template_are_known(tmp_path: Path, tokenizer_folder: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    source = written(tmp_path, random_model(GGUF_SHAPES["qwen3"][1]), tokenizer_folder)
    template = "{% for m in messages %}<|user|>{{ m.content }}<|end_of_turn|>{% endfor %}"
    (source / "chat_template.jinja").write_text(template)
    export_gguf(source, tmp_path)
    model = llama_cpp.Llama(str(tmp_path / "tiny-F16.gguf"), verbose=False)
    ours = load_tokenizer(tokenizer_folder)
    assert model.tokenize(b"Anna") == [ours.bos_id, *ours.encode("Anna")]
    assert (model.token_bos(), model.token_eos()) == (ours.bos_id, ours.eos_id)
    ends = [i for i in range(640) if llama_cpp.llama_vocab_is_eog(model._model.vocab, i)]
    assert ends == [ours.eos_id, ours.controls["<|end_of_turn|>"]]
    assert model.metadata["tokenizer.chat_template"] == template
    answer = model.create_chat_completion([{"role": "user", "content": "Anna"}], max_tokens=4)
    # the names in the template become single tokens; it writes no bos
    assert answer["usage"]["prompt_tokens"] == 2 + len(ours.encode("Anna"))


def test_a_model_may_be_called_phi3(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_model(GGUF_SHAPES["phi3 partly rotated"][1])
    source = written(tmp_path, model, tokenizer_folder, data={"name": "my-phi3-test"})
    (tmp_path / "gguf").mkdir()
    export_gguf(source, tmp_path / "gguf")
    load(tmp_path / "gguf").close()


@pytest.fixture(scope="module")
def sentencepiece(
    tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, LlamaCppModel]:
    folder = tmp_path_factory.mktemp("sentencepiece")
    path = exported(folder, random_model(GGUF_SHAPES["llama"][1]), tokenizer_folder, "f16")
    return load_tokenizer(tokenizer_folder), LlamaCppModel(path, threads=1)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="\u2581a\u2581 \u2581")
@example(text="".join(CONTROLS))
@example(text=" ☕🙂 Straße\u0000\n")
def test_sentencepiece_gives_the_same_tokens(
    sentencepiece: tuple[Tokenizer, LlamaCppModel], text: str
) -> None:
    ours, theirs = sentencepiece
    assert theirs.encode(text) == ours.encode(text)


@pytest.fixture(scope="module", params=PATTERNS)
def bytewise(
    request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tokenizers.Tokenizer, LlamaCppModel]:
    folder = tmp_path_factory.mktemp("bytewise")
    source = written(folder, random_model(GGUF_SHAPES["llama"][1]), tokenizer_folder)
    (source / "tokenizer.model").unlink()
    pattern, ignore_merges = request.param
    byte_level(source, pattern, ignore_merges=ignore_merges)
    export_gguf(source, folder, dtype="f16")
    ours = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    ours.encode_special_tokens = True
    return ours, LlamaCppModel(folder / "tiny-F16.gguf", threads=1)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="don't  have , a space . before punctuation ? n't 's\n\n  x")
def test_byte_level_gives_the_same_tokens(
    bytewise: tuple[tokenizers.Tokenizer, LlamaCppModel], text: str
) -> None:
    ours, theirs = bytewise
    assert theirs.encode(text) == ours.encode(text, add_special_tokens=False).ids
