# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A server for the chat page whose models do what they are told: echo slowly, fail, attack."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from openllm.engine.backends.echo import echo_backend
from openllm.engine.request import SamplingParams
from openllm.serve.page import page_router

HOSTILE = """<script>window.hacked = 1</script>
<img src=x onerror="window.hacked = 2"> <svg/onload=window.hacked=3>
<iframe srcdoc="<script>parent.hacked = 4</script>"></iframe>
[run](javascript:window.hacked=5) [tab](java\tscript:window.hacked=6) <javascript:window.hacked=7>
[data](data:text/html,<script>window.hacked=8</script>) [file](file:///etc/passwd) [own](/admin)
![pixel](http://evil.example/steal?x=1) ![x](x" onerror="window.hacked=9)
[quote](https://good.example/" onmouseover="window.hacked=10) `<b onclick=window.hacked=11>`
# <style>body { display: none }</style> heading <form action=//evil.example><input name=q></form>
| <img src=y onerror=window.hacked=12> | b |
|---|---|
| <a href=javascript:window.hacked=13>c</a> | [d](vbscript:x) |

```html"><script>window.hacked=14</script>
</code></pre><script>window.hacked = 15</script>
```
- <details open ontoggle=window.hacked=16>x</details>
> <math><mtext></mtext><mglyph><style><img src=x onerror=window.hacked=17></style></math>

&lt;b&gt; &#106;avascript [good](https://good.example/a?b=c&d)
"""

THOUGHT = "The user wants a number.\n\n- first **add**\n- then check"

SHOWCASE = """A prefix cache keeps the **keys and values** of text that was read before, so that \
it need not be read again. With a system prompt of 800 tokens, only the question itself is new:

| | First request | Later requests |
|---|--:|--:|
| Tokens to read | 824 | 24 |
| Time to first token | 412 ms | 31 ms |

## How it finds what it knows

1. The prompt is cut into blocks of 16 tokens.
2. Each block gets a hash of *all* text up to its end.
3. The longest known chain of hashes is taken over.

```python
def chain(tokens: list[int], size: int = 16) -> list[int]:
    found, last = [], 0
    for at in range(0, len(tokens) - size + 1, size):
        last = hash((last, *tokens[at : at + size]))
        found.append(last)
    return found
```

Only whole blocks are shared: `len(tokens) % size` tokens at the end are always computed.

> A cached block may be dropped when memory is short; the answer stays the same.
"""

ANSWERS = {
    "hostile": ("", HOSTILE),
    "thinker": (THOUGHT, "It is **42**."),
    "showcase": ("Explain the idea first, then the lookup.", SHOWCASE),
}


def chat_app(*, delay: float = 0.01) -> tuple[FastAPI, list[dict[str, Any]]]:
    """The app, and the bodies that it was sent so far."""
    app = FastAPI()
    app.include_router(page_router())
    bodies: list[dict[str, Any]] = []
    busy = {"left": 1}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        if request.headers.get("authorization") == "Bearer wrong":
            return refuse(401, "Incorrect API key; ask for another")
        names = ["echo", *ANSWERS, "busy", "broken", "torn", "locked"]
        return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        bodies.append(body)
        match body["model"]:
            case "busy" if busy["left"] > 0:
                busy["left"] -= 1
                return refuse(429, "Too many requests", {"Retry-After": "2"})
            case "broken":
                return refuse(500, "The engine failed")
            case "locked" if request.headers.get("authorization") != "Bearer right":
                return refuse(401, "Incorrect API key")
        pieces = speak(body, delay)
        return StreamingResponse(pieces, media_type="text/event-stream")

    return app, bodies


def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's format."""
    error = {"message": message, "type": "error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


async def speak(body: dict[str, Any], delay: float) -> AsyncIterator[str]:
    """The events of an answer."""
    tokens, model = 0, body["model"]
    reasoning, scripted = ANSWERS.get(model, ("", ""))
    for piece in pieces(reasoning):
        yield event({"reasoning_content": piece})
        await asyncio.sleep(delay)
    if scripted:
        for piece in pieces(scripted):
            tokens += 1
            yield event({"content": piece})
            await asyncio.sleep(delay)
    else:
        backend = echo_backend()
        params = SamplingParams(max_new_tokens=body.get("max_tokens", 1000))
        async for update in backend.chat(body["messages"], params):
            tokens += len(update.token_ids)
            if update.text:
                yield event({"content": update.text})
            if tokens == 3 and model == "torn":
                return
            await asyncio.sleep(delay)
        await backend.close()
    limited = tokens == body.get("max_tokens")
    yield event({}, "length" if limited else "stop")
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def pieces(text: str) -> Iterator[str]:
    """A text in parts as small as tokens."""
    return (text[at : at + 4] for at in range(0, len(text), 4))


def event(delta: dict[str, str], finish: str | None = None) -> str:
    """A chunk as a server-sent event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Run an app on a free port of this machine; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
