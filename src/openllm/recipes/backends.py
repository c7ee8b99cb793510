# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From what a command line calls a model to a backend: a folder, a name, `echo`, or a URL."""

from typing import TYPE_CHECKING

from openllm.engine.backend import Backend

if TYPE_CHECKING:
    from openllm.engine.config import EngineConfig

MODEL_HELP = (
    "model folder, such as RUN/model, a name from 'models ls', the URL of another server "
    "(URL#MODEL if it has several), or 'echo'"
)


def is_url(source: str) -> bool:
    """Whether a model is on another server."""
    return source.startswith(("http://", "https://"))


def open_backend(
    source: str, *, cfg: "EngineConfig | None" = None, api_key: str | None = None
) -> Backend:
    """Load a model, or connect to the server that has it. Not to be called in an event loop.

    Args:
        source: see `MODEL_HELP`.
        cfg: settings of the engine; for folders only.
        api_key: of the other server.

    Raises:
        CheckpointError, TokenizerError: there is no such model, or it is damaged.
        ConfigError: the settings do not fit it, or that is not an address.
        RemoteError: the other server refuses, cannot be reached, or has no such model.
        MissingExtra: httpx is not installed.
    """
    if source == "echo":
        from openllm.engine.echo import echo_backend

        return echo_backend()
    if is_url(source):
        from openllm.integrations.remote_openai import connect

        url, _, model = source.partition("#")
        return connect(url, model or None, api_key)
    from openllm.engine.llm import LLM
    from openllm.export.zoo import resolve_model

    return LLM.load(resolve_model(source), cfg).backend()


def open_counter(source: str) -> Backend:
    """A backend with the tokenizer and template of a model, but without its weights.

    It counts tokens; what it generates is not the model's.

    Raises:
        CheckpointError, TokenizerError: there is no such model, or it is damaged.
        ConfigError: the model is on another server, which does not tell its tokenizer.
    """
    from openllm.core.errors import ConfigError, TemplateError
    from openllm.engine.backend import BackendInfo
    from openllm.engine.echo import EchoEngine, echo_backend
    from openllm.engine.local import LocalBackend

    if source == "echo":
        return echo_backend()
    if is_url(source):
        raise ConfigError(
            f"{source}: another server's tokens cannot be counted here; give a model folder"
        )
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.export.zoo import resolve_model
    from openllm.text.chat import load_chat_template
    from openllm.text.tokenizer import load_tokenizer

    folder = resolve_model(source)
    longest = read_model_config(folder).max_positions
    tokenizer = load_tokenizer(folder)
    try:
        template = load_chat_template(folder)
    except TemplateError:
        template = None
    engine = EchoEngine(tokenizer, max_positions=longest)
    return LocalBackend(engine, tokenizer, template, BackendInfo(folder.name, "echo", longest))
