# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm train` on runs of two steps; tests/e2e/ stops and kills longer ones."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import VOCAB_SIZE, sentences, settings, write_prepared

from openllm.core.config import read_yaml
from openllm.core.errors import ConfigError
from openllm.core.runs import MACHINE_KEYS, read_metrics
from openllm.export.inventory import list_files, model_fingerprint
from openllm.export.models.zoo import Zoo
from openllm.recipes.pretrain import main
from openllm.transform.quantize_aware import Rounding


@pytest.fixture
def inputs(tmp_path: Path, tokenizer_folder: Path) -> tuple[Path, Path]:
    """Data and tokenizer that a test may change."""
    return (
        write_prepared(tmp_path / "data", (60, 10, 10)),
        Path(shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")),
    )


def train(inputs: tuple[Path, Path], run: Path, **changes: Any) -> None:
    steps = {"duration": "2 steps", "validation.every": 2, "checkpoint.every": 1}
    main(["tiny", *settings(*inputs, **{**steps, **changes}), "--out", str(run)])


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def unfinished(run: Path) -> None:
    """Remove everything after the first checkpoint."""
    shutil.rmtree(run / "checkpoints" / "step-000002")


def other_data(data: Path, tokenizer: Path) -> None:
    shutil.rmtree(data)
    write_prepared(data, (60, 10, 10), seed=2)


def other_tokenizer(data: Path, tokenizer: Path) -> None:
    from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

    shutil.rmtree(tokenizer)
    text = sentences(300, 5)
    write_tokenizer(tokenizer, train_model(text, TokenizerSettings(vocab_size=VOCAB_SIZE)), {})


@pytest.mark.integration
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("change", "name"), [(other_data, "data"), (other_tokenizer, "tokenizer")])
def test_a_run_of_other_inputs_is_not_taken_up(
    inputs: tuple[Path, Path], tmp_path: Path, change: Any, name: str, finished: bool
) -> None:
    run = tmp_path / "run"
    train(inputs, run)
    if not finished:
        unfinished(run)
    metrics = (run / "metrics.jsonl").read_bytes()
    change(*inputs)
    with pytest.raises(ConfigError, match=rf"different inputs \({name} fingerprint") as caught:
        train(inputs, run)
    assert "--fresh" in str(caught.value) and "--out" in str(caught.value)
    assert (run / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.integration
def test_a_run_from_before_its_inputs_were_noted_gets_them_noted(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    train(inputs, tmp_path / "run")
    noted = (tmp_path / "run" / "inputs.json").read_text()
    assert json.loads(noted)["data"] == f"{1:064x}"
    (tmp_path / "run" / "inputs.json").unlink()
    train(inputs, tmp_path / "run")
    assert (tmp_path / "run" / "inputs.json").read_text() == noted


@pytest.mark.integration
def test_what_is_advised_against_a_lack_of_memory_is_accepted(
    inputs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(inputs, run)
    unfinished(run)
    train(inputs, run, batch__micro_rows=1, activation_checkpointing="true")
    assert "batch.micro_rows was 4, is now 1" in capsys.readouterr().err
    told = [event for event in events(run) if event["kind"] == "machine"]
    assert [event["step"] for event in told] == [1, 1]
    assert "not bit for bit" in told[0]["message"]
    recipe = read_yaml(run / "recipe.yaml")
    assert recipe["batch"]["micro_rows"] == 4 and not recipe["activation_checkpointing"]
    assert "activation_checkpointing was False, is now True" in (run / "report.md").read_text()
    assert {"batch.micro_rows", "activation_checkpointing"} < set(MACHINE_KEYS)


@pytest.mark.integration
def test_a_batch_may_grow_and_is_resumed_where_it_was(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    rising = {"batch__tokens": 512, "batch__start": 128, "batch__rise": 1, "duration": "8 steps"}
    train(inputs, tmp_path / "run", **rising)
    whole = read_metrics(tmp_path / "run")
    tokens = [line["tokens"] for line in whole if line["kind"] == "train"]
    steps = [later - earlier for earlier, later in pairwise([0, *tokens])]
    assert steps[0] == 128 and steps[-1] == 512 and 128 < steps[4] < 512
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000008")
    train(inputs, tmp_path / "run", **rising)
    resumed = read_metrics(tmp_path / "run")
    assert [line["loss"] for line in resumed] == [line["loss"] for line in whole]


@pytest.mark.integration
def test_a_shape_without_a_public_architecture_is_trained_and_used(
    inputs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.engine.llm import LLM
    from openllm.engine.request import SamplingParams

    train(inputs, tmp_path / "run", model__norm__kind="layer")
    assert "only OpenLLM will be able to load its folder" in capsys.readouterr().err
    llm = LLM.load(tmp_path / "run" / "model")
    shape = read_model_config(tmp_path / "run" / "model")
    assert (shape.norm.kind, shape.mlp.kind) == ("layer", "swiglu")
    assert len(llm.generate(["Anna found"], SamplingParams(max_new_tokens=4))) == 1


def test_a_wrong_setting_leaves_no_run_folder(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    for changes in ({"duration": "2 step"}, {"distill.teachers": f"[{tmp_path / 'absent'}]"}):
        with pytest.raises(ConfigError):
            train(inputs, tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_a_resumed_run_keeps_what_was_told_before_its_first_step(
    inputs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(inputs, run)
    told = (run / "forecast.json").read_text()
    unfinished(run)
    capsys.readouterr()
    train(inputs, run)
    assert "forecast: 1 steps, 256 tokens" in capsys.readouterr().err
    assert (run / "forecast.json").read_text() == told


@pytest.mark.integration
def test_a_student_learns_from_its_teachers_and_the_text(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    for seed in (1, 2):
        train(inputs, tmp_path / f"teacher{seed}", seed=seed)
    teachers = [str(tmp_path / f"teacher{seed}" / "model") for seed in (1, 2)]
    taught = {"distill.teachers": f"[{','.join(teachers)}]"}
    train(inputs, tmp_path / "alone")
    train(inputs, tmp_path / "little", **taught, **{"distill.share": 1e-9})
    train(inputs, tmp_path / "taught", **taught)
    first = {
        name: json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("alone", "little", "taught")
    }
    assert list(first["taught"]["terms"]) == ["distillation"]
    assert first["little"]["loss"] == pytest.approx(first["alone"]["loss"], rel=1e-4)
    assert first["taught"]["loss"] != pytest.approx(first["alone"]["loss"], rel=1e-4)


@pytest.mark.integration
def test_a_teacher_may_be_a_model_of_the_zoo_and_is_named_as_parent(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLLM_MODELS", str(tmp_path / "zoo"))
    train(inputs, tmp_path / "teacher", seed=1)
    teacher = tmp_path / "teacher" / "model"
    Zoo().add(list_files(teacher), "wise/owl")
    train(inputs, tmp_path / "run", **{"distill.teachers": "[wise/owl]"})
    student = json.loads((tmp_path / "run" / "model" / "openllm.json").read_text())
    parent = {"name": "wise--owl/model", "fingerprint": model_fingerprint(teacher)}
    assert student["parents"] == [parent]
    assert student["recipe"]["distill"]["teachers"] == ["wise--owl/model"]


@pytest.mark.integration
def test_a_student_is_not_taken_up_with_another_teacher(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    train(inputs, teacher, seed=1)
    taught = {"distill.teachers": f"[{teacher / 'model'}]"}
    train(inputs, tmp_path / "run", **taught)
    unfinished(tmp_path / "run")
    shutil.rmtree(teacher)
    with pytest.raises(
        ConfigError, match=r"distill\.teachers: .*does not exist; give a model folder"
    ):
        train(inputs, tmp_path / "run", **taught)
    train(inputs, teacher, seed=2)
    with pytest.raises(ConfigError, match="different inputs"):
        train(inputs, tmp_path / "run", **taught)


@pytest.mark.integration
def test_a_teacher_of_another_tokenizer_is_refused(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    train(inputs, tmp_path / "teacher")
    other_tokenizer(*inputs)
    with pytest.raises(ConfigError, match="teacher/model has a different tokenizer"):
        train(
            inputs, tmp_path / "run", **{"distill.teachers": f"[{tmp_path / 'teacher' / 'model'}]"}
        )


@pytest.mark.integration
def test_a_teacher_of_shorter_rows_is_refused(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    positions = {"model.position.kind": "learned", "model.max_positions": 32}
    train(inputs, tmp_path / "teacher", **positions)
    taught = {"distill.teachers": f"[{tmp_path / 'teacher' / 'model'}]", "batch.seq_len": 64}
    with pytest.raises(ConfigError, match=r"reads rows of up to 32 tokens; set batch.seq_len=32"):
        train(inputs, tmp_path / "run", **taught)


@pytest.mark.integration
def test_a_run_for_few_bits_stores_what_it_validated(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    from openllm.checkpoint.model_dir import load_model
    from openllm.checkpoint.source import read_quantized
    from openllm.checkpoint.train_state import load_newest
    from openllm.nn.quantized import QuantizedTensor, Scheme

    run = tmp_path / "run"
    train(inputs, run, duration="4 steps", quantize="{bits: 4, group: 32, start: 0.5}")
    stored = dict(read_quantized(run / "model"))
    weight = stored["layers.1.mlp.down_proj.weight"]
    assert isinstance(weight, QuantizedTensor) and weight.scheme == Scheme(4, 32)
    embedding = stored["embed_tokens.weight"]
    assert isinstance(embedding, QuantizedTensor) and embedding.bits == 8
    lineage = json.loads((run / "model" / "openllm.json").read_text())
    assert lineage["quantization"] == {"method": "training", "bits": 4, "group": 32, "start": 0.5}
    assert "trained to have 4 bits" in (run / "model" / "README.md").read_text()
    # the weights behind it, rounded the same way, are the same: no difference is left
    state, _ = load_newest(run / "checkpoints")
    assert state is not None and state.values["step"] == lineage["steps"]
    shapes = {name: tuple(tensor.shape) for name, tensor in state.weights.items()}
    made = Rounding(shapes, bits=4, group=32).matrices(state.weights)
    loaded = load_model(run / "model")
    for name, tensor in loaded.state_dict().items():
        wanted = made[name].dequantize() if name in made else state.weights[name]
        assert tensor.equal(wanted)
    losses = [line["loss"] for line in read_metrics(run) if line["kind"] == "validation"]
    assert losses[-1] == lineage["validation_loss"]
