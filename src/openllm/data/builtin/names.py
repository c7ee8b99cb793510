# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Names of people, towns and rivers, composed of syllables, and which split owns which.

Every name belongs to exactly one split, by a hash of its letters. Held-out names are made of the
same syllables as the training names, so that a model that has learnt to copy can copy them.
"""

import zlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def words(text: str) -> list[str]:
    """Split a list written as one line of text."""
    return text.split()


PERSON_STARTS = words(
    "Al Ar Bel Ben Bran Cal Cor Dan Del Dov Ed El Fen Fin Gal Gor Han Hel Iv Jan Jor Kal Kel "
    "Lar Lin Mal Mer Nad Nil Or Pal Per Ral Ros Sel Sol Tam Til Val Wil"
)
FEMALE_ENDS = words("ia ina ela ora issa etta ella wyn lina ria dra nia sie anne ette een")
MALE_ENDS = words("o ric den bert mund win us eth eld old vin dor gan son ard ius")
TOWN_STARTS = words(
    "Ash Birch Brack Bram Cald Carn Crow Dun East Elder Elm Fair Fern Glen Hart Haw Hazel Heath "
    "Kings Lang Lark Lin Mead Mill Moor Nether North Oak Otter Pen"
)
TOWN_ENDS = words(
    "ton ford ham wick by mere dale bury brook field worth ley stead bridge combe well"
)
UNFIT = {"Hanus"}  # words unfit as names
RIVER_STARTS = words(
    "Al Bren Cav Dov Esk Fenn Gav Isk Kell Lod Mir Nidd Orr Pell Sev Tav Ulv Ves Wyr"
)
RIVER_ENDS = words("a une ess on iss ow ine eth")


def split_of(key: str) -> Split:
    """The only split that may show this name or combination: 80 % train, 10 % each held out."""
    bucket = zlib.crc32(key.encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def _pool(starts: list[str], ends: list[str], split: Split) -> list[str]:
    names = {start + end for start in starts for end in ends} - UNFIT
    return sorted(name for name in names if split_of(name) == split)


def _people(ends: list[str], other_ends: list[str], split: Split) -> list[str]:
    other = {start + end for start in PERSON_STARTS for end in other_ends}
    return [name for name in _pool(PERSON_STARTS, ends, split) if name not in other]


WOMEN = {split: _people(FEMALE_ENDS, MALE_ENDS, split) for split in SPLITS}
MEN = {split: _people(MALE_ENDS, FEMALE_ENDS, split) for split in SPLITS}
TOWNS = {split: _pool(TOWN_STARTS, TOWN_ENDS, split) for split in SPLITS}
RIVERS = {split: _pool(RIVER_STARTS, RIVER_ENDS, split) for split in SPLITS}
