# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The strategies of the fuzz tests."""

from hypothesis import strategies as st

from openllm.text.controls import NAMED

WORDS = """
    the a fox river stone walked under old bridge said that morning light “Where are you?” asked
    été déjà garçon où naïve coûte l’eau; der große Fluß über schön; niño ¿qué? señor mañana
    def return self.value += 1 if x == None: lambda {'a': [1, 22, 333]} 2,024.50 € km² 10°
    Привет мир река старый мост; 今天 天气 很好 我们 去 公园。 ありがとう 世界
    👋🏽 👩‍👩‍👧 שלום عالم नमस्ते
""".split()  # noqa: SIM905
SPACES = (" ", " ", " ", " ", " ", "  ", "    ", "\n", "\n\n", "\t", "\n    ", ", ", ". ", "—")

_HARD = [*NAMED, *WORDS, *SPACES, "<s>", "</s>", "<unk>", "<0x0A>", "<|im_start|>", "\r\n", "\x00"]
_RUNS = st.tuples(
    st.sampled_from([*_HARD, "a", "ab", "\u0301", "\u200d", "\ufeff", "\x1f", "\u2585"]),
    st.integers(1, 90),
).map(lambda run: run[0] * run[1])

TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="ab 1.\n"),
    st.lists(st.sampled_from(_HARD), max_size=40).map("".join),
    st.lists(_RUNS, max_size=4).map("".join),
)
"""Any Unicode text: control characters, emoji, long runs, names of control tokens, NUL."""
