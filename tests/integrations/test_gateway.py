# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The remote backend against our own server, alone and with another server between."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from tests.export.gguf.models import written
from tests.serve.live import backend_of, echo_app, live
from tests.tiny import SHAPES, random_model

from openllm.core.errors import RefusedError, RemoteError
from openllm.engine.backends.echo import EchoEngine
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams, Update
from openllm.integrations.remote_openai import RemoteBackend, connect
from openllm.text.byte_tokenizer import ByteTokenizer

pytest.importorskip("fastapi")

Result = TypeVar("Result")

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}<|end_of_turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHAT = [{"role": "user", "content": "Anna found a lamp."}]


@pytest.fixture(scope="module")
def llm(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LLM:
    model = random_model(SHAPES["qwen3"], 1, spread=0.2)
    folder = written(tmp_path_factory.mktemp("models"), model, tokenizer_folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return LLM.load(folder, EngineConfig(precision="fp32", device="cpu", cache_tokens=1024))


@pytest.fixture(scope="module")
def remotes(llm: LLM) -> Iterator[dict[str, RemoteBackend]]:
    """Backends of our server over a model, and of one over a backend of that."""
    with (
        live(echo_app({"tiny": llm.backend()})) as first,
        live(echo_app({"tiny": connect(first)})) as second,
    ):
        yield {"direct": connect(first), "through another server": connect(second)}


@pytest.fixture(params=["direct", "through another server"])
def remote(request: pytest.FixtureRequest, remotes: dict[str, RemoteBackend]) -> RemoteBackend:
    return remotes[request.param]


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def run(remote: RemoteBackend, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of one use of a backend, whose connections are then closed."""

    async def main() -> Result:
        try:
            return await work
        finally:
            await remote.close()

    return asyncio.run(main())


def text_of(updates: Sequence[Update], index: int = 0) -> str:
    return "".join(update.text for update in updates if update.index == index)


def both(
    llm: LLM, remote: RemoteBackend, prompt: Any, **params: Any
) -> tuple[list[Update], list[Update]]:
    """Updates of the model itself, and of the remote backend."""
    wish = SamplingParams(**params)

    async def main() -> tuple[list[Update], list[Update]]:
        local = llm.backend()
        if isinstance(prompt, list) and isinstance(prompt[0], dict):
            return await collect(local.chat(prompt, wish)), await collect(remote.chat(prompt, wish))
        return await collect(local.generate(prompt, wish)), await collect(
            remote.generate(prompt, wish)
        )

    return run(remote, main())


@pytest.mark.parametrize("prompt", ["Anna found a", [1, 80, 81, 82], CHAT])
def test_the_same_text(llm: LLM, remote: RemoteBackend, prompt: Any) -> None:
    local, far = both(llm, remote, prompt, max_new_tokens=12, n=2, seed=7, top_k=20, stop=("e",))
    for index in range(2):
        assert text_of(far, index) == text_of(local, index)
    ends = {update.index: update.finish_reason for update in local if update.finish_reason}
    assert {u.index: u.finish_reason for u in far if u.finish_reason} == ends
    assert far[-1].remote is not None
    tokens = sum(len(update.token_ids) for update in local)
    assert far[-1].remote.new_tokens == tokens


def test_log_probabilities(llm: LLM, remote: RemoteBackend) -> None:
    local, far = both(llm, remote, "Anna found", max_new_tokens=8, temperature=0, logprobs=2)
    ours = [one for update in local for one in update.logprobs or ()]
    theirs = [one for update in far for one in update.logprobs or ()]
    assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in ours], abs=1e-4)
    # tokens that are spelled alike are one in this format
    for one, other in zip(theirs, ours, strict=True):
        assert set(map(_rounded, one.top.values())) <= set(map(_rounded, other.top.values()))
        assert one.top


def _rounded(value: float) -> float:
    return round(value, 3)


def test_score(llm: LLM, remotes: dict[str, RemoteBackend]) -> None:
    remote = remotes["direct"]
    ids = [1, *llm.tokenizer.encode("Anna found a lamp.")]
    (ours,) = llm.score([ids])
    theirs = run(remote, remote.score(ids))
    assert [one.token_id for one in theirs] == ids[1:]
    assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in ours], abs=1e-4)


def test_embed(llm: LLM, remote: RemoteBackend) -> None:
    (ours,) = llm.embed(["Anna found a lamp."])
    assert run(remote, remote.embed("Anna found a lamp.")) == pytest.approx(ours, abs=1e-5)


def test_refusals_come_through(remote: RemoteBackend) -> None:
    with pytest.raises(RefusedError) as caught:
        run(remote, collect(remote.generate("Anna " * 500, SamplingParams())))
    assert "maximum context length is 128" in (reason := caught.value.reason)
    assert "http://" not in reason and "127.0.0.1" not in reason
    wrong = RemoteBackend(remote._client.url, "other")
    with pytest.raises(RemoteError, match="404"):
        run(wrong, collect(wrong.generate("Anna", SamplingParams())))


def test_tool_calls_come_through() -> None:
    """Called by a model behind two servers; found in its text by the first."""
    call = {"name": "find", "arguments": {"what": "lamp"}}
    said = f"<tool_call>{json.dumps(call)}</tool_call>"
    template = f"{{% for m in messages %}}{said}{{% endfor %}}{{% if tools %}}{{% endif %}}"
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    engine = EchoEngine(ByteTokenizer())
    with live(echo_app({"far": backend_of(engine, "far", template=template)})) as url:
        remote = connect(url)
        params = SamplingParams(max_new_tokens=200)
        updates = run(remote, collect(remote.chat(CHAT, params, tools=tools)))
    pieces = [p for u in updates if u.remote is not None for p in u.remote.tool_calls]
    assert pieces[0]["function"]["name"] == "find"
    arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
    assert json.loads(arguments) == call["arguments"]
    assert updates[-1].finish_reason == "stop"


CALL = '<tool_call>{"name": "find", "arguments": {"what": "é"}}</tool_call>'
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def gateway() -> Iterator[openai.OpenAI]:
    """A client of a server before a server that repeats what it is told."""
    with (
        live(echo_app()) as url,
        live(echo_app({"echo": connect(url)})) as second,
        openai.OpenAI(base_url=f"{second}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def say(text: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


def test_the_result_of_a_call_goes_back(gateway: openai.OpenAI) -> None:
    chats = gateway.chat.completions
    message = chats.create(**say(CALL), tools=[FIND]).choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns = [*say("?")["messages"], message, result]
    answer = chats.create(model="echo", messages=turns, tools=[FIND])
    assert answer.choices[0].message.content == "?\n\nrain\n"


def test_calls_are_streamed_through(gateway: openai.OpenAI) -> None:
    with gateway.chat.completions.stream(**say(CALL), tools=[FIND]) as stream:
        for _ in stream:
            pass
        (choice,) = stream.get_final_completion().choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("find", '{"what": "é"}')
    assert choice.finish_reason == "tool_calls"


def test_a_call_that_must_be_made(gateway: openai.OpenAI) -> None:
    said = '{"name": "find", "arguments": {}}'
    wish = {"tools": [FIND], "tool_choice": "required"}
    (choice,) = gateway.chat.completions.create(**say(said), **wish).choices
    assert [call.function.name for call in choice.message.tool_calls] == ["find"]


def test_structures_that_have_two_names(gateway: openai.OpenAI) -> None:
    """Sent by both, as servers know one or the other; ours knows both."""
    answer = gateway.chat.completions.create(**say("yes"), extra_body={"guided_regex": "yes|no"})
    assert answer.choices[0].message.content == "yes\n"


def test_clients_are_told_what_is_wrong_but_not_where(gateway: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096") as caught:
        gateway.chat.completions.create(**say("x" * 5000))
    assert caught.value.code == "context_length_exceeded"
    assert "127.0.0.1" not in str(caught.value)
