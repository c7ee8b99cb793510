# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A GGUF file back into our own model: shows what it holds, independently of llama.cpp."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openllm.core.errors import CheckpointError, ConfigError
from openllm.export.gguf.file import GGUFFile
from openllm.export.gguf.shapes import ARCHITECTURES, Architecture
from openllm.export.gguf.tensors import packed
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.nn.rope_scaling import YarnScaling


def read_gguf(path: Path) -> Transformer:
    """Build a model from a file of one of the architectures that `export_gguf` writes.

    Its config says the same in other words where the file does: divisors of rotary frequencies
    are read as `longrope`, and the scale of scores may be part of the weights.

    Raises:
        CheckpointError: a damaged file, an unknown architecture, missing or extra tensors.
    """
    file = GGUFFile(path)
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} has the architecture {name!r}; readable are {', '.join(ARCHITECTURES)}"
        )
    try:
        cfg = ModelConfig.parse(_config(file, name), str(path))
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the value {error}; export the model again") from None
    except ConfigError as error:
        raise CheckpointError(f"{error}; export the model again") from None
    with torch.device("meta"):
        model = Transformer(cfg)
    model.load_state_dict(_state(file, model, name, path), assign=True)
    return model.eval().requires_grad_(False)


def _state(file: GGUFFile, model: Transformer, name: str, path: Path) -> dict[str, Tensor]:
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    rows = {key: shape[0] for key, shape in shapes.items()}
    entries = packed(model.cfg, name)
    wanted = {entry.name for entry in entries}
    held = {key for key in file if not key.startswith("rope_")}
    if wanted != held:
        raise CheckpointError(
            f"{path} lacks {sorted(wanted - held)[:3]} and has {sorted(held - wanted)[:3]} too "
            "much; export the model again"
        )
    state: dict[str, Tensor] = {}
    for entry in entries:
        try:
            parts = dict(entry.unpack(torch.from_numpy(file.read(entry.name)), rows))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: {entry.name} has a wrong size: {error}") from None
        for key, tensor in parts.items():
            if tensor.shape != shapes[key]:
                raise CheckpointError(
                    f"{path}: {entry.name} gives {key} the shape {tuple(tensor.shape)}, "
                    f"not {tuple(shapes[key])}"
                )
            state[key] = tensor.contiguous()
    return state


def _config(file: GGUFFile, name: str) -> dict[str, Any]:
    """The contents of our config."""
    arch, prefix = ARCHITECTURES[name], f"{name}."
    values = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    dim, layers = values["embedding_length"], values["block_count"]
    eps = "layer_norm_rms_epsilon" if arch.norm == "rms" else "layer_norm_epsilon"
    # gains are stored whole; Gemma's own are these minus one
    norm = {"kind": arch.norm, "eps": values[f"attention.{eps}"]}
    if arch.embed_scale:
        norm["unit_offset"] = True
    untied = "output.weight" in file.tensors
    return {
        "vocab_size": len(file.metadata["tokenizer.ggml.tokens"]),
        "dim": dim,
        "num_layers": layers,
        "max_positions": values["context_length"],
        "tie_embeddings": not untied,
        "embed_scale": dim**0.5 if arch.embed_scale else None,
        "logit_softcap": values.get("final_logit_softcapping"),
        "norm": norm,
        "norm_placement": arch.placement,
        "position": _position(file, arch, values),
        "attention": _attention(file, arch, values),
        "mlp": {"kind": arch.mlp, "hidden_dim": values["feed_forward_length"]},
    }


def _attention(file: GGUFFile, arch: Architecture, values: dict[str, Any]) -> dict[str, Any]:
    heads, layers = values["attention.head_count"], values["block_count"]
    head_dim = values.get("attention.key_length", values["embedding_length"] // heads)
    shape: dict[str, Any] = {
        "num_heads": heads,
        "num_kv_heads": values.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "qk_norm": arch.qk_norm is not None,
        "qk_norm_over": arch.qk_norm or "head",
        "bias": "blk.0.attn_q.bias" in file.tensors or "blk.0.attn_qkv.bias" in file.tensors,
        "output_bias": "blk.0.attn_output.bias" in file.tensors,
        "softcap": values.get("attn_logit_softcapping"),
    }
    if layers == arch.deepest:
        shape["scale"] = (values["embedding_length"] // heads) ** -0.5
    window, every = values.get("attention.sliding_window"), arch.window_every
    if window is not None and every is not None:
        pattern = values.get("attention.sliding_window_pattern")
        shape["window"] = window
        shape["window_layers"] = [
            layer
            for layer in range(layers)
            if (layer % every < every - 1 if pattern is None else pattern[layer])
        ]
    return shape


def _position(file: GGUFFile, arch: Architecture, values: dict[str, Any]) -> dict[str, Any]:
    if arch.position != "rope":
        return {"kind": "learned"}
    heads = values["attention.head_count"]
    head_dim = values.get("attention.key_length", values["embedding_length"] // heads)
    step, layers = arch.unrotated_every, values["block_count"]
    position: dict[str, Any] = {
        "kind": "rope",
        "theta": values.get("rope.freq_base", 10_000.0),
        "fraction": values.get("rope.dimension_count", head_dim) / head_dim,
        "unrotated_layers": () if step is None else tuple(range(step - 1, layers, step)),
        "scaling": _scaling(file, values),
    }
    if arch.window_every is not None and "attention.sliding_window" in values:
        own = 10_000.0 if arch.window_theta else position["theta"]
        position["window_theta"] = values.get("rope.freq_base_swa", own)
    return position


def _scaling(file: GGUFFile, values: dict[str, Any]) -> dict[str, Any] | None:
    original = values.get("rope.scaling.original_context_length", values["context_length"])
    gain = values.get("rope.scaling.attn_factor", 1.0)
    longrope = {
        "kind": "longrope",
        "original_max_positions": original,
        "factor": 1.0,
        "attention_factor": gain,
    }
    if "rope_freqs.weight" in file.tensors:
        divisors = file.read("rope_freqs.weight").tolist()
        return longrope | {"short_factor": divisors, "long_factor": divisors}
    kind = values.get("rope.scaling.type")
    match kind:
        case None | "none":
            return None
        case "linear":
            return {"kind": kind, "factor": values["rope.scaling.factor"]}
        case "yarn":
            yarn = YarnScaling(
                factor=values["rope.scaling.factor"], original_max_positions=original
            )
            return yarn.dump() | {"attention_factor": yarn.gain() * gain}
        case "longrope":
            return longrope | {
                f"{name}_factor": file.read(f"rope_factors_{name}.weight").tolist()
                for name in ("short", "long")
            }
    raise CheckpointError(
        f"rotary scaling {kind!r} is unknown; readable are linear, yarn, longrope"
    )
