# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our model folders in `transformers`, and its models in OpenLLM: same numbers, no custom code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.tiny import SHAPES, VOCAB_SIZE, random_model, sentences
from transformers import AutoModelForCausalLM, AutoTokenizer

from openllm.checkpoint.families.registry import OWN, architecture
from openllm.checkpoint.model_dir import load_model, read_model_config, write_model
from openllm.core.errors import CheckpointError
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.nn.config import ModelConfig
from openllm.nn.heads import logits
from openllm.nn.model import Transformer
from openllm.text.load import load_tokenizer

MAX_DIFFERENCE = 1e-5
"""Of any logit, in float32."""


@pytest.fixture(scope="module", params=sorted(SHAPES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path
) -> tuple[str, Transformer, Path]:
    """Name of a shape, a random model of it, and its model folder."""
    cfg = SHAPES[request.param]
    model = random_model(cfg).eval()
    folder = tmp_path_factory.mktemp("parity") / request.param
    write_model(
        folder, cfg, model.state_dict(), tokenizer=tokenizer_folder, lineage={}, card="# a test"
    )
    return request.param, model, folder


@torch.no_grad()
def our_logits(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    return logits(model(tokens).x, model.head)


def some_tokens(rows: int = 3, length: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, VOCAB_SIZE, (rows, length), generator=generator)


@pytest.mark.integration
def test_logits_are_equal_in_transformers(exported: tuple[str, Transformer, Path]) -> None:
    name, model, folder = exported
    peer = AutoModelForCausalLM.from_pretrained(folder)
    assert peer.config.model_type == name == architecture(model.cfg)
    tokens = some_tokens()
    with torch.no_grad():
        theirs = peer(tokens).logits
    ours = our_logits(model, tokens)
    assert ours.std() > 0.5, "the logits are too small to compare"
    assert (ours - theirs).abs().max() < MAX_DIFFERENCE


def test_a_written_model_is_read_back_bit_by_bit(exported: tuple[str, Transformer, Path]) -> None:
    _, model, folder = exported
    again = load_model(folder)
    assert again.cfg == model.cfg
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


@pytest.mark.integration
def test_greedy_text_is_the_same_as_in_transformers(
    exported: tuple[str, Transformer, Path], tmp_path: Path
) -> None:
    _, model, folder = exported
    # larger weights: a model of small ones repeats itself from the first token on
    wide = random_model(model.cfg, spread=0.5).state_dict()
    write_model(tmp_path / "wide", model.cfg, wide, tokenizer=folder, lineage={}, card="# a test")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    llm = LLM.load(tmp_path / "wide", EngineConfig(precision="fp32"))
    # ours never shows control tokens, so theirs must not either
    banned = [[token] for token in sorted(llm.tokenizer.banned_ids)]
    for sentence in sentences(4, seed=9):
        params = SamplingParams(max_new_tokens=24, temperature=0)
        answer = llm.generate([sentence[:40]], params)[0]
        ids = torch.tensor([answer.prompt_token_ids])
        out = peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            bad_words_ids=banned,
        )
        theirs = out[0, ids.shape[1] :].tolist()
        assert answer.token_ids == [token for token in theirs if token != llm.tokenizer.eos_id]
        assert len(set(theirs)) > 5


def test_the_tokenizer_in_the_folder_is_the_same(exported: tuple[str, Transformer, Path]) -> None:
    _, _, folder = exported
    peer = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    for text in sentences(20, seed=3):
        assert peer(text)["input_ids"] == [ours.bos_id, *ours.encode(text)]
        assert peer.decode(ours.encode(text)) == text
    assert (peer.bos_token_id, peer.eos_token_id) == (ours.bos_id, ours.eos_id)


def test_the_config_says_it_the_old_and_the_new_way(
    exported: tuple[str, Transformer, Path],
) -> None:
    name, model, folder = exported
    values = json.loads((folder / "config.json").read_text())
    assert values["dtype"] == values["torch_dtype"] == "float32"
    if name != "gpt2":
        assert values["head_dim"] == model.cfg.attention.head_dim
        theta = model.cfg.position.theta
        rope = values["rope_parameters"]
        assert values["rope_theta"] == rope.get("full_attention", rope)["rope_theta"] == theta


COMMON = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
SIZES = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 128}
FOREIGN: dict[str, tuple[type[transformers.PreTrainedConfig], dict[str, Any]]] = {
    "qwen3": (
        transformers.Qwen3Config,
        {
            **SIZES,
            **COMMON,
            "hidden_size": 48,
            "intermediate_size": 96,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    ),
    "llama": (
        transformers.LlamaConfig,
        {**SIZES, **COMMON, "hidden_size": 64, "intermediate_size": 112, "rms_norm_eps": 1e-5},
    ),
    "gpt2": (
        transformers.GPT2Config,
        {"vocab_size": VOCAB_SIZE, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
    ),
}
"""Models as other tools make them: class of the config and its values."""


def foreign(name: str, **rest: Any) -> transformers.PreTrainedConfig:
    kind, values = FOREIGN[name]
    return kind(**{**values, **rest})


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_models_of_transformers_load_in_ours(name: str, tied: bool, tmp_path: Path) -> None:
    config = foreign(name, tie_word_embeddings=tied)
    torch.manual_seed(0)
    peer = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    peer.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.cfg.tie_embeddings is tied
    tokens = some_tokens()
    with torch.no_grad():
        theirs = peer(tokens).logits
    assert (our_logits(ours, tokens) - theirs).abs().max() < MAX_DIFFERENCE


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("llama", {"hidden_act": "gelu"}, "'hidden_act' is 'gelu', but only 'silu'"),
        ("llama", {"mlp_bias": True}, "'mlp_bias' is True, but only False"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "'rope_parameters.rope_type' is 'dynamic'",
        ),
        ("gpt2", {"activation_function": "relu"}, "'activation_function' is 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "'scale_attn_by_inverse_layer_idx'"),
        ("llama", {"num_key_value_heads": 3}, "not a multiple of 'num_key_value_heads', 3"),
        ("llama", {"hidden_size": 0}, "'hidden_size' is 0"),
        ("llama", {"hidden_size": 66, "head_dim": None}, "'hidden_size' is 66"),
        ("llama", {"num_attention_heads": 0}, "'num_attention_heads' is 0"),
        ("llama", {"head_dim": 0}, "'head_dim' is 0"),
        ("llama", {"vocab_size": None}, "'vocab_size' is missing"),
        ("llama", {"vocab_size": 1}, r"'vocab_size': .* \(got 1\)"),
        ("llama", {"intermediate_size": "wide"}, "'intermediate_size' is 'wide'"),
        ("llama", {"num_hidden_layers": True}, "'num_hidden_layers' is True"),
        ("llama", {"rms_norm_eps": float("nan")}, "'rms_norm_eps' is nan"),
        ("llama", {"tie_word_embeddings": "perhaps"}, "'tie_word_embeddings' is 'perhaps'"),
        (
            "llama",
            {"rope_parameters": None, "rope_scaling": "linear"},
            "'rope_scaling' is 'linear'",
        ),
        ("llama", {"rope_parameters": {"rope_theta": -1}}, "'rope_parameters.rope_theta' is -1"),
        ("gpt2", {"n_embd": 66}, "'n_embd' is 66, which is not a multiple of 'n_head', 4"),
        ("gpt2", {"n_inner": -1}, "'n_inner' is -1"),
        ("gpt2", {"model_type": "openllm", "openllm": 3}, "'openllm' is 3"),
        ("gpt2", {"model_type": "openllm"}, "'openllm' is None"),
        (
            "gpt2",
            {"model_type": "openllm", "openllm": {"norm": {"kind": "plain"}}},
            "'norm': .* 'rms', 'layer'",
        ),
    ],
)
def test_what_our_model_cannot_express_is_refused(
    name: str, change: dict[str, object], words: str, tmp_path: Path
) -> None:
    values = foreign(name).to_dict()
    if change.get("model_type") == "openllm":
        values = {}
    values |= change
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_model_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"norm": {"kind": "layer"}},
        {"position": {"kind": "learned"}},
        {"mlp": {"kind": "gelu", "hidden_dim": 64}},
        {"attention": {"num_heads": 4, "head_dim": 16, "output_bias": True}},
    ],
)
def test_mixed_shapes_are_for_openllm_alone(
    change: dict[str, object], tmp_path: Path, tokenizer_folder: Path
) -> None:
    cfg = ModelConfig.parse(SHAPES["qwen3"].dump() | change, "test")
    assert architecture(cfg) == OWN
    model = random_model(cfg).eval()
    folder = tmp_path / "model"
    weights = model.state_dict()
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="# a test")
    with pytest.raises(ValueError, match="openllm"):
        AutoModelForCausalLM.from_pretrained(folder)
    again = load_model(folder)
    assert again.cfg == cfg
    assert again.state_dict().keys() == weights.keys()
    assert torch.equal(our_logits(again, some_tokens()), our_logits(model, some_tokens()))
