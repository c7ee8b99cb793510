# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The file of API keys: private, hashed, changed by one command at a time."""

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from openllm.core.errors import ConfigError
from openllm.serve.operations.keys import PREFIX, KeyFile, KeyRing, digest, find, new_secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "keys.json"


def test_the_secret_is_random_and_kept_nowhere(path: Path) -> None:
    key, secret = KeyFile(path).add("alice")
    other = KeyFile(path).add("bob")[1]
    assert secret.startswith(PREFIX) and len(secret) == len(PREFIX) + 43 and secret != other
    assert secret not in path.read_text() and key.sha256 == digest(secret)
    assert find(KeyFile(path).read(), secret) == key
    assert find(KeyFile(path).read(), secret + "x") is None
    assert len({new_secret()[0] for _ in range(1000)}) == 1000


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    old = os.umask(0)
    try:
        KeyFile(path).add("alice")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620, 0o666):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            KeyFile(path).read()


def test_revoke_and_rotate(path: Path) -> None:
    file = KeyFile(path)
    first, old = file.add("alice", scopes=("admin",), tokens_per_day=5)
    rotated, new = file.rotate("alice")
    assert find(file.read(), old) is None and find(file.read(), new) == rotated
    assert rotated.id == first.id and rotated.tokens_per_day == 5
    file.revoke(first.id)
    key = find(file.read(), new)
    assert key is not None and key.problem(datetime.now(UTC)) == "revoked"
    with pytest.raises(ConfigError, match="is revoked"):
        file.rotate("alice")
    with pytest.raises(ConfigError, match="its keys: alice"):
        file.revoke("nobody")


def test_a_key_expires(path: Path) -> None:
    now = datetime.now(UTC)
    key, _ = KeyFile(path).add("alice", expires=now + timedelta(hours=1))
    assert key.problem(now) is None
    assert key.problem(now + timedelta(hours=1)) == "expired"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("", {}),
        ("a b", {}),
        ("x" * 65, {}),
        ("-a", {}),
        ("a\n", {}),
        ("ok", {"scopes": ()}),
        ("ok", {"scopes": ("root",)}),
        ("ok", {"tokens_per_day": 0}),
        ("ok", {"expires": "tomorrow"}),
    ],
)
def test_invalid_keys_are_refused(path: Path, name: str, settings: dict) -> None:
    with pytest.raises(ConfigError):
        KeyFile(path).add(name, **settings)
    assert not path.exists()


def test_names_are_unique(path: Path) -> None:
    KeyFile(path).add("alice")
    with pytest.raises(ConfigError, match="keys rotate alice"):
        KeyFile(path).add("alice")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "{}", '{"keys": {}}', '{"keys": [1]}', '{"keys": [{}]}', "\xff"],
)
def test_a_damaged_file_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"keys"):
        KeyFile(path).read()


def test_two_entries_of_one_secret_are_refused(path: Path) -> None:
    KeyFile(path).add("alice")
    values = json.loads(path.read_text())
    values["keys"].append({**values["keys"][0], "name": "bob", "id": "00000000"})
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="same sha256"):
        KeyFile(path).read()


def test_commands_at_the_same_time_lose_nothing(path: Path) -> None:
    names = [f"key{index}" for index in range(16)]
    threads = [threading.Thread(target=KeyFile(path).add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in KeyFile(path).read()} == set(names)
    assert sorted(file.name for file in path.parent.iterdir()) == [".keys.json.lock", "keys.json"]


def test_a_ring_follows_the_file_and_survives_its_damage(path: Path) -> None:
    file = KeyFile(path)
    _, alice = file.add("alice")
    ring = KeyRing(path)
    _, bob = file.add("bob")
    assert ring.find(bob) is not None and ring.find(alice) is not None
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    assert ring.find(bob) is not None and "not valid JSON" in str(ring.problem)
    path.write_text(good)
    file.revoke("bob")
    found = ring.find(bob)
    assert found is not None and found.revoked is not None and ring.problem is None
    path.unlink()
    assert ring.find(alice) is not None and "does not exist" in str(ring.problem)


def test_models_of_a_key(path: Path) -> None:
    key, _ = KeyFile(path).add("alice", models=("small", "me/large"))
    assert key.allows_model("small") and key.allows_model("me/large")
    assert not key.allows_model("Small") and not key.allows_model("large")
    assert KeyFile(path).add("bob")[0].allows_model("anything")
