# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A real model behind the server: a stream, an answer and offline generation say the same."""

import json

import openai
import pytest
from tests.serve.live import echo_app, live
from tests.tiny import SHAPES, random_model, sentences

from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.text.chat import ChatTemplate
from openllm.text.load import load_tokenizer

TEMPLATE = (
    "{% if tools %}<|system|>{{ tools }}<tool_call><|end_of_turn|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end_of_turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
UNIT = {"enum": ["celsius", "fahrenheit"]}
SCHEMA = {
    "type": "object",
    "properties": {"unit": UNIT, "day": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["unit", "day"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}}
    for name in ("weather", "tides")
]


@pytest.fixture(scope="module")
def llm(tokenizer_folder):
    model = random_model(SHAPES["qwen3"].model_copy(update={"max_positions": 1024}))
    config = EngineConfig(precision="fp32", device="cpu", cache_tokens=8192)
    tokenizer = load_tokenizer(tokenizer_folder)
    return LLM(model, tokenizer, config, template=ChatTemplate(TEMPLATE), name="tiny")


@pytest.fixture(scope="module")
def client(llm):
    with (
        live(echo_app({"tiny": llm.backend()})) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_are_those_of_offline_generation(llm, client, temperature):
    prompts = sentences(3, seed=5)
    for seed, prompt in enumerate(prompts):
        wish = {"model": "tiny", "prompt": prompt, "max_tokens": 24, "seed": seed}
        wish |= {"temperature": temperature}
        params = SamplingParams(max_new_tokens=24, temperature=temperature, seed=seed)
        offline = llm.generate([prompt], params)[0].text
        assert client.completions.create(**wish).choices[0].text == offline
        chunks = client.completions.create(**wish, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == offline


def test_several_prompts_are_those_of_offline_generation(llm, client):
    prompts = [*sentences(2, seed=5), *sentences(2, seed=5)]
    offline = [one.text for one in llm.generate(prompts, SamplingParams(max_new_tokens=16, seed=7))]
    answer = client.completions.create(model="tiny", prompt=prompts, max_tokens=16, seed=7)
    assert [choice.text for choice in answer.choices] == offline
    assert offline[:2] != offline[2:]


def test_chats_are_those_of_offline_generation(llm, client):
    messages = [{"role": "user", "content": "Who has the lamp? <|end_of_turn|>"}]
    wish = {"model": "tiny", "messages": messages, "max_tokens": 24, "seed": 3, "n": 2}
    params = SamplingParams(max_new_tokens=24, seed=3, n=2)
    offline = [one.text for one in llm.chat([messages], params)]
    answer = client.chat.completions.create(**wish)
    assert [choice.message.content for choice in answer.choices] == offline
    streamed = ["", ""]
    for chunk in client.chat.completions.create(**wish, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == offline
    asked = client.responses.create(
        model="tiny", input=messages, max_output_tokens=24, extra_body={"seed": 3}
    )
    assert asked.output_text == offline[0]


def test_stop_strings_end_a_stream_where_they_end_an_answer(llm, client):
    params = SamplingParams(max_new_tokens=40, seed=4)
    whole = llm.generate(["Anna"], params)[0].text
    stop = whole[10:14]
    expected = whole[: whole.index(stop)]
    wish = {"model": "tiny", "prompt": "Anna", "max_tokens": 40, "seed": 4, "stop": ["\0\0", stop]}
    answer = client.completions.create(**wish).choices[0]
    assert (answer.text, answer.finish_reason) == (expected, "stop")
    chunks = [c for chunk in client.completions.create(**wish, stream=True) for c in chunk.choices]
    assert "".join(chunk.text for chunk in chunks) == expected
    assert chunks[-1].finish_reason == "stop"


def test_prompts_are_scored_as_offline(llm, client):
    prompt = sentences(1, seed=9)[0]
    ids = llm.tokenizer.encode(prompt)
    (scores,) = llm.score([ids], top=2)
    # as evaluation harnesses ask
    answer = client.completions.create(
        model="tiny", prompt=ids, max_tokens=1, logprobs=2, echo=True, temperature=0, seed=1
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(ids) + 1
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:-1] == pytest.approx([one.logprob for one in scores], abs=1e-5)
    assert "".join(logprobs.tokens[:-1]) == prompt
    assert [prompt[offset] for offset in logprobs.text_offset[:-1]] == [
        token[0] for token in logprobs.tokens[:-1]
    ]


def test_vectors_are_those_of_offline(llm, client):
    texts = sentences(2, seed=2)
    answer = client.embeddings.create(model="tiny", input=texts)
    for found, expected in zip(answer.data, llm.embed(texts), strict=True):
        assert found.embedding == pytest.approx(expected, abs=1e-5)


def test_a_shared_beginning_is_read_once(client):
    messages = [{"role": "user", "content": " ".join(sentences(6, seed=8))}]
    usages = [
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=1).usage
        for _ in range(2)
    ]
    first, second = (usage.prompt_tokens_details.cached_tokens for usage in usages)
    assert first < second <= usages[1].prompt_tokens


@pytest.mark.parametrize("seed", range(3))
def test_json_of_a_schema(client, seed):
    kind = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "When?"}],
        response_format=kind,
        seed=seed,
        max_tokens=700,
    )
    assert answer.choices[0].finish_reason == "stop"
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"unit", "day"}
    assert value["unit"] in UNIT["enum"] and 1 <= value["day"] <= 9


@pytest.mark.integration
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "tides"}}]
)
def test_a_call_that_must_be_made_is_made(client, choice, stream):
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Tell me."}],
            tools=TOOLS,
            tool_choice=choice,
            seed=seed,
            max_tokens=700,
            stream=stream,
        )
        pieces = [c for chunk in answer for c in chunk.choices] if stream else answer.choices
        assert pieces[-1].finish_reason == "tool_calls"
        said = [piece.delta if stream else piece.message for piece in pieces]
        assert not "".join(one.content or "" for one in said)
        first, *rest = [call for one in said for call in one.tool_calls or ()]
        names = ["weather", "tides"] if choice == "required" else ["tides"]
        assert first.function.name in names
        assert not any(call.id or call.function.name for call in rest)
        arguments = "".join(call.function.arguments for call in [first, *rest])
        assert set(json.loads(arguments)) == {"unit", "day"}


def test_structures_of_vllm(client):
    for extra, allowed in (
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"structured_outputs": {"regex": "a{3}b?"}}, {"aaa", "aaab"}),
        ({"guided_grammar": 'start: "x" | "yz"'}, {"x", "yz"}),
    ):
        answer = client.completions.create(model="tiny", prompt="Say", extra_body=extra)
        assert answer.choices[0].text in allowed


@pytest.mark.parametrize(
    "extra",
    [
        {"guided_regex": "("},
        {"guided_grammar": "start: nothing"},
        {"guided_json": {"type": "no such type"}},
        {"logit_bias": {"999999": 1}},
    ],
)
def test_wishes_that_the_engine_refuses(client, extra):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="Say", extra_body=extra)
    assert "Traceback" not in str(caught.value)
    assert client.completions.create(model="tiny", prompt="Say", max_tokens=1).choices


def test_control_tokens_of_an_answer_are_parsed(llm, client):
    """The model is made to say a call by a structure that spells it as text or as tokens."""
    body = '{"name": "tides", "arguments": {"unit": "celsius", "day": 1}}'
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Go."}],
        tools=TOOLS,
        extra_body={"guided_choice": [f"<tool_call>{body}</tool_call>"]},
        max_tokens=700,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"unit": "celsius", "day": 1}
