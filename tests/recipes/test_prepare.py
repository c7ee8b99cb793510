# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm data prepare` and `openllm data inspect` from end to end."""

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openllm.core.errors import ConfigError, DataError, StorageError, UsageError
from openllm.data.document import SPLITS, read_documents, read_index
from openllm.data.prepare.ngrams import split_words
from openllm.data.prepare.store import StoreWriter
from openllm.recipes.prepare import inspect_main, prepare_main

WORDS = [f"{a}{b}" for a in ("bal", "kor", "min", "tes", "vul") for b in map(str, range(400))]
OUTPUTS = [*(f"{split}.jsonl" for split in SPLITS), "dropped.jsonl", "index.json"]


def sentence(draw: random.Random, length: int = 40) -> str:
    return " ".join(draw.choices(WORDS, k=length))


def write_corpus(folder: Path, articles: int = 30, seed: int = 0) -> Path:
    """Articles of five passages each, with duplicates, shared phrases and broken lines."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    phrase = sentence(draw, 13)
    lines = []
    for article in range(articles):
        passages = [sentence(draw) for _ in range(5)]
        if article % 6 == 0:
            passages.append(f"{sentence(draw)} {phrase}")
        lines += [json.dumps({"text": text, "title": f"Article {article}"}) for text in passages]
        if article % 5 == 0:
            lines.append(json.dumps({"text": passages[0]}))
            near = passages[1].split()
            near[2] = "changed"
            lines.append(json.dumps({"text": " ".join(near), "title": f"Copy {article}"}))
        if article % 7 == 0:
            lines += ['{"text": broken', json.dumps({"text": "short"})]
    (folder / "a.jsonl").write_text("\n".join(lines))
    with gzip.open(folder / "b.txt.gz", "wt") as handle:
        handle.write("\n\n".join(sentence(draw) for _ in range(60)))
    return folder


def run(*arguments: str | Path) -> int:
    return prepare_main([str(argument) for argument in arguments])


def dropped(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dropped.jsonl").open()]


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_nothing_is_lost_between_records_and_files(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    assert run(corpus, "--out", tmp_path / "out", "--split-paragraphs", "--workers", 1) == 0
    facts = report(tmp_path / "out")
    kept = {split: list(read_documents(tmp_path / "out", split)) for split in SPLITS}
    gone = dropped(tmp_path / "out")
    assert facts["records"] == sum(map(len, kept.values())) + len(gone)
    reasons = {reason: sum(r["reason"] == reason for r in gone) for reason in facts["dropped"]}
    assert reasons == facts["dropped"]
    assert set(reasons) == {
        "bad-json",
        "too-few-words",
        "exact-duplicate",
        "near-duplicate",
        "shared-with-heldout",
    }
    assert facts["broken"] == reasons["bad-json"] == 5
    assert all(Path(r["file"]).exists() and r["line"] > 0 for r in gone)
    broken = next(r for r in gone if r["reason"] == "bad-json")
    assert (corpus / "a.jsonl").read_text().split("\n")[broken["line"] - 1] == '{"text": broken'
    everything = [document for documents in kept.values() for document in documents]
    assert len({document.id for document in everything}) == len(everything)
    assert {document.source for document in everything} == {"corpus/a", "corpus"}
    index = read_index(tmp_path / "out")
    for split in SPLITS:
        assert index["splits"][split]["documents"] == len(kept[split]) > 0
        assert index["splits"][split]["bytes"] == sum(len(d.text.encode()) for d in kept[split])
        assert index["splits"][split]["words"] == sum(len(d.text.split()) for d in kept[split])
    assert index["corpus"] == "user" and facts["clean"]
    sides = [{d.title for d in kept[split] if d.title} for split in SPLITS]
    assert sides[0] & sides[1] == sides[0] & sides[2] == sides[1] & sides[2] == set()


@pytest.mark.integration
def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", articles=120)
    for workers in (1, 3):
        out = tmp_path / str(workers)
        run(corpus, "builtin", "--documents", 300, "--out", out, "--workers", workers)
    for name in OUTPUTS:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name


def test_the_seed_draws_other_articles(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    for seed in (0, 1):
        run(corpus, "--out", tmp_path / str(seed), "--workers", 1, "--seed", seed)
    titles = [{d.title for d in read_documents(tmp_path / str(s), "test")} for s in (0, 1)]
    assert titles[0] != titles[1]
    prints = [read_index(tmp_path / str(seed))["fingerprint"] for seed in (0, 1)]
    assert prints[0] != prints[1]


def test_settings_from_file_pairs_and_options(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    (tmp_path / "settings.yaml").write_text("near_threshold: 0.9\nquality: {min_words: 2}\n")
    run(
        corpus, "--config", tmp_path / "settings.yaml", "quality.max_word=99", "--min-words", 1,
        "--test", 0.2, "--title-key", "a", "--title-key", "b", "--out", tmp_path / "out",
        "--workers", 1,
    )  # fmt: skip
    config = read_index(tmp_path / "out")["config"]
    assert config["near_threshold"] == 0.9 and config["title_keys"] == ["a", "b"]
    assert config["quality"]["min_words"] == 1 and config["quality"]["max_word"] == 99
    assert config["split"]["test"] == 0.2 and config["split"]["validation"] == 0.05
    assert not any(r["reason"] == "too-few-words" for r in dropped(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["absent.txt"], DataError, "no file, folder or match"),
        (["near_threshold=0.9"], UsageError, "no SOURCE given"),
        (["{corpus}", "--source", "x"], UsageError, "add squad as a SOURCE"),
        (["{corpus}", "near_threshold=2"], ConfigError, "near_threshold"),
        (["{corpus}", "nearthreshold=0.8"], ConfigError, "did you mean 'near_threshold'"),
        (["{corpus}", "--config", "absent.yaml"], ConfigError, "absent.yaml"),
        (["{corpus}", "--validation", "0.9"], ConfigError, "split.validation"),
        (["{corpus}", "--min-words", "9999"], DataError, "no documents are left .*too-few-words"),
        (["{corpus}/a.jsonl", "--text-key", "body"], DataError, "no-text .*--text-key"),
        (["{empty}"], DataError, "contain no documents"),
    ],
)
def test_bad_use_is_told_and_leaves_nothing(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus", articles=2)
    (tmp_path / "empty.jsonl").write_text("")
    given = [a.format(corpus="corpus", empty="empty.jsonl") for a in arguments]
    with pytest.raises(error, match=message):
        run(*given, "--out", "out", "--workers", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "empty.jsonl"}


def test_only_a_prepared_folder_is_replaced_and_only_with_force(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", articles=4)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a prepared folder"):
        run(corpus, "--out", other, "--force", "--workers", 1)
    assert (other / "thesis.txt").read_text() == "years of work"
    out = tmp_path / "out"
    run(corpus, "--out", out, "--workers", 1)
    before = (out / "train.jsonl").read_bytes()
    with pytest.raises(UsageError, match="--force"):
        run(corpus, "--out", out, "--workers", 1)
    run(corpus, "--out", out, "--workers", 1, "--force", "--test", "0.3")
    assert (out / "train.jsonl").read_bytes() != before
    (out / "tokenizer").mkdir()
    with pytest.raises(UsageError, match=r"other files \(tokenizer\), which --force would delete"):
        run(corpus, "--out", out, "--workers", 1, "--force")
    with pytest.raises(UsageError, match="not a prepared folder"):
        run(corpus, "--out", corpus / "a.jsonl", "--workers", 1)


def test_a_full_disk_is_told_and_the_old_folder_stays(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "corpus", articles=4)
    out = tmp_path / "out"
    run(corpus, "--out", out, "--workers", 1)
    before = (out / "train.jsonl").read_bytes()

    def full(self, batch):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StoreWriter, "append", full)
    with pytest.raises(StorageError, match="disk is full"):
        run(corpus, "--out", out, "--workers", 1, "--force", "--test", "0.3")
    assert (out / "train.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "out"}


@pytest.mark.integration
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_half_written(tmp_path, blow):
    out = tmp_path / "out"
    code = "import sys; from openllm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "data", "prepare", "builtin", "--documents", "500000"]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", "2"], stderr=subprocess.PIPE, text=True
    )
    store = tmp_path / ".out.tmp" / "work" / "documents.jsonl"
    deadline = time.monotonic() + 60
    while not (store.exists() and store.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(blow)
    _, errors = process.communicate(timeout=60)
    assert not out.exists()
    assert "Traceback" not in errors
    if blow == signal.SIGINT:
        assert process.returncode == 130
        assert list(tmp_path.iterdir()) == []
    run("builtin", "--documents", 50, "--out", out, "--workers", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_standard_input(tmp_path, monkeypatch):
    draw = random.Random(4)
    text = "\n\n".join(sentence(draw) for _ in range(40))

    class Input:
        buffer = __import__("io").BytesIO(text.encode())

    monkeypatch.setattr(sys, "stdin", Input)
    run("-", "--split-paragraphs", "--out", tmp_path / "out", "--workers", 1)
    assert report(tmp_path / "out")["records"] == 40


def test_files_named_one_by_one_are_split_together(tmp_path):
    draw = random.Random(2)
    paths = [tmp_path / "notes" / f"{i}.txt" for i in range(40)]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text(sentence(draw))
    run(*paths, "--out", tmp_path / "named", "--workers", 1)
    run(tmp_path / "notes", "--out", tmp_path / "folder", "--workers", 1)
    index = [read_index(tmp_path / name)["splits"] for name in ("named", "folder")]
    assert index[0]["test"]["documents"] == index[1]["test"]["documents"] == 2
    assert set(report(tmp_path / "named")["sources"]) == {"notes"}


def test_no_training_text_is_an_error_that_names_the_shared_phrase(tmp_path):
    footer = sentence(random.Random(1), 13)
    (tmp_path / "in").mkdir()
    for number in range(40):
        text = sentence(random.Random(100 + number)) + " " + footer
        (tmp_path / "in" / f"{number}.txt").write_text(text)
    with pytest.raises(DataError, match=f"no training documents are left.*{footer[:20]}"):
        run(tmp_path / "in", "--out", tmp_path / "out", "--split-paragraphs", "--workers", 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_what_was_left_out_is_said(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "picture.png").write_bytes(b"x")
    name = os.fsencode(corpus) + b"/caf\xe9.dat"
    with open(name, "wb"):
        pass
    assert run(corpus, "--out", tmp_path / "out", "--workers", 1) == 0
    said = capsys.readouterr().err
    assert "dropped: " in said and "exact-duplicate" in said
    assert "records could not be read" in said and "2 files of unknown type" in said


def test_nothing_left_names_the_first_places(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": \n{"body": "x"}\n')
    with pytest.raises(
        DataError, match=r"(?s)bad-json 1.*bad.jsonl:1 .*bad.jsonl:2 .*fields: body"
    ):
        run(bad, "--out", tmp_path / "out")


def test_empty_held_out_sides_are_warned_of(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(sentence(random.Random(1)))
    run(tmp_path / "a.txt", "--out", tmp_path / "out", "--workers", 1)
    assert "validation is empty" in " ".join(capsys.readouterr().err.split())


def test_inspect_shows_report_and_samples(tmp_path, capsys):
    run(write_corpus(tmp_path / "c"), "--out", tmp_path / "out", "--workers", 1, "--json")
    assert json.loads(capsys.readouterr().out)["kept"] > 100
    inspect_main([str(tmp_path / "out"), "--samples", "2", "--split", "test"])
    shown = capsys.readouterr().out
    assert shown.count("--- test ") == 2
    for part in ("## Leak report", "| near-duplicate |", "## Length", "Nothing is shared"):
        assert part in shown
    inspect_main([str(tmp_path / "out"), "--samples", "1", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"][0]["text"] and facts["index"]["kind"] == "documents"
    with pytest.raises(DataError, match="openllm data prepare"):
        inspect_main([str(tmp_path)])
    with pytest.raises(UsageError, match="--samples"):
        inspect_main([str(tmp_path / "out"), "--samples", "-1"])


def thirteen_grams(text: str) -> set[str]:
    """The 13-grams of a text, computed plainly: no hashes, no arrays."""
    words = split_words([text])
    plain = [words.text[a:b] for a, b in zip(words.starts, words.ends, strict=True)]
    return {" ".join(plain[i : i + 13]) for i in range(len(plain) - 12)}


@pytest.mark.integration
def test_squad_has_no_leak_however_it_is_counted(tmp_path, shared_data):
    out = tmp_path / "out"
    run("squad", "--source", shared_data / "squad", "--out", out, "--workers", 1)
    sides = {split: list(read_documents(out, split)) for split in SPLITS}
    assert report(out)["clean"] and report(out)["records"] == 9654
    assert read_index(out)["corpus"] == "squad"
    for split in ("validation", "test"):
        assert all(document.title for document in sides[split]), "held out by article"
        assert 0.03 < sum(len(d.text) for d in sides[split]) / 4.5e6 < 0.06
        held = set().union(*(thirteen_grams(d.text) for d in sides[split]))
        titles = {d.title for d in sides[split]}
        texts = {"".join(d.text.lower().split()) for d in sides[split]}
        for document in sides["train"]:
            assert document.title not in titles
            assert "".join(document.text.lower().split()) not in texts
            assert not thirteen_grams(document.text) & held
