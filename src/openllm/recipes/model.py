# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm model inspect`: what a model is made of and what it costs, before it is trained."""

import json
import sys
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.errors import UsageError
from openllm.export.models.zoo import find_model
from openllm.nn.config import ModelConfig
from openllm.nn.cost import forward_flops, kv_cache_bytes, parameters, train_flops
from openllm.recipes.build import CONFIGS, load_config
from openllm.train.config import PretrainConfig
from openllm.train.scale import apply_scale


def inspect_main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm model inspect",
        description="Show structure, parameters, FLOPs, tensor bytes and peak memory of a model.",
    )
    parser.add_argument("model", help="a preset such as small, a recipe file, or a model")
    parser.add_argument("settings", nargs="*", help="key=value, as for 'openllm train'")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_intermixed_args(argv)
    cfg = _config(args.model, args.settings)
    cfg = apply_scale(cfg, cfg.model.vocab_size, epoch_tokens=0)
    facts = inspect(cfg)
    if args.json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    else:
        sys.stdout.write(_text(cfg.model, facts))
    return 0


def _config(name: str, settings: list[str]) -> PretrainConfig:
    preset = (CONFIGS / f"{name}.yaml").exists() or name.endswith((".yaml", ".yml"))
    folder = None if preset else find_model(name)
    if folder is None or not folder.is_dir():
        return load_config(name, settings)
    from openllm.checkpoint.model_dir import read_model_config

    if any(setting.startswith("model.") for setting in settings):
        raise UsageError(f"{name} is a model folder; settings cannot change its shape")
    shape = read_model_config(folder)
    seq_len = min(512, shape.max_positions)
    batch = [f"batch.seq_len={seq_len}", f"batch.tokens={16 * seq_len}"]
    cfg = load_config("small", [*batch, *settings])
    return PretrainConfig.parse({**cfg.dump(), "model": shape.dump()}, name)


def inspect(cfg: PretrainConfig) -> dict[str, Any]:
    """Facts about a model and a training step of its recipe."""
    from openllm.train.forecast import peak_bytes, training_bytes

    model, batch = cfg.model, cfg.batch
    count = parameters(model)
    row = [batch.seq_len]
    precision = "fp32" if cfg.precision == "fp32" else "bf16"
    cfg = cfg.model_copy(update={"precision": precision})
    return {
        "parameters": {**vars(count), "total": count.total},
        "weights_bytes": 4 * count.total,
        "flops": {
            "forward_per_token": forward_flops(model, row) / batch.seq_len,
            "training_per_token": train_flops(model, row) / batch.seq_len,
            "training_step": train_flops(model, row * batch.rows),
        },
        "training": {
            "rows_at_once": batch.micro_rows,
            "seq_len": batch.seq_len,
            "precision": precision,
            "optimizer": cfg.optim.kind,
            "tensor_bytes": training_bytes(cfg),
            "peak_bytes": peak_bytes(cfg),
        },
        "kv_cache_bytes_per_token": kv_cache_bytes(model, 1),
    }


def _text(model: ModelConfig, facts: dict[str, Any]) -> str:
    count, flops, step = facts["parameters"], facts["flops"], facts["training"]
    total = count["total"]
    shape = model.attention
    heads = f"{shape.num_heads} heads of {shape.head_dim}, {shape.kv_heads} key-value heads"
    rows = [
        (
            "embeddings",
            count["embeddings"],
            f"{model.vocab_size:,} x {model.dim}"
            + (", tied with the output head" if model.tie_embeddings else ""),
        ),
        (
            "attention",
            count["attention"],
            f"{model.num_layers} layers, {heads}" + (", query-key norm" if shape.qk_norm else ""),
        ),
        (
            "MLP",
            count["mlp"],
            f"{model.num_layers} layers, {model.mlp.kind}, hidden {model.mlp.hidden_dim}",
        ),
        ("norms", count["norms"], model.norm.kind),
        ("head", count["head"], "tied" if model.tie_embeddings else "separate"),
    ]
    lines = [f"Transformer, {total:,} parameters ({facts['weights_bytes'] / 2**20:,.0f} MiB fp32)"]
    lines += [f"├── {n:<11}{c:>13,}  {c / total:6.1%}  {what}" for n, c, what in rows]
    lines += [
        f"└── context    {model.max_positions:>13,}  tokens, {model.position.kind} positions",
        f"forward        {flops['forward_per_token'] / 1e6:,.1f} MFLOP per token",
        f"training       {flops['training_per_token'] / 1e6:,.1f} MFLOP per token, "
        f"{flops['training_step'] / 1e12:,.2f} TFLOP per step",
        f"memory         {step['tensor_bytes'] / 2**20:,.0f} MiB of tensors at the peak of a step "
        f"of {step['rows_at_once']} x {step['seq_len']} tokens ({step['precision']}, "
        f"{step['optimizer']}); process about {step['peak_bytes'] / 2**30:.2f} GiB",
        f"KV cache       {facts['kv_cache_bytes_per_token']:,} bytes per token",
    ]
    return "\n".join(lines) + "\n"
