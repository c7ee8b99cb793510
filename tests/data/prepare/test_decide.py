# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import tracemalloc

import numpy as np
import pytest

from openllm.data.document import Document
from openllm.data.prepare.chunks import clean_chunk
from openllm.data.prepare.decide import (
    EXACT,
    KEPT,
    LEAKED,
    NEAR,
    Decisions,
    decide_duplicates,
    decide_leaks,
    decide_sides,
)
from openllm.data.prepare.dedup import BANDS, MINIMA
from openllm.data.prepare.filters import QualityConfig
from openllm.data.prepare.split import TEST, TRAIN, SplitConfig
from openllm.data.prepare.store import FACTS, MEMORY_BYTES, Store, StoreWriter
from openllm.data.reading.sources import Record

WORDS = [f"{a}{b}" for a in ("bal", "kor", "min", "tes", "vul") for b in map(str, range(400))]


def phrase(seed: int, length: int = 40) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def build(folder, documents: list[tuple[str, str | None, str | None]]) -> Store:
    """A store of (text, title, split stated by the source)."""
    records = [
        Record(0, 0, split, Document("", text, title, "s", "f", i + 1))
        for i, (text, title, split) in enumerate(documents)
    ]
    with StoreWriter(folder) as writer:
        for i in range(0, len(records), 3):
            writer.append(clean_chunk(records[i : i + 3], QualityConfig()))
    return Store(folder)


def near(text: str) -> str:
    return text.replace(text.split()[5], "changed", 1)


def test_the_titled_and_the_held_out_double_is_kept(tmp_path):
    base = [phrase(seed, 100) for seed in range(4)]
    documents = [
        (base[0], None, None),
        (near(base[1]), None, None),
        (base[2], None, "train"),
        (base[3], None, None),
        (base[0], "T", None),
        (base[1], "T", None),
        (near(base[2]), None, "test"),
        (base[3], None, None),
    ]
    with build(tmp_path, documents) as store:
        found = decide_duplicates(store, 0.8)
        assert found.fate.tolist() == [EXACT, NEAR, NEAR, KEPT, KEPT, KEPT, KEPT, EXACT]
        assert found.partner.tolist() == [4, 5, 6, -1, -1, -1, -1, 3]
        decide_sides(store, found, SplitConfig(validation=0, test=0))
        assert found.side.tolist() == [TRAIN] * 6 + [TEST, TRAIN]


@pytest.mark.parametrize("most", [0, 10_000])
def test_leaks_leave_the_training_side_only(tmp_path, monkeypatch, most):
    monkeypatch.setattr("openllm.data.prepare.decide.MOST_CANDIDATES", most)
    monkeypatch.setattr("openllm.data.prepare.decide.CHUNK_BYTES", 1)
    shared = phrase(9, 13)
    texts = [phrase(1), f"{phrase(2)} {shared}", phrase(3), f"{shared} {phrase(4)}", shared]
    with build(tmp_path, [(text, None, None) for text in texts]) as store:
        count = len(store)
        side = np.array([TRAIN, TRAIN, TEST, TEST, TRAIN], dtype=np.uint8)
        found = Decisions(np.zeros(count, np.uint8), np.full(count, -1), side)
        decide_leaks(store, found, workers=1)
    assert found.fate.tolist() == [KEPT, LEAKED, KEPT, KEPT, LEAKED]
    assert found.partner.tolist() == [-1, 3, -1, -1, 3]


def test_decisions_stay_within_the_stated_memory(tmp_path):
    count = 60_000
    draw = np.random.default_rng(0)
    facts = np.zeros(count, dtype=FACTS)
    facts["hash"] = draw.integers(0, 1 << 63, (count, 2), dtype=np.uint64)
    facts["group"], facts["bytes"] = facts["hash"][:, 1], 700
    (tmp_path / "facts.bin").write_bytes(facts.tobytes())
    for band in range(BANDS):
        values = draw.integers(0, 1 << 63, count, dtype=np.uint64)
        (tmp_path / f"band-{band:02d}.u64").write_bytes(values.tobytes())
    (tmp_path / "signatures.u8").write_bytes(bytes(count * MINIMA))
    (tmp_path / "documents.jsonl").touch()
    del facts, values
    tracemalloc.start()
    with Store(tmp_path) as store:
        decide_sides(store, decide_duplicates(store, 0.8), SplitConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES * count


def test_documents_hash_alike_in_any_batch(tmp_path):
    texts = [(phrase(seed), None, None) for seed in range(7)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with build(tmp_path / "a", texts) as one, build(tmp_path / "b", texts[:4]) as other:
        for name in ("hash", "group", "bytes", "words", "offset", "length"):
            assert one.facts[name][:4].tolist() == other.facts[name].tolist()
        assert one.text(3) == other.text(3) == texts[3][0]
        assert one.id(6) != one.id(5)
