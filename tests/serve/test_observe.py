# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Logs and errors: enough to find a fault, and nothing that was not meant to be seen."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.serve.asgi import Reply, ask, bearer

from openllm.core.errors import StorageError
from openllm.serve.access_log import AccessLog, redacted
from openllm.serve.auth import Authentication
from openllm.serve.bodies import Bodies
from openllm.serve.exchange import current
from openllm.serve.keys import KeyRing, new_secret
from openllm.serve.observe import ID, Observation
from openllm.serve.operations_config import LimitSettings

PROMPT = "my diary of the 3rd of May"


async def fine(scope: Any, receive: Any, send: Any) -> None:
    exchange = current()
    assert exchange is not None
    exchange.model, exchange.prompt_tokens = "small", 7
    exchange.saw_tokens(1)
    exchange.saw_tokens(2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


class Broken:
    """An endpoint that raises an error whose message and frames hold the prompt."""

    def __init__(self, error: type[BaseException], started: bool = False) -> None:
        self.error, self.started = error, started

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"].decode()
        if self.started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            raise self.error(f"cannot do {body} with {scope['headers']}")
        except Exception as cause:
            raise RuntimeError(body) from cause


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def call(app: Any, log: Path, **how: Any) -> tuple[Reply, dict[str, Any]]:
    access = AccessLog(str(log))
    reply = asyncio.run(
        ask(Observation(app, [access]), how.pop("method", "POST"), how.pop("path", "/x"), **how)
    )
    access.close()
    return reply, logged(log)[-1]


def test_one_line_tells_what_was_done(tmp_path: Path) -> None:
    _, line = call(fine, tmp_path / "log", path="/v1/models", query=b"q=secret", client="10.1.2.3")
    assert line.pop("time").endswith("+00:00") and line.pop("id").startswith("req_")
    for name in ("seconds", "first_token_s", "token_s"):
        assert line.pop(name) >= 0
    assert line == {
        "client": "10.1.2.3",
        "method": "POST",
        "route": "/v1/models",
        "status": 200,
        "outcome": "answered",
        "model": "small",
        "prompt_tokens": 7,
        "new_tokens": 3,
    }


def test_the_id_of_a_request(tmp_path: Path) -> None:
    def id_for(*values: bytes) -> str:
        headers = [(b"x-request-id", value) for value in values]
        reply, line = call(fine, tmp_path / "log", headers=headers)
        found = reply.header("x-request-id")
        assert found == line["id"] and ID.fullmatch(found or "")
        return found or ""

    assert id_for(b"abc-1.2_3") == "abc-1.2_3"
    assert id_for() != id_for()
    bad = (b"", b"a b", b'"}', b"a\r\nset-cookie: x", b"\xff", b"x" * 65, b"../../etc", b"<script>")
    for value in bad:
        assert id_for(value).startswith("req_")
    assert id_for(b"one", b"two").startswith("req_")


@pytest.mark.parametrize("error", [ValueError, KeyError, UnicodeError, MemoryError, RecursionError])
def test_a_failing_endpoint_tells_nothing(
    tmp_path: Path, error: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    secret = new_secret()[0]
    reply, line = call(
        Broken(error),
        tmp_path / "log",
        path=f"/{PROMPT}",
        body=PROMPT.encode(),
        headers=[bearer(secret), (b"cookie", b"session=hidden")],
        query=f"key={secret}&prompt={PROMPT}".encode(),
    )
    assert (reply.status, reply.code) == (500, "server_error")
    assert line["id"] in reply.json()["error"]["message"]
    assert line["outcome"] == "failed" and line["reason"].startswith("RuntimeError at ")
    assert_silent(reply, tmp_path / "log", capfd, PROMPT, secret, "hidden")


def test_an_answer_that_breaks_off_tells_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reply, line = call(Broken(ValueError, started=True), tmp_path / "log", body=PROMPT.encode())
    assert reply.status == 200 and not reply.complete and line["outcome"] == "failed"
    assert_silent(reply, tmp_path / "log", capfd, PROMPT)


def assert_silent(reply: Reply, log: Path, capfd: pytest.CaptureFixture[str], *hidden: str) -> None:
    """No word of what must not be seen is in the answer, the log or on the screen."""
    out, err = capfd.readouterr()
    seen = f"{reply.body!r} {reply.headers!r} {log.read_text()} {out} {err}"
    for word in (*hidden, "Traceback", 'File "', "authorization"):
        assert word not in seen


def test_a_refused_key_is_not_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from openllm.serve.keys import KeyFile

    KeyFile(tmp_path / "keys").add("alice")
    secret = new_secret()[0]
    app = Authentication(fine, KeyRing(tmp_path / "keys"))
    reply, line = call(app, tmp_path / "log", path="/v1/models", headers=[bearer(secret)])
    assert (line["status"], line["reason"]) == (401, "invalid_api_key")
    assert_silent(reply, tmp_path / "log", capfd, secret)


def test_the_name_of_a_key_is_logged_and_not_the_key(tmp_path: Path) -> None:
    from openllm.serve.keys import KeyFile

    _, secret = KeyFile(tmp_path / "keys").add("alice")
    app = Authentication(fine, KeyRing(tmp_path / "keys"))
    _, line = call(app, tmp_path / "log", path="/v1/models", headers=[bearer(secret)])
    assert line["key"] == "alice" and secret not in (tmp_path / "log").read_text()


def test_prompts_are_logged_on_request_but_no_keys(tmp_path: Path) -> None:
    secret = new_secret()[0]
    body = f"{PROMPT} \n {secret}".encode()
    app = Bodies(fine, LimitSettings(), keep=True)
    _, line = call(app, tmp_path / "log", body=body)
    assert PROMPT in line["request"] and secret not in json.dumps(line)
    assert redacted(f"a {secret} b") == "a [key] b"
    _, line = call(Bodies(fine, LimitSettings()), tmp_path / "log", body=body)
    assert "request" not in line


def test_no_line_can_be_forged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    app = Bodies(fine, LimitSettings(), keep=True)
    for text in ('x\n{"status": 200}', "x\u2028y", "\x1b[2J", '"}', "\x00"):
        call(app, log, body=text.encode(), path=f"/{text}", method="GE\nT", client="1\n2")
    assert len(log.read_text().splitlines()) == 5 == len(logged(log))
    assert all(line["method"] == "other" and line["route"] == "other" for line in logged(log))


def test_a_rotated_log_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    access = AccessLog(str(log))
    app = Observation(fine, [access])
    asyncio.run(ask(app, "GET", "/x"))
    os.rename(log, tmp_path / "log.1")
    asyncio.run(ask(app, "GET", "/y"))
    log.unlink()
    asyncio.run(ask(app, "GET", "/z"))
    access.close()
    assert len(logged(tmp_path / "log.1")) == 1 and len(logged(log)) == 1
    assert log.stat().st_mode & 0o007 == 0


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        AccessLog(str(tmp_path / "file" / "log"))


def test_a_log_that_fails_later_does_not_fail_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    access = AccessLog(str(tmp_path / "logs" / "log"))
    (tmp_path / "logs").rename(tmp_path / "away")
    for _ in range(3):
        assert asyncio.run(ask(Observation(fine, [access]), "GET", "/x")).status == 200
    assert capsys.readouterr().err.count("cannot be written") == 1
    (tmp_path / "away").rename(tmp_path / "logs")
    asyncio.run(ask(Observation(fine, [access]), "GET", "/x"))
    access.close()
    assert len(logged(tmp_path / "logs" / "log")) == 1


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(ask(Observation(fine, [AccessLog("-")]), "GET", "/x"))
    captured = capsys.readouterr()
    assert json.loads(captured.err)["status"] == 200 and not captured.out
