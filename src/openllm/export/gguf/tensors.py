# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our weights under llama.cpp's names and in its layout, and back."""

# N heads, H head dim, F frequencies

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from openllm.export.gguf.shapes import ARCHITECTURES, query_factor
from openllm.nn.block import NORMS
from openllm.nn.config import ModelConfig, RopeConfig
from openllm.nn.norm import RMSNormConfig
from openllm.nn.rope_scaling import Llama3Scaling, LongRopeScaling

NORM_NAMES = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
"""llama.cpp's names of the norms before and after attention, before and after the MLP."""


class Packed(NamedTuple):
    """A tensor of the file, made of one or more of ours.

    Attributes:
        name: in the file.
        parts: our names; several are stacked.
        heads: of this many heads, rotated pairs are laid side by side; 0: left as they are.
        factor: on the first part.
        offset: added to all values, before the factor.
    """

    name: str
    parts: tuple[str, ...]
    heads: int = 0
    factor: float = 1.0
    offset: float = 0.0

    def pack(self, read: Callable[[str], Tensor]) -> Tensor:
        """The tensor in float32, from what `read` gives for our names."""
        parts = [read(part).to(torch.float32) for part in self.parts]
        if self.offset:
            parts = [part + self.offset for part in parts]
        if self.factor != 1:
            parts[0] = parts[0] * self.factor
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.heads:
            tensor = tensor.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        return tensor.contiguous()

    def unpack(self, tensor: Tensor, rows: Mapping[str, int]) -> Iterator[tuple[str, Tensor]]:
        """Our tensors, given the number of rows of each; the inverse of `pack`."""
        if self.heads:
            tensor = tensor.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        pieces = list(tensor.split([rows[part] for part in self.parts]))
        if self.factor != 1:
            pieces[0] = pieces[0] / self.factor
        for part, piece in zip(self.parts, pieces, strict=True):
            yield part, piece - self.offset if self.offset else piece


def packed(cfg: ModelConfig, name: str) -> list[Packed]:
    """All tensors that the architecture `name` makes of our weights, in the order of the file."""
    offset = 1.0 if isinstance(cfg.norm, RMSNormConfig) and cfg.norm.unit_offset else 0.0
    out = [Packed("token_embd.weight", ("embed_tokens.weight",))]
    if cfg.position.kind == "learned":
        out.append(Packed("position_embd.weight", ("embed_positions.weight",)))
    for layer in range(cfg.num_layers):
        out += _layer(cfg, name, f"blk.{layer}", f"layers.{layer}", offset)
    out += [Packed(f"output_norm.{kind}", (f"norm.{kind}",), offset=offset) for kind in _kinds(cfg)]
    if not cfg.tie_embeddings:
        out.append(Packed("output.weight", ("lm_head.weight",)))
    elif name == "olmo2":  # whose head is never the embedding
        out.append(Packed("output.weight", ("embed_tokens.weight",)))
    return out


def _kinds(cfg: ModelConfig) -> tuple[str, ...]:
    return ("weight",) if cfg.norm.kind == "rms" else ("weight", "bias")


def _layer(cfg: ModelConfig, name: str, file: str, ours: str, offset: float) -> Iterator[Packed]:
    for theirs, norm in zip(NORM_NAMES, NORMS[cfg.norm_placement], strict=True):
        if norm is not None:
            for kind in _kinds(cfg):
                yield Packed(f"{file}.{theirs}.{kind}", (f"{ours}.{norm}.{kind}",), offset=offset)
    yield from _attention(cfg, name, file, f"{ours}.self_attn", offset)
    ups, mlp = ("gate_proj", "up_proj"), f"{ours}.mlp"
    if name == "phi3":
        yield Packed(f"{file}.ffn_up.weight", tuple(f"{mlp}.{up}.weight" for up in ups))
    else:
        for theirs, up in zip(("ffn_gate", "ffn_up"), ups, strict=True):
            if not (cfg.mlp.kind == "gelu" and theirs == "ffn_gate"):
                yield Packed(f"{file}.{theirs}.weight", (f"{mlp}.{up}.weight",))
    yield Packed(f"{file}.ffn_down.weight", (f"{mlp}.down_proj.weight",))
    if cfg.mlp.kind == "gelu":
        yield Packed(f"{file}.ffn_up.bias", (f"{mlp}.up_proj.bias",))
        yield Packed(f"{file}.ffn_down.bias", (f"{mlp}.down_proj.bias",))


def _attention(
    cfg: ModelConfig, name: str, file: str, ours: str, offset: float
) -> Iterator[Packed]:
    shape, interleaved = cfg.attention, ARCHITECTURES[name].interleaved
    factor = query_factor(cfg, name)
    kinds = ("weight", "bias") if shape.bias else ("weight",)
    if name in ("gpt2", "phi3"):
        for kind in kinds:
            parts = tuple(f"{ours}.{part}_proj.{kind}" for part in "qkv")
            yield Packed(f"{file}.attn_qkv.{kind}", parts, factor=factor)
    else:
        counts = {"q": shape.num_heads, "k": shape.kv_heads, "v": 0}
        for kind in kinds:
            for part, heads in counts.items():
                scaled = factor if part == "q" and not shape.qk_norm else 1.0
                yield Packed(
                    f"{file}.attn_{part}.{kind}",
                    (f"{ours}.{part}_proj.{kind}",),
                    heads=heads if interleaved else 0,
                    factor=scaled,
                )
    yield Packed(f"{file}.attn_output.weight", (f"{ours}.o_proj.weight",))
    if shape.has_output_bias:
        yield Packed(f"{file}.attn_output.bias", (f"{ours}.o_proj.bias",))
    if shape.qk_norm:
        for part, scaled in (("q", factor), ("k", 1.0)):
            parts = (f"{ours}.{part}_norm.weight",)
            yield Packed(f"{file}.attn_{part}_norm.weight", parts, factor=scaled, offset=offset)


def rope_tensors(cfg: ModelConfig) -> dict[str, Tensor]:
    """Divisors of the rotary frequencies, (F,), for scalings that the metadata do not express."""
    rope = cfg.position
    if not isinstance(rope, RopeConfig):
        return {}
    if isinstance(rope.scaling, Llama3Scaling):
        dim = rope.rotated_dim(cfg.attention.head_dim)
        frequencies = rope.theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        stretched = rope.scaling.stretch(frequencies, rope.theta, torch.zeros(1))
        return {"rope_freqs.weight": frequencies / stretched}
    if isinstance(rope.scaling, LongRopeScaling):
        return {
            "rope_factors_long.weight": torch.tensor(rope.scaling.long_factor),
            "rope_factors_short.weight": torch.tensor(rope.scaling.short_factor),
        }
    return {}
