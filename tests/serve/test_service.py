# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which model a request means, and errors as clients see them."""

import asyncio

import pytest
from tests.serve.live import AdapterEngine, backend_of

from openllm.core.errors import (
    BusyError,
    ConfigError,
    DataError,
    EngineError,
    RefusedError,
    RemoteError,
    TemplateError,
)
from openllm.engine.backends.echo import echo_backend
from openllm.engine.backends.pool import ModelPool
from openllm.serve.errors import ApiError, as_api_error, error_event
from openllm.serve.service import Choice, FixedModels, Service
from openllm.text.byte_tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def service():
    adapted = backend_of(AdapterEngine(ByteTokenizer()), "a", adapters=("loud",))
    models = {"a": adapted, "b:8b": echo_backend("b:8b")}
    return Service(FixedModels(models), {"alias": "a", "other:x": "b:8b"})


def test_names_aliases_and_adapters(service):
    assert service.choose("a") == Choice("a", "a")
    assert service.choose("alias") == Choice("alias", "a")
    assert service.choose("b:8b") == Choice("b:8b", "b:8b")
    assert service.choose("other:x") == Choice("other:x", "b:8b")
    assert service.choose("a:loud") == Choice("a:loud", "a", "loud")
    assert service.choose("alias:loud") == Choice("alias:loud", "a", "loud")


@pytest.mark.parametrize(
    "label", ["", ":", "a:", "c", "a:quiet", "b:8b:loud", "A", " a", "a:loud:x"]
)
def test_unknown_models(service, label):
    with pytest.raises(ApiError) as caught:
        service.choose(label)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_no_name(service):
    with pytest.raises(ApiError) as caught:
        service.choose(None)
    assert caught.value.status == 400
    assert Service(FixedModels({"x": echo_backend()})).choose(None) == Choice("x", "x")


def test_models_of_a_pool_load_when_they_are_used():
    class Loader:
        def num_bytes(self, source):
            return 0

        def load(self, name, source):
            return echo_backend(name)

    async def run():
        pool = ModelPool(Loader())
        pool.add("x", "echo")
        service = Service(pool)
        assert service.adapters("x") == ()
        choice = service.choose(None)
        assert pool.loaded() == {}
        async with service.lease(choice) as backend:
            assert backend.info.name == "x"
        assert list(pool.loaded()) == ["x"]
        await service.close()

    asyncio.run(run())


SECRET = "/etc/secret"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("give less"), 400, True),
        (TemplateError("roles must alternate"), 400, True),
        (EngineError(SECRET), 500, False),
        (BusyError(SECRET, retry_after=2.5), 503, False),
        (RemoteError(SECRET), 503, False),
        (RemoteError(SECRET, status=401), 503, False),
        (RemoteError(SECRET, status=429, retry_after=7), 429, False),
        (RefusedError(SECRET, status=400, reason="the prompt is too long"), 400, False),
        (DataError(SECRET), 500, False),
        (RuntimeError(SECRET), 500, False),
        (KeyError(SECRET), 500, False),
    ],
)
def test_what_clients_are_told(error, status, told, capsys):
    found = as_api_error(error)
    assert found.status == status
    assert (str(error) in found.message) == told
    assert SECRET not in error_event(error).decode()
    assert ("Retry-After" in found.headers) == (status in (429, 503))


def test_a_refusal_of_another_server_is_told_without_its_address_and_not_logged(capsys):
    """It may repeat a part of the prompt."""
    error = RefusedError("http://10.0.0.7/v1 refuses: too long", status=400, reason="too long")
    assert as_api_error(error).message == "too long"
    assert capsys.readouterr().err == ""


def test_retry_after_is_in_whole_seconds():
    assert as_api_error(BusyError("x", retry_after=2.5)).headers["Retry-After"] == "3"
    assert as_api_error(RemoteError("x", status=429)).headers["Retry-After"] == "1"
