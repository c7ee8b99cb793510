# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm batch --dry-run`: is the input right, and how many tokens does it have?"""

import asyncio
from dataclasses import dataclass, field

from openllm.core.errors import OpenLLMError, TemplateError
from openllm.engine.backend import Backend, BackendInfo
from openllm.recipes.backend import SourceLoader, default_name, find_source
from openllm.recipes.batch_files import Requests
from openllm.serve.errors import ApiError
from openllm.serve.openai.batch import Task, check_task, count_tokens


@dataclass
class Report:
    """What was found.

    Attributes:
        requests: their number.
        faults: custom id and what is wrong, of those that would be refused.
        prompt_tokens: of all others; none if the tokenizer is on another server.
        most_new_tokens: that they can bring.
    """

    requests: int
    faults: list[tuple[str, str]] = field(default_factory=list)
    prompt_tokens: int | None = None
    most_new_tokens: int | None = None


def check(source: str, requests: Requests) -> Report:
    """Check all requests against a model.

    Raises:
        CheckpointError, TokenizerError: the model is missing or damaged.
    """
    report = Report(len(requests.marks))
    backend = _open_counter(source)
    prompt = new = 0

    async def look_at(task: Task) -> tuple[int, int]:
        if backend is None:
            check_task(task)
            return 0, 0
        return await count_tokens(backend, task)

    async def run() -> None:
        nonlocal prompt, new
        try:
            for task in requests.tasks({}):
                try:
                    found = await look_at(task)
                except (ApiError, OpenLLMError) as error:
                    report.faults.append((task.custom_id, str(error)))
                else:
                    prompt, new = prompt + found[0], new + found[1]
        finally:
            if backend is not None:
                await backend.close()

    asyncio.run(run())
    if backend is not None:
        report.prompt_tokens, report.most_new_tokens = prompt, new
    return report


def _open_counter(source: str) -> Backend | None:
    """A backend that knows a model's tokens; of our own models, the weights are not loaded.

    None if the model is on another server, which does not tell its tokenizer.
    """
    kind, folder = find_source(source)
    if kind == "remote":
        return None
    if kind != "openllm":
        return SourceLoader().load(default_name(source), source)

    from openllm.checkpoint.model_dir import read_model_config
    from openllm.engine.backends.echo import EchoEngine
    from openllm.engine.backends.local import LocalBackend
    from openllm.text.chat import load_chat_template
    from openllm.text.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    longest = read_model_config(folder).max_positions
    try:
        template = load_chat_template(folder)
    except TemplateError:
        template = None
    info = BackendInfo(default_name(source), "echo", longest)
    return LocalBackend(EchoEngine(tokenizer, max_positions=longest), tokenizer, template, info)
