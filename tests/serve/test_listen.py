# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A live server: signals, drain, slow and wrong clients, at the level of bytes."""

import asyncio
import concurrent.futures
import json
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.asgi import add_key
from tests.serve.live_process import Live, live, read_all

from openllm.core.errors import ConfigError
from openllm.serve.listen import OTHER_FILES, Faults, allow_files, handed_over, listen
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.connection import CROWD, connection_class

pytestmark = pytest.mark.integration

CHAT = {"messages": [{"role": "user", "content": "x" * 40}]}


def request(path: str = "/health", *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def chat_request(*headers: str, stream: bool = False) -> bytes:
    body = json.dumps({**CHAT, "stream": stream})
    length = f"Content-Length: {len(body)}"
    return request(
        "/v1/chat/completions",
        "Content-Type: application/json",
        length,
        *headers,
        method="POST",
        body=body,
    )


def test_a_drain_answers_what_was_accepted(tmp_path: Path) -> None:
    """Whole answers, streams, requests in the queue, and one that comes on an open connection."""
    limits = {"max_running": 2}
    with live(tmp_path / "log", step_s=0.02, limits=limits) as server:
        idle = server.connect()
        idle.sendall(request())
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")

        def one(stream: bool) -> bytes:
            return server.raw(chat_request(stream=stream))

        with concurrent.futures.ThreadPoolExecutor() as pool:
            answers = [pool.submit(one, index % 2 == 0) for index in range(6)]
            until(server, lambda state: state["running"] == 2 and state["waiting"] == 4)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            idle.sendall(request())
            late = read_all(idle)
            replies = [answer.result() for answer in answers]
        assert server.process.wait(20) == 0
    assert b"HTTP/1.1 200" in late and b"connection: close" in late.lower()
    for index, reply in enumerate(replies):
        assert reply.startswith(b"HTTP/1.1 200")
        if index % 2 == 0:
            assert b"data: [DONE]" in reply and reply.endswith(b"0\r\n\r\n")
        else:
            assert b"x" * 40 in reply
    assert "Traceback" not in (tmp_path / "log").read_text()


def until(server: Live, reached: object) -> None:
    for _ in range(500):
        state = httpx.get(f"{server.url}/ready").json()
        if reached(state):  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError(state)


def test_no_new_connections_during_a_drain(tmp_path: Path) -> None:
    with live(tmp_path / "log", step_s=0.02) as server:
        busy = server.connect()
        busy.sendall(chat_request("Connection: close"))
        until(server, lambda state: state["running"] == 1)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                server.connect().close()
            except ConnectionRefusedError:
                break
        else:
            raise AssertionError("connections are still accepted")
        assert b"x" * 40 in read_all(busy)
        assert server.process.wait(20) == 0


def test_a_lame_duck_answers_but_is_not_ready(tmp_path: Path) -> None:
    with live(tmp_path / "log", limits={"lame_duck_s": 1.0}) as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        until(server, lambda state: state["status"] == "draining")
        ready = httpx.get(f"{server.url}/ready")
        assert ready.status_code == 503 and ready.headers["retry-after"]
        assert httpx.get(f"{server.url}/health").status_code == 200
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200 and answer.headers["connection"] == "close"
        assert server.process.wait(20) == 0


def test_a_drain_ends_in_time_and_says_so(tmp_path: Path) -> None:
    with live(tmp_path / "log", step_s=0.3, limits={"drain_s": 0.5}) as server:
        whole, stream = server.connect(), server.connect()
        whole.sendall(chat_request())
        stream.sendall(chat_request(stream=True))
        until(server, lambda state: state["running"] == 2)
        time.sleep(0.5)
        assert server.stop() == 0
        told = read_all(whole)
        assert told.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in told.lower()
        assert b'"code":"stopping"' in read_all(stream)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    with live(tmp_path / "log", step_s=0.5) as server:
        sock = server.connect()
        sock.sendall(chat_request())
        until(server, lambda state: state["running"] == 1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None
        assert server.stop(second) == 128 + second


def test_failed_models_end_the_process_with_an_error(tmp_path: Path) -> None:
    with live(tmp_path / "log", die=True) as server:
        for _ in range(4):
            httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
        ready = httpx.get(f"{server.url}/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unhealthy")
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.process.wait(30) == 1
    assert "the models have failed; start the server again" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("hard", [100_000, resource.RLIM_INFINITY, 700])
def test_as_many_files_are_allowed_as_connections_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hard: int
) -> None:
    """Else clients could use up all, and the log would fill with complaints of the event loop."""
    limit = [256, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda what: tuple(limit))
    monkeypatch.setattr(resource, "setrlimit", lambda what, given: limit.__setitem__(0, given[0]))
    allow_files(1000)
    wanted = 1000 + CROWD + OTHER_FILES
    assert limit[0] == (700 if hard == 700 else wanted)
    assert (f"ulimit -n {wanted}" in capsys.readouterr().err) == (hard == 700)
    limit[0] = 1 << 20
    allow_files(1000)
    assert limit[0] == 1 << 20


def test_faults_of_the_event_loop_are_told_once_and_without_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = Faults()
    for _ in range(3):
        faults.tell(
            asyncio.new_event_loop(), {"message": "no more", "exception": OSError("secret")}
        )
    assert capsys.readouterr().err == "warning: no more (OSError)\n"


class FakeProtocol:
    """What uvicorn's connection has that ours uses."""

    def __init__(self, connections: set[object]) -> None:
        self.connections, self.app, self.cycle = connections, "the application", None
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.connections.add(self)
        self.transport = transport


class FakeTransport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_connections_far_beyond_the_limit_are_closed_at_once() -> None:
    async def run() -> list[tuple[bool, bool]]:
        kind = connection_class(FakeProtocol, LimitSettings(max_connections=3))
        found, open_now = [], set[object]()
        for _ in range(3 + CROWD + 2):
            transport = FakeTransport()
            one = kind(open_now)
            one.connection_made(transport)
            found.append((one.app == "the application", transport.aborted))
        return found

    found = asyncio.run(run())
    assert found[:3] == [(True, False)] * 3
    assert found[3 : 3 + CROWD] == [(False, False)] * CROWD  # told with 503
    assert [aborted for _, aborted in found[3 + CROWD :]] == [True, True]


def test_slow_clients_are_cut_off(tmp_path: Path) -> None:
    limits = {"header_timeout_s": 0.5, "body_timeout_s": 0.5, "keep_alive_s": 1}
    with live(tmp_path / "log", limits=limits) as server:
        ended: dict[str, bytes] = {}

        def drip(name: str, first: bytes, drop: bytes) -> None:
            """One byte now and then, for as long as the server takes it."""
            with server.connect() as sock:
                sock.settimeout(0.05)
                sock.sendall(first)
                found, deadline = b"", time.monotonic() + 15
                while time.monotonic() < deadline:
                    try:
                        sock.sendall(drop)
                        part = sock.recv(65536)
                        if not part:
                            ended[name] = found
                            return
                        found += part
                    except TimeoutError:
                        continue
                    except OSError:
                        ended[name] = found
                        return

        body = chat_request().replace(b"Content-Length: ", b"Content-Length: 9")
        cases = {
            "silent": (b"", b""),
            "headers": (b"GET /health HTTP/1.1\r\n", b"x"),
            "header lines": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n"),
            "body": (body, b" "),
            "after an answer": (request(), b""),
            "second headers": (request(), b"G"),
        }
        threads = [threading.Thread(target=drip, args=(name, *how)) for name, how in cases.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(ended) == set(cases)
        assert b"408" in ended["body"].split(b"\r\n")[0]
        assert ended["after an answer"].startswith(b"HTTP/1.1 200")
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with live(tmp_path / "log", limits={"write_timeout_s": 0.3}) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        deadline = time.monotonic() + 20
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:  # answers to pipelined requests, which nobody reads
                sock.sendall(request("/openapi.json"))
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_too_many_connections_are_told_to_come_back(tmp_path: Path) -> None:
    with live(tmp_path / "log", limits={"max_connections": 3}) as server:
        held = [server.connect() for _ in range(3)]
        for sock in held:
            sock.sendall(request())
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        reply = server.raw(request())
        assert reply.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in reply.lower()
        held.pop().close()
        time.sleep(0.2)
        assert server.raw(request("/health", "Connection: close")).startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("keyed")
    add_key(folder / "keys.json", "alice")
    limits = {"keep_alive_s": 1, "header_timeout_s": 1, "body_timeout_s": 1}
    auth = {"key_file": str(folder / "keys.json")}
    with live(folder / "log", auth=auth, limits=limits) as server:
        yield server, folder / "log"


def test_answers_name_no_software(keyed: tuple[Live, Path]) -> None:
    server, _ = keyed
    for reply in (httpx.get(f"{server.url}/health"), httpx.get(f"{server.url}/x")):
        assert "server" not in reply.headers and "x-powered-by" not in reply.headers
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_large_bodies_are_refused_with_an_answer(tmp_path: Path) -> None:
    with live(tmp_path / "log", limits={"max_body_bytes": 4096}) as server:
        for size in (5000, 3_000_000):
            reply = httpx.post(f"{server.url}/v1/chat/completions", content=b"x" * size)
            assert reply.status_code == 413 and reply.json()["error"]["code"] == "body_too_large"

        def chunks() -> object:
            for _ in range(100):
                yield b"x" * 4000

        reply = httpx.post(f"{server.url}/v1/chat/completions", content=chunks())  # type: ignore
        assert reply.status_code == 413


def test_a_port_that_is_taken_is_an_error() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*choose another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="choose another --port or --host"):
        listen("203.0.113.1", 0)


def test_a_socket_that_was_handed_over_keeps_waiting_requests(tmp_path: Path) -> None:
    """Two servers after each other on one socket, which stays open: nobody is turned away."""
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        for round in range(2):
            early = socket.create_connection(("127.0.0.1", port))
            early.sendall(request("/health", "Connection: close"))
            with live(tmp_path / f"log{round}", sock=sock) as server:
                assert server.port == port
                assert read_all(early).startswith(b"HTTP/1.1 200")
                assert server.stop() == 0
            early.close()


def test_sockets_for_other_processes_are_left_alone() -> None:
    assert handed_over({}) is None
    assert handed_over({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) is None
    assert handed_over({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}) is None
    assert handed_over({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}) == 3
