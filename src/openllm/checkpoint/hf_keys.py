# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Between our models and the architectures that `transformers` knows: configs and weight names.

Our attribute names are Hugging Face's, so Qwen3 and Llama differ by a prefix only; GPT-2 packs
query, key and value into one transposed matrix.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from openllm.core.errors import CheckpointError
from openllm.nn.config import (
    AttentionConfig,
    GeluConfig,
    LearnedPositionConfig,
    ModelConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.norm import LayerNormConfig, RMSNormConfig

GPT2_NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}


def architecture(cfg: ModelConfig) -> str:
    """The public architecture that expresses `cfg`: `qwen3`, `llama` or `gpt2`.

    Raises:
        CheckpointError: none does.
    """
    shape = cfg.attention
    kinds = (cfg.norm.kind, cfg.position.kind, cfg.mlp.kind)
    if kinds == ("rms", "rope", "swiglu") and not shape.bias:
        return "qwen3" if shape.qk_norm else "llama"
    square = shape.kv_heads == shape.num_heads and shape.num_heads * shape.head_dim == cfg.dim
    if kinds == ("layer", "learned", "gelu") and shape.bias and not shape.qk_norm and square:
        return "gpt2"
    raise CheckpointError(
        f"no public architecture has norm={kinds[0]}, position={kinds[1]}, mlp={kinds[2]}, "
        f"bias={shape.bias}, qk_norm={shape.qk_norm}; a model folder needs rms + rope + swiglu "
        "without bias, or layer + learned + gelu with bias"
    )


def to_hf_config(cfg: ModelConfig, *, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """The contents of `config.json`, with the names that current and older readers look for."""
    kind = architecture(cfg)
    shape = cfg.attention
    common = {
        "model_type": kind,
        "vocab_size": cfg.vocab_size,
        "tie_word_embeddings": cfg.tie_embeddings,
        "initializer_range": cfg.init_std,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": True,
    }
    if kind == "gpt2":
        return common | {
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": cfg.dim,
            "n_layer": cfg.num_layers,
            "n_head": shape.num_heads,
            "n_inner": cfg.mlp.hidden_dim,
            "n_positions": cfg.max_positions,
            "n_ctx": cfg.max_positions,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": cfg.norm.eps,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    assert isinstance(cfg.position, RopeConfig)
    names = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
    theta = cfg.position.theta
    return (
        common
        | {
            "architectures": [names[kind]],
            "hidden_size": cfg.dim,
            "intermediate_size": cfg.mlp.hidden_dim,
            "num_hidden_layers": cfg.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "max_position_embeddings": cfg.max_positions,
            "rms_norm_eps": cfg.norm.eps,
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }
        | ({"use_sliding_window": False, "sliding_window": None} if kind == "qwen3" else {})
    )


def from_hf_config(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Our config from the contents of a `config.json`.

    Raises:
        CheckpointError: an unknown architecture or a missing value.
    """
    kind = values.get("model_type")
    try:
        if kind in ("qwen3", "llama"):
            return _from_llama(values, qk_norm=kind == "qwen3")
        if kind == "gpt2":
            return _from_gpt2(values)
    except KeyError as error:
        raise CheckpointError(
            f"{source} lacks the value {error}; write the model folder anew"
        ) from None
    raise CheckpointError(
        f"{source} describes the architecture {kind!r}; supported are qwen3, llama and gpt2"
    )


def _from_llama(values: Mapping[str, Any], *, qk_norm: bool) -> ModelConfig:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise CheckpointError(
            f"rotary scaling {rope} is not supported; only rope_type 'default' is"
        )
    if values.get("attention_bias") or values.get("use_sliding_window"):
        raise CheckpointError("attention biases and sliding windows are not supported")
    _check_activation(values.get("hidden_act", "silu"), ("silu", "swish"))
    heads = values["num_attention_heads"]
    return ModelConfig(
        vocab_size=values["vocab_size"],
        dim=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        max_positions=values["max_position_embeddings"],
        tie_embeddings=values.get("tie_word_embeddings", False),
        init_std=values.get("initializer_range", 0.02),
        norm=RMSNormConfig(eps=values["rms_norm_eps"]),
        position=RopeConfig(theta=rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        attention=AttentionConfig(
            num_heads=heads,
            num_kv_heads=values.get("num_key_value_heads", heads),
            head_dim=values.get("head_dim") or values["hidden_size"] // heads,
            qk_norm=qk_norm,
        ),
        mlp=SwiGLUConfig(hidden_dim=values["intermediate_size"]),
    )


def _from_gpt2(values: Mapping[str, Any]) -> ModelConfig:
    dim, heads = values["n_embd"], values["n_head"]
    _check_activation(
        values.get("activation_function", "gelu_new"), ("gelu_new", "gelu_pytorch_tanh")
    )
    if values.get("scale_attn_by_inverse_layer_idx") or not values.get("scale_attn_weights", True):
        raise CheckpointError(
            "attention scaled otherwise than by 1/sqrt(head_dim) is not supported"
        )
    return ModelConfig(
        vocab_size=values["vocab_size"],
        dim=dim,
        num_layers=values["n_layer"],
        max_positions=values["n_positions"],
        tie_embeddings=values.get("tie_word_embeddings", True),
        init_std=values.get("initializer_range", 0.02),
        norm=LayerNormConfig(eps=values["layer_norm_epsilon"]),
        position=LearnedPositionConfig(),
        attention=AttentionConfig(
            num_heads=heads, num_kv_heads=heads, head_dim=dim // heads, qk_norm=False, bias=True
        ),
        mlp=GeluConfig(hidden_dim=values.get("n_inner") or 4 * dim),
    )


def _check_activation(given: str, supported: tuple[str, ...]) -> None:
    if given not in supported:
        raise CheckpointError(
            f"the activation function {given!r} is not supported here; only {supported[0]} is"
        )


def to_hf_state(cfg: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their Hugging Face names."""
    if architecture(cfg) != "gpt2":
        return {
            name if name.startswith("lm_head.") else f"model.{name}": tensor
            for name, tensor in state.items()
        }
    hf = {
        "transformer.wte.weight": state["embed_tokens.weight"],
        "transformer.wpe.weight": state["embed_positions.weight"],
        "transformer.ln_f.weight": state["norm.weight"],
        "transformer.ln_f.bias": state["norm.bias"],
    }
    if not cfg.tie_embeddings:
        hf["lm_head.weight"] = state["lm_head.weight"]
    for layer in range(cfg.num_layers):
        ours, theirs = f"layers.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            packed = [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            joined = torch.cat(packed)
            hf[f"{theirs}.attn.c_attn.{kind}"] = joined.T if kind == "weight" else joined
            for name, our_name in GPT2_NAMES.items():
                tensor = state[f"{ours}.{our_name}.{kind}"]
                hf[f"{theirs}.{name}.{kind}"] = tensor.T if tensor.ndim == 2 else tensor
    return {name: tensor.contiguous() for name, tensor in hf.items()}


def from_hf_state(cfg: ModelConfig, hf: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_hf_state`."""
    if architecture(cfg) != "gpt2":
        return {name.removeprefix("model."): tensor for name, tensor in hf.items()}
    # checkpoints of the bare model lack the prefix
    hf = {name.removeprefix("transformer."): tensor for name, tensor in hf.items()}
    state = {
        "embed_tokens.weight": hf["wte.weight"],
        "embed_positions.weight": hf["wpe.weight"],
        "norm.weight": hf["ln_f.weight"],
        "norm.bias": hf["ln_f.bias"],
    }
    if not cfg.tie_embeddings:
        state["lm_head.weight"] = hf["lm_head.weight"]
    for layer in range(cfg.num_layers):
        ours, theirs = f"layers.{layer}", f"h.{layer}"
        for kind in ("weight", "bias"):
            joined = hf[f"{theirs}.attn.c_attn.{kind}"]
            pieces = (joined.T if kind == "weight" else joined).split(cfg.dim)
            for part, tensor in zip("qkv", pieces, strict=True):
                state[f"{ours}.self_attn.{part}_proj.{kind}"] = tensor
            for name, our_name in GPT2_NAMES.items():
                tensor = hf[f"{theirs}.{name}.{kind}"]
                state[f"{ours}.{our_name}.{kind}"] = tensor.T if tensor.ndim == 2 else tensor
    return {name: tensor.contiguous() for name, tensor in state.items()}
