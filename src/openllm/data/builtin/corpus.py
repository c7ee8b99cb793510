# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The builtin corpus: endless text from a seed, in five kinds, for three splits.

Held-out documents use only names, places and combinations that no training document shows; see
`names.split_of`. `docs/builtin_corpus.md` describes the grammar.
"""

import itertools
from collections.abc import Callable, Iterator

from openllm.core.errors import DataError
from openllm.data.builtin.arithmetic import arithmetic
from openllm.data.builtin.encyclopaedia import paragraph
from openllm.data.builtin.names import SPLITS, Split
from openllm.data.builtin.questions import questions
from openllm.data.builtin.rhymes import rhyme
from openllm.data.builtin.scene import Draw
from openllm.data.builtin.stories import story
from openllm.data.document import Document

KINDS: dict[str, tuple[float, Callable[[Draw, Split], str]]] = {
    "story": (0.50, story),
    "rhyme": (0.30, rhyme),
    "world": (0.07, paragraph),
    "question": (0.08, questions),
    "arithmetic": (0.05, arithmetic),
}
"""kind -> (share of the documents, generator)"""


def document(split: Split, seed: int, index: int) -> Document:
    """Document number `index` of a split; a function of the three arguments alone.

    Raises:
        DataError: no such split.
    """
    if split not in SPLITS:
        raise DataError(f"there is no split '{split}'; choose one of {', '.join(SPLITS)}")
    draw = Draw(f"builtin/{seed}/{split}/{index}")
    kind = _kind(draw)
    text = KINDS[kind][1](draw, split)
    return Document(f"builtin/{seed}/{split}/{index:07d}", text, source=f"builtin/{kind}")


def _kind(draw: Draw) -> str:
    point = draw.number(0, 99) / 100
    for kind, (share, _) in KINDS.items():
        if point < share - 1e-9:
            return kind
        point -= share
    raise AssertionError("the shares of the kinds do not add up to 1")


def generate(split: Split, seed: int) -> Iterator[Document]:
    """The documents of a split, endlessly.

    Raises:
        DataError: no such split.
    """
    return (document(split, seed, index) for index in itertools.count())


def prompts(split: Split, seed: int, n: int) -> list[str]:
    """The first sentences of n stories, for a model to continue."""
    found = (story(Draw(f"builtin/prompt/{seed}/{split}/{i}"), split) for i in range(n))
    return [text[: text.index(". ") + 1] for text in found]
