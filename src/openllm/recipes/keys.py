# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm keys add|ls|revoke|rotate`: the API keys of a server."""

import argparse
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.errors import ConfigError, UsageError
from openllm.core.log import say
from openllm.serve.operations.keys import DEFAULT_SCOPES, SCOPES, Key, KeyFile, usage_file
from openllm.serve.operations.usage import UsageBook, Use

UNITS = {"h": "hours", "d": "days", "w": "weeks"}

ONCE = "this is the only time that the key is shown; the file holds its hash"


def add_main(argv: list[str]) -> int:
    """Entry point of `openllm keys add`."""
    parser = _parser("add", "Make an API key and print it, once.")
    parser.add_argument("name", help="who or what uses it; shown in logs")
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        default=[],
        help=f"what it may do; may be repeated; without it: {', '.join(DEFAULT_SCOPES)}",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="a model that it may use; may be repeated; without it: all",
    )
    parser.add_argument("--expires", metavar="WHEN", help="90d, 12h, 4w or a date 2027-01-31 (UTC)")
    for what, period in (
        ("requests", "minute"),
        ("tokens", "minute"),
        ("requests", "day"),
        ("tokens", "day"),
    ):
        parser.add_argument(
            f"--{what}-per-{period}",
            type=int,
            metavar="N",
            help=f"{what} that it may use in a {period}",
        )
    args = parser.parse_args(argv)
    limits = {
        name: value
        for name, value in vars(args).items()
        if name.endswith(("_per_minute", "_per_day")) and value is not None
    }
    file = KeyFile(args.file or default_file())
    key, secret = file.add(
        args.name,
        scopes=tuple(dict.fromkeys(args.scope)) or DEFAULT_SCOPES,
        models=tuple(args.model) or None,
        expires=None if args.expires is None else expiry(args.expires, datetime.now(UTC)),
        **limits,
    )
    say(f"added {key.name} ({', '.join(key.scopes)}) to {file.path}; {ONCE}")
    sys.stdout.write(f"{secret}\n")
    return 0


def ls_main(argv: list[str]) -> int:
    """Entry point of `openllm keys ls`."""
    parser = _parser("ls", "List the API keys, without their secrets, and their use today.")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    file = KeyFile(args.file or default_file())
    book = UsageBook(usage_file(file.path))
    rows = [(key, book.of(key.id)) for key in file.read()]
    if args.json:
        sys.stdout.write(json.dumps([_facts(*row) for row in rows], indent=1) + "\n")
    elif not rows:
        say(f"no keys in {file.path}; make one: openllm keys add NAME")
    else:
        sys.stdout.write(_table([HEADER, *(_row(*row) for row in rows)]))
    return 0


def revoke_main(argv: list[str]) -> int:
    """Entry point of `openllm keys revoke`."""
    parser = _parser("revoke", "End an API key; running servers refuse it from now on.")
    parser.add_argument("name", help="name or id from 'openllm keys ls'")
    args = parser.parse_args(argv)
    key = KeyFile(args.file or default_file()).revoke(args.name)
    say(f"revoked {key.name}")
    return 0


def rotate_main(argv: list[str]) -> int:
    """Entry point of `openllm keys rotate`."""
    parser = _parser("rotate", "Give an API key a new secret and print it, once.")
    parser.add_argument("name", help="name or id from 'openllm keys ls'")
    args = parser.parse_args(argv)
    key, secret = KeyFile(args.file or default_file()).rotate(args.name)
    say(f"{key.name} has a new secret, and the old one is refused from now on; {ONCE}")
    sys.stdout.write(f"{secret}\n")
    return 0


def expiry(text: str, now: datetime) -> datetime:
    """`90d` or `2027-01-31` as a time; a date ends with its day.

    Raises:
        ConfigError: it is neither, or in the past.
    """
    if found := re.fullmatch(r"(\d{1,5})([hdw])", text):
        span = timedelta(**{UNITS[found[2]]: int(found[1])})
        return (now + span).replace(microsecond=0)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"--expires {text}: write 90d, 12h, 4w or a date like 2027-01-31"
        ) from None
    if day + timedelta(days=1) <= now:
        raise ConfigError(f"--expires {text} is in the past; choose a later date")
    return day + timedelta(days=1)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"openllm keys {command}",
        description=description,
        epilog="Without --file: $OPENLLM_KEYS, else ~/.config/openllm/keys.json.",
    )
    parser.add_argument("--file", help="file of the keys; 'keys add' makes it", type=_path)
    return parser


def _path(text: str) -> Path:
    if not text:
        raise UsageError("--file is empty; give the path of a file")
    return Path(text)


def default_file() -> Path:
    """Where keys are kept if nothing else is said."""
    if given := os.environ.get("OPENLLM_KEYS"):
        return Path(given)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "openllm" / "keys.json"


HEADER = ("name", "id", "scopes", "models", "state", "expires", "today: requests", "tokens")


def _row(key: Key, use: Use) -> tuple[str, ...]:
    return (
        key.name,
        key.id,
        ",".join(key.scopes),
        "all" if key.models is None else ",".join(key.models),
        key.problem(datetime.now(UTC)) or "valid",
        "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}",
        _of(use.requests, key.requests_per_day),
        _of(use.tokens, key.tokens_per_day),
    )


def _of(used: int, quota: int | None) -> str:
    return f"{used:,}" if quota is None else f"{used:,} of {quota:,}"


def _facts(key: Key, use: Use) -> dict[str, Any]:
    facts = key.model_dump(mode="json", exclude={"sha256"})
    state = key.problem(datetime.now(UTC)) or "valid"
    return {**facts, "state": state, "requests_today": use.requests, "tokens_today": use.tokens}


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines) + "\n"
