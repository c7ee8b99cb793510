# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A decoder step (decoder.py) in plain torch: for machines without a compiler, and for tests.

Unlike the kernels', its results depend on the rows of a step in the last bits.
"""

# R rows, D model, N query heads, K kv heads, H head dim, T tokens of a sequence, U units, L lanes

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from openllm.nn.block import NORMS
from openllm.nn.config import ModelConfig
from openllm.nn.kernels.attention import ScoreRule, attend
from openllm.nn.kernels.decoder_layout import rope_number
from openllm.nn.kernels.decoder_step import Step
from openllm.nn.kernels.packed import LANES, PackedMatrix, product_reference
from openllm.nn.kernels.rows import norm_rotate_reference
from openllm.nn.norm import RMSNormConfig


class Packed(Protocol):
    """What is read of a `Decoder`."""

    cfg: ModelConfig
    matrices: dict[str, PackedMatrix]
    vectors: dict[str, Tensor]
    embed_scale: float
    tables: list[tuple[Tensor, Tensor]]


def decoder_reference(decoder: Packed, step: Step) -> Tensor:
    """Same as `Decoder.forward`."""
    return _Reference(decoder, step).run()


class _Reference:
    def __init__(self, decoder: Packed, step: Step) -> None:
        self.decoder, self.cfg, self.step = decoder, decoder.cfg, step
        self.tokens, self.positions, self.sequences, self.wanted = (
            x.long() for x in (step.tokens, step.positions, step.sequences, step.wanted)
        )
        self.segments = _segments(self.sequences)
        self.block_size = step.k_cache.shape[3]
        blocks = step.tables.long()[self.sequences, self.positions // self.block_size]
        self.place = blocks, self.positions % self.block_size

    def run(self) -> Tensor:
        x_RD = self.decoder.matrices["embed_tokens.weight"].dense[self.tokens]
        x_RD = x_RD * self.decoder.embed_scale
        places = self.decoder.vectors.get("embed_positions.weight")
        if places is not None:
            x_RD = x_RD + places[self.positions]
        for layer in range(self.cfg.num_layers):
            names = [n and f"layers.{layer}.{n}" for n in NORMS[self.cfg.norm_placement]]
            mixed = self.attention(layer, self.norm(names[0], x_RD))
            x_RD = x_RD + self.norm(names[1], mixed)
            x_RD = x_RD + self.norm(names[3], self.mlp(layer, self.norm(names[2], x_RD)))
        return self.norm("norm", x_RD[self.wanted])

    def norm(self, name: str | None, x: Tensor) -> Tensor:
        """Normalise, if there is such a norm."""
        gain = self.decoder.vectors.get(f"{name}.weight")
        if gain is None:
            return x
        if isinstance(self.cfg.norm, RMSNormConfig):
            return F.rms_norm(x, gain.shape, gain, self.cfg.norm.eps)
        bias = self.decoder.vectors[f"{name}.bias"]
        return F.layer_norm(x, gain.shape, gain, bias, self.cfg.norm.eps)

    def linear(self, name: str, x_RK: Tensor) -> Tensor:
        """One projection, its bias and low-rank additions."""
        y_RN = product_reference(x_RK, self.decoder.matrices[f"{name}.weight"])
        bias = self.decoder.vectors.get(f"{name}.bias")
        if bias is not None:
            y_RN = y_RN + bias
        if self.step.adapters is not None:
            for number, adapter in enumerate(self.step.adapters.adapters):
                factors = adapter.factors.get(f"{name}.weight")
                if factors is not None:
                    a_rK, b_rN, scale = factors
                    has = (self.step.adapters.rows == number)[:, None]
                    y_RN = y_RN + has * scale * (x_RK @ a_rK.T @ b_rN)
        return y_RN

    def mlp(self, layer: int, x_RD: Tensor) -> Tensor:
        name, kind = f"layers.{layer}.mlp", self.cfg.mlp.kind
        up = self.linear(f"{name}.up_proj", x_RD)
        match kind:
            case "swiglu":
                up = F.silu(self.linear(f"{name}.gate_proj", x_RD)) * up
            case "geglu":
                up = F.gelu(self.linear(f"{name}.gate_proj", x_RD), approximate="tanh") * up
            case "gelu":
                up = F.gelu(up, approximate="tanh")
            case "relu2":
                up = F.relu(up).square()
        return self.linear(f"{name}.down_proj", up)

    def attention(self, layer: int, x_RD: Tensor) -> Tensor:
        name, shape = f"layers.{layer}.self_attn", self.cfg.attention
        q_RNH, k_RKH = (
            self.turn(f"{name}.{part}_norm", layer, self.linear(f"{name}.{part}_proj", x_RD))
            for part in "qk"
        )
        v_RKH = self.linear(f"{name}.v_proj", x_RD).unflatten(1, (-1, shape.head_dim))
        self.write(layer, k_RKH, v_RKH)
        scale = shape.head_dim**-0.5 if shape.scale is None else shape.scale
        rule = ScoreRule(scale, shape.softcap, shape.window_of(layer))
        parts = [self.attend(layer, q_RNH[rows], rows, rule) for rows in self.segments]
        return self.linear(f"{name}.o_proj", torch.cat([q_RNH[:0], *parts]).flatten(1))

    def turn(self, norm: str, layer: int, x: Tensor) -> Tensor:
        """Split into heads, normalise, rotate."""
        over_all = self.cfg.attention.qk_norm_over == "all"
        if over_all:
            x = self.norm(norm, x)
        x_RNH = x.unflatten(1, (-1, self.cfg.attention.head_dim))
        if not over_all:
            x_RNH = self.norm(norm, x_RNH)
        number = rope_number(self.cfg, layer)
        if number < 0:
            return x_RNH
        angles = [table[self.positions] for table in self.decoder.tables[number]]
        dim = 2 * angles[0].shape[1]
        rotated = norm_rotate_reference(x_RNH[..., :dim], None, 0.0, *angles)
        return torch.cat((rotated, x_RNH[..., dim:]), dim=-1)

    def write(self, layer: int, k_RKH: Tensor, v_RKH: Tensor) -> None:
        """Put keys and values of the rows in their places."""
        blocks, slots = self.place
        keys = _turned(self.step.k_cache[layer])
        dtype = keys.dtype
        keys[blocks, :, slots // LANES, :, slots % LANES] = k_RKH.to(dtype)
        self.step.v_cache[layer][blocks, :, slots] = v_RKH.to(dtype)

    def attend(self, layer: int, q_RNH: Tensor, rows: slice, rule: ScoreRule) -> Tensor:
        """Rows of one sequence attend to it."""
        last = int(self.positions[rows.stop - 1])
        number = last // self.block_size + 1
        table = self.step.tables[self.sequences[rows.start], :number].long().clamp_min(0)
        k_UKmHL = _turned(self.step.k_cache[layer])[table]
        k_KTH = k_UKmHL.permute(1, 0, 2, 4, 3).flatten(1, 3)[:, : last + 1].float()
        v_KTH = self.step.v_cache[layer][table].transpose(0, 1).flatten(1, 2)[:, : last + 1].float()
        out_NRH = attend(q_RNH.transpose(0, 1)[None], k_KTH[None], v_KTH[None], rule)[0]
        return out_NRH.transpose(0, 1)


def _turned(keys: Tensor) -> Tensor:
    """(blocks, K, block_size, H) as (blocks, K, units, H, L)."""
    blocks, heads, size, dim = keys.shape
    return keys.view(blocks, heads, size // LANES, dim, LANES)


def _segments(sequences: Tensor) -> list[slice]:
    """Rows of each sequence."""
    edges = (sequences.diff() != 0).nonzero()[:, 0] + 1
    borders = [0, *edges.tolist(), len(sequences)]
    return [slice(first, last) for first, last in pairwise(borders) if first < last]
