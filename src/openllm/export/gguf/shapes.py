# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which llama.cpp architecture expresses a model, and the hyperparameters it reads from the file.

Importable without torch.
"""

import math
from typing import Any, NamedTuple

from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig, ResearchConfig, RopeConfig
from openllm.nn.rope_scaling import LinearScaling, LongRopeScaling, YarnScaling


class Architecture(NamedTuple):
    """What llama.cpp computes under one name.

    Attributes:
        norm, placement, position, mlp: kinds, as in our config.
        qk_norm: none, or what each norm of queries and keys covers.
        biases: which pairs (of query, key and value; of the output projection) may have biases.
        scalings: rotary scalings that may be used.
        interleaved: rotation pairs neighbours, not the halves of a head.
        square: heads times their width must be the model's width.
        partial: a part of each head may stay unrotated.
        unrotated_every: each layer of this number lacks positions.
        window_every: each layer of this number sees the whole text, the others a window.
        window_theta: layers with a window may have a rotary base of their own.
        caps: whether there is a cap of scores and one of logits: `no`, `may` or `must`.
        embed_scale: embeddings are multiplied by the root of the width.
        must_tie: the head is the embedding.
        deepest: at this many layers, scores are divided by the root of width / heads.
    """

    norm: str = "rms"
    placement: str = "pre"
    position: str = "rope"
    mlp: str = "swiglu"
    qk_norm: str | None = None
    biases: frozenset[tuple[bool, bool]] = frozenset({(False, False)})
    scalings: frozenset[str] = frozenset({"linear", "yarn"})
    interleaved: bool = False
    square: bool = False
    partial: bool = False
    unrotated_every: int | None = None
    window_every: int | None = None
    window_theta: bool = False
    caps: tuple[str, str] = ("no", "no")
    embed_scale: bool = False
    must_tie: bool = False
    deepest: int | None = None


_QUERY_BIAS = frozenset({(False, False), (True, False)})
_ANY_BIAS = frozenset({(False, False), (True, False), (False, True), (True, True)})
_GEMMA = Architecture(placement="both", mlp="geglu", embed_scale=True, scalings=frozenset())

ARCHITECTURES = {
    "qwen3": Architecture(qk_norm="head", biases=_QUERY_BIAS),
    "qwen2": Architecture(biases=frozenset({(True, False)}), square=True),
    "smollm3": Architecture(biases=_QUERY_BIAS, interleaved=True, unrotated_every=4),
    "gpt2": Architecture(
        norm="layer",
        position="learned",
        mlp="gelu",
        biases=frozenset({(True, True)}),
        scalings=frozenset(),
        square=True,
    ),
    "gemma2": _GEMMA._replace(window_every=2, caps=("must", "must"), must_tie=True, deepest=46),
    "gemma3": _GEMMA._replace(
        qk_norm="head",
        window_every=6,
        window_theta=True,
        caps=("no", "may"),
        deepest=62,
        scalings=frozenset({"linear"}),
    ),
    "olmo2": Architecture(placement="post", qk_norm="all", square=True, window_every=4),
    "phi3": Architecture(
        scalings=frozenset({"linear", "yarn", "longrope"}), square=True, partial=True
    ),
    "llama": Architecture(
        biases=_ANY_BIAS,
        interleaved=True,
        scalings=frozenset({"linear", "llama3", "yarn", "longrope"}),
    ),
}
"""llama.cpp's name -> what it computes; the first that fits is used."""


def architecture(cfg: ModelConfig) -> str:
    """Return llama.cpp's name of an architecture that computes what `cfg` describes.

    Raises:
        CheckpointError: there is none; the message says what stands in the way.
    """
    if cfg.research != ResearchConfig():
        raise CheckpointError(
            "llama.cpp has no architecture with the features of 'research'; "
            "train a model without them to export it to GGUF"
        )
    faults = {name: _faults(cfg, shape) for name, shape in ARCHITECTURES.items()}
    for name, found in faults.items():
        if not found:
            return name
    nearest = min(faults, key=lambda name: len(faults[name]))
    raise CheckpointError(
        f"llama.cpp has no architecture for this model; the nearest, {nearest}, "
        f"{'; it '.join(faults[nearest])}"
    )


def _faults(cfg: ModelConfig, arch: Architecture) -> list[str]:
    """What an architecture lacks, as ends of a sentence about it."""
    shape = cfg.attention
    found = []
    for what, has, needed in (
        ("norm", cfg.norm.kind, arch.norm),
        ("norm placement", cfg.norm_placement, arch.placement),
        ("position", cfg.position.kind, arch.position),
        ("MLP", cfg.mlp.kind, arch.mlp),
        ("QK norm over", shape.qk_norm_over if shape.qk_norm else None, arch.qk_norm),
    ):
        if has != needed:
            found.append(f"has the {what} {needed!r}, not {has!r}")
    if (shape.bias, shape.has_output_bias) not in arch.biases:
        found.append("has other biases in its attention")
    if arch.square and shape.num_heads * shape.head_dim != cfg.dim:
        found.append(
            f"needs heads as wide as the model, but {shape.num_heads} x {shape.head_dim} "
            f"is not {cfg.dim}"
        )
    caps = (("scores", shape.softcap), ("logits", cfg.logit_softcap))
    for (what, cap), rule in zip(caps, arch.caps, strict=True):
        if rule != "may" and (cap is None) == (rule == "must"):
            found.append(f"{'needs a' if rule == 'must' else 'has no'} cap of {what}")
    expected = math.sqrt(cfg.dim) if arch.embed_scale else 1.0
    if not math.isclose(cfg.embed_scale or 1.0, expected, rel_tol=1e-6):
        found.append(f"multiplies embeddings by {expected:g}, not {cfg.embed_scale or 1:g}")
    if arch.must_tie and not cfg.tie_embeddings:
        found.append("has no head apart from the embedding")
    if isinstance(cfg.position, RopeConfig) and arch.position == "rope":
        found += _rope_faults(cfg, cfg.position, arch)
    return found


def _rope_faults(cfg: ModelConfig, rope: RopeConfig, arch: Architecture) -> list[str]:
    found = []
    if rope.fraction < 1 and not arch.partial:
        found.append("rotates whole heads")
    step = arch.unrotated_every
    unrotated = () if step is None else tuple(range(step - 1, cfg.num_layers, step))
    if tuple(sorted(rope.unrotated_layers)) != unrotated or (step and not unrotated):
        theirs = f"layers {unrotated}" if unrotated else "no layer"
        found.append(
            f"lacks positions in {theirs}, your model in {rope.unrotated_layers or 'none'}"
        )
    scaling = rope.scaling
    if arch.partial and rope.fraction == 1 and not isinstance(scaling, LongRopeScaling):
        found.append("is for partly rotated heads or longrope")
    if scaling is not None and scaling.kind not in arch.scalings:
        found.append(f"has no rotary scaling {scaling.kind!r}")
    if isinstance(scaling, YarnScaling) and (
        (scaling.beta_fast, scaling.beta_slow, scaling.truncate) != (32.0, 1.0, True)
    ):
        found.append("has yarn with beta_fast 32, beta_slow 1 and whole dimensions only")
    if cfg.attention.window is not None:
        found += _window_rope_faults(rope, arch)
    return found


def _window_rope_faults(rope: RopeConfig, arch: Architecture) -> list[str]:
    """Layers with a window may rotate by another base, and are then not scaled."""
    if arch.window_every is None:
        return [] if rope.window_theta is None else ["has one rotary base for all layers"]
    if rope.window_theta is None:
        scaled = rope.scaling is not None
        return ["does not scale the rotation of layers with a window"] if scaled else []
    if rope.window_theta != rope.theta and not arch.window_theta:
        return ["has the same rotary base in layers with a window"]
    return []


def context_length(cfg: ModelConfig, name: str) -> int:
    """The longest text that the file promises.

    An architecture without windows computes the same as one with them up to a window's length.
    """
    window = cfg.attention.window
    if window is None or ARCHITECTURES[name].window_every is not None:
        return cfg.max_positions
    return min(window, cfg.max_positions)


def query_factor(cfg: ModelConfig, name: str) -> float:
    """Factor on queries for a scale of scores other than the one that llama.cpp uses."""
    shape = cfg.attention
    if shape.scale is None and cfg.num_layers != ARCHITECTURES[name].deepest:
        return 1.0
    width = shape.head_dim
    if cfg.num_layers == ARCHITECTURES[name].deepest:
        width = cfg.dim // shape.num_heads
    scale = shape.head_dim**-0.5 if shape.scale is None else shape.scale
    factor = scale * math.sqrt(width)
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-6) else factor


def hyperparameters(cfg: ModelConfig, name: str) -> dict[str, Any]:
    """The metadata of the architecture `name`, without its prefix."""
    shape = cfg.attention
    eps = "layer_norm_rms_epsilon" if cfg.norm.kind == "rms" else "layer_norm_epsilon"
    values: dict[str, Any] = {
        "vocab_size": cfg.vocab_size,
        "context_length": context_length(cfg, name),
        "embedding_length": cfg.dim,
        "block_count": cfg.num_layers,
        "feed_forward_length": cfg.mlp.hidden_dim,
        "attention.head_count": shape.num_heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        f"attention.{eps}": cfg.norm.eps,
    }
    if shape.softcap is not None:
        values["attn_logit_softcapping"] = shape.softcap
    if cfg.logit_softcap is not None:
        values["final_logit_softcapping"] = cfg.logit_softcap
    if isinstance(cfg.position, RopeConfig):
        values |= _rope(cfg, cfg.position)
    return values | _windows(cfg, name)


def _rope(cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rope.dimension_count": rope.rotated_dim(cfg.attention.head_dim),
        "rope.freq_base": rope.theta,
    }
    scaling = rope.scaling
    if isinstance(scaling, LinearScaling):
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    elif isinstance(scaling, YarnScaling):
        # llama.cpp multiplies by the default gain itself
        default = YarnScaling(factor=scaling.factor, original_max_positions=1).gain()
        values |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": scaling.factor,
            "rope.scaling.original_context_length": scaling.original_max_positions,
            "rope.scaling.attn_factor": scaling.gain() / default,
        }
    elif isinstance(scaling, LongRopeScaling):
        values |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": scaling.original_max_positions,
            "rope.scaling.attn_factor": scaling.gain(),
        }
    return values  # llama3 is the tensor rope_freqs.weight


def _windows(cfg: ModelConfig, name: str) -> dict[str, Any]:
    every, shape = ARCHITECTURES[name].window_every, cfg.attention
    if every is None:
        return {}
    if shape.window is None:
        # gemma2 always has windows: one as long as the context hides nothing
        return {"attention.sliding_window": cfg.max_positions} if name == "gemma2" else {}
    values: dict[str, Any] = {"attention.sliding_window": shape.window}
    pattern = [shape.window_of(layer) is not None for layer in range(cfg.num_layers)]
    if pattern != [layer % every < every - 1 for layer in range(cfg.num_layers)]:
        values["attention.sliding_window_pattern"] = pattern
    if name == "gemma3" and isinstance(cfg.position, RopeConfig):
        values["rope.freq_base_swa"] = cfg.position.window_theta or cfg.position.theta
    return values
