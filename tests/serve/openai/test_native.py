# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The plain API, and the list of models."""

import json

import pytest
from tests.serve.live import AdapterEngine, backend_of, client_of, echo_app, error_of

from openllm import __version__
from openllm.text.byte_tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def client():
    backend = backend_of(
        AdapterEngine(ByteTokenizer()), "m", adapters=("loud",), num_bytes=5, precision="bf16"
    )
    with client_of(echo_app({"m": backend}, {"org/alias": "m"})) as client:
        yield client


def test_generate(client):
    answer = client.post("/generate", json={"prompt": "hé", "max_new_tokens": 5}).json()
    assert answer == {
        "model": "m",
        "text": "hé",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "new_tokens": 3,
        "cached_tokens": 0,
    }
    cut = client.post("/generate", json={"prompt": [65, 66], "max_new_tokens": 1}).json()
    assert (cut["text"], cut["finish_reason"]) == ("A", "length")


def test_generate_stream(client):
    response = client.post("/generate/stream", json={"prompt": "hé", "model": "m:loud"})
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    *texts, last = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(one["text"] for one in texts) == "HÉ"
    assert (last["model"], last["finish_reason"], last["new_tokens"]) == ("m:loud", "stop", 3)


def test_what_is_refused(client):
    assert error_of(client.post("/generate", json={}))["code"] == "missing_field"
    for path in ("/generate", "/generate/stream"):
        response = client.post(path, json={"prompt": "a" * 5000})
        assert error_of(response)["code"] == "context_length_exceeded"
        assert error_of(client.post(path, json={"prompt": "a", "top_p": 0}))["param"] == "top_p"
        assert error_of(client.post(path, json={"prompt": "a", "model": "x"}), 404)


def test_info_and_health(client):
    assert client.get("/health").json() == {"status": "ok"}
    info = client.get("/info").json()
    assert info["version"] == __version__
    (model,) = info["models"]
    assert model == {
        "name": "m",
        "loaded": True,
        "kind": "echo",
        "max_positions": 4096,
        "precision": "bf16",
        "parameters": None,
        "num_bytes": 5,
        "adapters": ["loud"],
    }


def test_models(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [(one["id"], one["parent"]) for one in listed["data"]] == [("m", None), ("m:loud", "m")]
    for name, parent in (("m", None), ("m:loud", "m"), ("org/alias", None)):
        one = client.get(f"/v1/models/{name}").json()
        assert (one["id"], one["parent"], one["max_model_len"]) == (name, parent, 4096)
    error = error_of(client.get("/v1/models/other"), 404)
    assert error["code"] == "model_not_found"


def test_paths_and_methods_that_are_not_there(client):
    assert error_of(client.get("/v1/nothing"), 404)["code"] == "not_found"
    for method, path, allowed in (
        ("GET", "/generate", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
    ):
        response = client.request(method, path)
        assert error_of(response, 405)["code"] == "method_not_allowed"
        assert response.headers["allow"] == allowed
    for path in ("/docs", "/redoc", "/v1/models/", "/v1//models", "/V1/models"):
        assert client.get(path).status_code == 404
