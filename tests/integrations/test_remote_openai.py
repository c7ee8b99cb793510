# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests to another server, over a real connection: what is sent, read, retried and refused."""

import asyncio
import json
import math
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.scripted_server import (
    EVENTS,
    Answer,
    Server,
    of_events,
    of_json,
    serving,
)

from openllm.core.errors import ConfigError, RefusedError, RemoteError
from openllm.engine.request import RemoteNews, SamplingParams, Structure, Update
from openllm.integrations.remote_openai import RemoteBackend, connect, read_key
from openllm.text.byte_tokenizer import ByteTokenizer

pytest.importorskip("httpx")

KEY = "sk-very-secret-123"
PARAMS = SamplingParams(max_new_tokens=5)


def backend(server: Server, **settings: Any) -> RemoteBackend:
    settings = {"api_key": KEY, "pause": 0.001} | settings
    return RemoteBackend(server.url, "m", settings.pop("api_key"), **settings)


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def generate(server: Server, params: SamplingParams = PARAMS, **settings: Any) -> list[Update]:
    async def main() -> list[Update]:
        remote = backend(server, **settings)
        try:
            return await collect(remote.generate("Hello", params))
        finally:
            await remote.close()

    return asyncio.run(main())


def chat(server: Server, params: SamplingParams = PARAMS, **more: Any) -> list[Update]:
    async def main() -> list[Update]:
        remote = backend(server)
        try:
            return await collect(remote.chat([{"role": "user", "content": "Hi"}], params, **more))
        finally:
            await remote.close()

    return asyncio.run(main())


def chunk(text: str = "", reason: str | None = None, index: int = 0, **more: Any) -> Any:
    return {"choices": [{"index": index, "text": text, "finish_reason": reason, **more}]}


def delta(reason: str | None = None, logprobs: Any = None, **values: Any) -> Any:
    choice = {"index": 0, "delta": values, "finish_reason": reason, "logprobs": logprobs}
    return {"choices": [choice]}


GOOD = of_events(
    chunk("Good"),
    chunk(" day", "length"),
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    },
)


def test_completion() -> None:
    with serving(GOOD) as server:
        updates = generate(server)
    assert [update.text for update in updates] == ["Good", " day", ""]
    assert [update.finish_reason for update in updates] == [None, None, "length"]
    assert updates[-1].remote == RemoteNews((), "", 7, 2)
    assert updates[-1].cached_tokens == 4
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/completions")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "m",
        "prompt": "Hello",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 1.0,
        "top_p": 1.0,
        "n": 1,
        "seed": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_without_a_key() -> None:
    with serving(GOOD) as server:
        generate(server, api_key=None)
    assert "authorization" not in server.seen[0].headers


def test_all_params_are_sent() -> None:
    params = SamplingParams(
        max_new_tokens=9,
        min_new_tokens=2,
        top_k=3,
        min_p=0.1,
        typical_p=0.9,
        repetition_penalty=1.1,
        logit_bias={5: -1.0},
        stop=("a", "b"),
        stop_ids=(7,),
        ignore_eos=True,
        n=2,
        best_of=3,
        logprobs=2,
        seed=11,
    )
    ends = (chunk("", "stop", 0), chunk("", "stop", 1))
    with serving(of_events(*ends)) as server:
        updates = generate(server, params)
    assert [(update.index, update.finish_reason) for update in updates] == [
        (0, "stop"),
        (1, "stop"),
    ]
    expected = {
        "min_tokens": 2,
        "top_k": 3,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": -1.0},
        "stop": ["a", "b"],
        "stop_token_ids": [7],
        "ignore_eos": True,
        "n": 2,
        "best_of": 3,
        "logprobs": 2,
        "seed": 11,
    }
    assert expected.items() <= server.seen[0].body.items()
    with serving(GOOD) as server, pytest.raises(ConfigError, match="best_of"):
        chat(server, params)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (Structure(kind="json_object"), {"response_format": {"type": "json_object"}}),
        (
            Structure(kind="json_schema", value={"type": "object"}),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "answer",
                        "schema": {"type": "object"},
                        "strict": True,
                    },
                }
            },
        ),
        (
            Structure(kind="choice", value=("yes", "no")),
            {
                "guided_choice": ["yes", "no"],
                "structured_outputs": {"choice": ["yes", "no"]},
            },
        ),
    ],
)
def test_structures_are_sent(structure: Structure, expected: dict[str, Any]) -> None:
    with serving(of_events(delta("stop", content="x"))) as server:
        chat(server, SamplingParams(structure=structure))
    assert expected.items() <= server.seen[0].body.items()


def test_chat_with_tools_reasoning_and_logprobs() -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a": 1}'}}
    token = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    other = {"token": "x", "logprob": -1.5, "bytes": None}
    tools = [{"type": "function", "function": {"name": "f"}}]
    answer = of_events(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="é", logprobs={"content": [token | {"top_logprobs": [other, token]}]}),
        delta(tool_calls=[call]),
        delta(tool_calls=[more]),
        delta("tool_calls"),
    )
    with serving(answer) as server:
        updates = chat(
            server,
            SamplingParams(logprobs=2),
            tools=tools,
            adapter="fine",
            variables={"enable_thinking": True},
        )
    body = server.seen[0].body
    assert server.seen[0].path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["model"], body["tools"]) == ("fine", tools)
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "".join(update.text for update in updates) == "é"
    news = [update.remote for update in updates if update.remote is not None]
    assert "".join(one.reasoning for one in news) == "hm"
    assert [piece for one in news for piece in one.tool_calls] == [call, more]
    assert updates[-1].finish_reason == "stop"
    (found,) = [one for update in updates for one in update.logprobs or ()]
    spelled = {(found.spellings or {})[index]: value for index, value in found.top.items()}
    assert spelled == {b"x": -1.5, "é".encode(): -0.5}
    assert (found.spellings or {})[found.token_id] == "é".encode()
    assert found.logprob == -0.5


def test_completion_logprobs() -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0, "b": -2.0}]}
    with serving(of_events(chunk("a", "stop", logprobs=logprobs))) as server:
        updates = generate(server, SamplingParams(logprobs=2))
    (found,) = [one for update in updates for one in update.logprobs or ()]
    assert {(found.spellings or {})[i]: v for i, v in found.top.items()} == {b"a": -1.0, b"b": -2.0}


def split(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_in_any_pieces(size: int) -> None:
    """Comments, other fields, CR LF, data over several lines, and U+2028, which is no line end."""
    text = "a\u2028b☕"
    first = json.dumps(chunk(text), ensure_ascii=False).replace('"choices"', '\ndata: "choices"')
    raw = (
        f": hello\r\nevent: x\r\ndata: {first}\r\n\r\nid: 3\n\ndata:{json.dumps(chunk('', 'stop'))}"
    )
    stream = f"{raw}\n\ndata: [DONE]\n\n".encode()
    with serving(Answer(200, EVENTS, split(stream, size))) as server:
        updates = generate(server)
    assert "".join(update.text for update in updates) == text


def test_score_of_a_text() -> None:
    logprobs = {
        "tokens": ["He", "llo", "!", " new"],
        "token_logprobs": [None, -1.0, -2.0, -9.0],
        "top_logprobs": [None, {"llo": -1.0}, {"?": -0.5, "!": -2.0}, {" new": -9.0}],
        "text_offset": [0, 2, 5, 6],
    }
    answer = {"choices": [{"text": "Hello! new", "logprobs": logprobs}]}

    async def main(server: Server) -> None:
        remote = backend(server)
        for _ in range(2):
            found = await remote.score("Hello!", top=2)
            assert [one.logprob for one in found] == [-1.0, -2.0]
            assert (found[1].spellings or {})[found[1].token_id] == b"!"
            assert sorted(found[1].top.values()) == [-2.0, -0.5]
        ids = await remote.score([5, 6, 7])
        assert [one.token_id for one in ids] == [6, 7]
        with pytest.raises(RemoteError, match="3 log-probabilities for a prompt of 9 tokens"):
            await remote.score([1] * 9)
        await remote.close()

    with serving(of_json(answer), of_json(answer | {"usage": {"prompt_tokens": 3}})) as server:
        asyncio.run(main(server))
    assert server.seen[0].body == {
        "model": "m",
        "prompt": "Hello!",
        "max_tokens": 1,
        "echo": True,
        "logprobs": 2,
        "temperature": 0.0,
    }


def test_embed_and_tokenize() -> None:
    async def main(server: Server) -> None:
        remote = backend(server)
        assert await remote.embed("x") == [0.6, 0.8]
        assert await remote.encode("Hi") == [1, 2]
        assert await remote.encode_chat([{"role": "user", "content": "Hi"}]) == [3]
        assert await remote.encode([4, 5]) == [4, 5]
        local = backend(server, tokenizer=ByteTokenizer())
        assert await local.encode("Hi") == [72, 105]
        await remote.close()

    answers = [
        of_json({"data": [{"embedding": [3, 4]}]}),
        of_json({"tokens": [1, 2]}),
        of_json({"tokens": [3]}),
    ]
    with serving(*answers) as server:
        asyncio.run(main(server))
    assert [seen.path for seen in server.seen] == ["/v1/embeddings", "/tokenize", "/tokenize"]
    assert server.seen[1].body == {"model": "m", "prompt": "Hi"}


BUSY = of_json({"error": {"message": "busy"}}, 429)


def test_retries_until_it_begins() -> None:
    with serving(None, BUSY, of_json({}, 503), GOOD) as server:
        assert generate(server)[-1].finish_reason == "length"
    assert len(server.seen) == 4


def test_retries_end() -> None:
    with serving(BUSY) as server, pytest.raises(RemoteError, match=r"429 \(busy\)") as caught:
        generate(server, attempts=3)
    assert len(server.seen) == 3
    assert caught.value.status == 429


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_does_not_wait_for_hours(form: str) -> None:
    later = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    answer = of_json({"error": {"message": "quota"}}, 429, retry_after=later)
    with serving(answer) as server, pytest.raises(RemoteError) as caught:
        generate(server)
    assert len(server.seen) == 1
    assert 3000 < (caught.value.retry_after or 0) <= 3600


def test_retry_after_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with serving(of_json({}, 503, retry_after="7"), BUSY, BUSY, GOOD) as server:
        generate(server, pause=1.0)
    assert slept[0] == 7
    assert 1.5 <= slept[1] <= 2.5 and 3 <= slept[2] <= 5


def test_no_retry_after_it_began() -> None:
    answer = of_events(chunk("Good"), done=False)
    with serving(answer) as server, pytest.raises(RemoteError, match="too early"):
        generate(server)
    assert len(server.seen) == 1


HTML = Answer(200, {"content-type": "text/html"}, [b"<html>Welcome</html>"])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HTML, "answers with text/html where a stream of events is expected"),
        (Answer(502, {"content-type": "text/html"}, [b"<h1>Bad</h1>"]), r"502 \(HTTP 502\)"),
        (of_json({"choices": []}), "answers with application/json where a stream"),
        (of_json({"error": {"message": "no model m"}}, 404), "404 .no model m.; check the address"),
        (
            of_json({"error": {"message": f"bad key {KEY}"}}, 401),
            r"401 .bad key \*\*\*.*OPENAI_API",
        ),
        (of_json({"detail": "forbidden\x1b[31m\n"}, 403), r"403 \(forbidden\?\[31m\)"),
        (Answer(301, {"location": "http://example.org/"}), "redirections are not followed"),
        (Answer(200, EVENTS, [b"data: {oops\n\n"]), "what is not JSON"),
        (Answer(200, EVENTS, [b"data: " + b"[" * 100_000 + b"\n\n"]), "what is not JSON"),
        (of_events(chunk("a"), {"error": {"message": "GPU fell off"}}), "middle: GPU fell off"),
        (of_events({"choices": 7}), "another format than OpenAI's API"),
        (of_events([1]), "another format"),
        (of_events(chunk(7)), "another format"),
        (of_events(delta(tool_calls=[{"function": {"arguments": {}}}])), "another format"),
        (of_events(delta(tool_calls=[{"index": "a"}])), "another format"),
        (of_events(delta(reasoning_content=[1])), "another format"),
        (of_events(chunk("a")), "ended its answer too early"),
        (of_events(chunk("a"), done=False), "ended its answer too early"),
        (Answer(200, EVENTS, [b"data: {"], broken=True), "broke off its answer"),
    ],
)
def test_bad_answers(answer: Answer, expected: str) -> None:
    with serving(answer) as server, pytest.raises(RemoteError, match=expected) as caught:
        generate(server, attempts=1)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n"])
def test_the_last_event_may_lack_its_end(end: bytes) -> None:
    answer = of_events(chunk("a", "stop"), done=False)
    with serving(Answer(200, EVENTS, [*answer.pieces, end])) as server:
        assert [update.text for update in generate(server)] == ["a", ""]


def test_calls_are_sent_as_the_api_wants_them() -> None:
    """Templates want the arguments as values, and know the effort as a variable."""
    made = {"function": {"name": "f", "arguments": {"a": "é"}}, "id": "1", "type": "function"}
    sent = {**made, "function": {"name": "f", "arguments": '{"a": "é"}'}}
    variables = {"reasoning_effort": "low", "enable_thinking": True}

    async def main(server: Server) -> None:
        remote = backend(server)
        for call in (made, sent):
            messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
            await collect(remote.chat(messages, PARAMS, variables=variables))
        await remote.close()

    with serving(of_events(delta("stop", content="x"))) as server:
        asyncio.run(main(server))
    for seen in server.seen:
        assert seen.body["messages"][0]["tool_calls"] == [sent]
        assert seen.body["reasoning_effort"] == "low"
        assert seen.body["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_invalid_requests(status: int) -> None:
    """They are the caller's mistake, and are not tried again."""
    answer = of_json({"object": "error", "message": "context is 4096"}, status)
    with serving(answer) as server, pytest.raises(RefusedError) as caught:
        generate(server)
    assert re.search(r"^http://127.*refuses the request: context is 4096$", str(caught.value))
    assert (caught.value.status, caught.value.reason) == (status, "context is 4096")
    assert len(server.seen) == 1


def test_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    remote = RemoteBackend(f"http://127.0.0.1:{port}", "m", KEY, pause=0.001)
    assert remote.healthy()
    with pytest.raises(RemoteError, match=r"cannot be reached.*is the server running"):
        asyncio.run(collect(remote.generate("x", PARAMS)))
    assert not remote.healthy()


def test_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        remote = RemoteBackend(url, "m", timeout=0.05, attempts=1)
        with pytest.raises(RemoteError, match="does not answer"):
            asyncio.run(collect(remote.generate("x", PARAMS)))


def test_closing_hangs_up() -> None:
    def forever() -> Iterator[bytes]:
        line = f"data: {json.dumps(chunk('x'))}\n\n".encode()
        while True:
            yield line
            time.sleep(0.001)

    async def main(server: Server) -> None:
        remote = backend(server)
        updates = remote.generate("x", PARAMS)
        assert (await anext(updates)).text == "x"
        await updates.aclose()
        assert await asyncio.to_thread(server.hung_up.wait, 10)
        await remote.close()

    with serving(Answer(200, EVENTS, forever())) as server:
        asyncio.run(main(server))


def test_used_in_several_event_loops() -> None:
    with serving(GOOD) as server:
        remote = backend(server)
        for _ in range(2):
            updates = asyncio.run(collect(remote.generate("Hello", PARAMS)))
            assert updates[-1].finish_reason == "length"
        asyncio.run(remote.close())


def test_connect() -> None:
    cards = {"data": [{"id": "m", "max_model_len": 99}]}
    with serving(of_json(cards)) as server:
        remote = connect(server.url, api_key=KEY, name="mine")
        assert (remote.info.name, remote.info.kind, remote.info.max_positions) == (
            "mine",
            "remote",
            99,
        )
        assert server.seen[0].path == "/v1/models"
        with pytest.raises(RemoteError, match="no model 'other'; it has: m"):
            connect(server.url, "other")
    with serving(of_json({"data": [{"id": "a"}, {"id": "b"}]})) as server:
        with pytest.raises(ConfigError, match=r"#MODEL: a, b"):
            connect(server.url)
        assert connect(server.url, "b").info.name == "b"
    with serving(HTML) as server, pytest.raises(RemoteError, match="text/html where JSON"):
        connect(server.url)
    with serving(of_json([1])) as server, pytest.raises(RemoteError, match="another format"):
        connect(server.url)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://x?a=1"]
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ConfigError):
        RemoteBackend(url, "m")


def test_secrets_stay_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (f"{KEY}\n", f"{KEY} x", f"{KEY}é", ""):
        with pytest.raises(ConfigError) as caught:
            RemoteBackend("http://x", "m", key)
        assert KEY not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        RemoteBackend(f"http://me:{KEY}@x", "m")
    assert KEY not in str(caught.value)
    assert KEY not in repr(RemoteBackend("http://x", "m", KEY))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert read_key() == KEY
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert read_key() is None
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(tmp_path / "key") == KEY
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "none")


def test_vectors_have_length_one() -> None:
    with serving(of_json({"data": [{"embedding": [1e-3] * 7}]})) as server:
        vector = asyncio.run(backend(server).embed("x"))
    assert math.hypot(*vector) == pytest.approx(1)
