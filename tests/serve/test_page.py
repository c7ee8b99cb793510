# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The chat page: files, headers and colours here; what it does, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from openllm.serve.page import HEADERS, page_files, page_router

ROOT = Path(__file__).resolve().parents[2]
CHECKS = "stream stop regenerate copying markdown hostile reasoning errors settings history access"


async def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(page_router())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, headers=headers)


def fetch(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    import asyncio

    return asyncio.run(get(path, method, **headers))


def test_every_file_is_served_with_its_type_and_the_policy() -> None:
    files = page_files()
    assert next(iter(files)) == "/" and "/page/page.js" in files and len(files) >= 9
    for path, content in files.items():
        response = fetch(path)
        assert response.status_code == 200 and response.content == content
        assert HEADERS.items() <= {key: response.headers.get(key) for key in HEADERS}.items()
        kind = {"": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        assert response.headers["content-type"].startswith(kind[path.rpartition(".")[2].strip("/")])
    assert fetch("/page/index.html").status_code == fetch("/page/../page.py").status_code == 404


def test_the_policy_lets_scripts_come_from_here_only() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'" and policy["trusted-types"] == "'none'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_known_file_is_not_sent_again() -> None:
    first = fetch("/page/page.js")
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = fetch("/page/page.js", **{"If-None-Match": known})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    assert fetch("/page/page.js", **{"If-None-Match": '"other"'}).status_code == 200
    head = fetch("/", "HEAD")
    assert head.status_code == 200 and int(head.headers["content-length"]) > 1000
    assert fetch("/", "POST").status_code == 405


def test_the_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    files = page_files()
    assert sum(map(len, files.values())) < 60_000
    for path, content in files.items():
        text = content.decode()
        named = re.findall(r"""(?:src|href)="([^"#]+)"|from "([^"]+)"|url\(([^)]+)\)""", text)
        for place in (place for found in named for place in found if place):
            assert f"/page/{place.removeprefix('page/').removeprefix('./')}" in files, (path, place)
        # no way of making elements of texts, or code of texts
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in text, (path, sink)
    index = files["/"].decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", index)


def test_the_colours_can_be_read() -> None:
    """At least 4.5 between letters and what is behind them (WCAG 2, level AA)."""
    style = page_files()["/page/style.css"].decode()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        pairs = [("ink", "paper"), ("ink", "tint"), ("ink", "side"), ("faint", "paper")]
        pairs += [("faint", "side"), ("faint", "sheet"), ("faint", "tint"), ("accent", "paper")]
        pairs += [("on-accent", "accent"), ("error", "paper"), ("paper", "ink")]
        for letters, behind in pairs:
            ratio = contrast(colours[letters], colours[behind])
            assert ratio >= 4.5, (letters, behind, ratio)


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """The page in a headless Chromium, before a server that does what it is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        from chat_page import Page
        from chat_server import chat_app, serving
        from chromium import Chromium, find_chromium

        if find_chromium() is None:
            pytest.skip("needs Chromium")
        app, bodies = chat_app()
        with serving(app) as url, Chromium(width=1280, height=860) as browser:
            yield Page(browser, url, bodies)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS.split())
def test_the_page_in_a_browser(name: str, page: Any, tmp_path: Path) -> None:
    from chat_page import run_check

    run_check(name, page, tmp_path)


@pytest.mark.slow
def test_no_check_is_forgotten(page: Any) -> None:
    from chat_page import CHECKS as known

    assert list(known) == CHECKS.split()


@pytest.mark.slow
def test_the_page_talks_to_the_server(page: Any) -> None:
    from chat_page import talk_to_server

    talk_to_server(page.browser)
