# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import os
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny import SHAPES, VOCAB_SIZE

from openllm.engine.llm import LLM
from openllm.evaluate import speed
from openllm.nn.cost import matmul_parameters, train_flops
from openllm.nn.model import build_model
from openllm.text.controls import CONTROLS, EOS
from openllm.train.config import PretrainConfig
from openllm.train.forecast import optimizer_flops

MODEL = SHAPES["qwen3"]


def recipe(**changes: Any) -> PretrainConfig:
    values = {
        "model": MODEL.dump(),
        "batch": {"tokens": 256, "seq_len": 64, "micro_rows": 2},
        "optim": {"kind": "muon", "lr": 0.01},
        "precision": "fp32",
        "device": "cpu",
    }
    return PretrainConfig.parse({**values, **changes}, "test")


class Clock:
    """A clock that moves only when told to; replaces the module `time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tick: float = 0) -> None:
        self.now, self.tick = 0.0, tick
        stand_in = SimpleNamespace(perf_counter=self.read, monotonic=self.read)
        monkeypatch.setattr(speed, "time", stand_in)

    def read(self) -> float:
        self.now += self.tick
        return self.now


def test_the_stand_in_tokenizer_is_a_whole_one() -> None:
    tokenizer = speed.stand_in_tokenizer(2048)
    assert tokenizer.vocab_size == 2048
    assert list(tokenizer.controls) == list(CONTROLS)
    assert tokenizer.eos_id == CONTROLS.index(EOS)
    for text in ("a", "word600word601", "two words, and a café"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([600]) == "word600"


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_decoding_is_measured_by_whole_requests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    generate = LLM.generate

    def noting(self: LLM, prompts: Any, params: Any) -> Any:
        answers.extend(generate(self, prompts, params))
        return answers[-1:]

    monkeypatch.setattr(LLM, "generate", noting)
    found = speed.measure_decoding(SHAPES[name], 1e9, seconds=0)
    assert len(answers) == 2  # one to warm up
    assert [len(answer.token_ids) for answer in answers] == [speed.DECODED_TOKENS] * 2
    assert found.tokens_per_second > 0


def test_the_decoding_rate_is_the_median_of_tokens_over_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, durations = Clock(monkeypatch), [100.0, 1.0, 4.0, 2.0]

    def generate(self: LLM, prompts: Any, params: Any) -> Any:
        clock.now += durations.pop(0)
        return [SimpleNamespace(token_ids=[9] * params.max_new_tokens)]

    monkeypatch.setattr(LLM, "generate", generate)
    found = speed.measure_decoding(MODEL, 1e9, seconds=6)
    assert found.tokens_per_second == speed.DECODED_TOKENS / 2
    width = {"fp32": 4, "bf16": 2}[found.precision]
    assert found.bytes_per_token == width * matmul_parameters(MODEL)
    assert found.limit == pytest.approx(1e9 / found.bytes_per_token)
    assert found.share_of_limit == pytest.approx(found.tokens_per_second / found.limit)


def test_a_training_step_is_what_the_rate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def rate(cfg: PretrainConfig, **wishes: Any) -> float:
        asked.update(wishes)
        return 512.0

    monkeypatch.setattr(speed, "training_rate", rate)
    cfg = recipe()
    found = speed.measure_training(cfg, 1e9, seconds=3)
    assert asked == {"document_tokens": 64, "seconds": 3}
    assert found.step_seconds == 0.5
    assert found.step_flops == train_flops(cfg.model, [64] * 4)
    assert found.share_of_peak == pytest.approx(found.step_flops / 0.5 / 1e9)
    assert found.optimizer_flops == optimizer_flops(build_model(cfg.model), cfg.optim) > 0
    assert found.optimizer_share_of_peak == pytest.approx(found.optimizer_flops / 0.5 / 1e9)


def test_long_rows_hold_several_documents() -> None:
    batch = {"tokens": 2048, "seq_len": 1024, "micro_rows": 2}
    cfg = recipe(
        model={**MODEL.dump(), "max_positions": 1024}, batch=batch, optim={"kind": "adamw"}
    )
    assert speed.training_flops(cfg) == (train_flops(cfg.model, [256] * 8), 0)


def test_real_training_steps_are_measured() -> None:
    found = speed.measure_training(recipe(), 1e9, seconds=0)
    assert found.tokens_per_second > 0
    assert found.step_seconds * found.tokens_per_second == pytest.approx(256)


def test_the_bandwidth_is_bytes_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, tick=0.25)
    monkeypatch.setattr(speed, "BUFFER_BYTES", 2**20)
    assert speed.memory_bandwidth(1) == 2**20 / 0.25


def test_a_small_machine_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, tick=1)
    monkeypatch.setattr(speed, "free_bytes", lambda device: 2**20)
    assert speed.memory_bandwidth(0) == 2**17


def test_the_limits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"fp32": 2e11, "bf16": 5e11}
    monkeypatch.setattr(speed, "matmul_peak", lambda precision, device, seconds: peaks[precision])
    monkeypatch.setattr(speed, "memory_bandwidth", lambda seconds: 2e10)
    monkeypatch.setattr(speed, "has_fast_bf16", lambda device: True)
    machine = speed.measure_machine("cpu", 3)
    assert (machine.peak("fp32"), machine.peak("bf16")) == (2e11, 5e11)
    assert machine.kernels is (machine.kernels_mend is None)
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    monkeypatch.setattr(speed, "has_fast_bf16", lambda device: False)
    machine = speed.measure_machine("cpu", 3)
    assert machine.bf16_flops is None and machine.peak("bf16") == 2e11


def test_free_memory_is_part_of_all() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < speed.free_bytes("cpu") <= total


@pytest.mark.parametrize(
    ("variable", "system", "compiler", "told"),
    [
        ("0", "Linux", "/usr/bin/c++", "unset OPENLLM_KERNELS"),
        ("1", "Darwin", "/usr/bin/c++", "Linux only"),
        ("1", "Linux", None, "install g++"),
        ("1", "Linux", "/usr/bin/c++", "compiler failed"),
    ],
)
def test_what_mends_missing_kernels(
    variable: str,
    system: str,
    compiler: str | None,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENLLM_KERNELS", variable)
    monkeypatch.setattr(speed.platform, "system", lambda: system)
    monkeypatch.setattr(speed.library, "find_compiler", lambda: compiler)
    monkeypatch.setattr(speed.library, "available", lambda: False)
    assert told in str(speed.kernels_mend())
    monkeypatch.setattr(speed.library, "available", lambda: True)
    assert speed.kernels_mend() is None


def test_work_of_others_is_all_work_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy, own = Clock(monkeypatch), [100.0, 125.0], [7.0, 17.0]
    monkeypatch.setattr(speed, "_busy_seconds", lambda: busy.pop(0))
    monkeypatch.setattr(speed, "_own_seconds", lambda: own.pop(0))
    others = speed.OtherWork()
    clock.now = 30
    assert others.cores() == pytest.approx(15 / 30)


def test_without_proc_the_load_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_busy_seconds", lambda: None)
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (1.5, 1.0, 1.0))
    assert speed.OtherWork().cores() == 1.5


def test_cores_are_read_from_the_system() -> None:
    first, second = speed._busy_seconds(), speed._busy_seconds()
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert 0 < first <= second


def test_the_tiny_vocabulary_is_large_enough_for_controls() -> None:
    assert speed.stand_in_tokenizer(VOCAB_SIZE).vocab_size == VOCAB_SIZE
