# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Random numbers that are a function of their place, by Philox4x32-10.

Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). A block cipher of
ten rounds turns a counter and a key into four words; there is no state.
"""

# R rows, V vocabulary, C counters of four tokens each

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four words from a counter of four words and a key of two, all as int64 below 2^32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # a product wraps around into the sign; its two halves are right all the same
        left, right = c0 * _FACTORS[0], c2 * _FACTORS[1]
        c0 = ((right >> 32) & _WORD) ^ c1 ^ k0
        c2 = ((left >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = right & _WORD, left & _WORD
        k0, k1 = (k0 + _STEPS[0]) & _WORD, (k1 + _STEPS[1]) & _WORD
    return c0, c1, c2, c3


def gumbel(
    seeds: list[int], positions: list[int], samples: list[int], vocab: int, device: torch.device
) -> Tensor:
    """Standard Gumbel noise (R, V) in float64: of seed, position, sample and token id alone."""
    keys_R, places_R, samples_R = (
        torch.tensor(values, dtype=torch.int64, device=device)[:, None]
        for values in (seeds, positions, samples)
    )
    quads_C = torch.arange((vocab + 3) // 4, device=device)
    shape = (len(seeds), len(quads_C))
    counter = (places_R & _WORD, quads_C, samples_R & _WORD, torch.zeros_like(quads_C))
    words = philox(
        tuple(word.expand(shape) for word in counter), (keys_R & _WORD, (keys_R >> 32) & _WORD)
    )
    uniform_RV = (torch.stack(words, 2).flatten(1)[:, :vocab].double() + 0.5) / 2**32
    return -(-(-uniform_RV).log1p()).log()
