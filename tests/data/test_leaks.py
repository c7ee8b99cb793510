# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
import random

import pytest

from openllm.data import leaks
from openllm.data.leaks import (
    LEAK,
    gram_table,
    portions,
    shared_documents,
    shared_phrase,
)
from openllm.data.ngrams import ngrams, split_words
from openllm.data.recount import recount

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


def test_shared_documents_are_those_that_share_thirteen_words():
    draw = random.Random(5)
    held = text(draw)
    words = held.split()
    twelve, thirteen = " ".join(words[9 : 9 + LEAK - 1]), " ".join(words[9 : 9 + LEAK])
    texts = [text(draw), f"x {twelve} y {text(draw)}", f"{text(draw)} {thirteen.upper()}, z"]
    table = gram_table([(7, text(draw)), (42, held)], LEAK)
    assert shared_documents(texts, table) == [(2, 42)]
    assert shared_phrase(texts[2], held) == thirteen
    assert shared_phrase(texts[1], held) == ""


def test_a_table_finds_all_and_only_its_ngrams():
    draw = random.Random(6)
    texts = [(i, text(draw, 40)) for i in range(50)]
    table = gram_table(texts[:25], LEAK)
    for number, body in texts:
        hashes = ngrams(split_words([body]), LEAK).hashes
        found, owners = table.find(hashes)
        assert len(found) == (len(hashes) if number < 25 else 0)
        assert set(owners.tolist()) <= {number}
        assert table.owners(hashes) == ({number} if number < 25 else set())


def test_an_empty_table_finds_nothing():
    table = gram_table([(0, "too short")], LEAK)
    assert len(table) == 0
    assert shared_documents([" ".join(WORDS[:50])], table) == []


def test_portions_are_cut_by_words(monkeypatch):
    monkeypatch.setattr(leaks, "TABLE_GRAMS", 100)
    texts = [(i, " ".join(WORDS[:60])) for i in range(5)]
    assert [[i for i, _ in part] for part in portions(texts)] == [[0, 1], [2, 3], [4]]


@pytest.fixture
def planted(tmp_path):
    """A folder with one leak of each kind, some into both held-out sides."""
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
@pytest.mark.parametrize("table", [20, 10_000])
def test_the_recount_finds_every_planted_leak(planted, workers, table, monkeypatch):
    monkeypatch.setattr(leaks, "TABLE_GRAMS", table)
    found = recount(planted, 0.8, workers)
    validation, test = found["train / validation"], found["train / test"]
    assert (validation.titles, validation.exact, validation.near, validation.grams) == (0, 2, 2, 2)
    assert (test.titles, test.exact, test.near, test.grams) == (1, 0, 1, 2)
    assert not validation.clean and not test.clean
    assert "near: train-2 and test-0" in test.examples


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
