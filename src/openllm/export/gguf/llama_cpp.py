# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A GGUF file in llama.cpp, through `llama-cpp-python`."""

# T time, D model, V vocabulary

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError, ConfigError
from openllm.core.log import say
from openllm.core.plugins import require
from openllm.export.eager import EagerModel
from openllm.export.gguf.file import GGUFFile
from openllm.export.gguf.reader import read_gguf
from openllm.export.runtime import Runtime
from openllm.nn.model import Transformer

MOST_CONTEXT = 4096
"""Longest text by default: memory for the cache and all logits grows with it."""

CACHE_F32 = 0
"""ggml's number of float32, so that keys and values are not rounded to float16."""


def has_tiles() -> bool:
    """Whether the processor has AMX.

    There, llama.cpp's kernels for 8 and 4 bits crash on prompts of several tokens (seen with
    llama-cpp-python 0.3.36, in a virtual machine), unless it leaves the weights as they are.
    """
    info = Path("/proc/cpuinfo")
    return info.exists() and " amx_int8" in info.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def repacking(llama_cpp: Any, allowed: bool) -> Iterator[None]:
    """Whether models loaded meanwhile may repack their weights for the processor.

    The class `Llama` has no argument for it.
    """
    defaults = llama_cpp.llama_model_default_params

    def plain() -> Any:
        params = defaults()
        params.use_extra_bufts = params.use_extra_bufts and allowed
        return params

    modules = (llama_cpp, llama_cpp.llama_cpp)
    for module in modules:
        module.llama_model_default_params = plain
    try:
        yield
    finally:
        for module in modules:
            module.llama_model_default_params = defaults


def library() -> Any:
    """The module `llama_cpp`, made to be silent.

    Raises:
        MissingExtra: it is not installed.
    """
    found = require("llama_cpp")
    # it takes llama.cpp's warnings for errors
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
    found.llama_backend_init()
    return found


def load(folder: Path) -> Runtime:
    """Load the one file in a folder that `export_gguf` wrote to.

    Where llama.cpp is not installed, the file is read back into our own model: that tells whether
    it holds the right weights, not what llama.cpp makes of them.

    Raises:
        CheckpointError: there is no such file, or more than one.
    """
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} has {len(found)} files *.gguf, not one; export the model again"
        )
    if importlib.util.find_spec("llama_cpp") is None:
        say(
            "llama.cpp is not installed: the file's weights are checked in OpenLLM itself; to have "
            "them run by llama.cpp: pip install 'openllm-lab[llama]'"
        )
        return EagerModel(read_gguf(found[0]))
    return LlamaCppModel(found[0])


class LlamaCppModel:
    """A loaded file; a `Runtime`.

    Attributes:
        name: `llama.cpp`.
        version: of `llama-cpp-python`.
        context: the longest text, in tokens.
    """

    name = "llama.cpp"

    def __init__(
        self, path: Path, *, context: int | None = None, threads: int | None = None
    ) -> None:
        """Load a file.

        Args:
            path: the file.
            context: longest text; by default what the file says, at most `MOST_CONTEXT`. With
                `longrope`, llama.cpp rotates all texts by the long factors if this is beyond the
                original context, so the default is that.
            threads: none: llama.cpp's choice.

        Raises:
            CheckpointError: missing, damaged, or refused by llama.cpp.
            MissingExtra: `llama-cpp-python` is not installed.
        """
        llama_cpp = library()
        self.version: str = llama_cpp.__version__
        self.path = path
        self.context = context or _default_context(GGUFFile(path))
        self._copy: Transformer | None = None
        try:
            with repacking(llama_cpp, not has_tiles()):
                self._llama: Any = llama_cpp.Llama(
                    str(path),
                    n_ctx=self.context,
                    n_threads=threads,
                    n_threads_batch=threads,
                    logits_all=True,
                    type_k=CACHE_F32,
                    type_v=CACHE_F32,
                    verbose=False,
                )
        except ValueError as error:
            raise CheckpointError(
                f"llama.cpp cannot load {path} ({error}); export the model again"
            ) from None

    def encode(self, text: str) -> list[int]:
        """Ids of a text by llama.cpp's tokenizer, without bos; control tokens are not parsed."""
        return self._llama.tokenize(text.encode("utf-8"), add_bos=False, special=False)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        self._check(len(ids))
        self._llama.reset()
        self._llama.eval(list(ids))
        return np.array(self._llama.scores[: len(ids)], dtype=np.float32)

    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, with the cache, past any end token."""
        return [self._continue(list(prompt), new_tokens) for prompt in prompts]

    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer, from the file's weights in our own model.

        llama.cpp does not show its own; this tells whether the file holds the right weights.
        """
        if self._copy is None:
            self._copy = read_gguf(self.path)
        return EagerModel(self._copy).layers(ids)

    def close(self) -> None:
        """Free the memory."""
        self._llama.close()

    def _continue(self, ids: list[int], new_tokens: int) -> list[int]:
        self._check(len(ids) + new_tokens)
        self._llama.reset()
        out: list[int] = []
        fresh = ids
        for _ in range(new_tokens):
            self._llama.eval(fresh)
            fresh = [int(self._llama.scores[self._llama.n_tokens - 1].argmax())]
            out += fresh
        return out

    def _check(self, length: int) -> None:
        if length > self.context:
            raise ConfigError(
                f"{self.path} was loaded for texts of {self.context} tokens, not {length}; "
                "give a larger context, or a shorter text"
            )


def _default_context(file: GGUFFile) -> int:
    """Longest text that the file promises and that fits into a moderate memory."""
    prefix = file.metadata["general.architecture"]
    length = min(int(file.metadata[f"{prefix}.context_length"]), MOST_CONTEXT)
    if file.metadata.get(f"{prefix}.rope.scaling.type") == "longrope":
        original = int(file.metadata[f"{prefix}.rope.scaling.original_context_length"])
        length = min(length, original)
    return length
