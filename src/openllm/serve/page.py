# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The chat page: its files in `static/`, with headers that let them do nothing but talk to us."""

import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import APIRouter, Request, Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    # a text can never become HTML or a script, whatever a model writes
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}

HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked for again: 304 while it is the same
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_files() -> dict[str, bytes]:
    """Path on the server -> content: `/` and `/page/NAME`."""
    files = {
        f"/page/{file.name}": file.read_bytes()
        for file in resources.files("openllm.serve").joinpath("static").iterdir()
    }
    return {"/": files.pop("/page/index.html"), **dict(sorted(files.items()))}


def page_router() -> APIRouter:
    """Routes of the page; none needs a key, since the page has no secrets."""
    router = APIRouter(include_in_schema=False)
    for path, content in page_files().items():
        ending = "." + path.rpartition(".")[2] if path != "/" else ".html"
        serve = _endpoint(content, TYPES[ending])
        router.add_api_route(path, serve, methods=["GET", "HEAD"], name=f"page {path}")
    return router


def _endpoint(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    async def serve(request: Request) -> Response:
        known = {one.strip().removeprefix("W/") for one in _tags(request)}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return serve


def _tags(request: Request) -> list[str]:
    return ",".join(request.headers.getlist("If-None-Match")).split(",")


router = page_router()
