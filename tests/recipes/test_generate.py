# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import write_model
from openllm.cli.main import main
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> str:
    folder = tmp_path_factory.mktemp("generate") / "model"
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, spread=0.5).state_dict()
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    return str(folder)


WISHES = ["--max-new-tokens", "12", "--temperature", "0.7", "--top-k", "40", "--top-p", "0.9"]
WISHES += ["--min-p", "0.01", "--repetition-penalty", "1.1", "--seed", "5"]
PARAMS = SamplingParams(
    max_new_tokens=12,
    temperature=0.7,
    top_k=40,
    top_p=0.9,
    min_p=0.01,
    repetition_penalty=1.1,
    seed=5,
)


def test_every_wish_reaches_the_engine(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = LLM.load(model).generate(["Anna found"], PARAMS)[0]
    assert main(["generate", model, "--prompt", "Anna found", *WISHES]) == 0
    assert capsys.readouterr().out == f"Anna found{expected.text}\n"
    assert main(["generate", model, "--prompt", "Anna found", *WISHES, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"prompt": "Anna found", **vars(expected)}


def test_a_stop_text_ends_it(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = LLM.load(model).generate(["Anna"], PARAMS)[0].text
    stop = whole[len(whole) // 2 :][:2]
    assert main(["generate", model, "--prompt", "Anna", *WISHES, "--stop", stop]) == 0
    assert capsys.readouterr().out == f"Anna{whole[: whole.index(stop)]}\n"


def test_a_message_is_answered(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", model, "--chat", "--prompt", "hi"]) == 1
    assert "has no chat template 'default'" in capsys.readouterr().err
    folder = shutil.copytree(model, tmp_path / "chat")
    template = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    llm = LLM.load(folder)
    names = llm.tokenizer.controls
    begin, user, end = names["<|bos|>"], names["<|user|>"], names["<|assistant|>"]
    ids = [begin, user, *llm.tokenizer.encode("hi <|user|>"), end]
    expected = llm.generate([ids], PARAMS)[0]
    words = ["generate", str(folder), "--chat", "--prompt", "hi <|user|>", *WISHES]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{expected.text}\n"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prompt": "hi <|user|>", **vars(expected)}


def test_a_prompt_can_come_from_standard_input(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("Grüße ".encode())))
    assert main(["generate", model, "--prompt", "-", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("Grüße ")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff\xfe")))
    assert main(["generate", model, "--prompt", "-"]) == 2
    assert "not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--temperature", "-1"], 2, "'temperature'"),
        (["--top-p", "0"], 2, "'top_p'"),
        (["--max-new-tokens", "0"], 2, "'max_new_tokens'"),
        (["--stop", ""], 2, "--stop"),
        (["--seed", "-3"], 2, "'seed'"),
        (["--prompt", "word " * 500], 2, "shorten the prompt"),
    ],
)
def test_mistakes_are_told(
    model: str, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", model, "--prompt", "a", *words]) == code
    assert told in capsys.readouterr().err


def test_a_missing_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path / "absent"), "--prompt", "a"]) == 1
    assert "give a model folder" in capsys.readouterr().err
