# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model as a graph: one forward pass of plain tensor operations that exporters can trace.

It computes what `Transformer` computes, with the cache as inputs and outputs and a mask in place of
document boundaries. Nothing in it depends on the values of tensors: no loops over documents, no
shapes found by looking. A part of the model that needs more when it runs must have a static form
for `torch.compiler.is_exporting()`, as the kernels do; so must a mixture of experts, whose grouping
by expert cannot be traced.
"""

# B batch, T new tokens, P past tokens, S = P + T, D model, N query heads, K kv heads, H head dim,
# G = N / K, V vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from openllm.nn.attention import Attention
from openllm.nn.model import Transformer

Pair = tuple[Tensor, Tensor]
"""Keys and values of one layer."""

Step = tuple[Tensor, list[Pair], list[Tensor]]
"""What a call gives: logits, present, layers."""

Arguments = tuple[Tensor, Tensor, Tensor, list[Pair]]
"""Of a decoder: ids, mask, positions, past."""


class Decoder(nn.Module):
    """A traceable forward pass over the submodules of a built model, which it shares.

    Args:
        model: in evaluation mode.
        show_layers: also return the residual streams.
    """

    def __init__(self, model: Transformer, *, show_layers: bool = False) -> None:
        super().__init__()
        self.model = model
        self.show_layers = show_layers

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: Sequence[Pair],
    ) -> Step:
        """Read T new tokens after P past ones.

        Args:
            input_ids: (B, T).
            attention_mask: (B, S): 1 for a token, 0 for padding, which stands before the text.
            position_ids: (B, T): place of each token in its text; of padding, any valid one.
            past: keys and values of each layer, each (B, K, P, H); P may be 0.

        Returns:
            logits: (B, T, V) in float32.
            present: keys and values of each layer, past ones first, each (B, K, S, H).
            layers: the residual stream (B, T, D) after each layer; empty unless asked for.
        """
        model = self.model
        x_BTD = model.embed(input_ids)
        if model.embed_positions is not None:
            x_BTD = x_BTD + model.embed_positions(position_ids)
        ropes = model.rotations(position_ids)
        rules = [layer.self_attn.rule for layer in model.layers]
        masks = {
            window: causal_mask(attention_mask, input_ids.shape[1], window)
            for window in {rule.window for rule in rules}
        }
        first_BTD, layers, present = x_BTD, [], []
        for number, layer in enumerate(model.layers):
            value = None
            if model.research is not None:
                x_BTD = model.research.enter(number, x_BTD, first_BTD, layers)
                value = model.research.extra_value(number, input_ids)
            mixed, pair = attend(
                layer.self_attn,
                layer.norm(0, x_BTD),
                ropes[number],
                masks[rules[number].window],
                past[number],
                value,
            )
            x_BTD = x_BTD + layer.norm(1, mixed)
            x_BTD = x_BTD + layer.norm(3, layer.mlp(layer.norm(2, x_BTD)))
            layers.append(x_BTD)
            present.append(pair)
        return self._logits(x_BTD), present, layers if self.show_layers else []

    def _logits(self, x_BTD: Tensor) -> Tensor:
        model = self.model
        head = model.embed_tokens if model.lm_head is None else model.lm_head
        x_BTD = model.norm(x_BTD)
        # a packed matrix multiplies by itself; it has no weight to show
        scores = head.project(x_BTD) if hasattr(head, "project") else x_BTD @ head.weight.T
        cap = model.cfg.logit_softcap
        return scores if cap is None else cap * torch.tanh(scores / cap)

    def example(self, batch: int = 2, time: int = 3, past: int = 4) -> Arguments:
        """Arguments of `forward`: zeros, and a mask without padding."""
        shape = self.model.cfg.attention
        places = (batch, shape.kv_heads, past, shape.head_dim)
        pairs = [(torch.zeros(places), torch.zeros(places)) for _ in self.model.layers]
        ids = torch.zeros(batch, time, dtype=torch.int64)
        return ids, torch.ones(batch, past + time, dtype=torch.int64), ids.clone(), pairs

    def dynamic_shapes(self) -> tuple[object, ...]:
        """For `torch.export`: which axes of `example` may have any size."""
        axis = torch.export.Dim.DYNAMIC
        row, pair = {0: axis, 1: axis}, {0: axis, 2: axis}
        return row, row, row, [(pair, pair) for _ in self.model.layers]


def causal_mask(attention_mask: Tensor, time: int, window: int | None) -> Tensor:
    """(B, 1, T, S): which keys the last T tokens see; from a padding before the text, none."""
    span = attention_mask.shape[1]
    keys_S = torch.arange(span, device=attention_mask.device)
    distance_TS = keys_S[span - time :, None] - keys_S
    seen_TS = distance_TS >= 0
    if window is not None:
        seen_TS = seen_TS & (distance_TS < window)
    return (seen_TS & attention_mask[:, None, :].bool())[:, None]


def attend(
    part: Attention,
    x_BTD: Tensor,
    rope: Pair | None,
    mask: Tensor,
    past: Pair,
    extra_value: Tensor | None,
) -> tuple[Tensor, Pair]:
    """Attention of one layer, (B, T, D), and its keys and values with the new ones."""
    q_BNTH = part.place(part.q_proj(x_BTD), part.q_norm, rope).transpose(1, 2)
    k_BTKH = part.place(part.k_proj(x_BTD), part.k_norm, rope)
    v_BTKH = part.v_proj(x_BTD).unflatten(-1, (-1, part.head_dim))
    if extra_value is not None:
        v_BTKH = v_BTKH + extra_value
    k_BKSH, v_BKSH = (
        torch.cat((old, new.transpose(1, 2)), dim=2)
        for old, new in zip(past, (k_BTKH, v_BTKH), strict=True)
    )
    heads = k_BKSH.shape[1]
    # queries that share keys become rows of one product: (B, K, G T, H)
    grouped = q_BNTH.unflatten(1, (heads, -1)).flatten(2, 3)
    scores = grouped @ k_BKSH.transpose(-1, -2) * part.rule.scale
    if part.rule.softcap is not None:
        scores = part.rule.softcap * torch.tanh(scores / part.rule.softcap)
    scores_BKGTS = scores.unflatten(2, (-1, x_BTD.shape[1]))
    # not -inf: a padding sees nothing, and its softmax would be NaN
    lowest = torch.finfo(torch.float32).min
    weights = scores_BKGTS.masked_fill(~mask[:, None], lowest).softmax(-1).flatten(2, 3)
    mixed_BKGTH = (weights @ v_BKSH).unflatten(2, (-1, x_BTD.shape[1]))
    out_BTNH = mixed_BKGTH.flatten(1, 2).transpose(1, 2)
    return part.o_proj(out_BTNH.flatten(2)), (k_BKSH, v_BKSH)
