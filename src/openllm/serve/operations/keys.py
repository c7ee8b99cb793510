# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""API keys: made once, shown once, kept as hashes in a file that only its owner can read."""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from openllm.core.config import Config
from openllm.core.errors import ConfigError
from openllm.core.files import FORMAT_VERSION, locked, read_json, storage_errors, sync_folder

Scope = Literal["generate", "embed", "models", "metrics", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[str, ...] = ("generate", "embed", "models")

PREFIX = "ollm_"
"""Begins every key, so that people and scanners know one when they see it."""

SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{8,}}")

MEND = "make one with: openllm keys add NAME --file FILE"


class Key(Config):
    """A key without its secret.

    `sha256` is of the whole key: as its 256 random bits cannot be guessed, no slow hash is needed.
    """

    id: str = Field(pattern=r"^[0-9a-f]{8}$", description="public: in lists and logs")
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    models: tuple[str, ...] | None = Field(None, description="that it may use; none: all")
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    requests_per_day: int | None = Field(None, ge=1)
    tokens_per_day: int | None = Field(None, ge=1)

    def problem(self, now: datetime) -> Literal["expired", "revoked"] | None:
        """Why it may not be used, if so."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else None

    def allows_model(self, name: str) -> bool:
        """Whether it may use a model and its adapters."""
        return self.models is None or name in self.models


def new_secret() -> tuple[str, str]:
    """A key and its hash."""
    secret = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    return secret, digest(secret)


def digest(secret: str) -> str:
    """SHA-256 of a key, as hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def find(keys: Sequence[Key], secret: str) -> Key | None:
    """The key that a client sent; looks at all keys, in a time that tells nothing about them."""
    wanted, found = digest(secret), None
    for key in keys:
        if hmac.compare_digest(key.sha256, wanted):
            found = key
    return found


class KeyFile:
    """Reads and changes the file; two commands that change it do so one after the other."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def read(self) -> tuple[Key, ...]:
        """All keys, revoked and expired ones included.

        Raises:
            ConfigError: it is missing, damaged, or others may read it.
        """
        values = read_json(self.path, ConfigError, MEND)
        if mode := self.path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{self.path} may be read or changed by others (mode ..{mode:02o}); close it with: "
                f"chmod 600 {self.path}"
            )
        entries = values.get("keys")
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ConfigError(f"{self.path} has no list of 'keys'; {MEND}")
        keys = tuple(Key.parse(one, f"{self.path}: keys.{i}") for i, one in enumerate(entries))
        for what in ("id", "name", "sha256"):
            if len({getattr(key, what) for key in keys}) < len(keys):
                raise ConfigError(f"{self.path}: two keys have the same {what}; remove one of them")
        return keys

    def add(self, name: str, **settings: Any) -> tuple[Key, str]:
        """Make a key; returns it and its secret, which is kept nowhere.

        Raises:
            ConfigError: the name is taken, or a setting is invalid.
        """
        secret, sha256 = new_secret()
        values = {
            "id": secrets.token_hex(4),
            "name": name,
            "sha256": sha256,
            "created": datetime.now(UTC).replace(microsecond=0),
            "scopes": DEFAULT_SCOPES,
            **settings,
        }
        key = Key.parse(values, f"key '{name}'")
        with self._change() as keys:
            if any(other.name == name for other in keys):
                raise ConfigError(
                    f"{self.path} has a key '{name}'; choose another name, or give it a new "
                    f"secret with: openllm keys rotate {name}"
                )
            keys.append(key)
        return key, secret

    def revoke(self, name: str) -> Key:
        """End a key at once; it stays in the file, so that its name and use are remembered.

        Raises:
            ConfigError: there is no such key.
        """
        return self._replace(name, revoked=datetime.now(UTC).replace(microsecond=0))

    def rotate(self, name: str) -> tuple[Key, str]:
        """Give a key a new secret; the old one ends at once.

        Raises:
            ConfigError: there is no such key, or it is revoked.
        """
        secret, sha256 = new_secret()
        if any(key.revoked for key in self.read() if name in (key.name, key.id)):
            raise ConfigError(f"the key '{name}' is revoked; add another one")
        return self._replace(name, sha256=sha256), secret

    def _replace(self, name: str, **changes: Any) -> Key:
        with self._change() as keys:
            for index, key in enumerate(keys):
                if name in (key.name, key.id):
                    keys[index] = key.model_copy(update=changes)
                    return keys[index]
            names = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"{self.path} has no key '{name}'; its keys: {names}")

    def _change(self) -> "_Change":
        return _Change(self)


class _Change:
    """The keys under the file's lock; what is left in the list is written, unless it failed."""

    def __init__(self, file: KeyFile) -> None:
        self.file = file
        lock = file.path.with_name(f".{file.path.name}.lock")
        self._lock = locked(lock, "waiting for another command that changes keys")
        self._keys: list[Key] = []

    def __enter__(self) -> list[Key]:
        self._lock.__enter__()
        try:
            self._keys = list(self.file.read()) if self.file.path.exists() else []
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self._keys

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                dumped = [key.model_dump(mode="json", exclude_none=True) for key in self._keys]
                write_private(self.file.path, {"keys": dumped})
        finally:
            self._lock.__exit__(None, None, None)


def write_private(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that only its owner can read, from its first byte on.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, **value}, indent=1) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def usage_file(keys: Path | str) -> Path:
    """Where the daily use of the keys of a file is kept."""
    path = Path(keys)
    return path.with_name(f"{path.name}.usage")


class KeyRing:
    """The keys of a running server; follows changes of the file."""

    def __init__(self, path: Path | str) -> None:
        self.file = KeyFile(path)
        self._seen = self._stamp()
        self.keys = self.file.read()
        self.problem: str | None = None

    def find(self, secret: str) -> Key | None:
        """The key that a client sent, valid or not; none if there is no such key."""
        self._follow()
        return find(self.keys, secret)

    def _follow(self) -> None:
        """Read the file again if it has changed; what cannot be read leaves the keys as they are.

        A slip of the editor must not lock everybody out; `problem` says what is wrong.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.keys, self.problem = self.file.read(), None
        except (ConfigError, OSError) as error:
            self.problem = str(error)

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self.file.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
