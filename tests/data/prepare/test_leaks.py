# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
import random

import numpy as np
import pytest

from openllm.data.prepare import recount as module
from openllm.data.prepare.leaks import (
    LEAK,
    GramFilter,
    confirm,
    find_leaked,
    leak_candidates,
    leak_filter,
    shared_phrase,
)
from openllm.data.prepare.ngrams import ngrams, split_words
from openllm.data.prepare.recount import recount

WORDS = [f"w{i}" for i in range(3000)]


def text(draw: random.Random, length: int = 60) -> str:
    return " ".join(draw.choices(WORDS, k=length))


def write(folder, **splits: list[tuple[str, str | None]]) -> None:
    for split in ("train", "validation", "test"):
        lines = [
            json.dumps({"id": f"{split}-{i}", "text": body, "title": title, "source": "s"})
            for i, (body, title) in enumerate(splits.get(split, []))
        ]
        (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines))


def shared(texts: list[str], held: list[str], batch: int = 2) -> dict[int, int]:
    """Number of a text that shares a 13-gram -> number of the held-out text that has it."""
    batches = [
        (list(range(i, min(i + batch, len(held)))), held[i : i + batch])
        for i in range(0, len(held), batch)
    ]
    places, hashes = leak_candidates(ngrams(split_words(texts), LEAK), leak_filter(batches))
    owners = confirm(hashes, batches)
    return {p: o for p, o in zip(places.tolist(), owners.tolist(), strict=True) if o >= 0}


def test_documents_share_thirteen_words_or_nothing():
    draw = random.Random(5)
    held = [text(draw) for _ in range(5)]
    words = held[3].split()
    twelve, thirteen = " ".join(words[9 : 9 + LEAK - 1]), " ".join(words[9 : 9 + LEAK])
    texts = [text(draw), f"x {twelve} y {text(draw)}", f"{text(draw)} {thirteen.upper()}, z"]
    assert shared(texts, held) == {2: 3}
    assert shared_phrase(texts[2], held[3]) == thirteen
    assert shared_phrase(texts[1], held[3]) == ""


def test_nothing_is_shared_with_nothing():
    assert shared([text(random.Random(1))], []) == {}
    assert shared([text(random.Random(1))], ["too short"]) == {}
    assert shared(["too short", ""], ["too short"]) == {}


def test_the_filter_never_says_no_wrongly_and_rarely_yes():
    draw = np.random.default_rng(1)
    held, other = draw.integers(0, 1 << 63, (2, 200_000), dtype=np.uint64)
    gram_filter = GramFilter()
    gram_filter.add(held)
    assert len(gram_filter.find(held)) == len(held)
    assert len(gram_filter.find(other)) < 1e-3 * len(other)


@pytest.fixture
def planted(tmp_path):
    """A folder with one leak of each kind, some into both held-out splits."""
    draw = random.Random(8)
    validation, test = text(draw), text(draw)
    both = text(draw, LEAK)
    changed = test.split()
    changed[3] = "another"
    write(
        tmp_path,
        train=[
            (text(draw), "Clean"),
            (validation.upper().replace(" ", ", "), None),
            (" ".join(changed), None),
            (f"{text(draw, 20)} {both}", "Shared_Title"),
            ("Six words that stand alone here", None),
        ],
        validation=[
            (validation, "V"),
            (f"{both} {text(draw, 20)}", None),
            ("six words, that stand alone here!", None),
        ],
        test=[(test, "T"), (f"{text(draw, 20)} {both}", "shared title")],
    )
    return tmp_path


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("batch", "waiting"), [(1, 0), (1 << 20, 10_000)])
def test_the_recount_finds_every_planted_leak(planted, workers, batch, waiting, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_BYTES", batch)
    monkeypatch.setattr(module, "MOST_CANDIDATES", waiting)
    found = recount(planted, 0.8, workers)
    validation, test = found["train / validation"], found["train / test"]
    assert (validation.titles, validation.exact, validation.near, validation.grams) == (0, 2, 2, 2)
    assert (test.titles, test.exact, test.near, test.grams) == (1, 0, 1, 2)
    assert not validation.clean and not test.clean
    assert "near duplicate: line 3 of train.jsonl, line 1 of test.jsonl" in test.examples


def test_the_recount_of_a_clean_folder_is_zero(tmp_path):
    draw = random.Random(9)
    write(tmp_path, train=[(text(draw), "A")], validation=[(text(draw), "B")])
    found = recount(tmp_path, 0.8, 1)
    assert all(report.clean for report in found.values())
    assert found["train / test"].as_dict() == {
        "titles": 0,
        "exact": 0,
        "near": 0,
        "grams": 0,
        "examples": [],
        "clean": True,
    }


def test_find_leaked_names_every_held_out_text_that_training_shares():
    draw = random.Random(7)
    held = [[text(draw) for _ in range(4)], [], ["a short text", "another short text"]]
    phrase = " ".join(held[0][1].split()[20 : 20 + LEAK])
    held[0].append(f"{text(draw)} {phrase} {text(draw)}")
    twelve = " ".join(held[0][3].split()[: LEAK - 1])
    training = [[text(draw), f"{text(draw)} {phrase.upper()}!"], [f"x {twelve}", "A short text."]]
    found = find_leaked(held, training)
    assert [mask.tolist() for mask in found] == [
        [False, True, False, False, True],
        [],
        [True, False],
    ]
    assert [mask.any() for mask in find_leaked(held, [])] == [False] * 3
    assert find_leaked([], training) == []
