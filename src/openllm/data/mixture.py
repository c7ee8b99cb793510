# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Mixtures of sources, and their batches, each a pure function of (seed, step).

Choosing the source of each row is a scheduling problem: a source's next row may come from the first
n at which it is not early, and must come before the source falls behind. Serving the source with
the earliest deadline keeps each of k sources within 1 - 1 / (2k - 2) rows of its share of the
first n rows, for every n (Tijdeman 1980, "The chairman assignment problem"). So a share is met
exactly wherever it is a whole number of rows.
"""

import math
import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from openllm.core.errors import ConfigError
from openllm.data.loader import Batch, Row, TokenLoader, lay_out

NATURAL, EQUAL = "natural", "equal"
"""Named mixtures: sources in proportion to their size, and all equal."""
_WEIGHT = re.compile(r"(\d+\.?\d*|\.\d+)(/\d+)?", re.ASCII)


@dataclass(frozen=True)
class Mixture:
    """Shares of the tokens by source, summing to exactly one.

    Attributes:
        name: as the user wrote it.
        shares: source -> share; sources without one are not read.
    """

    name: str
    shares: Mapping[str, Fraction]

    @classmethod
    def of(cls, name: str, weights: Mapping[str, Fraction | float]) -> "Mixture":
        """A mixture from weights in any unit."""
        shares = normalised(list(weights.values()))
        return cls(name, dict(zip(weights, shares, strict=True)))

    @classmethod
    def parse(cls, text: str, sizes: Mapping[str, int]) -> "Mixture":
        """Read `squad:0.7,books:0.3`, the name of one source, `natural` or `equal`.

        Args:
            text: what the user wrote; weights are in any unit.
            sizes: tokens of each source.

        Raises:
            ConfigError: the text is invalid; the message names the part.
        """
        if text == EQUAL:
            return cls.of(text, dict.fromkeys(sizes, 1))
        if text == NATURAL:
            whole = cls.of(text, sizes)
            shown = ",".join(f"{name}:{float(share):.2g}" for name, share in whole.shares.items())
            return cls(f"{NATURAL} ({shown})", whole.shares)
        weights: dict[str, Fraction] = {}
        parts = [part.strip() for part in text.split(",")]
        for part in parts:
            name, colon, weight = part.partition(":")
            if name not in sizes:
                raise ConfigError(
                    f"mixture '{text}': unknown source '{name}'; sources: {', '.join(sizes)}"
                )
            if name in weights:
                raise ConfigError(f"mixture '{text}' names '{name}' twice; remove one")
            weights[name] = _weight(weight if colon or len(parts) > 1 else "1", name, text)
        return cls.of(",".join(parts), weights)


def _weight(text: str, name: str, mixture: str) -> Fraction:
    try:
        weight = Fraction(text) if _WEIGHT.fullmatch(text) else Fraction(0)
    except (ValueError, ZeroDivisionError):  # thousands of digits, 1/0
        weight = Fraction(0)
    if not weight:
        raise ConfigError(
            f"mixture '{mixture}' gives '{name}' the weight '{text}'; weights must be positive "
            "numbers such as 0.7 or 2 (to exclude a source, do not name it)"
        )
    return weight


def refuse_twins(mixtures: Collection[Mixture]) -> None:
    """Refuse mixtures with the same shares.

    Raises:
        ConfigError: two are the same; the message names them.
    """
    seen: dict[frozenset[tuple[str, Fraction]], str] = {}
    for mixture in mixtures:
        shares = frozenset(mixture.shares.items())
        if shares in seen:
            raise ConfigError(
                f"the mixtures '{seen[shares]}' and '{mixture.name}' are the same (only the ratio "
                "of weights matters); remove one"
            )
        seen[shares] = mixture.name


def normalised(weights: Sequence[Fraction | float]) -> tuple[Fraction, ...]:
    """The weights, scaled to sum to exactly one.

    Raises:
        ValueError: a weight is not positive and finite, or there are none.
    """
    if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive and finite: {list(weights)}")
    exact = [Fraction(weight) for weight in weights]
    return tuple(weight / sum(exact) for weight in exact)


class Turns:
    """The source of each row; a function of the shares alone.

    Arithmetic is exact, so it is the same on every machine. Only a table of the turns up to the
    furthest row asked for is kept: 12 bytes per row.
    """

    def __init__(self, shares: Sequence[Fraction]) -> None:
        self._shares = shares
        self._slack = Fraction(1, max(1, 2 * len(shares) - 2))
        self._sources = array("i")
        self._own_rows = array("q")
        self._taken = [0] * len(shares)
        self._windows = [self._window(source) for source in range(len(shares))]

    def __getitem__(self, row: int) -> tuple[int, int]:
        """Source of a row, and its index among that source's rows."""
        while row >= len(self._sources):
            self._take()
        return self._sources[row], self._own_rows[row]

    def counts(self, rows: int) -> list[int]:
        """Rows of each source among the first `rows`."""
        counts = [0] * len(self._shares)
        for row in range(rows):
            counts[self[row][0]] += 1
        return counts

    def _window(self, source: int) -> tuple[int, int]:
        """First and last row, counted from 1, that may be the source's next one."""
        share, taken = self._shares[source], self._taken[source]
        earliest = math.ceil((taken + self._slack) / share)
        return earliest, math.floor((taken + 1 - self._slack) / share) + 1

    def _take(self) -> None:
        row = len(self._sources) + 1
        # never empty: in total the sources are owed this one row
        ready = [source for source, (first, _) in enumerate(self._windows) if first <= row]
        source = min(ready, key=lambda source: self._windows[source][1])
        self._sources.append(source)
        self._own_rows.append(self._taken[source])
        self._taken[source] += 1
        self._windows[source] = self._window(source)


class MixtureLoader:
    """Rows of several sources; each goes through its own epochs in its own order.

    Args:
        loaders: one per source, all with the same row length.
        weights: share of the tokens of each source, in any unit.
        micro_rows: rows per micro-batch.
    """

    def __init__(
        self,
        loaders: Sequence[TokenLoader],
        weights: Sequence[Fraction | float],
        *,
        micro_rows: int,
    ) -> None:
        if len({loader.seq_len for loader in loaders}) != 1:
            raise ValueError("all sources must have the same row length")
        if len(loaders) != len(weights):
            raise ValueError(f"{len(loaders)} sources, but {len(weights)} weights")
        self.loaders = loaders
        self.seq_len = loaders[0].seq_len
        self.micro_rows = micro_rows
        self.turns = Turns(normalised(weights))

    @property
    def rows_per_epoch(self) -> int:
        """Rows of all sources together, which is not an epoch of any of them."""
        return sum(loader.rows_per_epoch for loader in self.loaders)

    def batches(self, first: int, stop: int) -> list[Batch]:
        """The micro-batches with the rows `first` to `stop` - 1."""
        rows = [self._row(row) for row in range(first, stop)]
        return lay_out(rows, self.seq_len, self.micro_rows)

    def epochs(self, rows: int) -> list[float]:
        """Epochs of each source in the first `rows` rows."""
        counts = self.turns.counts(rows)
        return [
            count / loader.rows_per_epoch
            for count, loader in zip(counts, self.loaders, strict=True)
        ]

    def _row(self, row: int) -> Row:
        source, own_row = self.turns[row]
        loader = self.loaders[source]
        return loader.shards, loader.pieces(own_row)
