# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm quantize` on a model of two small layers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.tiny import SHAPES, random_model, sentences, settings

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.checkpoint.quantization import read_quantization
from openllm.checkpoint.source import read_quantized
from openllm.cli.main import main
from openllm.core.errors import OpenLLMError
from openllm.nn.quantized import QuantizedTensor, Scheme
from openllm.recipes import quantize as command
from openllm.recipes.pretrain import main as train
from openllm.transform.quantize_plan import Choice, Plan


class Trained(NamedTuple):
    model: Path
    data: Path


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, prepared: Path, tokenizer_folder: Path
) -> Trained:
    run = tmp_path_factory.mktemp("quantize") / "run"
    train(["tiny", *settings(prepared, tokenizer_folder), "--out", str(run)])
    return Trained(run / "model", prepared)


def bits(folder: Path) -> dict[str, int | None]:
    return {
        name: item.bits if isinstance(item, QuantizedTensor) else None
        for name, item in read_quantized(folder)
        if len(item.shape) == 2
    }


def run(trained: Trained, out: Path, *more: str) -> dict[str, Any]:
    args = command._parser().parse_args([str(trained.model), str(out), *more])
    command._check(args)
    return command.quantize_model(trained.model, out, args)


@pytest.mark.integration
def test_eight_bits_without_data(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["quantize", str(trained.model), str(out)]) == 0
    shown = capsys.readouterr().out
    assert "method       rounding\n" in shown and "9 parts of 8 bits" in shown
    assert set(bits(out).values()) == {8}
    before, after = load_model(trained.model).state_dict(), load_model(out).state_dict()
    for name, tensor in before.items():
        assert float((after[name] - tensor).abs().max()) <= float(tensor.abs().max()) / 127
    size = json.loads((out / "quantization.json").read_text())["size"]
    assert size["after"] == (out / "model.safetensors").stat().st_size < 0.5 * size["before"]
    lineage = json.loads((out / "openllm.json").read_text())
    assert lineage["quantization"]["scheme"] == {"bits": 8, "group": 32, "dynamic": False}
    assert lineage["parents"][0]["name"] == "run" and lineage["recipe"]
    card = (out / "README.md").read_text()
    assert card.startswith("# run, quantised") and "It loads with" not in card
    assert "### data" in card
    assert main(["quantize", str(trained.model), str(out), "--group", "64"]) == 0  # replaces it
    assert main(["generate", str(out), "--prompt", "Anna", "--max-new-tokens", "4"]) == 0


@pytest.mark.integration
def test_four_bits_with_report(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["quantize", str(trained.model), str(out), "--bits", "4", "--report", "--json"]
    assert main([*words, "--calibrate", str(trained.data), "--tokens", "1000"]) == 0
    facts = json.loads(capsys.readouterr().out)
    found = bits(out)
    assert {name for name, count in found.items() if count == 8} == {"embed_tokens.weight"}
    assert facts["method"] == "gptq" and facts["calibration"]["split"] == "validation"
    assert len(facts["trials"]) == 2 * len(facts["units"]) == 2 * 9
    measured = facts["measured"]
    assert measured["data"]["split"] == "test"
    assert measured["after"]["bits_per_byte"]["value"] == pytest.approx(
        measured["before"]["bits_per_byte"]["value"] + measured["added"]["value"]
    )
    assert abs(measured["loss"]["value"]) < 0.05
    assert measured["loss"]["low"] <= measured["loss"]["value"] <= measured["loss"]["high"]
    assert measured["after"]["tokens_per_second"] > 0
    by_engine = [measured[part]["engine_bits_per_byte"] for part in ("before", "after")]
    assert by_engine[0] == pytest.approx(by_engine[1], rel=0.05)
    # in longer windows than those of training, so not the same
    assert by_engine[0] == pytest.approx(measured["before"]["bits_per_byte"]["value"], rel=0.1)
    report = (out / "report.md").read_text()
    assert "layer 1, MLP, out" in report and "sensitivity.png" in report
    assert (out / "sensitivity.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.integration
def test_eight_bits_are_rounded_with_text_too(trained: Trained, tmp_path: Path) -> None:
    facts = run(trained, tmp_path / "out", "--calibrate", str(trained.data), "--tokens", "300")
    assert facts["method"] == "rounding" and facts["calibration"]["tokens"] >= 300
    plain = run(trained, tmp_path / "plain")
    assert facts["units"] == plain["units"]
    assert "method: rounding" in (tmp_path / "out" / "README.md").read_text()


def test_calibration_beats_rounding(trained: Trained, tmp_path: Path) -> None:
    from openllm.evaluate.divergence import Divergence
    from openllm.evaluate.heldout import read_heldout
    from openllm.text.load import load_tokenizer

    run(trained, tmp_path / "plain", "--bits", "4")
    run(trained, tmp_path / "gptq", "--bits", "4", "--calibrate", str(trained.data))
    text = read_heldout(trained.data, "test", load_tokenizer(trained.model))
    sizes = text.doc_bytes.tolist()
    original = Divergence(load_model(trained.model), text.tokens, sizes, context=64)
    plain, gptq = (original.of(load_model(tmp_path / name)) for name in ("plain", "gptq"))
    assert 0 < gptq.divergence < 0.8 * plain.divergence


@pytest.mark.integration
def test_a_size_is_kept(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_size", lambda text, option: int(text))
    data = ["--calibrate", str(trained.data), "--tokens", "500"]
    sizes = {}
    for limit in (36_000, 40_000, 60_000, 10**6):
        facts = run(trained, tmp_path / str(limit), "--max-size", str(limit), *data)
        sizes[limit] = facts["size"]["after"]
        assert sizes[limit] <= limit
    assert sizes[36_000] < sizes[40_000] < sizes[60_000] < sizes[10**6]
    assert {4, 8} == set(bits(tmp_path / "40000").values())
    assert None in bits(tmp_path / "1000000").values()
    with pytest.raises(OpenLLMError, match="even at 4 bits the weights take"):
        run(trained, tmp_path / "none", "--max-size", "30000", *data)
    monkeypatch.setattr(command, "HEADER_BYTES", 0)  # as if the plan took too little for something
    with pytest.raises(OpenLLMError, match=r"--max-size: the weights take 0\.0\d+ MB"):
        run(trained, tmp_path / "none", "--max-size", "36000", *data)
    assert not (tmp_path / "none").exists()


def test_a_limit_that_needs_no_integers(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def as_they_are(choices: Mapping[str, Sequence[Choice]], **limits: float) -> Plan:
        return {unit: next(c for c in given if c.scheme is None) for unit, given in choices.items()}

    monkeypatch.setattr("openllm.transform.quantize_plan.plan", as_they_are)
    data = ["--calibrate", str(trained.data), "--tokens", "300"]
    run(trained, tmp_path / "out", "--max-size", "1MB", *data)
    assert "no matrix is quantised" in capsys.readouterr().err
    assert set(bits(tmp_path / "out").values()) == {None}
    assert "all keep 16 bits" in (tmp_path / "out" / "README.md").read_text()
    assert main(["generate", str(tmp_path / "out"), "--prompt", "A", "--max-new-tokens", "2"]) == 0


@pytest.mark.integration
def test_a_loss_is_kept(trained: Trained, tmp_path: Path) -> None:
    from openllm.evaluate.divergence import Divergence
    from openllm.evaluate.heldout import read_heldout
    from openllm.text.load import load_tokenizer

    data = ["--calibrate", str(trained.data), "--tokens", "500"]
    text = read_heldout(trained.data, "test", load_tokenizer(trained.model))
    original = Divergence(
        load_model(trained.model), text.tokens, text.doc_bytes.tolist(), context=64
    )
    sizes, losses = [], []
    for limit in ("20%", "0.2%", "0.01%"):
        facts = run(trained, tmp_path / limit, "--max-loss", limit, *data)
        sizes.append(facts["size"]["after"])
        losses.append(original.of(load_model(tmp_path / limit)).divergence)
        # on other text than that of the plan, so not exactly
        assert losses[-1] < 1.5 * command._percent(limit) * original.bits_per_byte
    assert sizes == sorted(sizes) and losses == sorted(losses, reverse=True)
    assert set(bits(tmp_path / "20%").values()) == {4}


def test_dynamic_and_portable(trained: Trained, tmp_path: Path) -> None:
    facts = run(trained, tmp_path / "a", "--dynamic", "--data", str(trained.data), "--report")
    assert not facts["portable"] and facts["calibration"] is None and facts["trials"] == []
    assert "rounded to 8 bits per token" in (tmp_path / "a" / "report.md").read_text()
    found = dict(read_quantized(tmp_path / "a"))["layers.0.mlp.up_proj.weight"]
    assert isinstance(found, QuantizedTensor) and found.scheme == Scheme(8, None)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    quantization = read_quantization(config)
    assert quantization is not None and quantization.dynamic
    facts = run(trained, tmp_path / "b", "--portable", "--bits", "4")
    assert facts["portable"] and bits(tmp_path / "b")["embed_tokens.weight"] is None
    stored = dict(read_quantized(tmp_path / "b"))["embed_tokens.weight"]
    assert isinstance(stored, torch.Tensor) and stored.dtype == torch.float16
    assert "It loads with" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.integration
def test_a_file_is_split_between_calibration_and_report(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f"{json.dumps({'text': text})}\n" for text in sentences(40, 9)))
    words = ("--calibrate", str(path), "--report", "--bits", "4")
    facts = run(trained, tmp_path / "out", *words)
    assert facts["measured"]["data"]["documents"] == 20 <= facts["calibration"]["pieces"] <= 60


@pytest.mark.integration
def test_one_long_document_is_cut(trained: Trained, tmp_path: Path) -> None:
    """Into pieces for calibration, of which so many are drawn; the engine is asked its start."""
    path = tmp_path / "long.txt"
    path.write_text(" ".join(sentences(60, 9)))
    words = ("--calibrate", str(path), "--data", str(path), "--tokens", "300", "--report")
    facts = run(trained, tmp_path / "out", *words, "--bits", "4")
    assert 300 <= facts["calibration"]["tokens"] <= 300 + 33  # a piece has 32 + 1
    assert facts["calibration"]["pieces"] >= 10
    measured = facts["measured"]["before"]
    assert measured["engine_bits_per_byte"] == pytest.approx(
        measured["bits_per_byte"]["value"], rel=0.2
    )


def test_widths_that_fit_no_group_are_left_and_said(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = SHAPES["qwen3"]  # 48 wide
    source, state = tmp_path / "model", random_model(cfg).state_dict()
    write_model(source, cfg, state, tokenizer=tokenizer_folder, lineage={}, card="")
    assert main(["quantize", str(source), str(tmp_path / "out")]) == 0
    assert "stay as they are" in capsys.readouterr().err
    assert bits(tmp_path / "out")["layers.0.mlp.down_proj.weight"] == 8
    assert bits(tmp_path / "out")["layers.0.mlp.up_proj.weight"] is None


@pytest.mark.integration
def test_an_import_has_the_weights_that_the_integers_stand_for(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(trained, tmp_path / "small", "--bits", "4")
    assert main(["import", str(tmp_path / "small"), "--out", str(tmp_path / "copy")]) == 0
    assert "is quantised; the copy has" in capsys.readouterr().err
    copy, small = (load_model(tmp_path / name).state_dict() for name in ("copy", "small"))
    assert all(tensor.equal(copy[name]) for name, tensor in small.items())
    assert set(bits(tmp_path / "copy").values()) == {None}


WRONG = {
    "both limits": (["--max-size", "2MB", "--max-loss", "1%"], 2, "not allowed with"),
    "a limit without text": (["--max-loss", "1%"], 2, "need text: add --calibrate"),
    "a report without text": (["--report"], 2, "needs text"),
    "no percentage": (["--max-loss", "big", "--calibrate", "x"], 2, "such as 1%"),
    "no size": (["--max-size", "big", "--calibrate", "x"], 2, "--max-size big"),
    "three bits": (["--bits", "3"], 2, "invalid choice"),
    "dynamic of four bits": (["--dynamic", "--bits", "4"], 2, "--dynamic is for 8 bits"),
    "few tokens": (["--calibrate", "x", "--tokens", "1"], 2, "at least 256"),
    "no text there": (["--calibrate", "nowhere"], 1, "nowhere does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_error(
    case: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, message = WRONG[case]
    assert main(["quantize", str(trained.model), str(tmp_path / "out"), *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_must_not_be_replaced_or_quantised_again(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert main(["quantize", str(trained.model), str(tmp_path / "full")]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert main(["quantize", str(trained.model), str(trained.model / "q")]) == 2
    assert "lie in each other" in capsys.readouterr().err
    assert main(["quantize", str(trained.model), str(tmp_path / "q")]) == 0
    assert main(["quantize", str(tmp_path / "q"), str(tmp_path / "qq"), "--bits", "4"]) == 1
    assert "is quantised already" in capsys.readouterr().err
