# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Attempts to reach a server's models without the right key, byte by byte, and what came of them.

    python benchmarks/auth_bypass.py      writes benchmarks/results/auth_bypass.md

The attempts are also a test (tests/serve/test_auth_bypass.py). Each wants the list of models, or
what is below `/admin`, of a live `openllm serve echo`; none may get it, and the server must go on.
"""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from openllm.serve.operations.keys import KeyFile

RESULT = Path(__file__).resolve().parent / "results" / "auth_bypass.md"

INSIDE = (
    b'"object":"list"',
    b'"loaded"',
    b'"models":',
    b"max_model_len",
    b"openllm_requests_total",
)
"""In what only holders of a key may see."""

ALLOWED = (200, 400, 401, 403, 404, 405, 408, 421, 431)
"""Statuses that a refusal may have; 200 is of an open page."""

QUIET_S = 0.3
TARGET = "/v1/models"


@dataclass(frozen=True)
class Keys:
    """Secrets: valid for generating only, expired, revoked."""

    narrow: str
    expired: str
    revoked: str


@dataclass(frozen=True)
class Attempt:
    """Something that somebody may try; `bytes_of` makes what is sent."""

    group: str
    what: str
    bytes_of: Callable[[Keys], bytes]


def http(path: str, *lines: str, method: str = "GET", after: str = "") -> bytes:
    """A request as bytes."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", *lines]
    return ("\r\n".join(head) + "\r\n\r\n" + after).encode("latin-1")


def _headers() -> Iterator[Attempt]:
    """A key of the wrong scope stands in for a right one: it must not open `/v1/models`."""
    lines = {
        "no header": "X: y",
        "empty": "Authorization:",
        "bearer without a key": "Authorization: Bearer",
        "blank key": "Authorization: Bearer  ",
        "basic": "Authorization: Basic {key}",
        "token": "Authorization: Token {key}",
        "key without a scheme": "Authorization: {key}",
        "quoted": 'Authorization: Bearer "{key}"',
        "tab for a blank": "Authorization: Bearer\t{key}",
        "two blanks": "Authorization: Bearer  {key}",
        "list of keys": "Authorization: Bearer {key}, Bearer {key}",
        "null byte": "Authorization: Bearer {key}\x00",
        "null byte within": "Authorization: Bearer ollm_\x00{key}",
        "vertical tab": "Authorization: Bearer {key}\x0b",
        "latin letter": "Authorization: Bearer {key}\xe9",
        "wildcard": "Authorization: Bearer *",
        "null": "Authorization: Bearer null",
        "SQL": "Authorization: Bearer ' OR '1'='1",
        "JSON": 'Authorization: Bearer {{"$gt": ""}}',
        "path": "Authorization: Bearer ../../etc/passwd",
        "template": "Authorization: Bearer ${{jndi:ldap://x}}",
        "very long": "Authorization: Bearer " + "A" * 20_000,
        "too long for a header": "Authorization: Bearer " + "A" * 100_000,
        "hash instead of the key": "Authorization: Bearer " + "0" * 64,
        "two headers": "Authorization: Bearer x\r\nAuthorization: Bearer {key}",
        "the same header twice": "Authorization: Bearer {key}\r\nAuthorization: Bearer {key}",
        "both headers": "Authorization: Bearer {key}\r\nX-API-Key: {key}",
        "empty X-API-Key": "X-API-Key:",
        "bearer in X-API-Key": "X-API-Key: Bearer {key}",
        "upper case": "AUTHORIZATION: BEARER {key}",
        "underscores": "X_API_Key: {key}",
        "blank before the colon": "Authorization : Bearer {key}",
        "folded line": "X: y\r\n Authorization: Bearer {key}",
        "bare line feed": "X: y\nAuthorization: Bearer {key}",
        "proxy's header": "Proxy-Authorization: Bearer {key}",
        "forwarded header": "X-Forwarded-Authorization: Bearer {key}",
        "cookie": "Cookie: api_key={key}; Authorization=Bearer {key}",
        "hop by hop": "Connection: authorization\r\nAuthorization: Bearer {key}",
        "forwarded address": "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1",
        "forwarded user": "X-Remote-User: admin\r\nX-Forwarded-User: admin",
        "original path": "X-Original-URL: /health\r\nX-Rewrite-URL: /health",
        "forwarded prefix": "X-Forwarded-Prefix: /health",
        "method override": "X-HTTP-Method-Override: OPTIONS\r\nX-Method-Override: HEAD",
        "other origin": "Origin: https://evil.example",
        "preflight": "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET",
        "upgrade to a websocket": "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
        "upgrade to HTTP/2": "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "many headers": "\r\n".join(f"h{i}: {'x' * 100}" for i in range(1000)),
        "expired key": "Authorization: Bearer {expired}",
        "revoked key": "Authorization: Bearer {revoked}",
        "key of another scope": "Authorization: Bearer {key}",
        "X-API-Key of another scope": "X-API-Key: {key}",
    }
    for what, line in lines.items():

        def make(keys: Keys, line: str = line) -> bytes:
            text = line.format(key=keys.narrow, expired=keys.expired, revoked=keys.revoked)
            return http(TARGET, text)

        yield Attempt("header", what, make)


def _targets() -> Iterator[Attempt]:
    paths = [
        "//v1/models",
        "///v1/models",
        "/v1//models",
        "/v1/models/",
        "/v1/models//",
        "/v1/./models",
        "/v1/../v1/models",
        "/health/../v1/models",
        "/health/%2e%2e/v1/models",
        "/health/..%2fv1/models",
        "/health/..%5cv1/models",
        "/health/..;/v1/models",
        "/page/../v1/models",
        "/page/%2e%2e/admin/models",
        "/page/..%2f..%2fadmin/models",
        "/ready/../metrics",
        "/openapi.json/../metrics",
        "/health;/v1/models",
        "/v1/models;x=/health",
        "/health?/v1/models",
        "/health#/v1/models",
        "/v1/models?x=/health",
        "/v1/models#/health",
        "/v1%2fmodels",
        "/v1%252fmodels",
        "/%76%31/models",
        "/%2576%2531/models",
        "/v1/models%00",
        "/v1/models%00/health",
        "/v1/models%0a",
        "/v1/models%20",
        "/v1/models%09",
        "/v1/models%zz",
        "/v1%c0%afmodels",
        "/v1%e2%88%95models",
        "/V1/MODELS",
        "/v1\\models",
        "/metrics/",
        "/metrics%2f",
        "/admin",
        "/admin/",
        "/admin/models",
        "/Admin/models",
        "/./admin/models",
        "/%61dmin/models",
        "/admin%2fmodels",
        "/v1/models/../../admin/models",
        "/v1/models/..%2f..%2fadmin%2fmodels",
        "http://localhost/v1/models",
        "http://evil.example/v1/models",
        "http://localhost:1/health/../v1/models",
        "*",
        "/v1/models%0d%0aAuthorization:%20Bearer%20x",
    ]
    for path in paths:

        def make(keys: Keys, path: str = path) -> bytes:
            return http(path)

        yield Attempt("path", path, make)
    for name in ("api_key", "key", "access_token", "token", "authorization"):

        def in_query(keys: Keys, name: str = name) -> bytes:
            return http(f"{TARGET}?{name}={keys.narrow}&{name}=Bearer%20{keys.narrow}")

        yield Attempt("path", f"key as {name} in the query", in_query)


def _methods() -> Iterator[Attempt]:
    for method in ("HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "get", "BREW"):

        def make(keys: Keys, method: str = method) -> bytes:
            return http(TARGET, method=method)

        yield Attempt("method", f"{method} {TARGET}", make)
    for path in ("/admin/drain", "/admin/models/load", "/admin/adapters/load"):

        def post(keys: Keys, path: str = path) -> bytes:
            own = f"Authorization: Bearer {keys.narrow}"
            return http(path, own, "Content-Length: 2", method="POST", after="{}")

        yield Attempt("method", f"POST {path} with a key of another scope", post)


def _framing() -> Iterator[Attempt]:
    hidden = f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    chunked, ending = "Transfer-Encoding: chunked", "0\r\n\r\n" + hidden
    shapes = {
        "length, then chunks": http(
            "/health", "Content-Length: 4", chunked, method="POST", after=ending
        ),
        "chunks, then length": http(
            "/health", chunked, "Content-Length: 4", method="POST", after=ending
        ),
        "two lengths": http(
            "/health", "Content-Length: 0", "Content-Length: 60", method="POST", after=hidden
        ),
        "list of lengths": http("/health", "Content-Length: 0, 60", method="POST", after=hidden),
        "signed length": http("/health", "Content-Length: +0", method="POST", after=hidden),
        "hexadecimal length": http("/health", "Content-Length: 0x0", method="POST", after=hidden),
        "length with a blank": http("/health", "Content-Length : 0", method="POST", after=hidden),
        "length in a GET": http("/health", f"Content-Length: {len(hidden)}", after=hidden),
        "unknown encoding": http(
            "/health", "Transfer-Encoding: xchunked", method="POST", after=ending
        ),
        "two encodings": http(
            "/health", "Transfer-Encoding: chunked, identity", method="POST", after=ending
        ),
        "encoding after a tab": http(
            "/health", "Transfer-Encoding:\tchunked", method="POST", after=ending
        ),
        "chunk of a huge size": http("/health", chunked, method="POST", after="f" * 24 + "\r\n"),
        "chunk with an extension": http(
            "/health", chunked, method="POST", after="0;" + "x" * 9000 + "\r\n\r\n" + hidden
        ),
        "header in a trailer": http(
            TARGET, chunked, method="POST", after="0\r\nAuthorization: Bearer x\r\n\r\n"
        ),
        "pipelined after an open page": http("/health", after=hidden),
        "bare line feeds": hidden.replace("\r\n", "\n").encode(),
        "bare carriage returns": hidden.replace("\r\n", "\r").encode(),
        "null byte in a header": http(TARGET, "X: a\x00b"),
        "blank in the target": http("/health /v1/models"),
        "tab in the target": http("/health\t/v1/models"),
        "two hosts": http(TARGET, "Host: evil.example"),
        "no host": f"GET {TARGET} HTTP/1.1\r\n\r\n".encode(),
        "HTTP/1.0": f"GET {TARGET} HTTP/1.0\r\n\r\n".encode(),
        "HTTP/0.9": f"GET {TARGET}\r\n".encode(),
        "HTTP/9.9": f"GET {TARGET} HTTP/9.9\r\n\r\n".encode(),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "long target": http("/" + "v" * 100_000),
        "all bytes": bytes(range(256)) * 8,
    }
    for what, data in shapes.items():

        def make(keys: Keys, data: bytes = data) -> bytes:
            return data

        yield Attempt("framing", what, make)


ATTEMPTS = (*_headers(), *_targets(), *_methods(), *_framing())


def make_keys(path: Path) -> Keys:
    """The file of keys that the server reads."""
    file = KeyFile(path)
    narrow = file.add("narrow", scopes=("generate",))[1]
    past = datetime.now(UTC) - timedelta(days=1)
    expired = file.add("expired", expires=past)[1]
    revoked = file.add("revoked")[1]
    file.revoke("revoked")
    return Keys(narrow, expired, revoked)


def attempt(port: int, data: bytes) -> bytes:
    """Send bytes; returns what comes back until the server closes or says nothing for a while."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        try:
            sock.sendall(data)
            while part := sock.recv(65536):
                found += part
                sock.settimeout(QUIET_S)
        except OSError:  # closed, or silent
            pass
    return found


def statuses(reply: bytes) -> list[int]:
    """Of all answers in what came back."""
    lines = reply.replace(b"}HTTP/1.1", b"}\r\nHTTP/1.1").split(b"\r\n")
    return [int(line.split()[1]) for line in lines if line.startswith(b"HTTP/1.1 ")]


def opened(reply: bytes) -> bool:
    """Whether it holds what only holders of a key may see."""
    return any(word in reply for word in INSIDE)


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, Keys]]:
    """A live `openllm serve echo` that asks for keys, with short timeouts."""
    keys = make_keys(folder / "keys.json")
    settings = ["keep_alive_s=1", "header_timeout_s=1", "body_timeout_s=1"]
    command = [sys.executable, "-m", "openllm", "serve", "echo", "--port", "0", "--access-log"]
    command += ["off", "--api-key-file", str(folder / "keys.json")]
    command += [word for one in settings for word in ("--set", f"limits.{one}")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("serving "):
                yield int(line.rsplit(":", 1)[1].split("/")[0]), keys
                break
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Make all attempts and write the table; returns 1 if one succeeded."""
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (port, keys):
        for one in ATTEMPTS:
            reply = attempt(port, one.bytes_of(keys))
            found = statuses(reply)
            held = not opened(reply) and set(found) <= set(ALLOWED)
            alive = statuses(attempt(port, http("/health", "Connection: close"))) == [200]
            bad += not (held and alive)
            shown = ", ".join(map(str, found)) or "closed"
            what = one.what.replace("|", "\\|")
            rows.append(f"| {one.group} | `{what}` | {shown} | {'yes' if held else 'NO'} |")
    text = (
        "# Attempts to get in without the right key\n\n"
        "Written by `python benchmarks/auth_bypass.py` against a live `openllm serve echo`.\n"
        "200 is the answer of an open page, such as `/health`; nothing that needs a key was in\n"
        "any answer.\n\n"
        f"{len(rows)} attempts, {bad} of them successful.\n\n"
        "| by | attempt | answers | held |\n|---|---|---|---|\n"
    )
    RESULT.write_text(text + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} attempts, {bad} of them successful")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
