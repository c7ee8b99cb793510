# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Guess the next tokens of a text from the text itself. Without torch.

Summaries, corrections and code repeat long runs of what stands before them, so what followed the
last words where they stood before is often what follows now.
"""

from collections.abc import Sequence


class NgramProposer:
    """Guesses for one text that grows: what followed the latest earlier place of its last tokens.

    The longest match counts. The index grows with the text, so a guess costs the same however long
    the text is. Guesses get shorter while they are wrong, because each wrong token is computed in
    vain, and longer again while they are right.
    """

    def __init__(self, min_n: int = 2, max_n: int = 4) -> None:
        """Set what counts as a match.

        Args:
            min_n: tokens that must match.
            max_n: longest match that is looked for.
        """
        if not 1 <= min_n <= max_n:
            raise ValueError(f"min_n={min_n} and max_n={max_n} must be 1 <= min_n <= max_n")
        self._sizes = range(max_n, min_n - 1, -1)
        self._follows: dict[tuple[int, ...], int] = {}
        """n-gram -> place of the token after its latest occurrence."""
        self._indexed = 0
        self._guess: list[int] = []
        self._guessed_at = 0
        self._length: int | None = None

    def propose(self, tokens: Sequence[int], k: int) -> list[int]:
        """At most k tokens that may follow; none without a match.

        Args:
            tokens: the whole text: that of the last call, and what has come since.
            k: most tokens to guess.
        """
        self._index(tokens)
        length = self._judge(tokens, k)
        self._guess, self._guessed_at = [], len(tokens)
        for size in self._sizes:
            place = self._follows.get(tuple(tokens[-size:])) if size <= len(tokens) else None
            if place is not None:
                # past the end of the text, the guess goes on from its own beginning: a loop
                period = len(tokens) - place
                self._guess = [tokens[place + i % period] for i in range(length)]
                break
        return self._guess

    def _index(self, tokens: Sequence[int]) -> None:
        """Note what each n-gram was followed by; the last ones are not followed by anything yet."""
        for place in range(self._indexed, len(tokens)):
            for size in self._sizes:
                if size <= place:
                    self._follows[tuple(tokens[place - size : place])] = place
        self._indexed = len(tokens)

    def _judge(self, tokens: Sequence[int], k: int) -> int:
        """Length of the next guess: one more than was right of the last one, twice if all was."""
        if self._length is None:
            self._length = k
        if self._guess:
            came = tokens[self._guessed_at :]
            right = matching(self._guess, came)
            self._length = 2 * right + 1 if right == len(self._guess) else right + 1
        self._length = min(self._length, k)
        return self._length


def matching(guess: Sequence[int], came: Sequence[int]) -> int:
    """How many tokens of a guess came, before the first one that did not."""
    pairs = enumerate(zip(guess, came, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(guess), len(came)))
