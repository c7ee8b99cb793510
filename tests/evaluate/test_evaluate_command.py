# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm evaluate` from the command line, on a small trained model."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.text.imported import write_folder
from tests.tiny import SHAPES, random_model, sentences

from openllm.cli.main import main
from openllm.core.errors import CheckpointError, StorageError
from openllm.core.files import read_json, write_json
from openllm.recipes import evaluate as command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def report(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and contents of a whole evaluation."""
    folder = tmp_path_factory.mktemp("report") / "eval"
    arguments = [trained.model, "--data", trained.data, "--ngram", "--out", folder]
    small = ["--samples", "6", "--max-new-tokens", "40", "--cloze", "20"]
    assert main(["evaluate", *map(str, arguments), *small]) == 0
    return folder, json.loads((folder / "eval.json").read_text())


@pytest.mark.integration
def test_measures_everything(report: tuple[Path, dict[str, Any]]) -> None:
    folder, result = report
    values = result["perplexity"]
    assert set(values) == {"model", "ngram", "difference"}
    for name in ("model", "ngram"):
        bits, loss = values[name]["bits_per_byte"], values[name]["loss"]
        assert bits["low"] < bits["value"] < bits["high"]
        ratio = result["data"]["tokens"] / result["data"]["bytes"] / math.log(2)
        assert bits["value"] == pytest.approx(loss["value"] * ratio)
        assert loss["value"] < math.log(640), "worse than knowing nothing"
    assert result["model"]["step"] == 40
    assert result["model"]["tokens_seen"] == 40 * 1024
    assert result["windows"]["context"] == 64
    assert 0.5 < result["windows"]["full_context_share"] < 1
    assert result["cloze"]["model"]["repeated"]["questions"] == 20
    assert result["generation"]["model"]["texts"] == 6
    assert result["generation"]["heldout"]["tokens"] == result["generation"]["model"]["tokens"]
    assert {"eval.json", "report.md", "eval.png"} == {file.name for file in folder.iterdir()}


@pytest.mark.integration
def test_loss_is_the_mean_of_the_model_s_own_log_probabilities(
    trained: Any, report: tuple[Path, dict[str, Any]]
) -> None:
    import torch

    from openllm.checkpoint.model_dir import load_model
    from openllm.nn.heads import logits
    from openllm.text.load import load_tokenizer

    model, tokenizer = load_model(trained.model), load_tokenizer(trained.model)
    losses, size = [], 0
    for line in (trained.data / "test.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = tokenizer.encode(text)
        if len(ids) > 63:  # longer ones are read in windows
            continue
        tokens = torch.tensor([[tokenizer.bos_id, *ids]])
        scores = logits(model(tokens).x[0, :-1], model.head).log_softmax(-1)
        losses.append(-scores.gather(1, tokens[0, 1:, None]).sum().item())
        size += len(text.encode())
    assert losses
    single = trained.data.parent / "short.jsonl"
    lines = (trained.data / "test.jsonl").read_text().splitlines()
    short = [ln for ln in lines if len(tokenizer.encode(json.loads(ln)["text"])) <= 63]
    single.write_text("\n".join(short))
    found = evaluate_json(trained, single)
    expected = sum(losses) / math.log(2) / size
    assert found["perplexity"]["model"]["bits_per_byte"]["value"] == pytest.approx(expected, 1e-4)
    assert found["windows"]["full_context_share"] == 1.0


def evaluate_json(trained: Any, data: Path) -> dict[str, Any]:
    from openllm.evaluate.config import EvaluateConfig
    from openllm.recipes.evaluate import evaluate

    return evaluate(trained.model, data, EvaluateConfig(samples=0, cloze=0))


def test_a_model_without_bos_is_scored_from_the_second_token(trained: Any, tmp_path: Path) -> None:
    import torch

    from openllm.checkpoint.model_dir import load_model, write_model
    from openllm.evaluate.config import EvaluateConfig
    from openllm.nn.heads import logits
    from openllm.recipes.evaluate import evaluate
    from openllm.text.load import load_tokenizer

    folder = write_folder(tmp_path / "tokenizer", "gpt2")
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg).state_dict()
    write_model(tmp_path / "m", cfg, weights, tokenizer=folder, lineage={}, card="")
    (tmp_path / "m" / "openllm.json").unlink()
    model, tokenizer = load_model(tmp_path / "m"), load_tokenizer(folder)
    texts = [*sentences(30, 8), "☕ and tea"]
    loss, size = 0.0, 0
    for text in texts:
        tokens = torch.tensor([tokenizer.encode(text)])
        scores = logits(model(tokens).x[0, :-1], model.head).log_softmax(-1)
        loss -= scores.gather(1, tokens[0, 1:, None]).sum().item()
        size += sum(len(tokenizer.token_bytes(index)) for index in tokens[0, 1:].tolist())
    data = tmp_path / "text.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    wishes = EvaluateConfig(samples=3, prompt_tokens=4, cloze=10, context=120)
    found = evaluate(tmp_path / "m", data, wishes)
    expected = loss / math.log(2) / size
    assert found["perplexity"]["model"]["bits_per_byte"]["value"] == pytest.approx(expected, 1e-4)
    assert found["data"]["bytes"] == size
    for sample in found["generation"]["samples"]:
        assert any(text.startswith(sample["prompt"]) for text in texts)


def test_the_ngram_model_counts_what_training_showed(
    trained: Any, report: tuple[Path, dict[str, Any]]
) -> None:
    from openllm.data.shards import Shards
    from openllm.evaluate.ngram import KneserNey
    from openllm.recipes.tokenize import tokenize
    from openllm.text.load import load_tokenizer

    tokenizer = load_tokenizer(trained.model)
    shards = tokenize(trained.data, trained.tokenizer)
    train = Shards.open(shards, "train", tokenizer.fingerprint)
    test = Shards.open(shards, "test", tokenizer.fingerprint)
    rows = len(train.tokens) // 64
    assert rows < 40 * 16, "training went more than once through the text"
    # One epoch holds each token once; a cut document shows its border on both sides.
    assert rows * 64 <= report[1]["ngram"]["tokens"] <= rows * 65
    whole = KneserNey.train(
        [train.document(i) for i in range(train.num_documents)],
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
    )
    scores = whole.score([test.document(i) for i in range(test.num_documents)])
    loss = -np.concatenate([score[:-1] for score in scores]).mean()
    assert report[1]["perplexity"]["ngram"]["loss"]["value"] == pytest.approx(loss, rel=0.05)


def test_repeats_itself_exactly(
    trained: Any, report: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    arguments = [trained.model, "--data", trained.data, "--ngram", "--out", tmp_path / "again"]
    small = ["--samples", "6", "--max-new-tokens", "40", "--cloze", "20"]
    assert main(["evaluate", *map(str, arguments), *small]) == 0
    assert json.loads((tmp_path / "again" / "eval.json").read_text()) == report[1]


def test_json_and_tables_on_standard_output(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--samples", 0, "--cloze", 0, "--documents", 20)
    code, out, _ = run(capsys, trained.model, "--data", trained.data, *quick, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["data"]["documents"] == 20
    assert "generation" not in result
    code, out, _ = run(capsys, trained.model, "--data", trained.data, *quick)
    assert code == 0
    value = result["perplexity"]["model"]["bits_per_byte"]["value"]
    row = next(line for line in out.splitlines() if "bits per byte" in line)
    assert row.split()[3:4] == [f"{value:.3f}"]
    assert "95 % bootstrap interval" in out


def test_a_model_moved_away_from_its_run_finds_its_text_where_told(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: Callable[..., None]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.model, model)
    text = tmp_path / "other.jsonl"
    shutil.copy(trained.data / "test.jsonl", text)
    base = (model, "--data", text, "--cloze", 0, "--max-new-tokens", 8)
    code, _, err = run(capsys, *base, "--ngram")
    assert code == 1
    assert "--train-data" in err
    code, out, err = run(capsys, *base, "--samples", 2, "--json")
    assert code == 0
    assert "not measured" in err
    assert "whether the model has seen it was not checked" in err
    assert json.loads(out)["generation"]["longest_copy"] is None
    base = (*base, "--samples", 2, "--json", "--train-data")
    code, out, _ = run(capsys, *base, trained.data)
    assert code == 0
    assert json.loads(out)["generation"]["longest_copy"]["tokens"] > 0
    prepare(tmp_path / "wrong", (40, 5, 5), seed=7)
    code, _, err = run(capsys, *base, tmp_path / "wrong")
    assert code == 1
    assert f"fingerprint {'0' * 12}" in err


def test_the_run_beside_the_model_says_where_the_text_is(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.model, tmp_path / "run" / "model")
    (tmp_path / "run" / "recipe.yaml").write_text(f"data: {trained.data}\n")
    text = tmp_path / "other.jsonl"
    shutil.copy(trained.data / "test.jsonl", text)
    quick = ("--samples", 0, "--cloze", 0, "--ngram", "--json")
    code, out, _ = run(capsys, tmp_path / "run" / "model", "--data", text, *quick)
    assert code == 0
    assert json.loads(out)["ngram"]["order"] == 5


def test_a_model_without_lineage(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.model, model)
    (model / "openllm.json").unlink()
    base = (model, "--data", trained.data, "--cloze", 0, "--samples", 0, "--documents", 5)
    code, out, err = run(capsys, *base, "--json")
    assert code == 0
    assert "does not say what it was trained on" in err
    result = json.loads(out)
    assert result["model"]["tokens_seen"] is None
    assert result["windows"]["context"] == 128
    code, _, err = run(capsys, *base, "--ngram")
    assert code == 1
    assert "omit --ngram" in err


def test_damaged_lineage_is_refused(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.model, model)
    lineage = read_json(model / "openllm.json", CheckpointError, "")
    del lineage["steps"]
    write_json(model / "openllm.json", lineage)
    code, _, err = run(capsys, model, "--data", trained.data)
    assert code == 1
    assert "lacks: steps" in err


def test_warns_of_training_text(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    base = (trained.model, "--data", trained.data, "--cloze", 0, "--samples", 0)
    code, _, err = run(capsys, *base, "--split", "train", "--documents", 5, "--json")
    assert code == 0
    assert "the model has seen it" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--split", "dev"], 1, "choose one of"),
        (["--context", "500"], 2, "exceeds the model's 128 positions"),
        (["--context", "32", "--stride", "33"], 2, "exceeds the context of 32 tokens"),
        (["--temperature", "-1"], 2, "sampling.temperature"),
        (["--samples", "-2"], 2, "samples"),
        (["--order", "0"], 2, "order"),
        (["--max-new-tokens", "0"], 2, "max_new_tokens"),
        (["--samples", "1", "--prompt-tokens", "200"], 2, "--prompt-tokens"),
        (["--unknown"], 2, "unrecognized"),
    ],
)
def test_bad_arguments(
    trained: Any,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    base = (trained.model, "--data", trained.data, "--cloze", "0")
    found, out, err = run(capsys, *base, *arguments)
    assert found == code
    assert message in err
    assert not out
    assert "Traceback" not in err


def test_bad_places(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path / "none", "--data", trained.data)
    assert code == 1
    assert "give a model folder" in err
    (tmp_path / "file").write_text("x")
    code, _, err = run(capsys, trained.model, "--data", trained.data, "--out", tmp_path / "file")
    assert code == 2
    assert "is a file" in err


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*args: Any, **rest: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(command, "evaluate", work)
    (tmp_path / "file").write_text("x")
    code, _, err = run(capsys, "model", "--data", "data", "--out", tmp_path / "file" / "eval")
    assert code == 1
    assert "cannot write here" in err and "choose another folder" in err


def test_a_report_that_cannot_be_written_does_not_cost_the_table(
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(result: Any, folder: Path) -> None:
        raise StorageError(f"{folder}: the disk is full")

    monkeypatch.setattr(command, "write_report", full)
    quick = ("--samples", 0, "--cloze", 0, "--documents", 5, "--out", tmp_path / "eval")
    code, out, err = run(capsys, trained.model, "--data", trained.data, *quick)
    assert code == 1
    assert "the disk is full" in err and "bits per byte" in out


def test_help_is_quick_without_torch() -> None:
    check = (
        "import sys\n"
        "from openllm.cli.main import main\n"
        "assert main(['evaluate', '--help']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--ngram" in done.stdout
