# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.cli.main import main
from openllm.export import certificate, formats
from openllm.export.formats import FORMATS
from openllm.export.hf.writer import export_hf
from openllm.export.inventory import list_files, model_facts, model_fingerprint
from openllm.nn.cost import parameters

FEW = ["--text-tokens", "120", "--prompts", "2", "--new-tokens", "12"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, spread=0.3).state_dict()
    card = "# A model\n\n## Licence\n\nMIT\n"
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={"a": 1}, card=card)
    return folder


def export(model: Path, out: Path, to: str, *more: str) -> int:
    return main(["export", str(model), "--to", to, "--out", str(out), *FEW, *more])


def test_an_export_passes_and_is_verified_without_the_original(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(model, out, "hf") == 0
    shown = capsys.readouterr().out
    assert "Verdict: **passed on few questions**" in shown and "transformers" in shown
    found = json.loads((out / "certificate.json").read_text())
    assert found["original"]["fingerprint"] == model_fingerprint(model)
    assert found["measured"]["greedy_agreement"] == 1 and found["new_tokens"] == 12
    assert found["measured"]["tokens"] == 120 - len_of_texts(found, out)
    lineage = json.loads((out / "openllm.json").read_text())
    assert lineage["a"] == 1 and lineage["export"] == {"format": "hf", "dtype": "keep"}
    assert lineage["parents"][0]["fingerprint"] == model_fingerprint(model)
    card = (out / "README.md").read_text()
    assert card.startswith("# A model") and "## Certificate" in card
    assert main(["verify", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["measured"] == found["measured"]


def len_of_texts(found: dict[str, object], out: Path) -> int:
    """Each text's first token is not scored."""
    from openllm.export.reference import Reference

    return len(Reference.load(out).texts)


def test_bfloat16_is_judged_as_bfloat16(model: Path, tmp_path: Path) -> None:
    assert export(model, tmp_path / "out", "hf", "--dtype", "bf16") == 0
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert found["precision"] == "bf16" and 0 < found["measured"]["relative_logit_difference"] < 0.1
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_weights_that_changed_after_the_export_are_found(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(model, out, "hf") == 0
    path = out / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.5
    save_file(weights, path, metadata={"format": "pt"})
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    said = capsys.readouterr()
    assert "Verdict: **failed**" in said.out
    assert "is not the original" in said.err and "layer 1" in said.err
    assert main(["verify", str(out), "--allow-mismatch"]) == 0
    # against the changed folder itself only the file differs
    capsys.readouterr()
    assert main(["verify", str(out), "--model", str(out), *FEW]) == 1
    said = capsys.readouterr().err
    assert "model.safetensors was changed" in said and "logits differ" not in said


def test_a_failed_certificate_leaves_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest = FORMATS["hf"].write

    def broken(source: Path, target: Path, **options: object) -> str:
        dtype = honest(source, target, **options)
        weights = load_file(target / "model.safetensors")
        weights["model.norm.weight"] *= 2
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        return dtype

    monkeypatch.setattr(formats.Format, "write", lambda self, *args, **more: broken(*args, **more))
    out = tmp_path / "out"
    assert export(model, out, "hf") == 1
    assert "final norm or the output head" in capsys.readouterr().err
    assert not out.exists() and list(tmp_path.iterdir()) == []
    assert export(model, out, "hf", "--allow-mismatch") == 0
    assert certificate.read_certificate(out)["verdict"] == "failed"


def test_a_text_of_ones_own(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Anna found a lamp in the old mill. " * 40)
    assert export(model, tmp_path / "out", "hf", "--text", str(text)) == 0
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert 100 < found["measured"]["tokens"] < 120


def test_the_first_text_is_as_long_as_the_context(model: Path, tmp_path: Path) -> None:
    from openllm.export.reference import Reference

    assert export(model, tmp_path / "out", "hf", "--text-tokens", "300") == 0
    lengths = [len(text) for text in Reference.load(tmp_path / "out").texts]
    assert lengths[0] == 128 and sum(lengths) == 300


def test_an_export_is_replaced_by_the_next(model: Path, tmp_path: Path) -> None:
    assert export(model, tmp_path / "out", "hf") == 0
    assert export(model, tmp_path / "out", "hf", "--dtype", "bf16") == 0


@pytest.mark.integration
def test_the_card_of_another_format_says_how_to_run_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(model, tmp_path / "out", "gguf", "--dtype", "f32") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# ") and "exported to gguf" in card.split("\n")[0]
    assert "llama-cli" in card and "### A model" in card and "## Certificate" in card
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert main(["generate", str(tmp_path / "out"), "--prompt", "x"]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--dtype", "q8_0"], "choose one of keep, fp32", 2),
        (["--max-mb", "10"], "--max-mb has no effect with --to hf", 2),
        (["--text", "absent.txt"], "absent.txt cannot be read", 1),
        (["--text-tokens", "1"], "--text-tokens at least 2", 2),
        (["--prompts", "0"], "must be at least 1", 2),
        (["--max-shard", "0"], "at least 1MB", 2),
    ],
)
def test_wrong_arguments(
    words: list[str],
    said: str,
    code: int,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(model, tmp_path / "out", "hf", *words) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_exports(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path / "absent")]) == 1
    assert main(["verify", str(model)]) == 1
    assert "certificate.json does not exist" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert export(model, tmp_path / "mine", "hf") == 2
    assert "contains other files" in capsys.readouterr().err
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_a_shape_that_only_openllm_has_is_named(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = SHAPES["qwen3"].model_copy(update={"norm": SHAPES["gpt2"].norm})
    weights = random_model(cfg).state_dict()
    own = tmp_path / "own"
    write_model(own, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="# x")
    assert load_model(own).cfg == cfg
    assert export(own, tmp_path / "out", "hf") == 1
    assert "only OpenLLM can load it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    assert export(model, out, "hf") == 0
    return out


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 10_000)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def drop_a_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))


def change_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def remove_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def add_a_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def confuse_the_precision(folder: Path) -> None:
    found = json.loads((folder / "certificate.json").read_text())
    (folder / "certificate.json").write_text(json.dumps(found | {"precision": ["fp32"]}))


def rename_the_original(folder: Path) -> None:
    found = json.loads((folder / "certificate.json").read_text())
    found["original"]["fingerprint"] = "0" * 64
    (folder / "certificate.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "model.safetensors is damaged"),
        (remove_weights, "model.safetensors does not exist"),
        (drop_a_layer, "model.layers.1."),
        (change_the_tokenizer, "not the original: tokenizer.json was changed. Export"),
        (remove_the_tokenizer, "tokenizer.model is missing"),
        (add_a_chat_template, "chat_template.jinja was added"),
        (confuse_the_precision, "names no known format"),
        (rename_the_original, "are of different models"),
    ],
)
def test_damage_to_an_export_is_named(
    damage: Callable[[Path], None],
    said: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    damage(folder)
    assert main(["verify", str(folder)]) == 1
    error = capsys.readouterr().err
    assert said in error and "bug" not in error


def test_a_card_may_be_edited(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "README.md").write_text("# Mine")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert main(["verify", str(folder)]) == 0
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert main(["verify", str(folder)]) == 1
    assert "generation_config.json was changed" in capsys.readouterr().err


def test_kept_answers_are_no_weights(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    assert model_facts(list_files(folder)).parameters == parameters(SHAPES["qwen3"]).total
    modes = {path.stat().st_mode for path in folder.glob("*.safetensors")}
    assert len(modes) == 1
    mark = model_fingerprint(folder)
    (folder / "reference.safetensors").unlink()
    assert model_fingerprint(folder) == mark


def test_the_parent_has_the_name_of_its_run(model: Path, exported: Path) -> None:
    lineage = json.loads((exported / "openllm.json").read_text())
    assert lineage["parents"][0]["name"] == model.parent.name


@pytest.mark.integration
def test_shards_become_one_program(model: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    export_hf(model, shards, max_shard_bytes=50_000)
    assert len(list(shards.glob("*.safetensors"))) > 1
    assert export(shards, tmp_path / "out", "pt2") == 0
    assert load_model(tmp_path / "out").cfg == SHAPES["qwen3"]


def test_an_export_into_its_own_model_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(model, model / "out", "hf") == 2
    assert "lies in the model's own folder" in capsys.readouterr().err
    assert not (model / "out").exists()


@pytest.mark.parametrize("lineage", ['{"data": null}', '{"data": {"sources": ["x"]}}', "[1"])
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_strange_lineage_or_card_is_no_crash(
    lineage: str, to: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "strange"
    shutil.copytree(model, strange)
    (strange / "openllm.json").write_text(lineage)
    (strange / "README.md").write_bytes(b"\xff card")
    code = export(strange, tmp_path / "out", to)
    assert code == (1 if lineage == "[1" else 0)
    assert "bug" not in capsys.readouterr().err
