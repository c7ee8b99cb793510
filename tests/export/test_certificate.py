# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.core.errors import CheckpointError
from openllm.export import certificate as certificates
from openllm.export import reference as references
from openllm.export.certificate import (
    LIMITS,
    certify,
    read_certificate,
    refuse_failed,
    write_certificate,
)
from openllm.export.eager import EagerModel
from openllm.export.reference import Reference, make_reference


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny texts here count as many questions."""
    monkeypatch.setattr(certificates, "ENOUGH_TOKENS", 100)
    monkeypatch.setattr(certificates, "ENOUGH_NEW_TOKENS", 10)


PROMPTS = [[1, 50, 60, 70], [1, 80], [1, 9, 8, 7, 6, 5]]


def original(name: str = "qwen3") -> EagerModel:
    return EagerModel(random_model(SHAPES[name], spread=0.3))


def texts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[1, *rng.integers(4, 600, size).tolist()] for size in (60, 100, 30)]


def ask(model: EagerModel) -> Reference:
    return make_reference(
        model, fingerprint="f" * 64, texts=texts(), prompts=PROMPTS, new_tokens=20
    )


def changed(change: Callable[[torch.nn.Module], None]) -> EagerModel:
    model = original()
    with torch.no_grad():
        change(model.model)
    return model


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_same_model_passes_and_nothing_differs(name: str) -> None:
    reference = ask(original(name))
    found = certify(reference, original(name), format_name="hf", precision="fp32")
    assert found["verdict"] == "passed" and "where" not in found
    assert found["measured"]["max_logit_difference"] == 0
    assert found["measured"]["greedy_agreement"] == 1
    assert found["measured"]["perplexity"] == found["measured"]["original_perplexity"]
    assert found["measured"]["tokens"] == 60 + 100 + 30
    assert len(set(reference.continuations[0])) > 5, "the model repeats itself"


def test_perplexity_is_that_of_all_tokens_after_the_first() -> None:
    model = original()
    reference = ask(model)
    nats = 0.0
    for text in texts():
        logprobs = torch.from_numpy(model.logits(text)).double().log_softmax(-1)
        nats -= sum(float(logprobs[at, token]) for at, token in enumerate(text[1:]))
    assert reference.nats == pytest.approx(nats)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("layer 0", lambda m: m.embed_tokens.weight.mul_(1.1)),
        ("layer 0", lambda m: m.layers[0].mlp.down_proj.weight.mul_(1.1)),
        ("in layer 1", lambda m: m.layers[1].self_attn.v_proj.weight.mul_(1.2)),
        ("final norm or the output head", lambda m: m.norm.weight.mul_(1.1)),
    ],
)
def test_another_model_fails_and_the_layer_is_named(
    where: str, change: Callable[[torch.nn.Module], None]
) -> None:
    found = certify(ask(original()), changed(change), format_name="hf", precision="fp32")
    assert found["verdict"] == "failed"
    assert where in found["where"]
    with pytest.raises(CheckpointError, match="--allow-mismatch") as caught:
        refuse_failed(found, "somewhere")
    assert where in str(caught.value)


def test_a_model_that_gives_nan_fails() -> None:
    broken = changed(lambda m: m.layers[1].mlp.down_proj.weight.fill_(float("nan")))
    found = certify(ask(original()), broken, format_name="onnx", precision="int4")
    assert found["verdict"] == "failed"
    assert "layer 1" in found["where"]


def test_small_noise_passes_in_low_precision_only() -> None:
    reference = ask(original())
    noisy = changed(lambda m: m.layers[0].mlp.down_proj.weight.mul_(1.003))
    verdicts = {
        precision: certify(reference, noisy, format_name="hf", precision=precision)["verdict"]
        for precision in LIMITS
    }
    assert verdicts == {"fp32": "failed"} | dict.fromkeys(
        ("fp16", "bf16", "int8", "int4"), "passed"
    )


def test_greedy_text_may_differ_only_where_two_tokens_are_nearly_tied() -> None:
    reference = ask(original())

    class Swerves(EagerModel):
        def greedy(self, prompts: object, new_tokens: int) -> list[list[int]]:
            answers = [list(text) for text in reference.continuations]
            answers[1][7] += 1
            return answers

    swerving = Swerves(original().model)
    found = certify(reference, swerving, format_name="hf", precision="fp32")
    assert found["verdict"] == "failed" and found["faults"] == ["1 greedy texts differ"]
    assert found["measured"]["greedy_agreement"] == pytest.approx((20 + 7 + 20) / 60)
    tied = [list(margins) for margins in reference.margins]
    tied[1][7] = 0.0
    found = certify(replace(reference, margins=tied), swerving, format_name="hf", precision="fp32")
    assert found["verdict"] == "passed"


def test_answers_are_read_back_as_they_were_kept(tmp_path: Path) -> None:
    reference = ask(original())
    reference.save(tmp_path)
    again = Reference.load(tmp_path)
    for name, value in vars(reference).items():
        other = getattr(again, name)
        same = np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other
        assert same, name


def test_few_logits_of_a_large_vocabulary_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "KEPT_BYTES", 10 * 4 * SHAPES["qwen3"].vocab_size)
    reference = ask(original())
    assert len(reference.rows) == len(reference.logits_RV) <= 10 + len(texts())
    assert {text for text, _ in reference.rows} == {0, 1, 2}


def test_missing_and_damaged_answers_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--model"):
        Reference.load(tmp_path)
    ask(original()).save(tmp_path)
    path = tmp_path / references.FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"reference\.safetensors is damaged"):
        Reference.load(tmp_path)


def test_a_certificate_is_written_once_into_the_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A model\n\nFacts.\n\n## Licence\n\nMIT\n")
    found = certify(ask(original()), original(), format_name="hf", precision="fp32")
    for _ in range(2):
        write_certificate(tmp_path, found)
    card = (tmp_path / "README.md").read_text()
    assert card.count("## Certificate") == 1 and card.startswith("# A model\n\nFacts.\n")
    assert card.count("## Licence\n\nMIT\n") == 1
    assert "Verdict: **passed**" in card
    assert read_certificate(tmp_path)["measured"] == found["measured"]


def test_a_certificate_is_json_even_with_nan(tmp_path: Path) -> None:
    broken = changed(lambda m: m.norm.weight.fill_(float("nan")))
    write_certificate(
        tmp_path, certify(ask(original()), broken, format_name="hf", precision="fp32")
    )
    text = (tmp_path / "certificate.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["verdict"] == "failed"


def test_few_questions_make_no_full_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "ENOUGH_TOKENS", 1000)
    found = certify(ask(original()), original(), format_name="hf", precision="fp32")
    assert found["verdict"] == "passed on few questions"
    refuse_failed(found, "somewhere")


def test_a_tokenizer_of_the_runtime_must_agree() -> None:
    reference = replace(ask(original()), strings=["a", "b c"], string_ids=[[5], [6, 7]])

    class WithTokenizer(EagerModel):
        def encode(self, text: str) -> list[int]:
            return {"a": [5], "b c": [6, 8]}[text]

    found = certify(
        reference, WithTokenizer(original().model), format_name="gguf", precision="fp32"
    )
    assert found["verdict"] == "failed"
    assert found["faults"] == ["1 of 2 texts have other tokens, as 'b c'"]
