# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Models that cannot be had: clients are told so, and nothing of why."""

import asyncio

import pytest

from openllm.core.errors import BusyError, CheckpointError, ConfigError, OpenLLMError
from openllm.engine.backend import Backend
from openllm.engine.backends.echo import echo_backend
from openllm.engine.backends.pool import ModelPool
from openllm.serve.errors import ApiError, as_api_error
from openllm.serve.operations.watched import WatchedModels

SECRET = "/secret/place of http://10.0.0.7"


class Loader:
    """Fails with an error, if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def num_bytes(self, source: str) -> int:
        return 1

    def load(self, name: str, source: str) -> Backend:
        if self.error is not None:
            raise self.error
        return echo_backend(name)


async def refusal(pool: ModelPool, name: str = "m") -> ApiError:
    """What a client is told."""
    with pytest.raises((ApiError, OpenLLMError)) as caught:
        async with WatchedModels(pool).lease(name):
            pass
    return as_api_error(caught.value)


@pytest.mark.parametrize(
    "error", [ConfigError(SECRET), CheckpointError(SECRET), PermissionError(13, SECRET)]
)
def test_a_model_that_cannot_be_loaded(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if it is an error that, of a request, would be the client's fault and be told."""

    async def run() -> ApiError:
        pool = ModelPool(Loader(error))
        pool.add("m", "source")
        return await refusal(pool)

    found = asyncio.run(run())
    assert (found.status, found.code) == (503, "model_unavailable")
    assert int(found.headers["Retry-After"]) > 0 and "secret" not in found.message
    assert SECRET in capsys.readouterr().err


def test_a_model_without_room_now() -> None:
    async def run() -> ApiError:
        pool = ModelPool(Loader(BusyError("in use: other", retry_after=7)))
        pool.add("m", "source")
        return await refusal(pool)

    found = asyncio.run(run())
    assert (found.status, found.headers["Retry-After"]) == (503, "7")
    assert "other" not in found.message


def test_a_model_that_is_removed_in_this_moment() -> None:
    """Nor is told which others there are: the key may be for this one only."""

    async def run() -> ApiError:
        pool = ModelPool(Loader())
        pool.add("m", "source")
        pool.add("other", "source")
        async with pool.lease("m"):
            removing = asyncio.create_task(pool.remove("m"))
            await asyncio.sleep(0)
            assert pool.names() == ["other"]
            found = await refusal(pool)
        await removing
        return found

    found = asyncio.run(run())
    assert (found.status, found.code) == (404, "model_not_found")
    assert "other" not in found.message
