# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""No request reaches a closed path without a key of the right scope, however it is spelled."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import PlainTextResponse
from tests.serve.asgi import add_key, ask, bearer

from openllm.serve.operations.auth import MAX_CREDENTIAL, Authentication
from openllm.serve.operations.headers import Headers
from openllm.serve.operations.keys import SCOPES, KeyFile, KeyRing
from openllm.serve.operations.observe import Observation
from openllm.serve.operations.rules import RULES, rule_of

INSIDE = b"what only holders of a key may see"
CLOSED = [rule for rule in RULES if rule.scope is not None]


def closed_path(path: str) -> str:
    return path.replace("*", "x")


def tiny_app(ring: KeyRing | None, origins: tuple[str, ...] = ()) -> FastAPI:
    """Every ruled path, paths without a rule, a mounted application: all answer the same."""
    app = FastAPI(openapi_url=None)
    router = APIRouter()
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]

    async def inside() -> PlainTextResponse:
        return PlainTextResponse(INSIDE)

    names = [rule.path.replace("/*", "/{rest:path}") for rule in RULES]
    for path in [*names, "/forgotten", "/v1/forgotten", "/V1/models", "//v1/models"]:
        router.add_api_route(path, inside, methods=methods, include_in_schema=False)
    app.include_router(router)
    mounted = FastAPI(openapi_url=None)
    mounted.add_api_route("/{rest:path}", inside, methods=methods)
    app.mount("/mounted", mounted)
    app.mount("/v1/models/mounted", mounted)
    app.add_middleware(Authentication, ring=ring)
    app.add_middleware(Headers, origins=origins)
    app.add_middleware(Observation, observers=())
    return app


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def app(keys: Path) -> FastAPI:
    add_key(keys, "alice")
    return tiny_app(KeyRing(keys))


def status_of(app: FastAPI, method: str, path: str, **how: Any) -> int:
    reply = asyncio.run(ask(app, method, path, **how))
    assert reply.status is not None
    assert (reply.status == 200) == (INSIDE in reply.body) or method == "HEAD"
    return reply.status


@pytest.mark.parametrize("rule", CLOSED, ids=lambda rule: rule.path)
def test_every_closed_path_needs_a_key(app: FastAPI, rule: Any) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        assert status_of(app, method, closed_path(rule.path)) == 401


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_paths_only(keys: Path, scope: str) -> None:
    secret = add_key(keys, "alice", scopes=(scope,))
    app = tiny_app(KeyRing(keys))
    for rule in CLOSED:
        expected = 200 if rule.scope == scope else 403
        path = closed_path(rule.path)
        assert status_of(app, "POST", path, headers=[bearer(secret)]) == expected
        assert status_of(app, "GET", path, headers=[(b"x-api-key", secret.encode())]) == expected


def test_open_paths_need_none(app: FastAPI) -> None:
    for rule in RULES:
        if rule.scope is None:
            assert status_of(app, "GET", closed_path(rule.path)) == 200


def test_a_path_without_a_rule_is_closed_with_and_without_a_key(keys: Path) -> None:
    secret = add_key(keys, "root", scopes=SCOPES)
    app = tiny_app(KeyRing(keys))
    for path in ("/forgotten", "/v1/forgotten", "/mounted/x", "/mounted", "/V1/models"):
        assert status_of(app, "GET", path) == 401
        assert status_of(app, "GET", path, headers=[bearer(secret)]) == 404


PATHS = [
    "//v1/models",
    "///v1/models",
    "/v1//models",
    "/v1/models/",
    "/v1/models//",
    "/v1/../v1/models",
    "/v1/./models",
    "/health/../v1/models",
    "/page/../v1/models",
    "/page/../admin/models",
    "/health/",
    "/health/v1/models",
    "/health;/v1/models",
    "/v1/models;x=/health",
    "/v1/models?/health",
    "/v1/models#/health",
    "/v1%2fmodels",
    "/v1%2Fmodels",
    "/%76%31/models",
    "/v1/models%00",
    "/v1/models\x00",
    "/v1/models\x00/health",
    "/health\x00",
    "/v1/models ",
    " /v1/models",
    "/v1/models\t",
    "/V1/MODELS",
    "/v1/Models",
    "/HEALTH",
    "/v1\\models",
    "\\v1\\models",
    "/v1/models/mounted/x",
    "/mounted/v1/models",
    "/mounted/../v1/models",
    "/ready/../metrics",
    "/metrics/",
    "/metrics.json",
    "/docs/../admin/models",
    "/openapi.json/../admin/models",
    "/admin",
    "/admin/",
    "/Admin/models",
    "/admin/models",
    "/./admin/models",
    "/admin%2fmodels",
    "/ａdmin/models",
    "/v1/models\u202e",
    "/v1\u2215models",
    "http://localhost/v1/models",
    "*",
    "",
    "/.",
    "/..",
]


@pytest.mark.parametrize("path", PATHS, ids=ascii)
def test_spellings_of_paths_open_nothing(app: FastAPI, path: str) -> None:
    rule = rule_of(path)
    open_by_rule = rule is not None and rule.scope is None
    for method in ("GET", "POST"):
        if open_by_rule:  # then it is that page's own name, and reaches nothing else
            assert path.startswith("/page/")
            continue
        assert status_of(app, method, path) == 401


@pytest.mark.parametrize("path", ["/page/../v1/models", "/page/../admin/models"])
def test_names_below_the_page_stay_there(path: str) -> None:
    """The router sees the same path as the rules, so it takes them for a page, too."""
    app = FastAPI(openapi_url=None)

    @app.get("/page/{name:path}")
    async def page(name: str) -> PlainTextResponse:
        return PlainTextResponse(f"page {name}")

    @app.get("/v1/models")
    @app.get("/admin/models")
    async def inside() -> PlainTextResponse:
        return PlainTextResponse(INSIDE)

    reply = asyncio.run(ask(app, "GET", path))
    assert INSIDE not in reply.body


def bad_credentials(good: str) -> dict[str, list[tuple[bytes, bytes]]]:
    """Tricks with headers, given a key that would be let in."""
    key = good.encode()
    auth, other = b"authorization", b"x-api-key"
    return {
        "empty": [(auth, b"")],
        "bearer alone": [(auth, b"Bearer")],
        "empty bearer": [(auth, b"Bearer ")],
        "spaces": [(auth, b"Bearer    ")],
        "key alone": [(auth, key)],
        "basic": [(auth, b"Basic " + key)],
        "basic of bearer": [(auth, b"Basic QmVhcmVyOng=")],
        "token": [(auth, b"Token " + key)],
        "digest": [(auth, b"Digest " + key)],
        "two spaces": [(auth, b"Bearer  " + key)],
        "tab": [(auth, b"Bearer\t" + key)],
        "tab after": [(auth, b"Bearer " + key + b"\t")],
        "newline": [(auth, b"Bearer " + key + b"\n")],
        "null": [(auth, b"Bearer " + key + b"\x00")],
        "null first": [(auth, b"Bearer \x00" + key)],
        "null within": [(auth, b"Bearer " + key[:9] + b"\x00" + key[9:])],
        "cut": [(auth, b"Bearer " + key[:-1])],
        "longer": [(auth, b"Bearer " + key + b"A")],
        "upper case": [(auth, b"Bearer " + key.upper())],
        "no prefix": [(auth, b"Bearer " + key.removeprefix(b"ollm_"))],
        "quoted": [(auth, b'Bearer "' + key + b'"')],
        "list": [(auth, b"Bearer " + key + b",Bearer " + key)],
        "unicode digits": [(auth, "Bearer ollm_１２３".encode())],
        "latin": [(auth, b"Bearer " + key[:-1] + b"\xe9")],
        "wide": [(auth, b"Bearer " + good.replace("o", "ｏ").encode())],
        "surrogates": [(auth, b"Bearer \xed\xa0\x80" + key)],
        "wildcard": [(auth, b"Bearer *")],
        "null word": [(auth, b"Bearer null")],
        "undefined": [(auth, b"Bearer undefined")],
        "sql": [(auth, b"Bearer ' OR 1=1 --")],
        "json": [(auth, b'Bearer {"$ne":null}')],
        "very long": [(auth, b"Bearer " + b"A" * 20_000)],
        "just too long": [(auth, b"Bearer " + b"A" * (MAX_CREDENTIAL + 1))],
        "digest of the key": [(auth, b"Bearer " + b"0" * 64)],
        "bad then good": [(auth, b"Bearer x"), (auth, b"Bearer " + key)],
        "good then bad": [(auth, b"Bearer " + key), (auth, b"Bearer x")],
        "good twice": [(auth, b"Bearer " + key), (auth, b"Bearer " + key)],
        "both headers": [(auth, b"Bearer " + key), (other, key)],
        "other twice": [(other, key), (other, key)],
        "other empty": [(other, b"")],
        "other with bearer": [(other, b"Bearer " + key)],
        "other with spaces": [(other, b" " + key)],
        "underscore": [(b"x_api_key", key)],
        "proxy header": [(b"proxy-authorization", b"Bearer " + key)],
        "forwarded": [(b"x-forwarded-authorization", b"Bearer " + key)],
        "original path": [(b"x-original-url", b"/health"), (b"x-rewrite-url", b"/health")],
        "forwarded prefix": [(b"x-forwarded-prefix", b"/health")],
        "forwarded address": [(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1")],
        "method": [(b"x-http-method-override", b"OPTIONS"), (b"x-method-override", b"HEAD")],
        "cookie": [(b"cookie", b"authorization=Bearer " + key + b"; api_key=" + key)],
        "websocket": [(b"upgrade", b"websocket"), (b"connection", b"upgrade")],
        "h2c": [(b"upgrade", b"h2c"), (b"connection", b"upgrade, http2-settings")],
        "hop by hop": [(b"connection", b"authorization")],
        "origin": [(b"origin", b"https://example.org")],
    }


@pytest.mark.parametrize("name", bad_credentials("x"))
def test_tricks_with_headers_open_nothing(keys: Path, name: str) -> None:
    secret = add_key(keys, "alice")
    app = tiny_app(KeyRing(keys))
    headers = bad_credentials(secret)[name]
    for path in ("/v1/models", "/v1/chat/completions"):
        reply = asyncio.run(ask(app, "POST", path, headers=headers))
        assert reply.status == 401 and INSIDE not in reply.body
        assert reply.header("www-authenticate") == 'Bearer realm="openllm"'
        assert reply.json()["error"]["type"] == "authentication_error"
        assert secret.encode() not in reply.body


def test_good_credentials(keys: Path) -> None:
    secret = add_key(keys, "alice")
    app = tiny_app(KeyRing(keys))
    for scheme in (b"Bearer ", b"bearer ", b"BEARER "):
        headers = [(b"authorization", scheme + secret.encode())]
        assert status_of(app, "GET", "/v1/models", headers=headers) == 200
    assert status_of(app, "GET", "/v1/models", headers=[(b"x-api-key", secret.encode())]) == 200


def test_keys_in_the_query_do_not_count(keys: Path) -> None:
    secret = add_key(keys, "alice")
    app = tiny_app(KeyRing(keys))
    for name in ("api_key", "key", "access_token", "authorization", "token"):
        query = f"{name}={secret}&{name}=Bearer%20{secret}".encode()
        assert status_of(app, "GET", "/v1/models", query=query) == 401


def test_expired_and_revoked_keys(keys: Path) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = add_key(keys, "old", expires=past)
    revoked = add_key(keys, "gone")
    app = tiny_app(KeyRing(keys))
    assert status_of(app, "GET", "/v1/models", headers=[bearer(revoked)]) == 200
    KeyFile(keys).revoke("gone")
    for secret, code in ((expired, "expired_key"), (revoked, "revoked_key")):
        reply = asyncio.run(ask(app, "GET", "/v1/models", headers=[bearer(secret)]))
        assert (reply.status, reply.code) == (401, code)


def test_websockets_are_closed(app: FastAPI) -> None:
    for path in ("/v1/models", "/health", "/"):
        assert status_of(app, "GET", path, kind="websocket") == 403


def test_preflights_reach_no_endpoint(keys: Path) -> None:
    add_key(keys, "alice")
    app = tiny_app(KeyRing(keys), origins=("https://good.example",))
    asked = [(b"access-control-request-method", b"POST")]
    good = [*asked, (b"origin", b"https://good.example")]
    reply = asyncio.run(ask(app, "OPTIONS", "/v1/models", headers=good))
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("access-control-allow-origin") == "https://good.example"
    for origin in (b"https://evil.example", b"null", b"https://good.example.evil", b"*"):
        headers = [*asked, (b"origin", origin)]
        reply = asyncio.run(ask(app, "OPTIONS", "/v1/models", headers=headers))
        assert reply.status == 401 and reply.header("access-control-allow-origin") is None


def test_without_keys_all_but_admin_is_open() -> None:
    app = tiny_app(None)
    for rule in CLOSED:
        expected = 404 if rule.scope == "admin" else 200
        assert status_of(app, "GET", closed_path(rule.path)) == expected
    assert status_of(app, "GET", "/forgotten") == 404
