# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import asyncio
import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.imported import write_folder
from tests.tiny import SHAPES, random_model, sentences
from tests.tolerances import assert_close
from transformers import AutoModelForCausalLM

from openllm.checkpoint.model_dir import write_model
from openllm.core.errors import ConfigError, EngineError
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.engine.sampler import Choice, Row
from openllm.nn.heads import logits
from openllm.nn.model import Transformer
from openllm.text.load import load_tokenizer
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import Tokenizer

FP32 = EngineConfig(precision="fp32", cache_tokens=4096)
PROMPTS = ["Anna", "", "On day 3 Boris asked", "Clara found a lamp in the café.", "Emma " * 8]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def model() -> Transformer:
    # large weights, so that its text does not repeat one token
    return random_model(SHAPES["qwen3"], spread=0.5)


@pytest.fixture(scope="module")
def llm(model: Transformer, tokenizer: Tokenizer) -> LLM:
    return LLM(model, tokenizer, FP32)


def scripted_choice(tokens: Sequence[int], end: int = 2):
    """Chooses the given tokens after a prompt of one, then the end."""

    def choose(logits: torch.Tensor, rows: Sequence[Row], best: object) -> list[Choice]:
        places = [row.position - 1 for row in rows]
        return [Choice(tokens[at] if at < len(tokens) else end) for at in places]

    return choose


@pytest.fixture
def scripted(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    """Makes the model emit the given tokens."""

    def say(tokens: Sequence[int]) -> LLM:
        monkeypatch.setattr("openllm.engine.writing.choose", scripted_choice(tokens))
        return llm

    return say


def test_greedy_text_takes_the_best_token_each_time(llm: LLM, model: Transformer) -> None:
    banned = sorted(llm.tokenizer.banned_ids)
    params = SamplingParams(max_new_tokens=12, temperature=0)
    for prompt in PROMPTS:
        answer = llm.generate([prompt], params)[0]
        ids = answer.prompt_token_ids
        assert ids == [llm.tokenizer.bos_id, *llm.tokenizer.encode(prompt)]
        for token in answer.token_ids:
            with torch.no_grad():
                scores = logits(model(torch.tensor([ids])).x[0, -1], model.head)
            scores[banned] = -torch.inf
            assert token == int(scores.argmax())
            ids = [*ids, token]
        assert answer.text == llm.tokenizer.decode(answer.token_ids)


@pytest.mark.parametrize("max_sequences", [1, 2, 32])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_is_as_each_alone(
    model: Transformer, tokenizer: Tokenizer, max_sequences: int, temperature: float
) -> None:
    cfg = FP32.model_copy(update={"max_sequences": max_sequences, "prefix_cache": False})
    llm = LLM(model, tokenizer, cfg)
    wishes = [
        SamplingParams(max_new_tokens=4 + 5 * index, temperature=temperature, seed=index)
        for index in range(len(PROMPTS))
    ]
    together = llm.generate(PROMPTS, wishes)
    for prompt, wish, found in zip(PROMPTS, wishes, together, strict=True):
        assert llm.generate([prompt], wish)[0] == found
    backwards = llm.generate(PROMPTS[::-1], wishes[::-1])
    assert backwards[::-1] == together


def test_logits_in_a_batch_are_close_to_those_alone(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: dict[int, list[torch.Tensor]] = {}

    def choose(logits: torch.Tensor, rows: Sequence[Row], best: object) -> list[Choice]:
        for scores, row in zip(logits, rows, strict=True):
            states.setdefault(row.position, []).append(scores.clone())
        return [Choice(3) for _ in rows]

    monkeypatch.setattr("openllm.engine.writing.choose", choose)
    params = SamplingParams(max_new_tokens=1)
    llm.generate(PROMPTS, params)
    for prompt in PROMPTS:
        llm.generate([prompt], params)
    assert len(states) == len(PROMPTS)
    for rows in states.values():
        assert len(rows) == 2
        assert_close(rows[0], rows[1])


def test_one_wish_for_all_gives_each_prompt_its_own_seed(llm: LLM) -> None:
    params = SamplingParams(max_new_tokens=10, seed=5)
    first, second = llm.generate(["Anna", "Anna"], params)
    assert first.token_ids != second.token_ids
    alone = llm.generate(["Anna"], params.model_copy(update={"seed": 6}))[0]
    assert alone == second
    assert llm.generate(["Anna", "Anna"], params) == [first, second]


def test_control_tokens_never_come(llm: LLM) -> None:
    params = SamplingParams(max_new_tokens=60, temperature=50.0)
    controls = set(llm.tokenizer.controls.values())
    for answer in llm.generate(["a"] * 8, params):
        assert not controls & set(answer.token_ids)


def until_stop(tokenizer: Tokenizer, ids: list[int], stops: list[str]) -> str:
    """The text of `ids` up to the first stop string to be completed."""
    decoder, text = StreamDecoder(tokenizer), ""
    for index in ids:
        text += decoder.feed(index)
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)]
    return text + decoder.finish()


@settings(max_examples=60)
@given(data=st.data())
def test_streamed_text_is_the_whole_text(
    tokenizer: Tokenizer, llm: LLM, data: st.DataObject
) -> None:
    """Any tokens, including parts of characters, with stop strings cut out of the text."""
    usable = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.controls.values()))
    bytes_ids = [i for i in usable if tokenizer.piece(i).startswith("<0x")]
    some = st.lists(
        st.one_of(st.sampled_from(usable), st.sampled_from(bytes_ids)), min_size=1, max_size=25
    )
    text_ids = data.draw(st.one_of(some, st.just(tokenizer.encode("Grüße, 日本 ☕🙂 to café"))))
    text = tokenizer.decode(text_ids)
    stops = []
    for _ in range(data.draw(st.integers(0, 2))):
        start = data.draw(st.integers(0, max(0, len(text) - 1)))
        stops.append(text[start : start + data.draw(st.integers(1, 8))])
    stops = [stop for stop in stops if stop and "\ufffd" not in stop]
    params = SamplingParams(max_new_tokens=30, temperature=0, stop=tuple(stops))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openllm.engine.writing.choose", scripted_choice(text_ids))
        whole = llm.generate([""], params)[0]
        pieces = list(llm.stream("", params))
    assert "".join(pieces) == whole.text
    assert all(pieces)
    assert whole.text == until_stop(tokenizer, text_ids, stops)
    assert whole.finish_reason == "stop"


def test_streaming_shows_text_as_it_comes(scripted, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Anna found a lamp.")
    llm = scripted(ids)
    pieces = list(llm.stream("", SamplingParams(max_new_tokens=50)))
    assert len(pieces) == len(ids) and "".join(pieces) == "Anna found a lamp."


def test_the_beginning_of_a_stop_string_waits(scripted, tokenizer: Tokenizer) -> None:
    llm = scripted(tokenizer.encode("one two three"))
    pieces = list(llm.stream("", SamplingParams(max_new_tokens=50, stop=("two four",))))
    assert "".join(pieces) == "one two three"
    assert not any("".join(pieces[:n]).endswith("two") for n in range(len(pieces)))


def test_a_multi_byte_character_comes_whole(scripted, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("日本")
    assert len(ids) == 6, "these characters should be bytes here"
    assert list(scripted(ids).stream("", SamplingParams(max_new_tokens=9))) == ["日", "本"]
    answer = scripted(ids[:4]).generate([""], SamplingParams(max_new_tokens=4))[0]
    assert (answer.text, answer.finish_reason) == ("日\ufffd", "length")


def test_the_end_of_text_token_ends(scripted, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Anna")
    answer = scripted(ids).generate([""], SamplingParams(max_new_tokens=50))[0]
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("Anna", ids, "stop")


def test_the_context_bounds_the_text(llm: LLM) -> None:
    room = llm.info.max_positions
    prompt = "Anna found a lamp in the garden. " * 6
    ids = llm.tokenizer.encode(prompt)
    answer = llm.generate([prompt], SamplingParams(max_new_tokens=500, temperature=0))[0]
    assert len(ids) + 1 + len(answer.token_ids) <= room
    with pytest.raises(ConfigError, match="shorten the prompt"):
        llm.generate([" ".join(sentences(30, 1))], SamplingParams())


def test_ids_can_be_given_instead_of_text(llm: LLM) -> None:
    params = SamplingParams(max_new_tokens=8, seed=3)
    whole = llm.generate(["Anna found"], params)[0]
    ids = [*llm.tokenizer.prefix, *llm.tokenizer.encode("Anna found")]
    assert llm.generate([ids], params) == [whole]
    assert "".join(llm.stream(ids, params)) == whole.text


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer of GPT-2's kind: no bos, two ids that end a text."""
    folder = write_folder(tmp_path_factory.mktemp("imported") / "tokenizer", "gpt2")
    cfg = SHAPES["gpt2"].model_copy(update={"vocab_size": 450})
    weights = random_model(cfg, spread=0.5).state_dict()
    write_model(folder.parent / "m", cfg, weights, tokenizer=folder, lineage={}, card="")
    ends = {"eos_token_id": [0, load_tokenizer(folder).eos_id]}
    (folder.parent / "m" / "generation_config.json").write_text(json.dumps(ends))
    return folder.parent / "m"


def test_a_model_without_bos(imported: Path) -> None:
    llm = LLM.load(imported, FP32)
    params = SamplingParams(max_new_tokens=20, temperature=0)
    answer = llm.generate(["Anna found"], params)[0]
    assert answer.prompt_token_ids == llm.tokenizer.encode("Anna found")
    assert answer.text == llm.tokenizer.decode(answer.token_ids, inside=True)
    peer = AutoModelForCausalLM.from_pretrained(imported)
    theirs = peer.generate(
        torch.tensor([answer.prompt_token_ids]),
        attention_mask=torch.ones(1, len(answer.prompt_token_ids), dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
    )[0, len(answer.prompt_token_ids) :].tolist()
    assert answer.token_ids == theirs[: len(answer.token_ids)]
    assert answer.finish_reason == "length" or theirs[len(answer.token_ids)] in {
        0,
        llm.tokenizer.eos_id,
    }
    with pytest.raises(ConfigError, match=r"the prompt is empty.*give a prompt"):
        llm.generate([""], params)
    hot = llm.generate(["Anna"] * 4, SamplingParams(max_new_tokens=40, temperature=50.0))
    assert max(token for one in hot for token in one.token_ids) < llm.tokenizer.vocab_size


def test_a_vocabulary_of_which_nothing_is_banned(imported: Path) -> None:
    tokenizer = load_tokenizer(imported)
    cfg = SHAPES["gpt2"].model_copy(update={"vocab_size": tokenizer.vocab_size})
    answer = LLM(random_model(cfg), tokenizer, FP32).generate(
        ["Anna"], SamplingParams(max_new_tokens=3)
    )
    assert len(answer) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_each_end_id_ends(imported: Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    llm = LLM.load(imported, FP32)
    end = sorted(llm.tokenizer.end_ids)[which]
    think = llm.tokenizer.controls["<think>"]
    said = iter([think, *llm.tokenizer.encode(" lamp"), end, 50, 50])
    monkeypatch.setattr(
        "openllm.engine.writing.choose",
        lambda logits, rows, best: [Choice(next(said)) for _ in rows],
    )
    answer = llm.generate(["Anna"], SamplingParams(max_new_tokens=20))[0]
    assert (answer.text, answer.finish_reason) == ("<think> lamp", "stop")


def test_no_prompts_give_no_answers(llm: LLM) -> None:
    assert llm.generate([], SamplingParams()) == []


def test_a_tokenizer_that_is_too_large_is_refused(tokenizer: Tokenizer) -> None:
    small = SHAPES["qwen3"].model_copy(update={"vocab_size": 600})
    with pytest.raises(ConfigError, match="vocabulary size is 600, but the tokenizer's is 640"):
        LLM(random_model(small), tokenizer)


def test_ids_that_the_tokenizer_lacks_never_come(tokenizer: Tokenizer) -> None:
    large = SHAPES["qwen3"].model_copy(update={"vocab_size": 700})
    llm = LLM(random_model(large), tokenizer, FP32)
    answers = llm.generate(["a"] * 4, SamplingParams(max_new_tokens=40, temperature=50.0))
    assert max(token for answer in answers for token in answer.token_ids) < 640


def test_streams_may_be_read_by_turns(llm: LLM) -> None:
    params = SamplingParams(max_new_tokens=20, seed=1, ignore_eos=True)
    expected = ["".join(llm.stream(prompt, params)) for prompt in PROMPTS]
    texts = [""] * len(PROMPTS)
    for pieces in zip_longest(*(llm.stream(prompt, params) for prompt in PROMPTS), fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    assert texts == expected
    inside = ""
    for piece in llm.stream(PROMPTS[0], params):
        inside += piece
        assert llm.generate([PROMPTS[3]], params)[0].text == expected[3]
    assert inside == expected[0]


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        ("Anna", SamplingParams(), "a list of prompts is wanted; write"),
        ([5, 6], SamplingParams(), "a prompt is a text or a list of token ids"),
        ([[5.5]], SamplingParams(), "a prompt is a text or a list of token ids"),
        (["Anna"], [SamplingParams()] * 2, "there are 2 params for 1 prompts"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(
    llm: LLM, prompts: Any, params: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        llm.generate(prompts, params)


def test_ids_may_be_numbers_of_an_array(llm: LLM) -> None:
    params = SamplingParams(max_new_tokens=5, repetition_penalty=1.5)
    (answer,) = llm.generate([torch.tensor([5, 6, 5])], params)  # type: ignore[list-item]
    assert answer == llm.generate([[5, 6, 5]], params)[0]
    assert all(type(token) is int for token in answer.prompt_token_ids)


def test_an_interrupt_while_requests_are_added_leaves_none_of_them(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = llm._engine.add

    def interrupted(request: Any) -> None:
        add(request)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(llm._engine, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPTS, SamplingParams())
    assert not llm._engine.has_work()
    assert llm.generate(PROMPTS, SamplingParams(max_new_tokens=3))


def test_a_fork_without_the_threads_is_told_instead_of_waiting_for_ever(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: -1)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with pytest.raises(EngineError, match="is a fork of the one that loaded the model"):
        llm.generate(["Anna"], SamplingParams())


def test_a_stream_that_nobody_reads_on_is_given_up(llm: LLM) -> None:
    stream = llm.stream("Anna", SamplingParams(max_new_tokens=90, ignore_eos=True))
    next(stream)
    assert llm.stats().running == 1
    with pytest.raises(ConfigError, match="a stream is open; read it to its end, or close it"):
        llm.backend()
    stream.close()
    assert llm.stats().running == 0


def test_a_failed_step_ends_all_streams_and_nothing_later(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(model, tokenizer, FP32)
    params = SamplingParams(max_new_tokens=20, temperature=0, ignore_eos=True)
    expected = llm.generate(["Anna"], params)
    stream = llm.stream("Boris", params)
    next(stream)
    with monkeypatch.context() as patch:
        patch.setattr("openllm.engine.writing.choose", lambda logits, rows, best: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            llm.generate(["Anna"], params)
    with pytest.raises(EngineError, match="failed while it computed this; try again"):
        next(stream)
    assert llm.generate(["Anna"], params) == expected
    stats = llm.stats()
    assert stats.free_blocks == stats.blocks


def test_beside_a_backend_a_stream_still_comes_piece_by_piece(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    llm = LLM(model, tokenizer, FP32)
    params = SamplingParams(max_new_tokens=60, seed=1, ignore_eos=True)
    expected, answer = list(llm.stream("Anna", params)), llm.generate(["Anna"], params)
    backend = llm.backend()
    try:
        assert "".join(llm.stream("Anna", params)) == "".join(expected)
        assert llm.generate(["Anna"], params) == answer
        stream = llm.stream("Anna", params)
        assert next(stream) == expected[0]
        stream.close()
        asyncio.run(backend.call(lambda: None))
        assert llm.stats().running == 0
    finally:
        asyncio.run(backend.close())
    with pytest.raises(EngineError, match="the engine has stopped"):
        llm.generate(["Anna"], params)


def test_a_model_in_training_stays_as_it_is(tokenizer: Tokenizer) -> None:
    """It keeps its mode and its type, and is asked without dropout."""
    cfg = SHAPES["qwen3"].model_copy(update={"dropout": 0.5})
    policy = random_model(cfg, spread=0.4).train()
    params = SamplingParams(max_new_tokens=20, temperature=0)
    plain = FP32.model_copy(update={"kernels": False})
    found = LLM(policy, tokenizer, plain).generate(PROMPTS, params)
    assert found == LLM(random_model(SHAPES["qwen3"], spread=0.4), tokenizer, plain).generate(
        PROMPTS, params
    )
    half = LLM(policy, tokenizer, plain.model_copy(update={"precision": "bf16"}))
    assert half.generate(PROMPTS, params) and half.info.precision == "bf16"
    assert policy.training and all(part.training for part in policy.modules())
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
