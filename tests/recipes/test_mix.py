# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm data mix` on runs of two steps."""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import settings, write_prepared

from openllm.cli import main as cli
from openllm.core.errors import ConfigError, DataError, OpenLLMError, TrainingError
from openllm.core.runs import read_metrics
from openllm.evaluate.compare import compare
from openllm.recipes.mixing import command, runs
from openllm.recipes.mixing.report import verdict

STEPS = 2
TOKENS = 256 * STEPS


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """No measured forecast; restores torch afterwards, because module fixtures train, too."""
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "PROBE_SECONDS", 0.0)
        patch.setattr("openllm.train.forecast.peak_bytes", lambda cfg: 0)
        yield
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Two prepared folders and a tokenizer, and `out` with four mixtures under two seeds."""
    folder = tmp_path_factory.mktemp("mix")
    write_prepared(folder / "a", (60, 12, 5), seed=10)
    write_prepared(folder / "b", (30, 12, 5), seed=20)
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    assert run(folder) == 0
    return folder


@pytest.fixture
def inputs(folder: Path, tmp_path: Path) -> Path:
    """A copy for one test to change."""
    return Path(shutil.copytree(folder, tmp_path / "mix"))


def arguments(folder: Path, *more: str, out: str = "out", **options: Any) -> list[str]:
    """A command line; options by name, None leaves one out."""
    unwanted = ("data=", "tokenizer=", "duration=", "validation.", "checkpoint.")
    recipe = [text for text in settings(folder, folder) if not text.startswith(unwanted)]
    values = {"tokenizer": folder / "tokenizer", "tokens": TOKENS, "score-tokens": 2000, **options}
    words = [f"a={folder / 'a'}", f"b={folder / 'b'}", *recipe, "--out", str(folder / out)]
    for name, value in values.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return [*words, "--resamples", "100", *more]


def run(folder: Path, *more: str, **options: Any) -> int:
    return command.main(arguments(folder, *more, **options))


def report(folder: Path, out: str = "out") -> dict[str, Any]:
    return json.loads((folder / out / "report.json").read_text())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that are trained, as (mixture, seed)."""
    done: list[tuple[str, int]] = []
    real = runs.run

    def noting(bench: Any, mixture: Any, seed: int, *others: Any) -> None:
        done.append((mixture.name, seed))
        real(bench, mixture, seed, *others)

    monkeypatch.setattr(runs, "run", noting)
    return done


@pytest.mark.integration
def test_everything_is_reported(folder: Path) -> None:
    found = report(folder)
    names = list(found["mixtures"])
    assert names[:2] == ["a", "b"] and names[2].startswith("natural (a:0.") and names[3] == "equal"
    assert found["seeds"] == [0, 1] and found["tokens"] == TOKENS
    assert len(list((folder / "out" / "results").iterdir())) == 4 * 2
    natural, sources = found["mixtures"][names[2]]["shares"], found["sources"]
    total = sum(facts["train_tokens"] for facts in sources.values())
    assert natural["a"] == pytest.approx(sources["a"]["train_tokens"] / total)
    for name, facts in found["mixtures"].items():
        rows = {s: facts["epochs"][s] * (sources[s]["train_tokens"] // 32) for s in sources}
        assert sum(rows.values()) == pytest.approx(TOKENS / 32)
        for target in ("a", "b"):
            own = facts["targets"][target]
            assert own["bits"]["low"] < own["bits"]["value"] < own["bits"]["high"]
            assert own["bits"]["value"] == pytest.approx(np.mean(own["seeds"]))
            assert own["seeds"][0] != own["seeds"][1]
            best = found["mixtures"][found["targets"][target]["ranking"][0]]["targets"][target]
            assert own["behind"]["value"] == pytest.approx(
                own["bits"]["value"] - best["bits"]["value"]
            )
        assert facts["shares"].keys() <= {"a", "b"}, name
    page = (folder / "out" / "report.md").read_text()
    assert all(f"| {name} |" in page for name in names)
    assert all(each["text"] in page for each in found["verdicts"].values())
    assert "![bits per byte by mixture and target](mix.png)" in page
    assert (folder / "out" / "mix.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.integration
def test_a_source_alone_is_what_openllm_train_gives(folder: Path, tmp_path: Path) -> None:
    from openllm.recipes.pretrain import main as train

    changes = {"duration": f"{TOKENS} tokens", "validation.tokens": 2000}
    words = settings(folder / "a", folder / "tokenizer", **changes)
    train(["tiny", *words, "--out", str(tmp_path / "run")])
    last = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "validation"][-1]
    facts = report(folder)
    assert facts["targets"]["a"]["excluded"] == 0
    bits = facts["mixtures"]["a"]["targets"]["a"]["seeds"][0]
    assert bits == pytest.approx(last["bits_per_byte"], rel=1e-6)


@pytest.mark.integration
def test_repeating_trains_nothing_and_says_the_same(
    inputs: Path, trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (inputs / "out" / "report.json").read_bytes()
    assert run(inputs, "--json") == 0
    assert trained == []
    printed = capsys.readouterr()
    assert "all runs are already done" in printed.err
    assert (inputs / "out" / "report.json").read_bytes() == before
    assert {"format_version": 1, **json.loads(printed.out)} == json.loads(before)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("more", "changes", "expected"),
    [
        (("--mixtures", "a", "a:0.9,b:0.1"), {}, [("a:0.9,b:0.1", 0), ("a:0.9,b:0.1", 1)]),
        (("--mixtures", "a:7", "b:3,a:3"), {}, []),
        (("--mixtures", "a"), {"seeds": 3}, [("a", 2)]),
        (("seed=1", "threads=2", "--mixtures", "b"), {"seeds": 1}, []),
        (("--mixtures", "a"), {"tokens": 256, "seeds": 1}, [("a", 0)]),
        (("--mixtures", "a", "optim.lr=0.01"), {"seeds": 1}, [("a", 0)]),
        (("--target", "a", "--mixtures", "a"), {"seeds": 1}, [("a", 0)]),
    ],
)
def test_only_what_is_missing_is_trained(
    inputs: Path,
    trained: list[tuple[str, int]],
    more: tuple[str, ...],
    changes: dict[str, Any],
    expected: list[tuple[str, int]],
) -> None:
    assert run(inputs, *more, **changes) == 0
    assert trained == expected


def test_results_are_known_by_their_text_not_by_name_or_place(
    inputs: Path, trained: list[tuple[str, int]]
) -> None:
    (inputs / "a").rename(inputs / "moved")
    words = [word.replace(f"a={inputs}/a", f"first={inputs}/moved") for word in arguments(inputs)]
    assert command.main([*words[1:], words[0]]) == 0  # the order of the sources is changed, too
    assert trained == []
    assert report(inputs)["mixtures"]["first"]["seconds"] > 0


def test_other_documents_in_a_folder_are_other_results(
    inputs: Path, trained: list[tuple[str, int]]
) -> None:
    shutil.rmtree(inputs / "b")
    write_prepared(inputs / "b", (30, 12, 5), seed=30)
    assert run(inputs, "--target", "a", "--mixtures", "a", "b", seeds=1) == 0
    assert trained == [("a", 0), ("b", 0)]  # the first, because the targets were two before
    trained.clear()
    shutil.rmtree(inputs / "b")
    write_prepared(inputs / "b", (30, 12, 5), seed=40)
    assert run(inputs, "--target", "a", "--mixtures", "a", "b", seeds=1) == 0
    assert trained == [("b", 0)]


def stop_in_run(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C during the first step of a run."""
    real = runs.build_trainer
    built = 0

    def build(*others: Any) -> Any:
        nonlocal built
        built += 1
        trainer = real(*others)
        if built == number:
            batches = trainer.batches

            def stopping(step: int) -> Any:
                os.kill(os.getpid(), signal.SIGINT)
                return batches(step)

            trainer.batches = stopping
        return trainer

    monkeypatch.setattr(runs, "build_trainer", build)


@pytest.mark.integration
def test_an_interrupted_queue_keeps_what_is_done(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = report(inputs)
    shutil.rmtree(inputs / "out")
    with monkeypatch.context() as patch:
        stop_in_run(patch, 3)
        assert cli.main(["data", "mix", *arguments(inputs)]) == 130
    assert "interrupted: 2 of 8 runs are done; repeat the command" in capsys.readouterr().err
    results = inputs / "out" / "results"
    kept = {path: path.read_bytes() for path in results.iterdir()}
    assert len(kept) == 2 and not (inputs / "out" / "report.md").exists()
    assert run(inputs) == 0
    assert all(path.read_bytes() == old for path, old in kept.items())
    again = report(inputs)
    for facts in [*whole["mixtures"].values(), *again["mixtures"].values()]:
        del facts["seconds"]
    assert again == whole


def edit_validation(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the validation documents of a prepared folder."""
    path, index = folder / "validation.jsonl", folder / "index.json"
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    change(documents)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    facts = json.loads(index.read_text())
    size = sum(len(document["text"].encode()) for document in documents)
    facts["splits"]["validation"] = {"documents": len(documents), "bytes": size}
    facts["fingerprint"] = f"{facts['fingerprint'][:-4]}cafe"
    index.write_text(json.dumps(facts))


def training_texts(folder: Path) -> list[str]:
    lines = (folder / "train.jsonl").read_text().splitlines()
    return sorted((json.loads(line)["text"] for line in lines), key=len)


def test_held_out_text_that_another_source_trains_on_is_not_scored(
    inputs: Path, trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    leaked = training_texts(inputs / "b")[-2:]

    def change(documents: list[dict[str, Any]]) -> None:
        for number, text in zip((2, 7), leaked, strict=True):
            documents[number]["text"] = f"Foreword. {text.upper()}"

    edit_validation(inputs / "a", change)
    assert run(inputs, "--mixtures", "a", seeds=1) == 0
    assert "some held-out documents of a share 13 or more words" in capsys.readouterr().err
    found = report(inputs)
    facts = found["targets"]["a"]
    assert (facts["documents"], facts["excluded"], facts["leaks"]) == (10, 2, {"a": 0, "b": 2})
    assert (
        "Of the held-out documents, 2 were excluded" in (inputs / "out" / "report.md").read_text()
    )
    # the score is that of the ten others
    (newest,) = [
        result
        for path in (inputs / "out" / "results").iterdir()
        if (result := json.loads(path.read_text()))["nll"].keys()
        == {found["sources"][name]["fingerprint"] for name in ("a", "b")}
    ]
    nll = newest["nll"][found["sources"]["a"]["fingerprint"]]
    lines = (inputs / "a" / "validation.jsonl").read_text().splitlines()
    sizes = [len(json.loads(line)["text"].encode()) for line in lines]
    assert len(nll) == len(sizes) == 12
    kept = [number for number in range(12) if number not in (2, 7)]
    bits = sum(nll[i] for i in kept) / sum(sizes[i] for i in kept) / math.log(2)
    assert found["mixtures"]["a"]["targets"]["a"]["bits"]["value"] == pytest.approx(bits)


def test_a_target_that_is_leaked_whole_ends_before_training(
    inputs: Path, trained: list[tuple[str, int]]
) -> None:
    texts = training_texts(inputs / "b")[-3:]

    def change(documents: list[dict[str, Any]]) -> None:
        documents[:] = [{**documents[0], "text": text} for text in texts]

    edit_validation(inputs / "a", change)
    with pytest.raises(DataError, match=r"every held-out document of 'a'.*with 'b'"):
        run(inputs)
    assert trained == []


def test_a_dry_run_plans_and_writes_nothing(
    inputs: Path, trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(inputs, "--dry-run", "--json", out="new", seeds=3) == 0
    printed = capsys.readouterr()
    plan = json.loads(printed.out)
    assert (plan["runs"], plan["done"], plan["tokens"]) == (12, 0, TOKENS)
    assert plan["mixtures"]["equal"]["shares"] == {"a": 0.5, "b": 0.5}
    assert "forecast: 12 runs of 2 steps, 6,144 tokens" in printed.err
    assert trained == [] and not (inputs / "new").exists()
    assert run(inputs, "--dry-run", seeds=3) == 0
    assert "forecast: 4 runs" in capsys.readouterr().err


def test_much_repetition_is_said(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(inputs, "--dry-run", "--mixtures", "b", tokens=20_000) == 0
    assert "mixture b reads b more than 4 times" in capsys.readouterr().err


def test_a_model_that_diverges_is_named(inputs: Path) -> None:
    lines = ("optim.lr=1e30", "optim.adamw.lr=1e30", "schedule.warmup=0", "--mixtures", "a")
    with pytest.raises(TrainingError, match=r"mixture a gave non-finite.*seed 0.*optim\.lr"):
        run(inputs, *lines, tokens=256 * 12)


def test_a_damaged_result_says_what_to_do(inputs: Path) -> None:
    (first, *_) = (inputs / "out" / "results").iterdir()
    first.write_text('{"half": ')
    with pytest.raises(DataError, match="remove the file and repeat"):
        run(inputs)


BAD = [
    (("--target", "c"), {}, "--target c: unknown source; sources: a, b"),
    (("--mixtures", "a:1,c:1"), {}, "unknown source 'c'; sources: a, b"),
    (("--mixtures", "a:1", "a:2"), {}, "are the same"),
    (("--mixtures", "equal", "b:1,a:1"), {}, "are the same"),
    (("--mixtures", "a:0,b:1"), {}, "positive"),
    (("--mixtures", "a:-1,b:1"), {}, "positive"),
    (("--mixtures", "a:nan,b:1"), {}, "positive"),
    (("a=elsewhere",), {}, "two sources are called 'a'"),
    (("c=none",), {}, "none"),
    (("equal=a",), {}, "not a valid source name"),
    (("a b=x",), {}, "not a valid source name"),
    (("clip_nrom=1",), {}, "did you mean 'clip_norm'"),
    (("optim.lrr=1",), {}, "optim.lrr"),
    (("clip_norm=-1",), {}, "clip_norm"),
    (("model.vocab_size=99",), {}, "vocab_size"),
    (("data=a",), {}, "choose another name for the source"),
    (("duration=1 epochs",), {}, "use --tokens"),
    (("distill.teachers=[a]",), {}, "without teachers"),
    (("word",), {}, "NAME=FOLDER"),
    ((), {"tokens": 0}, "tokens"),
    ((), {"seeds": 0}, "seeds"),
    ((), {"score-tokens": -1}, "score_tokens"),
    ((), {"recipe": "tini"}, "did you mean 'tiny'"),
    ((), {"tokenizer": "none"}, "none"),
    (("seed=9", "batch.seq_len=4096", "model.max_positions=4096", "batch.tokens=4096"), {},
     "fewer than one row of 4096"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "changes", "said"), BAD)
def test_bad_input_says_how_to_mend_it(
    folder: Path, more: tuple[str, ...], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(OpenLLMError) as caught:
        run(folder, *more, **{"out": "never", **changes})
    assert said in str(caught.value)
    assert not (folder / "never").exists()


def test_folders_that_cannot_be_compared(inputs: Path) -> None:
    shutil.copytree(inputs / "a", inputs / "twin")
    with pytest.raises(ConfigError, match="'a' and 'c' contain the same documents"):
        run(inputs, f"c={inputs / 'twin'}")
    (inputs / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"other files \(thesis.txt\)"):
        run(inputs)
    with pytest.raises(ConfigError, match="is a file"):
        run(inputs, out="out/thesis.txt")
    with pytest.raises(ConfigError, match="two or more"):
        command.main(["a=x", "--tokenizer", "t", "--out", "o"])


SIZES = np.full(50, 100)


def judged(means: list[list[float]], documents: int = 50) -> dict[str, Any]:
    """The verdict on mixtures x, y, ... with these bits per byte under each seed."""
    spread = np.random.default_rng(0).normal(0, 0.01, documents)
    nll = (np.array(means)[:, :, None] + spread) * 100 * math.log(2)
    names = ["x", "y", "z"][: len(means)]
    return verdict("t", names, compare(nll, SIZES[:documents]), len(means[0]))


@pytest.mark.parametrize(
    ("means", "documents", "clear", "said"),
    [
        ([[2.0, 2.01], [1.9, 1.91], [2.2, 2.21]], 50, True, "best for t: y (1.90"),
        ([[2.0, 2.01], [1.9, 1.91], [2.2, 2.21]], 50, True, "next is x, 0.100 [0.100, 0.100] wor"),
        ([[2.0, 1.9], [1.9, 2.0]], 50, False, "no difference found with 2 seeds for t; lowest"),
        ([[2.0, 2.0], [2.02, 2.0], [3.0, 3.0]], 50, False, "between x (2.00"),
        ([[2.0, 2.0], [2.02, 2.0], [3.0, 3.0]], 50, False, ") and y"),
        ([[2.0], [1.9]], 50, True, "check with --seeds 2"),
        ([[2.0, 2.0], [3.0, 3.0]], 9, False, "9 documents are too few"),
        ([[2.0, 2.0]], 50, False, "only one mixture"),
    ],
)
def test_verdicts(means: list[list[float]], documents: int, clear: bool, said: str) -> None:
    found = judged(means, documents)
    assert said in found["text"] and found["clear"] == clear
    assert found["best"] == ["x", "y", "z"][int(np.argmin(np.mean(means, axis=1)))]
