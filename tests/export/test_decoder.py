# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The traceable forward pass gives what the model gives."""

import pytest
import torch
from tests.export.shapes import FAMILIES
from tests.tiny import VOCAB_SIZE, random_model
from tests.tolerances import assert_close
from torch import Tensor

from openllm.export.decoder import Decoder
from openllm.nn.cache import KVCache
from openllm.nn.heads import logits
from openllm.nn.model import Transformer

every_family = pytest.mark.parametrize("name", sorted(FAMILIES))


def model_of(name: str) -> Transformer:
    model = random_model(FAMILIES[name]).eval()
    if model.research is not None:
        for parameter in model.research.parameters():
            parameter.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(3))
    return model.requires_grad_(False)


def tokens(rows: int, time: int) -> Tensor:
    return torch.randint(4, VOCAB_SIZE, (rows, time), generator=torch.Generator().manual_seed(5))


def nothing(decoder: Decoder, batch: int) -> list[tuple[Tensor, Tensor]]:
    return decoder.example(batch, 1, 0)[3]


@every_family
def test_reading_a_text_at_once(name: str) -> None:
    model, ids = model_of(name), tokens(2, 20)
    decoder = Decoder(model, show_layers=True)
    places = torch.arange(20).expand(2, 20)
    scores, _, layers = decoder(ids, torch.ones(2, 20).long(), places, nothing(decoder, 2))
    hidden = model(ids).x
    assert_close(scores, logits(hidden, model.head))
    assert len(layers) == len(model.layers)
    assert_close(model.norm(layers[-1]), hidden)


@every_family
def test_reading_it_piece_by_piece(name: str) -> None:
    """As eager decoding does: keys of long RoPE depend on the call that made them."""
    model, ids = model_of(name), tokens(2, 20)
    decoder, cache = Decoder(model), KVCache(model.cfg, 2, 20)
    past, start = nothing(decoder, 2), 0
    for time in (9, 1, 1, 6, 3):
        new = ids[:, start : start + time]
        places = torch.arange(start, start + time).expand(2, time)
        scores, past, _ = decoder(new, torch.ones(2, start + time).long(), places, past)
        assert_close(scores, logits(model(new, cache=cache).x, model.head))
        start += time


@every_family
def test_padding_before_a_text_changes_nothing(name: str) -> None:
    model, ids = model_of(name), tokens(3, 16)
    decoder, padding = Decoder(model), torch.tensor([0, 3, 11])
    mask = (torch.arange(16) >= padding[:, None]).long()
    places = (mask.cumsum(1) - 1).clamp_min(0)
    batch, present, _ = decoder(ids, mask, places, nothing(decoder, 3))
    longer = torch.cat((mask, mask[:, -1:]), 1)
    more, _, _ = decoder(ids[:, :1], longer, places[:, -1:] + 1, present)
    for row, before in enumerate(padding.tolist()):
        if name == "phi3" and before != 0:
            continue  # the factors of the whole call follow from its longest row
        alone = ids[row : row + 1, before:]
        cache = KVCache(model.cfg, 1, 17)
        first = logits(model(alone, cache=cache).x, model.head)
        assert_close(batch[row : row + 1, before:], first)
        then = logits(model(ids[row : row + 1, :1], cache=cache).x, model.head)
        assert_close(more[row : row + 1], then)


def test_a_padding_gives_no_nan_even_where_it_sees_nothing() -> None:
    decoder = Decoder(model_of("mistral"))
    mask = torch.tensor([[0, 0, 0, 1]])
    scores, present, _ = decoder(tokens(1, 4), mask, torch.zeros_like(mask), nothing(decoder, 1))
    assert scores.isfinite().all()
    assert all(part.isfinite().all() for pair in present for part in pair)
