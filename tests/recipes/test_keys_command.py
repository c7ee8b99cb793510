# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm keys`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from openllm.cli.main import main
from openllm.core.errors import ConfigError
from openllm.recipes.keys import default_file, expiry
from openllm.serve.operations.keys import KeyFile, find
from openllm.serve.operations.usage import UsageBook

NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENLLM_KEYS", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


def test_a_key_from_its_beginning_to_its_end(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--scope", "generate", "--model", "small", "--tokens-per-day", "9"]
    assert main(["keys", "add", "alice", *arguments, "--expires", "30d"]) == 0
    captured = capsys.readouterr()
    first = captured.out.strip()
    key = find(KeyFile(path).read(), first)
    assert key is not None and (key.scopes, key.models) == (("generate",), ("small",))
    assert key.tokens_per_day == 9 and key.expires is not None
    assert first not in captured.err and "only time" in captured.err

    assert main(["keys", "rotate", "alice"]) == 0
    second = capsys.readouterr().out.strip()
    assert find(KeyFile(path).read(), first) is None
    book = UsageBook(f"{path}.usage")
    book.add(key.id, requests=3, tokens=1234)
    book.flush()

    assert main(["keys", "ls"]) == 0
    listed = capsys.readouterr().out
    assert "alice" in listed and "1,234 of 9" in listed and "valid" in listed
    assert main(["keys", "revoke", "alice"]) == 0
    capsys.readouterr()
    assert main(["keys", "ls", "--json"]) == 0
    out = capsys.readouterr().out
    (facts,) = json.loads(out)
    assert facts["state"] == "revoked" and facts["requests_today"] == 3
    for hidden in (first, second, "sha256"):
        assert hidden not in listed + out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "a b"], "'name'"),
        (["add", "alice"], "has a key 'alice'"),
        (["add", "bob", "--tokens-per-day", "0"], "tokens_per_day"),
        (["add", "bob", "--expires", "soon"], "--expires soon: write 90d"),
        (["revoke", "bob"], "its keys: alice"),
        (["rotate", "bob"], "its keys: alice"),
    ],
)
def test_mistakes_have_one_clear_error(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    main(["keys", "add", "alice"])
    capsys.readouterr()
    assert main(["keys", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_there_may_be_no_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "ls"]) == 2
    assert "make one with: openllm keys add" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("90d", NOW + timedelta(days=90)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
    ],
)
def test_when_a_key_expires(text: str, expected: datetime) -> None:
    assert expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "d", "-1d", "1y", "2027-01-30", "2027-02-30", "99999999d"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--expires"):
        expiry(text, NOW)


def test_the_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENLLM_KEYS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_file() == tmp_path / "openllm" / "keys.json"
