# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Cloze questions on held-out documents: which word ends this sentence?

Given the text up to the last word of a sentence, the model is right in *choice* if it gives the
true word a higher probability than three distractors, and right in *recall* if each token of the
true word is its argmax. Distractors end other held-out sentences, resemble the true word in
length and frequency, and do not occur in the document. Two groups are scored separately:
`repeated` (the word occurs earlier in the document, so looking back helps) and `new`.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from openllm.evaluate.ngram import KneserNey

Encode = Callable[[str], list[int]]
Score = Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]
"""Documents (token ids) -> for each, of its tokens[1:], the log-probability in nats and
whether the token is the argmax."""

GROUPS = ("repeated", "new")
DISTRACTORS = 3
SENTENCE_ENDS = frozenset(".!?।؟")
LEAST_LETTERS = 3
LEAST_WORDS_BEFORE = 10
_NEAREST = 30


@dataclass(frozen=True)
class Question:
    """A sentence of a held-out document without its last word.

    Attributes:
        document: index of the document.
        group: `repeated` or `new`.
        words: the true word, then the distractors.
        tokens: for each word, bos (if used), the text before, the word and the end of the sentence.
        begin: index in `tokens` where the candidates begin.
        end: index in `tokens[0]` where the true word ends.
    """

    document: int
    group: str
    words: tuple[str, ...]
    tokens: tuple[np.ndarray, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class _Target:
    """A word at the end of a sentence, without its punctuation."""

    document: int
    word: str
    begin: int
    mark: str
    repeated: bool


def make_questions(
    texts: Sequence[str],
    encode: Encode,
    *,
    prefix: Sequence[int],
    per_group: int,
    longest: int,
    seed: int,
) -> list[Question]:
    """Make up to `per_group` questions per group, at most one per group from a document.

    Args:
        texts: the held-out documents.
        encode: text to token ids.
        prefix: ids put before each text: bos, or none.
        per_group: questions wanted per group.
        longest: maximum tokens of a question.
        seed: for drawing targets and distractors.

    Returns:
        The questions; fewer if the texts have too few sentences. A target is skipped if the
        tokenizer merges it with its surroundings or if too few words resemble it.
    """
    rng = np.random.default_rng(seed)
    vocabularies = [frozenset(_plain(word) for word in text.split()) for text in texts]
    targets = [target for index, text in enumerate(texts) for target in _targets(index, text)]
    pool = _Pool(targets, Counter(word for text in texts for word in map(_plain, text.split())))
    taken: set[tuple[str, int]] = set()
    count = dict.fromkeys(GROUPS, 0)
    questions = []
    for index in rng.permutation(len(targets)):
        target = targets[index]
        group = GROUPS[0] if target.repeated else GROUPS[1]
        if count[group] >= per_group or (group, target.document) in taken:
            continue
        others = pool.similar(target.word, vocabularies[target.document], rng)
        text = texts[target.document][: target.begin]
        question = _question(target, group, (target.word, *others), text, encode, prefix)
        if question is not None and max(map(len, question.tokens)) <= longest:
            questions.append(question)
            count[group] += 1
            taken.add((group, target.document))
        if all(found >= per_group for found in count.values()):
            break
    return questions


def _targets(document: int, text: str) -> Iterator[_Target]:
    """Yield words that end a sentence, consist of letters and have enough text before them."""
    seen: set[str] = set()
    begin = 0
    for number, token in enumerate(text.split()):
        begin = text.index(token, begin)
        word, mark = token[:-1], token[-1]
        if (
            mark in SENTENCE_ENDS
            and number >= LEAST_WORDS_BEFORE
            and len(word) >= LEAST_LETTERS
            and all(unicodedata.category(letter)[0] in "LM" for letter in word)
        ):
            yield _Target(document, word, begin, mark, _plain(word) in seen)
        seen.add(_plain(token))
        begin += len(token)


def _plain(word: str) -> str:
    """Case-fold a word and strip surrounding punctuation."""
    begin, end = 0, len(word)
    while begin < end and unicodedata.category(word[begin])[0] not in "LMN":
        begin += 1
    while begin < end and unicodedata.category(word[end - 1])[0] not in "LMN":
        end -= 1
    return word[begin:end].casefold()


class _Pool:
    """The candidate distractors."""

    def __init__(self, targets: Sequence[_Target], frequency: Counter[str]) -> None:
        self._frequency = frequency
        self._words = sorted({target.word for target in targets})
        self._plain = [_plain(word) for word in self._words]
        self._logs = np.log2([max(1, frequency[word]) for word in self._plain])
        self._lengths = np.array([len(word) for word in self._words])
        self._capital = np.array([word[0].isupper() for word in self._words])

    def similar(
        self, word: str, document: frozenset[str], rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Draw from the words nearest to `word` that do not occur in `document`."""
        distance = abs(self._logs - np.log2(max(1, self._frequency[_plain(word)])))
        distance = distance + abs(self._lengths - len(word)) / 2
        distance[self._capital != word[0].isupper()] = np.inf
        near: list[str] = []
        for index in np.argsort(distance, kind="stable"):
            if len(near) == _NEAREST or not np.isfinite(distance[index]):
                break
            if self._plain[index] not in document:
                near.append(self._words[index])
        if len(near) < DISTRACTORS:
            return ()
        return tuple(near[i] for i in rng.choice(len(near), DISTRACTORS, replace=False))


def _question(
    target: _Target,
    group: str,
    words: tuple[str, ...],
    before: str,
    encode: Encode,
    prefix: Sequence[int],
) -> Question | None:
    """Tokenise a question; None if tokens span the word and its surroundings."""
    if len(words) != 1 + DISTRACTORS:
        return None
    start = encode(before.rstrip())
    whole = [encode(before + word + target.mark) for word in words]
    word = encode(before + target.word)
    apart = len(word) > len(start) and whole[0][: len(word)] == word
    if not apart or any(ids[: len(start)] != start for ids in whole):
        return None
    tokens = tuple(np.array([*prefix, *ids]) for ids in whole)
    begin, end = len(prefix) + len(start), len(prefix) + len(word)
    return Question(target.document, group, words, tokens, begin, end)


@dataclass(frozen=True)
class Accuracy:
    """Fraction of correct answers with its 95 % Wilson confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupResult:
    """Accuracy of a model in one group of questions."""

    questions: int
    choice: Accuracy
    recall: Accuracy


def ask(questions: Sequence[Question], score: Score) -> dict[str, GroupResult]:
    """Ask a model all questions; the result holds only groups that have questions."""
    scored = score([tokens for question in questions for tokens in question.tokens])
    width = 1 + DISTRACTORS
    hits = [
        scored[index * width][1][question.begin - 1 : question.end - 1]
        for index, question in enumerate(questions)
    ]
    return _grade(questions, [logprobs for logprobs, _ in scored], hits)


def ask_ngram(questions: Sequence[Question], model: KneserNey) -> dict[str, GroupResult]:
    """Ask an n-gram model all questions."""
    logprobs = model.score([tokens for question in questions for tokens in question.tokens])
    hits = []
    for question in questions:
        tokens = question.tokens[0]
        places = range(question.begin, question.end)
        hits.append(
            np.array([model.distribution(tokens[:at]).argmax() == tokens[at] for at in places])
        )
    return _grade(questions, logprobs, hits)


def _grade(
    questions: Sequence[Question], logprobs: Sequence[np.ndarray], hits: Sequence[np.ndarray]
) -> dict[str, GroupResult]:
    """Compare the four candidates of each question; a tie with a distractor counts as wrong."""
    width = 1 + DISTRACTORS
    chosen: dict[str, list[bool]] = {group: [] for group in GROUPS}
    recalled: dict[str, list[bool]] = {group: [] for group in GROUPS}
    for index, question in enumerate(questions):
        candidates = logprobs[index * width : (index + 1) * width]
        sums = [float(np.sum(found[question.begin - 1 :])) for found in candidates]
        chosen[question.group].append(sums[0] > max(sums[1:]))
        recalled[question.group].append(bool(np.all(hits[index])))
    return {
        group: GroupResult(len(chosen[group]), wilson(chosen[group]), wilson(recalled[group]))
        for group in GROUPS
        if chosen[group]
    }


def wilson(right: Sequence[bool]) -> Accuracy:
    """Fraction of correct answers with the 95 % interval of Wilson (1927, JASA 22:209)."""
    z, n = 1.959964, len(right)
    share = sum(right) / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Accuracy(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))
