# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""An HTTP server on the loopback interface that gives the answers it was told, in order."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Answer:
    """What to send; the connection is closed after it, without a length if `broken`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    pieces: Iterable[bytes] = ()
    broken: bool = False


Script = Callable[[Seen], Answer]


def of_json(value: Any, status: int = 200, **headers: str) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, JSON | more, [json.dumps(value).encode()])


def of_events(*values: Any, done: bool = True) -> Answer:
    lines = [f"data: {json.dumps(value)}\n\n".encode() for value in values]
    return Answer(200, EVENTS, [*lines, *([b"data: [DONE]\n\n"] if done else [])])


class Server(ThreadingHTTPServer):
    """Answers the first request with the first answer, and so on; the last one is repeated."""

    daemon_threads = True

    def __init__(self, answers: list[Answer | Script | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.seen = answers, list[Seen]()
        self.hung_up = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self._answer(json.loads(self.rfile.read(length)))

    def _answer(self, body: Any) -> None:
        server = self.server
        seen = Seen(self.command, self.path, dict(self.headers), body)
        with server.lock:
            answer = server.answers[min(len(server.seen), len(server.answers) - 1)]
            server.seen.append(seen)
        self.close_connection = True
        if answer is None:  # hang up without a word
            return
        if callable(answer):
            answer = answer(seen)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.broken:
            self.send_header("content-length", "1000000")
        self.end_headers()
        try:
            for piece in answer.pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            server.hung_up.set()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(*answers: Answer | Script | None) -> Iterator[Server]:
    server = Server(list(answers))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
