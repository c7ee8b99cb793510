# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The requests of the load test: valid ones, and all kinds of others."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from load.client import Answer

Kind = Literal["valid", "malformed", "disconnecting", "too long"]

MARK = "diary-of-the-third-of-may"
"""In every prompt; must never be in a log or an error."""

LONG = 40_000
"""Words of a prompt that no model here can read."""


@dataclass(frozen=True)
class Task:
    """One request.

    Attributes:
        name: what it does.
        headers: besides the usual ones, or in their place.
        statuses: of the right answer.
        check: whether the answer is right.
        cut: for a client that leaves: bytes that it sends; none: all, and then it does not wait.
        leave_s: how long it waits before it leaves.
    """

    kind: Kind
    name: str
    method: str
    path: str
    body: bytes
    headers: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    check: Callable[[Answer], bool] = lambda answer: True
    cut: int | None = None
    leave_s: float = 0.0


def make_plan(count: int, seed: int) -> list[Task]:
    """5 % malformed, 5 % disconnecting, 1 % too long, the rest valid, in a random order."""
    rng = random.Random(seed)
    shares = [(count // 20, malformed), (count // 20, disconnecting), (count // 100, too_long)]
    tasks = [make(rng) for number, make in shares for _ in range(number)]
    tasks += [valid(rng) for _ in range(count - len(tasks))]
    rng.shuffle(tasks)
    return tasks


def prompt(rng: random.Random) -> str:
    """A few words, with the mark."""
    words = ["lamp", "kettle", "boat", "drum", "letter", "apple", "mirror", "ladder"]
    return " ".join([MARK, *rng.choices(words, k=rng.randint(2, 12)), str(rng.random())])


def chat(rng: random.Random, **more: object) -> bytes:
    """The body of a chat."""
    messages = [{"role": "user", "content": prompt(rng)}]
    settings = {"max_tokens": rng.randint(4, 24), "seed": rng.randrange(1000)}
    return json.dumps({"messages": messages, **settings, **more}).encode()


def valid(rng: random.Random) -> Task:
    """A request that must be answered."""
    draw = rng.random()
    if draw < 0.4:
        return Task("valid", "stream", "POST", CHAT, chat(rng, stream=True), check=is_stream)
    if draw < 0.75:
        return Task("valid", "chat", "POST", CHAT, chat(rng), check=is_chat)
    if draw < 0.9:
        body = {"prompt": prompt(rng), "max_tokens": rng.randint(1, 16), "temperature": 0}
        return Task("valid", "completion", "POST", COMPLETION, _dump(body), check=is_completion)
    if draw < 0.96:
        body = {"input": prompt(rng)}
        return Task("valid", "embedding", "POST", "/v1/embeddings", _dump(body), check=is_embedding)
    return Task("valid", "models", "GET", "/v1/models", b"", check=is_list)


def malformed(rng: random.Random) -> Task:
    """A request that must be refused with 4xx."""
    good = chat(rng)
    secret = f"ollm_{MARK}{rng.random()}".replace(".", "")
    tasks = {
        "cut JSON": (CHAT, good[:-5], (), (400,)),
        "no JSON": (CHAT, prompt(rng).encode(), (), (400,)),
        "not UTF-8": (CHAT, good.replace(b"role", b"\xff\xfe"), (), (400,)),
        "wrong type": (CHAT, chat(rng, temperature=prompt(rng)), (), (400,)),
        "unknown field": (CHAT, chat(rng, surprise=prompt(rng)), (), (400,)),
        "out of range": (CHAT, chat(rng, top_p=7), (), (400,)),
        "deep nesting": (CHAT, b"[" * 5000, (), (400,)),
        "number too large": (CHAT, chat(rng)[:-1] + b', "seed": 1e999}', (), (400,)),
        "no such model": (CHAT, chat(rng, model=prompt(rng)), (), (404,)),
        "no such path": (f"/v1/{MARK}", good, (), (404,)),
        "wrong kind": (CHAT, good, ("Content-Type: text/plain",), (415,)),
        "wrong key": (CHAT, good, (f"Authorization: Bearer {secret}",), (401,)),
        "no key": (CHAT, good, ("Authorization: ",), (401,)),
        "two lengths": (CHAT, good, ("Content-Length: 7",), (400,)),
        "not for this key": ("/admin/drain", b"{}", (), (403,)),
    }
    name = rng.choice(sorted(tasks))
    path, body, headers, statuses = tasks[name]
    return Task("malformed", name, "POST", path, body, headers, statuses)


def disconnecting(rng: random.Random) -> Task:
    """A client that leaves: in the middle of its request, or before or within the answer."""
    body = chat(rng, stream=rng.random() < 0.7, max_tokens=200)
    if rng.random() < 0.3:
        cut = rng.randint(1, 150 + len(body))
        return Task("disconnecting", "within the request", "POST", CHAT, body, cut=cut)
    wait = rng.choice([0.0, 0.005, 0.02, 0.1])
    return Task("disconnecting", "before the end", "POST", CHAT, body, leave_s=wait)


def too_long(rng: random.Random) -> Task:
    """A prompt beyond the context, or a body beyond the limit."""
    if rng.random() < 0.5:
        body = chat(rng)[:-1] + b', "user": "' + b"x" * (5 << 20) + b'"}'
        return Task("too long", "body", "POST", CHAT, body, statuses=(413,))
    long = _dump({"prompt": f"{MARK} " * LONG, "max_tokens": 4})
    return Task("too long", "prompt", "POST", COMPLETION, long, statuses=(400,))


def is_stream(answer: Answer) -> bool:
    """Events that end as they must, with a reason why."""
    return answer.body.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"' in answer.body


def is_chat(answer: Answer) -> bool:
    """A message, and the count of its tokens."""
    value = answer.json()
    choice = value["choices"][0]
    return choice["finish_reason"] in ("stop", "length") and value["usage"]["prompt_tokens"] > 0


def is_completion(answer: Answer) -> bool:
    """A text that was ended."""
    return answer.json()["choices"][0]["finish_reason"] in ("stop", "length")


def is_embedding(answer: Answer) -> bool:
    """A vector."""
    return len(answer.json()["data"][0]["embedding"]) > 0


def is_list(answer: Answer) -> bool:
    """The models."""
    return answer.json()["object"] == "list"


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
