# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The attempts of benchmarks/auth_bypass.py, byte by byte against a live server."""

from collections.abc import Iterator

import pytest
from benchmarks.auth_bypass import (
    ALLOWED,
    ATTEMPTS,
    TARGET,
    Attempt,
    Keys,
    attempt,
    http,
    opened,
    server,
    statuses,
)

from openllm.serve.operations.keys import KeyFile

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Keys, str]]:
    folder = tmp_path_factory.mktemp("keyed")
    with server(folder) as (port, keys):
        yield port, keys, KeyFile(folder / "keys.json").add("right", scopes=("models",))[1]


@pytest.mark.parametrize("one", ATTEMPTS, ids=lambda one: ascii(f"{one.group} {one.what}"))
def test_no_attempt_opens_anything(live: tuple[int, Keys, str], one: Attempt) -> None:
    port, keys, _ = live
    reply = attempt(port, one.bytes_of(keys))
    assert not opened(reply) and set(statuses(reply)) <= set(ALLOWED)
    assert b"Traceback" not in reply and keys.narrow.encode() not in reply
    assert statuses(attempt(port, http("/health", "Connection: close"))) == [200]


def test_the_right_key_opens_it(live: tuple[int, Keys, str]) -> None:
    """Else the attempts above would prove nothing."""
    port, _, secret = live
    reply = attempt(port, http(TARGET, f"Authorization: Bearer {secret}"))
    assert statuses(reply) == [200] and opened(reply)


def test_the_table_is_long_enough() -> None:
    assert len({(one.group, one.what) for one in ATTEMPTS}) == len(ATTEMPTS) >= 150
