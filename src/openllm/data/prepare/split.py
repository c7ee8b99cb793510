# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Assignment of documents to splits: whole articles, drawn by a seeded hash."""

import hashlib
import unicodedata

import numpy as np
from pydantic import Field

from openllm.core.config import Config
from openllm.data.prepare.ngrams import mix

TRAIN, VALIDATION, TEST = 0, 1, 2
"""Splits, as indices into `document.SPLITS`."""


class SplitConfig(Config):
    """How much text is held out.

    Attributes:
        validation: share of the bytes of each source.
        test: share of the bytes of each source.
        heldout_mb: maximum megabytes of text in each held-out split of a source; more would cost
            training text and memory without improving any measurement.
        seed: draws the articles.
    """

    validation: float = Field(0.05, ge=0, le=0.4)
    test: float = Field(0.05, ge=0, le=0.4)
    heldout_mb: float = Field(16.0, gt=0)
    seed: int = Field(0, ge=0)


def title_key(title: str) -> int:
    """64-bit key that ignores case, white space, underscores and Unicode form."""
    plain = unicodedata.normalize("NFKC", title).casefold().replace("_", " ")
    digest = hashlib.blake2b(" ".join(plain.split()).encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def assign(
    groups: np.ndarray,
    titled: np.ndarray,
    sizes: np.ndarray,
    sources: np.ndarray,
    config: SplitConfig,
) -> np.ndarray:
    """The split of each document; documents of one group stay together.

    Each source is split separately. If its titled documents hold enough text, held-out text comes
    from them alone: a passage without a title may be from the same article as another.

    Args:
        groups: uint64 [N], hash of the title, or of the text if there is no title.
        titled: bool [N].
        sizes: int [N], bytes of text.
        sources: int [N]; a group that occurs in several belongs to the first.
        config: shares and seed.

    Returns:
        uint8 [N], TRAIN, VALIDATION or TEST.
    """
    keys, first, members = np.unique(groups, return_index=True, return_inverse=True)
    weight = np.bincount(members, sizes, len(keys))
    side = np.zeros(len(keys), dtype=np.uint8)
    order = np.argsort(mix(keys, config.seed), kind="stable")
    home, named = sources[first], titled[first]
    for source in np.unique(home):
        own = order[home[order] == source]
        _hold_out(own, weight, named, side, config)
    return side[members]


def _hold_out(
    own: np.ndarray, weight: np.ndarray, named: np.ndarray, side: np.ndarray, config: SplitConfig
) -> None:
    """Fill the held-out splits of one source with its groups, in the order of `own`."""
    total = float(weight[own].sum())
    limit = config.heldout_mb * 1e6
    budgets = [
        (TEST, min(config.test * total, limit)),
        (VALIDATION, min(config.validation * total, limit)),
    ]
    wanted = sum(budget for _, budget in budgets)
    candidates = own[named[own]]
    if weight[candidates].sum() < 2 * wanted:
        candidates = own
    for turn, (which, budget) in enumerate(budgets):
        free = candidates[side[candidates] == TRAIN]
        spare = len(free) - (len(budgets) - turn)  # each of the remaining splits needs a group too
        if budget <= 0 or len(own) < 3 or spare < 1:
            continue
        left = budget
        for group in free.tolist():
            if weight[group] <= left and spare:
                side[group] = which
                left -= weight[group]
                spare -= 1
        if left == budget:  # every article is larger than the budget
            side[free[np.argmin(weight[free])]] = which
