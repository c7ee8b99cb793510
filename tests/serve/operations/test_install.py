# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Everything together, around the real application."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serve.asgi import JSON, add_key, ask, bearer, chat_body, slow_backend

from openllm.core.errors import CheckpointError, ConfigError, StorageError
from openllm.engine.backend import Backend, BackendInfo, EngineStats
from openllm.engine.backends.echo import echo_backend
from openllm.engine.backends.pool import ModelPool
from openllm.serve.app import create_app
from openllm.serve.config import ServeSettings
from openllm.serve.operations.install import check_exposure, install_operations
from openllm.serve.operations.keys import KeyFile
from openllm.serve.operations.rules import rule_of
from openllm.serve.service import FixedModels, Service

CHAT = "/v1/chat/completions"


class EchoLoader:
    """Every source but `broken` is an echo."""

    def num_bytes(self, source: str) -> int:
        return 10

    def load(self, name: str, source: str) -> Backend:
        if source == "broken":
            raise ConfigError("this folder holds no model")
        if source == "closed":
            raise PermissionError(13, "Permission denied", "/closed")
        return echo_backend(name)


class Site:
    """The application with its operations, and a key for each kind of caller."""

    def __init__(self, folder: Path, models: Any = None, **settings: Any) -> None:
        self.keys, self.log = folder / "keys.json", folder / "log"
        self.user = add_key(self.keys, "user")
        self.admin = add_key(self.keys, "admin", scopes=("admin", "metrics"))
        values = {"auth": {"key_file": str(self.keys)}, **settings}
        values["observe"] = {"access_log": str(self.log), **settings.get("observe", {})}
        self.settings = ServeSettings.parse(values, "test")
        self.service = Service(models or FixedModels({"echo": echo_backend()}))
        self.app = create_app(self.service, self.settings)
        self.exporter = InMemorySpanExporter()
        self.operations = install_operations(
            self.app, self.service, self.settings, exporter=self.exporter
        )

    async def post(self, path: str, body: Any, secret: str | None = None, **how: Any) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [bearer(secret or self.user), JSON]
        return await ask(self.app, "POST", path, headers=headers, body=raw, **how)

    async def get(self, path: str, secret: str | None = None) -> Any:
        return await ask(self.app, "GET", path, headers=[bearer(secret or self.user)])

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@asynccontextmanager
async def site(folder: Path, models: Any = None, **settings: Any) -> AsyncIterator[Site]:
    made = Site(folder, models, **settings)
    try:
        yield made
    finally:
        await made.service.close()
        made.operations.close()


def paths_of(routes: Any) -> set[str]:
    """Of all routes, those that the schema does not show included."""
    found: set[str] = set()
    for route in routes:
        inner = getattr(route, "original_router", None)
        found |= {route.path} if inner is None else paths_of(inner.routes)
    return found


class FailedBackend:
    """One that cannot answer now."""

    def __init__(self, kind: str) -> None:
        self.info = BackendInfo("far", kind)  # type: ignore[arg-type]

    def healthy(self) -> bool:
        return False

    def stats(self) -> EngineStats:
        return EngineStats()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("kind", "status"), [("remote", 200), ("openllm", 503)])
def test_another_server_that_is_away_does_not_end_this_one(
    tmp_path: Path, kind: str, status: int
) -> None:
    """The state `unhealthy` would: it is for engines, which do not come back by themselves."""

    async def run() -> None:
        models = FixedModels({"echo": echo_backend(), "far": FailedBackend(kind)})  # type: ignore
        async with site(tmp_path, models) as made:
            assert (await made.get("/ready")).status == status
            assert made.operations.lifecycle.healthy() == (status == 200)
            metrics = (await made.get("/metrics", made.admin)).body.decode()
            assert 'openllm_model_healthy{model="far"} 0.0' in metrics

    asyncio.run(run())


def test_every_route_has_a_rule(tmp_path: Path) -> None:
    async def run() -> set[str]:
        async with site(tmp_path) as made:
            return paths_of(made.app.routes)

    paths = asyncio.run(run())
    assert {"/metrics", "/ready", "/health", "/admin/drain", CHAT} <= paths
    for path in paths:
        assert rule_of(path.partition("{")[0] + ("x" if "{" in path else "")), path


def test_a_chat_is_answered_counted_logged_and_traced(tmp_path: Path) -> None:
    async def run() -> Site:
        async with site(tmp_path) as made:
            whole = await made.post(CHAT, chat_body("hello"))
            stream = await made.post(CHAT, chat_body("hello", stream=True))
            assert whole.status == stream.status == 200
            usage = whole.json()["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 6)
            assert stream.body.endswith(b"data: [DONE]\n\n")
            metrics = (await made.get("/metrics", made.admin)).body.decode()
            route = f'route="{CHAT}",status="200"'
            assert f"openllm_requests_total{{{route}}} 2.0" in metrics
            assert 'openllm_tokens_total{kind="new",model="echo"} 12.0' in metrics
            assert 'openllm_engine_new_tokens_total{model="echo"} 12.0' in metrics
        return made

    made = asyncio.run(run())
    for line in made.lines()[:2]:
        assert (line["key"], line["model"], line["route"]) == ("user", "echo", CHAT)
        assert (line["prompt_tokens"], line["new_tokens"]) == (6, 6)
        assert line["first_token_s"] <= line["seconds"]
    span = made.exporter.get_finished_spans()[0]
    assert [event.name for event in span.events][:2] == ["prefill", "first token"]
    usage = json.loads(made.keys.with_name("keys.json.usage").read_text())
    assert list(usage["keys"].values()) == [[2, 24]]


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        ("/v1/completions", {"prompt": ["ab", "cd"], "max_tokens": 2}, (4, 4)),
        ("/v1/completions", {"prompt": [97, 98], "max_tokens": 2, "n": 3, "seed": 1}, (2, 6)),
        ("/v1/embeddings", {"input": ["abc", "d"]}, (4, 0)),
        ("/v1/responses", {"input": "abc"}, (4, 4)),
        ("/generate", {"prompt": "abc"}, (3, 3)),
    ],
)
def test_tokens_of_every_endpoint_are_counted(
    tmp_path: Path, path: str, body: dict[str, Any], tokens: tuple[int, int]
) -> None:
    async def run() -> Site:
        async with site(tmp_path) as made:
            reply = await made.post(path, body)
            assert reply.status == 200, reply.body
        return made

    (line,) = asyncio.run(run()).lines()
    assert (line["prompt_tokens"], line.get("new_tokens", 0)) == tokens


def test_a_key_sees_only_its_models(tmp_path: Path) -> None:
    async def run() -> None:
        models = FixedModels({name: echo_backend(name) for name in ("small", "large")})
        async with site(tmp_path, models) as made:
            narrow = add_key(made.keys, "narrow", models=("small",))
            names = [one["id"] for one in (await made.get("/v1/models", narrow)).json()["data"]]
            assert names == ["small"]
            assert (await made.get("/v1/models/large", narrow)).status == 404
            assert (await made.get("/v1/models/large")).status == 200
            for path, body in (
                (CHAT, {"messages": [{"role": "user", "content": "x"}]}),
                ("/v1/completions", {"prompt": "x"}),
                ("/v1/embeddings", {"input": "x"}),
                ("/v1/responses", {"input": "x"}),
            ):
                refused = await made.post(path, {"model": "large", **body}, narrow)
                assert (refused.status, refused.code) == (404, "model_not_found")
                assert (await made.post(path, {"model": "small", **body}, narrow)).status == 200

    asyncio.run(run())


def test_a_revoked_key_is_refused_at_once(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with site(tmp_path) as made:
            before = (await made.get("/v1/models")).status
            KeyFile(made.keys).revoke("user")
            return [before, (await made.get("/v1/models")).status]

    assert asyncio.run(run()) == [200, 401]


def test_no_prompt_or_key_is_in_what_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = "my diary of the 3rd of May"

    async def run() -> Site:
        async with site(tmp_path) as made:
            for body in (
                chat_body(prompt),
                chat_body(prompt, stream=True),
                chat_body(prompt, temperature="hot"),
                chat_body(prompt * 1000),
                chat_body(prompt)[:-3],
                prompt.encode(),
            ):
                await made.post(CHAT, body, query=f"key={made.user}".encode())
            await made.post(f"/v1/{prompt}", b"")
        return made

    made = asyncio.run(run())
    out, err = capfd.readouterr()
    spans = "".join(span.to_json() for span in made.exporter.get_finished_spans())
    written = made.log.read_text() + out + err + spans
    assert {line["status"] for line in made.lines()} == {200, 400, 404}
    for hidden in (prompt, "diary", made.user, made.admin, "Traceback"):
        assert hidden not in written


def test_an_engine_that_fails_tells_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backend, engine = slow_backend(0)

    def broken() -> Any:
        raise ValueError("secret of the inside")

    engine.step = broken  # type: ignore[method-assign]

    async def run() -> Any:
        async with site(tmp_path, FixedModels({"echo": backend})) as made:
            whole = await made.post(CHAT, chat_body("prompt"))
            stream = await made.post(CHAT, chat_body("prompt", stream=True))
            return whole, stream, made

    whole, stream, made = asyncio.run(run())
    assert whole.status == 500
    for reply in (whole, stream):
        assert b"inside" not in reply.body and b"ValueError" not in reply.body
    assert made.lines()[0]["reason"].startswith("EngineError at ")


def test_an_administrator_changes_the_models(tmp_path: Path) -> None:
    async def run() -> None:
        pool = ModelPool(EchoLoader(), budget_bytes=100)
        pool.add("first", "folder")
        async with site(tmp_path, pool) as made:

            async def change(path: str, body: Any = None) -> Any:
                return await made.post(f"/admin/{path}", body or {}, made.admin)

            assert (await made.post(CHAT, chat_body())).status == 200
            loaded = await change("models/load", {"name": "second", "source": "x", "pinned": True})
            assert loaded.json() == {"loaded": "second"}
            assert (await made.post(CHAT, chat_body(model="second"))).status == 200
            states = (await made.get("/admin/models", made.admin)).json()["models"]
            assert [(one["name"], one["state"], one["pinned"]) for one in states] == [
                ("first", "loaded", False),
                ("second", "loaded", True),
            ]
            assert (await change("models/pin", {"name": "second", "pinned": False})).status == 200
            again = await change("models/load", {"name": "second", "pinned": True})
            assert again.status == 200
            states = (await made.get("/admin/models", made.admin)).json()["models"]
            assert states[1]["pinned"]
            assert (await change("models/pin", {"name": "second", "pinned": False})).status == 200
            assert (await change("models/unload", {"name": "second"})).status == 200
            states = (await made.get("/admin/models", made.admin)).json()["models"]
            assert states[1]["state"] == "unloaded" and not states[1]["pinned"]
            assert (await change("models/remove", {"name": "second"})).status == 200
            names = (await made.get("/v1/models")).json()["data"]
            assert [one["id"] for one in names] == ["first"]
            broken = await change("models/load", {"name": "third", "source": "broken"})
            assert broken.status == 400 and "holds no model" in broken.json()["error"]["message"]
            closed = await change("models/load", {"name": "third", "source": "closed"})
            assert closed.status == 422 and "Permission" in closed.json()["error"]["message"]
            assert (await made.get("/v1/models")).json()["data"] == names
            for path, body, status in (
                ("models/load", {"name": "first", "source": "again"}, 400),
                ("models/load", {"name": "none"}, 400),
                ("models/load", {"name": "../x", "source": "y"}, 400),
                ("models/load", {"nam": "x"}, 400),
                ("models/load", {"name": "x", "source": "a\0b"}, 400),
                ("models/unload", {"name": "none"}, 400),
                ("adapters/load", {"model": "none", "name": "a", "folder": "b"}, 404),
                ("adapters/load", {"model": "first", "name": "a", "folder": "b"}, 409),
                ("adapters/unload", {"model": "first", "name": "a"}, 409),
                ("nothing", {}, 404),
            ):
                assert (await change(path, body)).status == status, (path, body)

    asyncio.run(run())


class Host:
    """Takes adapters, as a model of ours does."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}

    def load_adapter(self, name: str, folder: str) -> None:
        if folder == "broken":
            raise CheckpointError("the adapter's folder is damaged")
        self.adapters[name] = folder

    def unload_adapter(self, name: str) -> None:
        if self.adapters.pop(name, None) is None:
            raise ConfigError(f"there is no adapter '{name}'")


def test_an_administrator_changes_the_adapters(tmp_path: Path) -> None:
    async def run() -> None:
        backend, host = echo_backend(), Host()
        backend.adapter_host = host
        async with site(tmp_path, FixedModels({"echo": backend})) as made:

            async def change(path: str, **body: str) -> int | None:
                wish = {"model": "echo", "name": "tone", **body}
                return (await made.post(f"/admin/adapters/{path}", wish, made.admin)).status

            assert await change("load", folder="a/b") == 200
            assert host.adapters == {"tone": "a/b"}
            assert await change("load", folder="broken", name="other") == 422
            assert await change("unload") == 200 and not host.adapters
            assert await change("unload") == 400

    asyncio.run(run())


def test_models_that_are_fixed_stay(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as made:
            reply = await made.post("/admin/models/unload", {"name": "echo"}, made.admin)
            assert (reply.status, reply.code) == (409, "fixed")

    asyncio.run(run())


def test_an_administrator_drains_and_resumes(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as made:
            assert (await made.get("/ready")).status == 200
            assert (await made.post("/admin/drain", {}, made.admin)).status == 200
            ready = await made.get("/ready")
            assert (ready.status, ready.json()["status"]) == (503, "draining")
            refused = await made.post(CHAT, chat_body())
            assert (refused.status, refused.code) == (503, "draining")
            assert refused.header("retry-after") == "5"
            assert (await made.get("/v1/models")).status == 200
            assert (await made.post("/admin/resume", {}, made.admin)).status == 200
            assert (await made.post(CHAT, chat_body())).status == 200

    asyncio.run(run())


def test_administration_needs_its_scope(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as made:
            for path in ("/admin/models", "/admin/drain", "/admin/models/load", "/admin/x"):
                assert (await made.post(path, {})).status == 403
                assert (await ask(made.app, "POST", path)).status == 401
            assert made.operations.lifecycle.turns.open

    asyncio.run(run())


def test_without_keys_there_is_no_administration(tmp_path: Path) -> None:
    async def run() -> None:
        settings = ServeSettings.parse({"observe": {"access_log": "off"}}, "test")
        service = Service(FixedModels({"echo": echo_backend()}))
        app = create_app(service, settings)
        install_operations(app, service, settings)
        headers = [JSON]
        assert (await ask(app, "POST", "/admin/drain", headers=headers)).status == 404
        assert (await ask(app, "POST", CHAT, headers=headers, body=chat_body())).status == 200
        assert (await ask(app, "GET", "/metrics")).status == 200
        await service.close()

    asyncio.run(run())


def test_use_that_cannot_be_kept_is_known_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    key_file = tmp_path / "keys.json"
    add_key(key_file, "user")
    usage = str(tmp_path / "file" / "usage.json")
    values = {"auth": {"key_file": str(key_file), "usage_file": usage}}
    settings = ServeSettings.parse(values, "test")
    service = Service(FixedModels({"echo": echo_backend()}))
    with pytest.raises(StorageError, match="choose another folder"):
        install_operations(create_app(service, settings), service, settings)
    asyncio.run(service.close())


def test_limits_hold_for_the_real_endpoints(tmp_path: Path) -> None:
    async def run() -> None:
        limits = {"tokens_per_minute": 40, "max_body_bytes": 2000}
        async with site(tmp_path, limits=limits) as made:
            first = await made.post(CHAT, chat_body("x" * 20))
            assert first.status == 200 and first.header("x-ratelimit-limit-tokens") == "40"
            refused = await made.post(CHAT, chat_body())
            assert refused.status == 429 and int(refused.header("retry-after") or 0) >= 1
            admin = await made.post("/admin/models/load", {"name": "x" * 3000}, made.admin)
            assert admin.status == 413

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "fine"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "192.168.1.5"}, False),
        ({"host": "0.0.0.0", "auth": {"key_file": "keys.json"}}, True),
        ({"host": "0.0.0.0", "auth": {"open_to_all": True}}, True),
    ],
)
def test_nobody_is_served_by_accident(settings: dict[str, Any], fine: bool) -> None:
    made = ServeSettings.parse(settings, "test")
    if fine:
        check_exposure(made)
    else:
        with pytest.raises(ConfigError, match="--open-to-all"):
            check_exposure(made)


@pytest.mark.parametrize("origin", ["*", "example.org", "https://", "https://x/y", "ftp://x"])
def test_origins_are_checked(origin: str) -> None:
    with pytest.raises(ConfigError, match="not an origin"):
        ServeSettings.parse({"auth": {"cors_origins": [origin]}}, "test")
