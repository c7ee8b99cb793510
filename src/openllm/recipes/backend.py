# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From the source of a model, as users name it, to what answers requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from openllm.core.errors import ConfigError, TemplateError
from openllm.engine.backend import Backend, BackendInfo
from openllm.engine.config import EngineConfig
from openllm.export.zoo import resolve_model

ECHO = "echo"

SOURCES = (
    "a model folder, a name from 'models ls', the address of a server with OpenAI's API "
    "(http://HOST/v1#MODEL), or 'echo'"
)
"""What can be loaded, in words."""


def default_name(source: str) -> str:
    """How requests call a model if its user does not say."""
    if is_url(source):
        return source.partition("#")[2] or source.partition("://")[2].partition("/")[0]
    path = Path(source)
    # a run keeps its model in a folder 'model'
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def is_url(source: str) -> bool:
    """Whether a source is another server."""
    return source.startswith(("http://", "https://"))


class SourceLoader:
    """Loads sources, as `ModelPool` asks."""

    def __init__(
        self,
        cfg: EngineConfig | None = None,
        adapters: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        key_file: Path | None = None,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            cfg: how our engine runs models.
            adapters: name of a model -> names and folders of its adapters.
            key_file: holds the key for other servers; none: the environment has it.
        """
        self._cfg = cfg
        self._adapters = dict(adapters or {})
        self._key_file = key_file

    def num_bytes(self, source: str) -> int:
        """Memory that a source will take: the size of its weights as they are stored."""
        if source == ECHO or is_url(source):
            return 0
        return sum(file.stat().st_size for file in resolve_model(source).glob("*.safetensors"))

    def load(self, name: str, source: str) -> Backend:
        """Load a source; requests will call it `name`.

        Raises:
            ConfigError: it cannot have adapters, or the settings do not fit it.
            CheckpointError, TokenizerError: it is missing or damaged.
            RemoteError: the server cannot be reached.
        """
        adapters = self._adapters.get(name, ())
        if adapters and (source == ECHO or is_url(source)):
            raise ConfigError(f"the model '{name}' takes no adapters from here; leave them out")
        if source == ECHO:
            from openllm.engine.echo import echo_backend

            return echo_backend(name)
        if is_url(source):
            from openllm.integrations.remote_openai import connect, read_key

            url, _, model = source.partition("#")
            return connect(url, model or None, read_key(self._key_file), name=name)
        folder = resolve_model(source)
        from openllm.engine.llm import LLM

        llm = LLM.load(folder, self._cfg, name=name)
        for adapter, place in adapters:
            llm.load_adapter(adapter, place)
        return llm.backend()


def open_counter(source: str) -> Backend:
    """A backend with the tokenizer and the template of a source, but without its weights.

    It counts tokens; what it generates is not the model's.

    Raises:
        CheckpointError, TokenizerError: the model is missing or damaged.
        ConfigError: it is on another server, which does not tell its tokenizer.
    """
    from openllm.engine.echo import EchoEngine, echo_backend

    if source == ECHO:
        return echo_backend()
    if is_url(source):
        raise ConfigError(f"the tokens of {source} cannot be counted here; give a model folder")
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.engine.local import LocalBackend
    from openllm.text.chat import load_chat_template
    from openllm.text.tokenizer import load_tokenizer

    folder = resolve_model(source)
    longest = read_model_config(folder).max_positions
    info = BackendInfo(default_name(source), "echo", longest)
    tokenizer = load_tokenizer(folder)
    try:
        template = load_chat_template(folder)
    except TemplateError:
        template = None
    engine = EchoEngine(tokenizer, max_positions=longest)
    return LocalBackend(engine, tokenizer, template, info)
