# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""GPT-2: layer norms, learned positions, query, key and value in one transposed matrix."""

from typing import Any, ClassVar

from openllm.checkpoint.families.base import Family, multiple
from openllm.checkpoint.families.values import MOST_LAYERS, Values
from openllm.nn.config import ModelConfig


class GPT2(Family):
    """GPT-2."""

    model_type = "gpt2"
    class_name = "GPT2LMHeadModel"
    kinds = ("layer", "learned", "gelu")
    harmless = frozenset(
        {
            "attn_pdrop",
            "embd_pdrop",
            "n_ctx",
            "reorder_and_upcast_attn",  # the order of the arithmetic alone
            "resid_pdrop",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        }
    )
    prefix = "transformer."
    layers = "h"
    renamed: ClassVar = {
        "embed_tokens": "wte",
        "embed_positions": "wpe",
        "norm": "ln_f",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "self_attn.o_proj": "attn.c_proj",
        "mlp.up_proj": "mlp.c_fc",
        "mlp.down_proj": "mlp.c_proj",
    }
    packed: ClassVar = {"attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}
    transposed = frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"})
    buffers = r"attn\.(masked_)?bias"

    def read(self, values: Values) -> dict[str, Any]:
        """Values of `ModelConfig`."""
        heads, dim = values.size("n_head"), values.size("n_embd")
        values.must("activation_function", "gelu_new", "gelu_pytorch_tanh")
        values.must("scale_attn_by_inverse_layer_idx", False)
        values.must("scale_attn_weights", True)
        return {
            "vocab_size": values.size("vocab_size"),
            "dim": dim,
            "num_layers": values.size("n_layer", most=MOST_LAYERS),
            "max_positions": values.size("n_positions", 1024),
            "tie_embeddings": values.flag("tie_word_embeddings", True),
            "init_std": values.number("initializer_range", 0.02),
            "norm": {"kind": "layer", "eps": values.number("layer_norm_epsilon", 1e-5)},
            "position": {"kind": "learned"},
            "attention": {
                "num_heads": heads,
                "num_kv_heads": heads,
                "head_dim": multiple(values, "n_embd", "n_head", heads),
                "qk_norm": False,
                "bias": True,
            },
            "mlp": {"kind": "gelu", "hidden_dim": values.size("n_inner", 4 * dim)},
        }

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        """The keys of `config.json` that describe the architecture."""
        return {
            "vocab_size": cfg.vocab_size,
            "tie_word_embeddings": cfg.tie_embeddings,
            "initializer_range": cfg.init_std,
            "n_embd": cfg.dim,
            "n_layer": cfg.num_layers,
            "n_head": cfg.attention.num_heads,
            "n_inner": cfg.mlp.hidden_dim,
            "n_positions": cfg.max_positions,
            "n_ctx": cfg.max_positions,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": cfg.norm.eps,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
