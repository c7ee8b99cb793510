# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm tokenizer train`, `openllm tokenizer inspect` and `openllm data tokenize`."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from openllm.cli.main import main
from openllm.core.files import write_json
from openllm.data.document import SPLITS
from openllm.data.shards import Shards
from openllm.recipes.tokenize import tokenize
from openllm.text.load import load_tokenizer

ENGLISH = [
    "the",
    "old",
    "fox",
    "walked",
    "under",
    "a",
    "long",
    "bridge",
    "and",
    "said",
    "that",
    "it",
    "would",
    "rain",
    "in",
    "the",
    "morning",
]
CHINESE = "今天天气很好我们去公园看花吃饭喝茶"


def sentences(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    words = [*ENGLISH, *(a + b for a in ENGLISH for b in ("ing", "ed", "er"))]
    return [" ".join(chance.choices(words, k=30)) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    folder.mkdir()
    splits: dict[str, Any] = {}
    for seed, (split, count) in enumerate(zip(SPLITS, (400, 30, 30), strict=True)):
        texts = sentences(count, seed)
        lines = [
            {"id": f"{split}{number}", "text": text, "title": None, "source": "test"}
            for number, text in enumerate(texts)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        splits[split] = {"documents": count, "bytes": sum(map(len, texts)), "words": 30 * count}
    index = {"kind": "documents", "corpus": "user", "sources": [], "splits": splits}
    write_json(folder / "index.json", {**index, "fingerprint": "d" * 64, "config": {}})
    return folder


@pytest.fixture(scope="module")
def tokenizer(data: Path) -> Path:
    folder = data.parent / "tokenizer"
    assert main(["tokenizer", "train", str(data), "--out", str(folder), "--vocab-size", "640"]) == 0
    return folder


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "languages.jsonl.gz"
    chance = random.Random(0)
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        for text in sentences(20, 5):
            handle.write(json.dumps({"lang": "eng", "text": text}) + "\n")
            chinese = "".join(chance.choices(CHINESE, k=40))
            handle.write(json.dumps({"lang": "zho", "text": chinese}) + "\n")
    return path


def test_train_writes_what_it_was_made_from(data: Path, tokenizer: Path) -> None:
    assert load_tokenizer(tokenizer).vocab_size == 640
    facts = json.loads((tokenizer / "openllm_tokenizer.json").read_text())
    assert facts["settings"]["vocab_size"] == 640
    assert facts["trained_on"]["data_fingerprint"] == "d" * 64
    assert facts["trained_on"]["sampled_bytes"] == facts["trained_on"]["bytes"]


def test_training_twice_gives_the_same_folder(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    arguments = ["tokenizer", "train", str(data), "--out", str(tmp_path / "t")]
    assert main([*arguments, "--vocab-size", "640"]) == 0
    for file in tokenizer.iterdir():
        assert (tmp_path / "t" / file.name).read_bytes() == file.read_bytes(), file.name


def test_inspect_by_language(
    tokenizer: Path, jsonl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tokenizer", "inspect", str(tokenizer), "--data", str(jsonl)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["groups"]) == {"eng", "zho"}
    assert report["groups"]["eng"]["documents"] == 20
    assert report["groups"]["eng"]["tokens_per_word"] > 1
    assert report["groups"]["zho"]["tokens_per_word"] is None
    assert report["groups"]["zho"]["tokens_per_character"] == 3
    assert report["groups"]["zho"]["byte_token_share"] == 1
    assert report["total"]["documents"] == 40
    small = report["embeddings"]["small"]
    assert small["share"] == pytest.approx(640 * 512 / small["parameters"])
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "zho" in shown and "in embeddings" in shown


def test_inspect_a_prepared_folder(
    data: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenizer", "inspect", str(tokenizer), "--data", str(data), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [groups[split]["documents"] for split in SPLITS] == [400, 30, 30]


@pytest.mark.integration
def test_compare_sizes_and_draw(
    data: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "sizes.png"
    arguments = ["tokenizer", "inspect", str(tokenizer), "--data", str(data)]
    arguments += ["--vocab-sizes", "640,600", "--plot", str(picture)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    small, large = report["vocab_sizes"]
    assert (small["vocab_size"], large["vocab_size"]) == (600, 640)
    assert small["held_out"]["documents"] == 60
    assert small["held_out"]["bytes_per_token"] < large["held_out"]["bytes_per_token"]
    flops = large["forward_flops_per_byte"]["large"], small["forward_flops_per_byte"]["large"]
    assert flops[0] < flops[1] and report["suits"]["large"] == 640
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(arguments) == 0
    assert "Least compute per byte of text" in capsys.readouterr().out


def test_compare_on_a_file(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(sentences(300, 9)))
    arguments = ["tokenizer", "inspect", str(tokenizer), "--data", str(path), "--json"]
    assert main([*arguments, "--vocab-sizes", "600"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["groups"]["text"]["documents"] == 300
    assert report["vocab_sizes"][0]["held_out"]["documents"] == 30


def test_tokenize_and_reuse(
    data: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = load_tokenizer(tokenizer).fingerprint
    folder = tokenize(data, tokenizer)
    assert folder == data / f"tokens-{fingerprint[:12]}"
    written = (folder / "index.json").stat().st_mtime_ns
    assert tokenize(data, tokenizer) == folder
    assert "are up to date" in capsys.readouterr().err
    assert (folder / "index.json").stat().st_mtime_ns == written
    (folder / "train.bin").write_bytes(b"")
    tokenize(data, tokenizer)
    Shards.open(folder, "train", fingerprint).verify()


def test_tokenize_command(
    data: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    arguments = ["data", "tokenize", str(data), "--tokenizer", str(tokenizer), "--out", str(out)]
    assert main([*arguments, "--workers", "2"]) == 0
    assert "train" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["documents"] == 400


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("tokenizer train {tmp}/no --out {tmp}/t", 1, "index.json does not exist"),
        ("tokenizer train {data} --out {tmp}/t --vocab-size 99", 2, "must be at least 576"),
        ("tokenizer train {data} --out {tmp}/t --vocab-size 9999", 1, "choose --vocab-size"),
        ("tokenizer train {data} --out {tmp}/t --vocab-size many", 2, "invalid int value"),
        ("tokenizer train {data} --out {data} --vocab-size 640", 1, "contains other files"),
        ("tokenizer train {data} --out {tmp}/t --seed -1", 2, "'seed'"),
        ("tokenizer train {data} --out {tokenizer}/tokenizer.json/t", 1, "cannot write here"),
        ("tokenizer train {empty} --out {tmp}/t", 1, "has no training documents"),
        ("tokenizer inspect {tmp}/no", 1, "no folder"),
        ("tokenizer inspect {data}", 1, "has no tokenizer.model"),
        ("tokenizer inspect {tokenizer} --data {tmp}/no", 1, "no file, folder or match"),
        ("tokenizer inspect {tokenizer} --vocab-sizes 600", 2, "add --data"),
        (
            "tokenizer inspect {tokenizer} --data {data} --vocab-sizes 6k",
            2,
            "comma-separated integers",
        ),
        ("tokenizer inspect {tokenizer} --data {blank}", 1, "there is no text"),
        (
            "tokenizer inspect {tokenizer} --data {one} --vocab-sizes 600",
            1,
            "training text and held-out text",
        ),
        ("data tokenize {tmp}/no --tokenizer {tokenizer}", 1, "index.json does not exist"),
        ("data tokenize {data} --tokenizer {tmp}/no", 1, "no folder"),
        ("data tokenize {data} --tokenizer {tokenizer} --workers 0", 2, "must be 1 or more"),
        ("data tokenize {data} --tokenizer {tokenizer} --out {data}", 1, "contains other files"),
        ("data tokenize {data} --tokenizer {tokenizer} --out {one}", 1, "is a file"),
        ("data tokenize {empty} --tokenizer {tokenizer}", 1, "has no training documents"),
    ],
)
def test_bad_input(
    arguments: str,
    code: int,
    message: str,
    data: Path,
    tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "one.txt").write_text("one document")
    empty = tmp_path / "empty"
    empty.mkdir()
    splits = {split: {"documents": 0, "bytes": 0, "words": 0} for split in SPLITS}
    index = {"kind": "documents", "corpus": "user", "sources": [], "splits": splits}
    write_json(empty / "index.json", {**index, "fingerprint": "e" * 64, "config": {}})
    for split in SPLITS:
        (empty / f"{split}.jsonl").write_text("")
    places = {
        "tmp": tmp_path,
        "data": data,
        "tokenizer": tokenizer,
        "blank": tmp_path / "blank.txt",
        "one": tmp_path / "one.txt",
        "empty": empty,
    }
    before = sorted(data.rglob("*")), sorted(tokenizer.rglob("*"))
    assert main(arguments.format(**places).split()) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err and not shown.out
    assert (sorted(data.rglob("*")), sorted(tokenizer.rglob("*"))) == before
