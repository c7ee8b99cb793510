# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm serve`: arguments, and a process from its start to its end."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.integrations.scripted_server import of_json, serving

from openllm.core.errors import ConfigError, UsageError
from openllm.engine.backends.pool import ModelPool
from openllm.recipes import serve
from openllm.recipes.backend import SourceLoader
from openllm.serve import listen
from openllm.serve.config import ServeSettings


@pytest.fixture
def plan(monkeypatch):
    """What the command would run."""
    found = {}

    def run(pool, settings, **more):
        found.update(pool=pool, settings=settings, **more)

    monkeypatch.setattr(serve, "run", run)
    monkeypatch.delenv("OPENLLM_KEYS", raising=False)

    def planned(*arguments):
        assert serve.main(list(arguments)) == 0
        return found

    return planned


def test_defaults(plan):
    found = plan("echo")
    assert found["pool"].names() == ["echo"]
    assert (found["settings"].host, found["settings"].port) == ("127.0.0.1", 8000)
    assert found["settings"].auth.key_file is None
    assert (found["aliases"], found["lazy"]) == ({}, False)


def test_names_aliases_memory_and_settings(plan):
    found = plan(
        "runs/a/model", "http://host:1/v1#qwen", "models/b", "--memory", "1.5G",
        "--alias", "gpt=a", "--port", "0", "--set", "limits.max_running=3",
        "--api-key-file", "keys.json", "--cors-origin", "https://example.org",
    )  # fmt: skip
    assert found["pool"].names() == ["a", "qwen", "b"]
    assert (found["aliases"], found["lazy"]) == ({"gpt": "a"}, True)
    assert found["pool"].stats().budget_bytes == 3 * 2**29
    settings = found["settings"]
    assert (settings.port, settings.limits.max_running) == (0, 3)
    assert settings.auth.key_file == "keys.json"
    assert settings.auth.cors_origins == ("https://example.org",)
    assert plan("x/y", "--name", "z")["pool"].names() == ["z"]


def test_a_socket_of_systemd_on_all_addresses_needs_keys(monkeypatch):
    """The address in its file counts, not --host, which is this machine's own by default."""
    with socket.create_server(("0.0.0.0", 0)) as given:
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setattr(listen, "FIRST_DESCRIPTOR", os.dup(given.fileno()))
        with pytest.raises(ConfigError, match=r"at 0\.0\.0\.0, everybody who reaches"):
            serve.run(ModelPool(SourceLoader()), ServeSettings(), aliases={}, adapters={})


def test_what_the_loader_is_told(plan, monkeypatch):
    told = {}
    monkeypatch.setattr(serve, "SourceLoader", lambda *args, **more: told.update(more))
    plan("http://host/v1#m", "--remote-key-file", "far.key", "--gguf-tokenizer", "runs/tokenizer")
    assert (told["key_file"], told["tokenizer"]) == (Path("far.key"), Path("runs/tokenizer"))
    plan("echo")
    assert (told["key_file"], told["tokenizer"]) == (None, None)


def test_a_server_before_another_sends_the_key_of_a_file(plan, tmp_path):
    (tmp_path / "far.key").write_text("sk-far\n")
    models = of_json({"data": [{"id": "m"}]})
    with serving(models) as server:
        key = ("--remote-key-file", str(tmp_path / "far.key"))
        asyncio.run(plan(f"{server.url}#m", *key)["pool"].load("m"))
    assert server.seen[0].headers["authorization"] == "Bearer sk-far"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["a", "b", "--name", "x"], UsageError, "once for each model"),
        (["a", "--name", "bad name"], UsageError, "cannot be a model's name"),
        (["a", "a"], ConfigError, "already"),
        (["a", "--memory", "lots"], UsageError, "write 8G"),
        (["a", "--alias", "x"], UsageError, "NAME=VALUE"),
        (["a", "--alias", "x=b"], UsageError, "no model 'b'"),
        (["a", "b", "--alias", "a=b"], UsageError, "'a' is a model"),
        (["a", "b", "--adapter", "x=y"], UsageError, "name its model"),
        (["a", "--adapter", "c:x=y"], UsageError, "no model 'c'"),
        (["a", "--port", "70000"], ConfigError, "port"),
        (["a", "--set", "limits.nonsense=1"], ConfigError, "nonsense"),
        (["a", "--engine", "precision=int3"], ConfigError, "precision"),
    ],
)
def test_wrong_arguments(plan, arguments, error, words):
    with pytest.raises(error, match=words):
        serve.main(arguments)


def test_adapters_belong_to_models():
    texts = ["a:x=one", "a:y=two", "b:x=three"]
    assert serve._adapters(texts, ["a", "b"]) == {
        "a": [("x", "one"), ("y", "two")],
        "b": [("x", "three")],
    }
    assert serve._adapters(["x=one"], ["a"]) == {"a": [("x", "one")]}


@pytest.mark.integration
def test_a_server_from_start_to_end():
    command = [sys.executable, "-m", "openllm", "serve", "echo", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = next(m for line in process.stderr if (m := re.search(r"(http://\S+)/v1", line)))
            body = {"prompt": "abc"}
            answer = httpx.post(f"{found[1]}/v1/completions", json=body).json()
            assert answer["choices"][0]["text"] == "abc"
        finally:
            process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 0
    assert "Traceback" not in rest


@pytest.mark.integration
@pytest.mark.parametrize("source", ["no/such/folder", "http://127.0.0.1:9/v1"])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(source):
    command = [sys.executable, "-m", "openllm", "serve", source, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
