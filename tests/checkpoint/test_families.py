# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Configs as public checkpoints have them, keys without effect included."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import SHAPES

from openllm.checkpoint.families.base import canonical
from openllm.checkpoint.families.registry import (
    FAMILIES,
    OWN,
    architecture,
    from_hf_config,
    to_hf_config,
)
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig, ResearchConfig
from openllm.nn.cost import parameters
from openllm.nn.rope_scaling import LongRopeScaling

ANY = {
    "_name_or_path": "a/b",
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0",
    "use_cache": True,
}


def decoder(
    kind: str, dim: int, mlp: int, layers: int, heads: int, groups: int, **rest: Any
) -> dict[str, Any]:
    return ANY | {
        "model_type": kind,
        "hidden_size": dim,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        **rest,
    }


LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
SILU = {"hidden_act": "silu", "rms_norm_eps": 1e-5}
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "head_dim": 256}
QWEN = {"max_window_layers": 28, "use_sliding_window": False, "sliding_window": None}

PUBLIC: dict[str, tuple[dict[str, Any], float]] = {
    "GPT-2": (
        {
            "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
            "n_positions": 1024, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "vocab_size": 50257,
            "summary_activation": None, "summary_first_dropout": 0.1, "summary_type": "cls_index",
            "summary_proj_to_labels": True, "summary_use_proj": True,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        },
        124.4,
    ),
    "Llama 2 7B": (
        decoder("llama", 4096, 11008, 32, 32, 32, **SILU, vocab_size=32000, pretraining_tp=1)
        | {"max_position_embeddings": 4096, "rope_scaling": None, "tie_word_embeddings": False},
        6738.4,
    ),
    "Llama 3.2 1B": (
        decoder("llama", 2048, 8192, 16, 32, 8, **SILU, vocab_size=128256, head_dim=64)
        | {"max_position_embeddings": 131072, "rope_scaling": LLAMA3, "rope_theta": 500000.0}
        | {"mlp_bias": False, "attention_bias": False, "tie_word_embeddings": True},
        1235.8,
    ),
    "SmolLM2 135M": (
        decoder("llama", 576, 1536, 30, 9, 3, **SILU, vocab_size=49152, is_llama_config=True)
        | {"rope_interleaved": False, "rope_theta": 100000, "tie_word_embeddings": True}
        | {"max_position_embeddings": 8192, "transformers.js_config": {"dtype": "q4"}},
        134.5,
    ),
    "Mistral 7B v0.1": (
        decoder("mistral", 4096, 14336, 32, 32, 8, **SILU, vocab_size=32000, sliding_window=4096)
        | {"max_position_embeddings": 32768, "rope_theta": 10000.0},
        7241.7,
    ),
    "Qwen2.5 0.5B": (
        decoder("qwen2", 896, 4864, 24, 14, 2, **SILU, vocab_size=151936, use_mrope=False)
        | {"max_window_layers": 24, "use_sliding_window": False, "sliding_window": 32768}
        | {"max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True},
        494.0,
    ),
    "Qwen3 0.6B": (
        decoder("qwen3", 1024, 3072, 28, 16, 8, **SILU, **QWEN, vocab_size=151936, head_dim=128)
        | {"max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": True}
        | {"attention_bias": False, "rope_scaling": None},
        596.0,
    ),
    "SmolLM3 3B": (
        decoder("smollm3", 2048, 11008, 36, 16, 4, **SILU, **QWEN, vocab_size=128256)
        | {"layer_types": ["full_attention"] * 36, "no_rope_layers": [1, 1, 1, 0] * 9}
        | {"no_rope_layer_interval": 4, "max_position_embeddings": 65536, "rope_theta": 5e6}
        | {"mlp_bias": False, "attention_bias": False, "pretraining_tp": 2},
        3075.1,
    ),
    "OLMo 2 1B": (
        decoder("olmo2", 2048, 8192, 16, 16, 16, **SILU, vocab_size=100352)
        | {"max_position_embeddings": 4096, "rope_scaling": None, "rope_theta": 500000}
        | {"attention_bias": False, "tie_word_embeddings": False},
        1484.9,
    ),
    "Gemma 2 2B": (
        decoder("gemma2", 2304, 9216, 26, 8, 4, **GEMMA, vocab_size=256000, sliding_window=4096)
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
        | {"query_pre_attn_scalar": 256, "hidden_act": "gelu_pytorch_tanh"}
        | {"cache_implementation": "hybrid", "max_position_embeddings": 8192}
        | {"sliding_window_size": 4096, "rope_theta": 10000.0},
        2614.3,
    ),
    "Gemma 3 1B": (
        decoder("gemma3_text", 1152, 6912, 26, 4, 1, **GEMMA, vocab_size=262144)
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 512}
        | {"query_pre_attn_scalar": 256, "sliding_window_pattern": 6, "rope_theta": 1000000}
        | {"rope_local_base_freq": 10000, "rope_scaling": None, "max_position_embeddings": 32768},
        999.9,
    ),
    "Phi-3 mini 4k": (
        decoder("phi3", 3072, 8192, 32, 32, 32, **SILU, vocab_size=32064, sliding_window=2047)
        | {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "rope_scaling": None}
        | {"original_max_position_embeddings": 4096, "max_position_embeddings": 4096}
        | {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attention_bias": False},
        3821.1,
    ),
    "Phi-4 mini": (
        decoder("phi3", 3072, 8192, 32, 24, 8, **SILU, vocab_size=200064, sliding_window=262144)
        | {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False}
        | {"original_max_position_embeddings": 4096, "max_position_embeddings": 131072}
        | {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}
        | {"rope_scaling": {"type": "longrope", "short_factor": [1] * 48, "long_factor": [2] * 48}},
        3836.0,
    ),
}  # fmt: skip
"""Config of a checkpoint, and its parameters in millions."""


@pytest.mark.parametrize("name", PUBLIC)
def test_public_checkpoints_are_understood(name: str) -> None:
    values, millions = PUBLIC[name]
    cfg = from_hf_config(values, name)
    assert parameters(cfg).total / 1e6 == pytest.approx(millions, rel=1e-3)
    again = to_hf_config(cfg, bos=1, eos=2, pad=3, family=values["model_type"])
    assert canonical(from_hf_config(again, name)) == canonical(cfg)
    chosen = to_hf_config(cfg, bos=1, eos=2, pad=3)
    assert chosen["model_type"] != OWN
    assert canonical(from_hf_config(chosen, name)) == canonical(cfg)


def test_details_of_public_checkpoints() -> None:
    read = {name: from_hf_config(values, name) for name, (values, _) in PUBLIC.items()}
    assert read["SmolLM3 3B"].position.unrotated_layers == tuple(range(3, 36, 4))
    gemma = read["Gemma 3 1B"]
    assert [n for n in range(26) if gemma.attention.window_of(n) is None] == [5, 11, 17, 23]
    assert (gemma.position.theta, gemma.position.window_theta) == (1e6, 1e4)
    assert gemma.attention.scale is None and gemma.tie_embeddings
    assert read["Gemma 2 2B"].attention.window_layers == tuple(range(0, 26, 2))
    assert not read["Qwen2.5 0.5B"].attention.has_output_bias
    assert read["Qwen2.5 0.5B"].attention.window is None
    phi = read["Phi-4 mini"].position
    assert isinstance(phi.scaling, LongRopeScaling)
    assert (phi.scaling.factor, phi.scaling.original_max_positions) == (32.0, 4096)
    assert phi.rotated_dim(128) == 96


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_each_shape_has_its_family(name: str) -> None:
    assert architecture(SHAPES[name]) == name


def test_what_matters_in_training_alone_does_not_change_the_family() -> None:
    cfg = SHAPES["qwen3"].model_copy(update={"dropout": 0.3, "init_residual": 0.0})
    assert architecture(cfg) == "qwen3"
    research = cfg.model_copy(update={"research": ResearchConfig(embedding_mix=True)})
    assert architecture(research) == OWN


def test_a_width_that_heads_do_not_divide_is_mistral() -> None:
    """transformers refuses it for Llama; Mistral without a window is the same function."""
    cfg = SHAPES["llama"].model_copy(update={"dim": 50})
    assert architecture(cfg) == "mistral"
    assert to_hf_config(cfg, bos=1, eos=2, pad=3)["sliding_window"] is None


def test_links_hold_each_tensor_once() -> None:
    from openllm.nn.model import build_model

    for name, cfg in SHAPES.items():
        state = build_model(cfg).state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        for family in FAMILIES.values():
            links = family.links(shapes)
            assert sorted(key for link in links for key in link.ours) == sorted(state), name
            again = {}
            for link in links:
                whole = link.join(state)
                assert tuple(whole.shape) == link.shape(shapes)
                again |= link.split(whole, shapes)
            assert all(again[key].equal(tensor) for key, tensor in state.items())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.mark.integration
@given(st.data())
def test_any_value_of_any_key_is_read_or_refused(data: st.DataObject) -> None:
    values, _ = PUBLIC[data.draw(st.sampled_from(sorted(PUBLIC)))]
    changed = dict(values)
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        changed[key] = data.draw(json_values)
    try:
        cfg = from_hf_config(changed, "file")
    except CheckpointError as error:
        assert str(error).startswith("file")
    else:
        assert isinstance(cfg, ModelConfig)
