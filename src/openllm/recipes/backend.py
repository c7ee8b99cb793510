# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From the source of a model, as users name it, to what answers requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from openllm.core.errors import CheckpointError, ConfigError
from openllm.engine.backend import Backend
from openllm.engine.config import EngineConfig
from openllm.export.models.zoo import resolve_model

Kind = Literal["echo", "remote", "gguf", "onnx", "openllm"]

SOURCES = (
    "a model folder, a name from 'models ls', an ONNX export, a .gguf file, the address of a "
    "server with OpenAI's API (http://HOST/v1#MODEL), or 'echo'"
)
"""What can be loaded, in words."""


def default_name(source: str) -> str:
    """How requests call a model if its user does not say."""
    if is_url(source):
        return source.partition("#")[2] or source.partition("://")[2].partition("/")[0]
    path = Path(source)
    if path.suffix == ".gguf":
        return path.stem
    # a run keeps its model in a folder 'model'
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def is_url(source: str) -> bool:
    """Whether a source is another server."""
    return source.startswith(("http://", "https://"))


def find_source(source: str) -> tuple[Kind, Path]:
    """What a source is, and where, if it is a file or folder.

    Raises:
        CheckpointError: there is no such file, folder or model in the zoo, or it is damaged.
    """
    path = Path(source)
    if source == "echo":
        return "echo", path
    if is_url(source):
        return "remote", path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; give a file that llama.cpp can load")
        return "gguf", path
    if (path / "model.onnx").is_file():
        return "onnx", path
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if files and not any(path.glob("*.safetensors")):
        if len(files) > 1:
            raise CheckpointError(f"{path} has {len(files)} files *.gguf; give one of them")
        return "gguf", files[0]
    return "openllm", resolve_model(source)


class SourceLoader:
    """Loads sources, as `ModelPool` asks."""

    def __init__(
        self,
        cfg: EngineConfig | None = None,
        adapters: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        *,
        budget_bytes: int | None = None,
        key_file: Path | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            cfg: how our engine runs models.
            adapters: name of a model -> names and folders of its adapters.
            budget_bytes: memory for all models together; a cache takes at most a quarter of it,
                unless `cfg` says how much.
            key_file: with the key of other servers; none: it is in OPENAI_API_KEY.
            tokenizer: folder with the tokenizer of GGUF files; none: they hold it themselves.
        """
        cfg = cfg or EngineConfig()
        if budget_bytes is not None and cfg.cache_tokens is None and cfg.cache_bytes is None:
            cfg = cfg.model_copy(update={"cache_bytes": max(1, budget_bytes // 4)})
        self._cfg = cfg
        self._adapters = dict(adapters or {})
        self._key_file, self._tokenizer = key_file, tokenizer

    def num_bytes(self, source: str) -> int:
        """See `Loader.num_bytes`: for our own models with the cache, else the size of the files.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        kind, path = find_source(source)
        if kind == "openllm":
            from openllm.engine.assemble import estimate_bytes

            return estimate_bytes(path, self._cfg)
        if kind == "gguf":
            return path.stat().st_size
        if kind == "onnx":
            from openllm.integrations.onnx import onnx_bytes

            return onnx_bytes(path)
        return 0

    def load(self, name: str, source: str) -> Backend:
        """Load a source; requests will call it `name`.

        Raises:
            ConfigError: it cannot have adapters, or the settings do not fit it.
            CheckpointError, TokenizerError, TemplateError: it is missing or damaged.
            RemoteError: the server cannot be reached.
            MissingExtra: the library that runs it is not installed.
        """
        kind, path = find_source(source)
        adapters = self._adapters.get(name, ())
        if adapters and kind != "openllm":
            raise ConfigError(f"the model '{name}' takes no adapters from here; leave them out")
        if kind == "openllm":
            from openllm.engine.llm import LLM

            llm = LLM.load(path, self._cfg, name=name)
            for adapter, place in adapters:
                llm.load_adapter(adapter, place)
            return llm.backend()
        return self._load_foreign(kind, path, name, source)

    def _load_foreign(self, kind: Kind, path: Path, name: str, source: str) -> Backend:
        if kind == "onnx":
            from openllm.integrations.onnx import onnx_backend

            return onnx_backend(path, self._cfg, name=name)
        if kind == "gguf":
            from openllm.integrations.llama_cpp import llama_backend

            return llama_backend(path, self._cfg, name=name, tokenizer=self._tokenizer)
        if kind == "remote":
            from openllm.integrations.remote_openai import connect, read_key

            url, _, model = source.partition("#")
            return connect(url, model or None, read_key(self._key_file), name=name)
        from openllm.engine.backends.echo import echo_backend

        return echo_backend(name)
