# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The structures of decoder.h, and how a model's parts are laid out in them."""

import ctypes
from collections.abc import Mapping
from ctypes import c_float, c_int64, c_void_p

from torch import Tensor

from openllm.nn.block import NORMS
from openllm.nn.config import ModelConfig, RopeConfig
from openllm.nn.kernels.packed import Layout, PackedMatrix
from openllm.nn.norm import RMSNormConfig

TARGETS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
"""The matrices of a layer, in the order of `Layer`."""
MLPS = ("swiglu", "geglu", "gelu", "relu2")


class NormLayout(ctypes.Structure):
    """`Norm`."""

    _fields_ = [("gain", c_void_p), ("bias", c_void_p)]


class LayerLayout(ctypes.Structure):
    """`Layer`."""

    _fields_ = [
        ("targets", Layout * len(TARGETS)),
        ("norms", NormLayout * 4),
        ("q_norm", NormLayout),
        ("k_norm", NormLayout),
        ("rope", c_int64),
        ("window", c_int64),
    ]


class ModelLayout(ctypes.Structure):
    """`Model`."""

    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                *("layers", "dim", "heads", "kv_heads", "head_dim", "hidden", "half", "mlp"),
                *("layer_norm", "norm_all"),
            )
        ),
        *((name, c_float) for name in ("eps", "scale", "softcap", "embed_scale")),
        ("embed", Layout),
        ("places", c_void_p),
        ("cosines", c_void_p * 2),
        ("sines", c_void_p * 2),
        ("norm", NormLayout),
        ("layer", ctypes.POINTER(LayerLayout)),
    ]


class AdditionLayout(ctypes.Structure):
    """`Addition`."""

    _fields_ = [("a", c_void_p), ("b", c_void_p), ("rank", c_int64), ("scale", c_float)]


class StepLayout(ctypes.Structure):
    """`Step`."""

    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                *("rows", "sequences", "max_blocks", "num_blocks", "block_size"),
                *("half_cache", "wanted"),
            )
        ),
        *(
            (name, c_void_p)
            for name in (
                *("tokens", "positions", "owners", "tables", "wanted_rows", "keys", "values"),
                *("out", "scratch", "additions", "adapters"),
            )
        ),
        ("num_adapters", c_int64),
    ]


def model_layout(
    cfg: ModelConfig,
    matrices: Mapping[str, PackedMatrix],
    vectors: Mapping[str, Tensor],
    embed_scale: float,
) -> ModelLayout:
    """Lay out a model, but for its rotary tables; the parts must outlive it."""
    shape, rope = cfg.attention, cfg.position
    layers = (LayerLayout * cfg.num_layers)(
        *(_layer(cfg, number, matrices, vectors) for number in range(cfg.num_layers))
    )
    places = vectors.get("embed_positions.weight")
    return ModelLayout(
        layers=cfg.num_layers,
        dim=cfg.dim,
        heads=shape.num_heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        hidden=cfg.mlp.hidden_dim,
        half=rope.rotated_dim(shape.head_dim) // 2 if isinstance(rope, RopeConfig) else 0,
        mlp=MLPS.index(cfg.mlp.kind),
        layer_norm=not isinstance(cfg.norm, RMSNormConfig),
        norm_all=shape.qk_norm_over == "all",
        eps=cfg.norm.eps,
        scale=shape.head_dim**-0.5 if shape.scale is None else shape.scale,
        softcap=shape.softcap or 0.0,
        embed_scale=embed_scale,
        embed=matrices["embed_tokens.weight"].layout(),
        places=None if places is None else places.data_ptr(),
        norm=_norm("norm", vectors),
        layer=layers,
    )


def rope_number(cfg: ModelConfig, layer: int) -> int:
    """Which rotary table a layer uses: 0, 1 for that of windows, -1 for none."""
    rope = cfg.position
    if not isinstance(rope, RopeConfig) or layer in rope.unrotated_layers:
        return -1
    windowed = cfg.attention.window_of(layer) is not None
    return int(rope.window_theta is not None and windowed)


def _layer(
    cfg: ModelConfig,
    number: int,
    matrices: Mapping[str, PackedMatrix],
    vectors: Mapping[str, Tensor],
) -> LayerLayout:
    prefix = f"layers.{number}"
    targets = []
    for target in TARGETS:
        matrix = matrices.get(f"{prefix}.{target}.weight")
        bias = vectors.get(f"{prefix}.{target}.bias")
        targets.append(Layout() if matrix is None else matrix.layout(bias))
    norms = [
        NormLayout() if name is None else _norm(f"{prefix}.{name}", vectors)
        for name in NORMS[cfg.norm_placement]
    ]
    return LayerLayout(
        (Layout * len(TARGETS))(*targets),
        (NormLayout * 4)(*norms),
        _norm(f"{prefix}.self_attn.q_norm", vectors),
        _norm(f"{prefix}.self_attn.k_norm", vectors),
        rope_number(cfg, number),
        cfg.attention.window_of(number) or 0,
    )


def _norm(name: str, vectors: Mapping[str, Tensor]) -> NormLayout:
    parts = (vectors.get(f"{name}.{part}") for part in ("weight", "bias"))
    return NormLayout(*(None if part is None else part.data_ptr() for part in parts))
