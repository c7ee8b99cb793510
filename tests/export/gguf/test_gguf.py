# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""GGUF files: what they say, what they hold, what is refused; in llama.cpp, the same numbers."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
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
from tests.tiny import VOCAB_SIZE, random_model

from openllm.core.errors import CheckpointError, TokenizerError
from openllm.export.gguf.file import Dtype, GGUFFile
from openllm.export.gguf.reader import read_gguf
from openllm.export.gguf.shapes import architecture
from openllm.export.gguf.tokenizer import chat_templates, pre_tokenizer, tokenizer_metadata
from openllm.export.gguf.writer import export_gguf, file_name, tensor_dtype
from openllm.nn.config import ModelConfig
from openllm.text.load import load_tokenizer
from openllm.text.sentencepiece_tokenizer import parse_model

pytest.importorskip("gguf", reason="needs the extra 'export'")


@pytest.mark.integration
@pytest.mark.parametrize("case", GGUF_SHAPES)
def test_each_shape_is_read_back(case: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    name, cfg = GGUF_SHAPES[case]
    assert architecture(cfg) == name
    model = random_model(cfg).eval()
    path = exported(tmp_path, model, tokenizer_folder, "f32")
    file = GGUFFile(path)
    assert file.metadata["general.architecture"] == name
    again = read_gguf(path)
    ids = tokens(again.cfg.max_positions)
    assert difference(our_logits(again, ids), our_logits(model, ids)) < 1e-5
    state = model.state_dict()
    if cfg.attention.scale is None and not getattr(cfg.norm, "unit_offset", False):
        for key, tensor in again.state_dict().items():
            assert torch.equal(tensor, state.get(key, state["embed_tokens.weight"])), key


@pytest.mark.parametrize(
    ("dtype", "most"), [("f32", 0), ("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 4e-2), ("q4_0", 5e-1)]
)
def test_each_dtype_is_read_back(
    dtype: Dtype, most: float, tmp_path: Path, tokenizer_folder: Path
) -> None:
    cfg = changed("llama", mlp__hidden_dim=128)
    model = random_model(cfg).eval()
    path = exported(tmp_path, model, tokenizer_folder, dtype)
    file = GGUFFile(path)
    kinds = {tensor.dtype for name, tensor in file.tensors.items() if "norm" not in name}
    assert kinds == ({"q4_0", "q8_0"} if dtype == "q4_0" else {dtype})
    assert {tensor.dtype for name, tensor in file.tensors.items() if "norm" in name} == {"f32"}
    assert file.metadata["general.file_type"] == {
        "f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32,
    }[dtype]  # fmt: skip
    ids = tokens()
    found = difference(our_logits(read_gguf(path), ids), our_logits(model, ids))
    assert found <= most and (found > most / 100 or dtype == "f32")


def test_what_the_file_says(tmp_path: Path, tokenizer_folder: Path) -> None:
    cfg = changed("llama", attention__window=40, attention__head_dim=8)
    data = {"name": "stories 1", "sources": [{"name": "tiny", "licence": "CC0-1.0"}]}
    source = written(tmp_path, random_model(cfg), tokenizer_folder, data=data)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# a test\n")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "out").mkdir()
    export_gguf(source, tmp_path / "out", dtype="bf16")
    said = GGUFFile(tmp_path / "out" / f"{file_name(source)}-BF16.gguf").metadata
    tokenizer = load_tokenizer(tokenizer_folder)
    expected = {
        "general.architecture": "llama",
        "general.name": file_name(source),
        "general.license": "mit",
        "general.description": "trained on tiny (licence CC0-1.0)",
        "general.quantization_version": 2,
        "llama.context_length": 40,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 112,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 500_000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": tokenizer.bos_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_id,
        "tokenizer.ggml.eot_token_id": tokenizer.controls["<|end_of_turn|>"],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": "{{ messages }}",
    }
    assert {key: said.get(key) for key in expected} == expected
    assert said["tokenizer.ggml.tokens"] == [tokenizer.piece(i) for i in range(VOCAB_SIZE)]
    controls = {i for i, kind in enumerate(said["tokenizer.ggml.token_type"]) if kind == 3}
    assert controls == set(tokenizer.controls.values()) - {tokenizer.unk_id}


def test_a_model_has_the_name_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "my run" / "model").mkdir(parents=True)
    assert file_name(tmp_path / "my run" / "model") == "my-run"


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (changed("qwen3", mlp={"kind": "relu2", "hidden_dim": 64}), "MLP 'swiglu', not 'relu2'"),
        (changed("llama", norm={"kind": "layer"}), "norm 'rms', not 'layer'"),
        (changed("qwen3", embed_scale=3.0), "multiplies embeddings by 1, not 3"),
        (changed("qwen3", attention__softcap=3.0), "no cap of scores"),
        (changed("llama", position__unrotated_layers=[0]), r"your model in \(0,\)"),
        (
            changed(
                "qwen3",
                position__scaling={
                    "kind": "llama3", "factor": 2.0, "original_max_positions": 32,
                },
            ),
            "qwen3, has no rotary scaling 'llama3'",
        ),
        (changed("qwen3", position__fraction=0.5), "rotates whole heads"),
        (changed("qwen3", research__embedding_mix=True), "'research'"),
        (
            changed(
                "qwen3",
                position__scaling={
                    "kind": "yarn", "factor": 2.0, "original_max_positions": 32, "beta_fast": 8.0,
                },
            ),
            "beta_fast 32",
        ),
        (
            ModelConfig.parse(
                GGUF_SHAPES["gemma2"][1].dump() | {"tie_embeddings": False}, "test"
            ),
            "no head apart",
        ),
        (
            ModelConfig.parse(GGUF_SHAPES["gemma2"][1].dump() | {"logit_softcap": None}, "test"),
            "needs a cap of logits",
        ),
    ],
)  # fmt: skip
def test_shapes_that_llama_cpp_lacks_are_refused(cfg: ModelConfig, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        architecture(cfg)


def test_values_beyond_the_dtype_are_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_model(GGUF_SHAPES["llama"][1])
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight .* choose bf16"):
        exported(tmp_path / "f16", model, tokenizer_folder, "f16")
    exported(tmp_path / "bf16", model, tokenizer_folder, "bf16")
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        exported(tmp_path / "f32", model, tokenizer_folder, "f32")


def test_damaged_files_are_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    path = exported(tmp_path, random_model(GGUF_SHAPES["llama"][1]), tokenizer_folder, "f16")
    whole = path.read_bytes()
    for name, content in {
        "short": whole[: len(whole) // 2],
        "header": whole[:100],
        "other": b"no model",
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} .*export the model again"):
            read_gguf(tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_gguf(tmp_path / "missing")


def test_types_of_single_tensors() -> None:
    assert tensor_dtype("blk.0.attn_q.weight", (8, 48), "q8_0", "output.weight") == "f16"
    assert tensor_dtype("blk.0.attn_q.weight", (8, 64), "q8_0", "output.weight") == "q8_0"
    assert tensor_dtype("output.weight", (8, 64), "q4_0", "output.weight") == "q8_0"
    assert tensor_dtype("token_embd.weight", (8, 64), "q4_0", "output.weight") == "q4_0"
    assert tensor_dtype("position_embd.weight", (8, 64), "f16", "output.weight") == "f32"
    assert tensor_dtype("output_norm.weight", (64,), "q4_0", "output.weight") == "f32"


@pytest.mark.parametrize(
    ("pattern", "ignore_merges", "name"),
    [
        (None, False, "gpt-2"),
        (QWEN2, False, "qwen2"),
        (LLAMA3, False, "dbrx"),
        (LLAMA3, True, "llama-bpe"),
    ],
)
def test_the_pattern_of_words_names_the_pre_tokenizer(
    pattern: str | None, ignore_merges: bool, name: str, tmp_path: Path
) -> None:
    byte_level(tmp_path, pattern, ignore_merges=ignore_merges)
    values = tokenizer_metadata(tmp_path, VOCAB_SIZE)
    assert values["tokenizer.ggml.pre"] == name
    assert values["tokenizer.ggml.model"] == "gpt2"
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert values["tokenizer.ggml.bos_token_id"] == 0
    assert values["tokenizer.ggml.eos_token_id"] == values["tokenizer.ggml.padding_token_id"] == 1
    assert values["tokenizer.ggml.eot_token_id"] == 2
    assert values["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert len(values["tokenizer.ggml.tokens"]) == VOCAB_SIZE
    assert values["tokenizer.ggml.token_type"][-1] == 5


def test_a_token_before_each_text_is_bos(tmp_path: Path) -> None:
    path = byte_level(tmp_path, QWEN2) / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|eos|> $A", special_tokens=[("<|eos|>", 1)]
    )
    tokenizer.save(str(path))
    values = tokenizer_metadata(tmp_path, VOCAB_SIZE)
    assert values["tokenizer.ggml.add_bos_token"] is True
    assert values["tokenizer.ggml.bos_token_id"] == 1


def test_eos_must_be_named_and_stands_for_a_missing_bos(tmp_path: Path) -> None:
    byte_level(tmp_path, QWEN2)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')
    with pytest.raises(TokenizerError, match="name it as 'eos_token'"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)
    (tmp_path / "config.json").write_text('{"eos_token_id": [1, 2]}')
    values = tokenizer_metadata(tmp_path, VOCAB_SIZE)
    assert values["tokenizer.ggml.bos_token_id"] == values["tokenizer.ggml.eos_token_id"] == 1


def test_all_chat_templates_are_taken(tmp_path: Path) -> None:
    templates = [{"name": "default", "template": "old"}, {"name": "tools", "template": "t"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    expected = {"tokenizer.chat_template": "old", "tokenizer.chat_template.tools": "t"}
    assert chat_templates(tmp_path) == expected
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("r")
    assert chat_templates(tmp_path) == {**expected, "tokenizer.chat_template.rag": "r"}
    (tmp_path / "chat_template.jinja").write_text("new")
    assert chat_templates(tmp_path) == {
        "tokenizer.chat_template": "new",
        "tokenizer.chat_template.rag": "r",
    }


def test_a_sentencepiece_model_that_changes_text_is_refused(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    proto = parse_model((tokenizer_folder / "tokenizer.model").read_bytes(), "test")
    path = tmp_path / "tokenizer.model"
    proto.normalizer_spec.remove_extra_whitespaces = True
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(TokenizerError, match="removes spaces"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(TokenizerError, match="is not a BPE"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)


def test_names_that_llama_cpp_would_parse_are_told(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = parse_model((tokenizer_folder / "tokenizer.model").read_bytes(), "test")
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    tokenizer_metadata(tmp_path, VOCAB_SIZE)
    assert capsys.readouterr().err == ""
    proto.pieces[-1].piece, proto.pieces[-2].piece = "<thi", "nk>"
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    tokenizer_metadata(tmp_path, VOCAB_SIZE)
    assert "spells '<think>'" in capsys.readouterr().err


def test_tokenizers_that_llama_cpp_lacks_are_refused(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    content = json.loads((byte_level(tmp_path, LLAMA3) / "tokenizer.json").read_text())
    with pytest.raises(TokenizerError, match="cuts text into words"):
        pre_tokenizer(content | {"pre_tokenizer": {"type": "Whitespace"}}, tmp_path)
    with pytest.raises(TokenizerError, match="changes characters"):
        pre_tokenizer(content | {"normalizer": {"type": "Lowercase"}}, tmp_path)
    with pytest.raises(TokenizerError, match="620 tokens, but the model has 600"):
        tokenizer_metadata(tmp_path, 600)
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    with pytest.raises(TokenizerError, match="not a byte-level BPE"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="neither"):
        tokenizer_metadata(tmp_path, VOCAB_SIZE)
