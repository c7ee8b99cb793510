# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Servers to test with: in this process, or listening on a port of this machine."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from openllm.core.errors import ConfigError
from openllm.engine.backend import Backend, BackendInfo
from openllm.engine.backends.echo import TEMPLATE, EchoEngine, echo_backend
from openllm.engine.backends.local import LocalBackend
from openllm.engine.request import Request, Update
from openllm.serve.app import create_app
from openllm.serve.config import ServeSettings
from openllm.serve.service import FixedModels, Service
from openllm.text.byte_tokenizer import ByteTokenizer
from openllm.text.chat import ChatTemplate


def echo_app(
    backends: Mapping[str, Backend] | None = None, aliases: Mapping[str, str] | None = None
) -> FastAPI:
    """An application over echo, or over other backends."""
    models = FixedModels(backends or {"echo": echo_backend()})
    return create_app(Service(models, aliases), ServeSettings())


@contextmanager
def client_of(app: FastAPI | None = None) -> Iterator[TestClient]:
    """Calls an application without a network."""
    with TestClient(app or echo_app()) as client:
        yield client


@contextmanager
def live(app: Any) -> Iterator[str]:
    """Serve an application on a free port; yields its address."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def events_of(text: str) -> list[Any]:
    """The data of a stream's events, without the end."""
    data = [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


def error_of(response: Any, status: int = 400) -> dict[str, Any]:
    """The error of a response, whose form is checked."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


class FaultyEngine(EchoEngine):
    """Fails after some tokens, saying what must not get out."""

    SECRET = "the secret inside of /etc/model"

    def __init__(self, after: int) -> None:
        super().__init__(ByteTokenizer())
        self._left = after

    def step(self) -> list[Update]:
        if self._left <= 0:
            raise RuntimeError(self.SECRET)
        self._left -= 1
        return super().step()


class AdapterEngine(EchoEngine):
    """Has an adapter that answers in capital letters."""

    def add(self, request: Request) -> None:
        if request.adapter not in (None, "loud"):
            raise ConfigError("there is no such adapter")
        super().add(replace(request, adapter=None))
        if request.adapter == "loud":
            text = bytes(request.prompt).decode().upper()
            super().add(replace(request, adapter=None, prompt=list(text.encode())))


def backend_of(
    engine: EchoEngine, name: str = "echo", *, template: str | None = TEMPLATE, **facts: Any
) -> LocalBackend:
    """A backend over an engine of bytes."""
    info = BackendInfo(name, "echo", engine.max_positions, **facts)
    made = None if template is None else ChatTemplate(template)
    return LocalBackend(engine, ByteTokenizer(), made, info)
