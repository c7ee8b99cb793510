# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Convert configs and weight names between our models and `transformers` architectures.

Our attribute names are Hugging Face's, so Qwen3 and Llama differ only by a prefix; GPT-2 packs
query, key and value into one transposed matrix. An architecture that `transformers` lacks is
written with our own config and names, and only OpenLLM reads it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from openllm.core.errors import CheckpointError, ConfigError
from openllm.nn.config import AttentionConfig, ModelConfig, ResearchConfig, RopeConfig

OWN = "openllm"
"""The `model_type` of a model that no public architecture expresses."""

GPT2_NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}


def architecture(cfg: ModelConfig) -> str:
    """Return the public architecture for `cfg`: `qwen3`, `llama` or `gpt2`; else `OWN`."""
    if cfg.research != ResearchConfig():
        return OWN
    if _has_more_than_listed(cfg):
        return OWN
    shape = cfg.attention
    kinds = (cfg.norm.kind, cfg.position.kind, cfg.mlp.kind)
    if kinds == ("rms", "rope", "swiglu") and not shape.bias:
        return "qwen3" if shape.qk_norm else "llama"
    square = shape.kv_heads == shape.num_heads and shape.num_heads * shape.head_dim == cfg.dim
    if kinds == ("layer", "learned", "gelu") and shape.bias and not shape.qk_norm and square:
        return "gpt2"
    return OWN


def _has_more_than_listed(cfg: ModelConfig) -> bool:
    shape, rope = cfg.attention, cfg.position
    plain = AttentionConfig(
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        qk_norm=shape.qk_norm,
        bias=shape.bias,
    )
    return (
        shape != plain
        or (isinstance(rope, RopeConfig) and rope != RopeConfig(theta=rope.theta))
        or getattr(cfg.norm, "unit_offset", False)
        or (cfg.norm_placement, cfg.embed_scale, cfg.logit_softcap) != ("pre", None, None)
    )


def to_hf_config(cfg: ModelConfig, *, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """Return the contents of `config.json`, with the keys current and older readers expect."""
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
    if kind == OWN:
        return common | {"architectures": ["OpenLLMForCausalLM"], OWN: cfg.dump()}
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
    """Build our config from the contents of a `config.json`.

    Raises:
        CheckpointError: unknown architecture, or a missing or invalid value.
    """
    kind = values.get("model_type")
    try:
        if kind in ("qwen3", "llama"):
            return ModelConfig.parse(_from_llama(values, qk_norm=kind == "qwen3"), source)
        if kind == "gpt2":
            return ModelConfig.parse(_from_gpt2(values), source)
        if kind == OWN:
            return ModelConfig.parse(_mapping(values, OWN), source)
    except KeyError as error:
        raise CheckpointError(
            f"{source} lacks the value {error}; write the model folder again"
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{error}; write the model folder again") from None
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    raise CheckpointError(
        f"{source} has the unsupported architecture {kind!r}; supported are qwen3, llama and gpt2"
    )


def _size(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Read a positive integer; null or missing means the default, if there is one."""
    value = values[name] if default is None else values.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(
            f"'{name}' is {value!r}, but must be a positive integer; write the model folder again"
        )
    return value


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(values[name], Mapping):
        raise CheckpointError(f"'{name}' is {values[name]!r}, but must be a JSON object")
    return values[name]


def _share(name: str, whole: int, among: str, count: int) -> int:
    """Divide `whole` by `count`, which must leave no remainder."""
    if whole % count:
        raise CheckpointError(f"'{name}' is {whole}, which is not a multiple of '{among}', {count}")
    return whole // count


def _from_llama(values: Mapping[str, Any], *, qk_norm: bool) -> dict[str, Any]:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or (
        rope.get("rope_type", rope.get("type", "default")) != "default"
    ):
        raise CheckpointError(
            f"rotary scaling {rope!r} is not supported; only rope_type 'default' is"
        )
    if values.get("attention_bias") or values.get("use_sliding_window"):
        raise CheckpointError("attention biases and sliding windows are not supported")
    _check_activation(values.get("hidden_act", "silu"), ("silu", "swish"))
    heads, dim = _size(values, "num_attention_heads"), _size(values, "hidden_size")
    key_value_heads = _size(values, "num_key_value_heads", heads)
    _share("num_attention_heads", heads, "num_key_value_heads", key_value_heads)
    if values.get("head_dim") is None:
        head_dim = _share("hidden_size", dim, "num_attention_heads", heads)
    else:
        head_dim = _size(values, "head_dim")
    return {
        "vocab_size": _size(values, "vocab_size"),
        "dim": dim,
        "num_layers": _size(values, "num_hidden_layers"),
        "max_positions": _size(values, "max_position_embeddings"),
        "tie_embeddings": values.get("tie_word_embeddings", False),
        "init_std": values.get("initializer_range", 0.02),
        "norm": {"kind": "rms", "eps": values["rms_norm_eps"]},
        "position": {
            "kind": "rope",
            "theta": rope.get("rope_theta", values.get("rope_theta", 10_000.0)),
        },
        "attention": {
            "num_heads": heads,
            "num_kv_heads": key_value_heads,
            "head_dim": head_dim,
            "qk_norm": qk_norm,
        },
        "mlp": {"kind": "swiglu", "hidden_dim": _size(values, "intermediate_size")},
    }


def _from_gpt2(values: Mapping[str, Any]) -> dict[str, Any]:
    dim, heads = _size(values, "n_embd"), _size(values, "n_head")
    _check_activation(
        values.get("activation_function", "gelu_new"), ("gelu_new", "gelu_pytorch_tanh")
    )
    if values.get("scale_attn_by_inverse_layer_idx") or not values.get("scale_attn_weights", True):
        raise CheckpointError("attention scaling other than 1/sqrt(head_dim) is not supported")
    return {
        "vocab_size": _size(values, "vocab_size"),
        "dim": dim,
        "num_layers": _size(values, "n_layer"),
        "max_positions": _size(values, "n_positions"),
        "tie_embeddings": values.get("tie_word_embeddings", True),
        "init_std": values.get("initializer_range", 0.02),
        "norm": {"kind": "layer", "eps": values["layer_norm_epsilon"]},
        "position": {"kind": "learned"},
        "attention": {
            "num_heads": heads,
            "num_kv_heads": heads,
            "head_dim": _share("n_embd", dim, "n_head", heads),
            "qk_norm": False,
            "bias": True,
        },
        "mlp": {"kind": "gelu", "hidden_dim": _size(values, "n_inner", 4 * dim)},
    }


def _check_activation(given: str, supported: tuple[str, ...]) -> None:
    if given not in supported:
        raise CheckpointError(
            f"the activation function {given!r} is not supported; only {supported[0]} is"
        )


def to_hf_state(cfg: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our weights to Hugging Face's names; keep ours if the architecture is `OWN`."""
    kind = architecture(cfg)
    if kind == OWN:
        return dict(state)
    if kind != "gpt2":
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
    kind = architecture(cfg)
    if kind == OWN:
        return dict(hf)
    if kind != "gpt2":
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
