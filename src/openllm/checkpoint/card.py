# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model card: facts about a model folder, from its lineage."""

from collections.abc import Mapping
from typing import Any

from openllm.checkpoint.families.registry import OWN, architecture
from openllm.nn.config import ModelConfig
from openllm.nn.cost import parameters


def model_card(cfg: ModelConfig, lineage: Mapping[str, Any]) -> str:
    """Return the text of a model folder's `README.md`."""
    data = lineage["data"]
    sources = [
        f"- {source['name']}: licence {source.get('licence') or 'not stated'}"
        for source in data["sources"]
    ]
    loads = [
        "It loads with `transformers.AutoModelForCausalLM.from_pretrained` and needs no",
        "custom code. Its text may be wrong, biased or copied from its training data.",
    ]
    if architecture(cfg) == OWN:
        loads = [
            "No transformers architecture has this shape; only OpenLLM can load this folder.",
            "Its text may be wrong, biased or copied from its training data.",
        ]
    if quantization := lineage.get("quantization"):
        loads = [
            f"Its weights were trained to have {quantization['bits']} bits; OpenLLM loads",
            "this folder, other programs what `openllm export` makes of it.",
            "Its text may be wrong, biased or copied from its training data.",
        ]
    return "\n".join(
        [
            f"# {data['name']}, {parameters(cfg).total / 1e6:.1f}M parameters",
            "",
            "A base language model: it continues text; it was not tuned to follow instructions.",
            "",
            f"- {cfg.num_layers} layers, width {cfg.dim}, {cfg.attention.num_heads} heads, "
            f"vocabulary {cfg.vocab_size:,}, context {cfg.max_positions:,} tokens",
            f"- trained on {lineage['tokens_seen']:,} tokens; these weights had the best "
            f"validation loss: {lineage['validation_loss']:.4f} nats/token at step "
            f"{lineage['steps']:,} of {lineage['total_steps']:,}",
            f"- data: {data['corpus']}, fingerprint {data['fingerprint'][:16]}",
            *sources,
            "- full recipe and commit: openllm.json",
            "",
            '    openllm generate . --prompt "Once"',
            "",
            *loads,
            "",
        ]
    )


def import_card(cfg: ModelConfig, lineage: Mapping[str, Any]) -> str:
    """The text of `README.md` for a model that `openllm import` wrote."""
    parent = lineage["parents"][0]["name"]
    revision = f", revision {lineage['revision']}" if lineage["revision"] else ""
    licence = lineage["licence"] or "not stated; look where the weights came from"
    return "\n".join(
        [
            f"# {parent}, {parameters(cfg).total / 1e6:.1f}M parameters",
            "",
            f"Imported from {parent}{revision}.",
            "",
            f"- architecture {lineage['family']}: {cfg.num_layers} layers, width {cfg.dim}, "
            f"{cfg.attention.num_heads} heads, vocabulary {cfg.vocab_size:,}, "
            f"context {cfg.max_positions:,} tokens",
            f"- weights in {lineage['dtype']}",
            f"- licence of the original: {licence}",
            "- SHA-256 of the original files: openllm.json",
            "",
            '    openllm generate . --prompt "Once"',
            "",
        ]
    )


def merge_card(cfg: ModelConfig, lineage: Mapping[str, Any]) -> str:
    """The text of `README.md` for a model that `openllm merge` wrote."""
    ranks = ", ".join(f"{rank}" for rank in lineage["ranks"])
    return "\n".join(
        [
            f"# {lineage['base']} with {lineage['adapter']}, "
            f"{parameters(cfg).total / 1e6:.1f}M parameters",
            "",
            f"{lineage['base']} with the adapter {lineage['adapter']} merged into its weights.",
            "",
            f"- architecture {lineage['family']}: {cfg.num_layers} layers, width {cfg.dim}, "
            f"{cfg.attention.num_heads} heads, vocabulary {cfg.vocab_size:,}, "
            f"context {cfg.max_positions:,} tokens",
            f"- adapter: {lineage['changed']} matrices, rank {ranks}",
            f"- weights in {lineage['dtype']}",
            f"- licence of the base: {lineage['licence'] or 'not stated'}; of the adapter: look "
            "where it came from",
            "- SHA-256 of the original files: openllm.json",
            "",
            '    openllm generate . --prompt "Once"',
            "",
        ]
    )
