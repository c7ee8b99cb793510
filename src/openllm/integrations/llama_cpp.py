# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Serve a GGUF file with llama.cpp: its matrices, our scheduler, sampler and structures."""

# W wanted rows, V vocabulary

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError, ConfigError, EngineError
from openllm.engine.backend import BackendInfo
from openllm.engine.backends.slot_backend import SlotBackend, choose_slots
from openllm.engine.config import EngineConfig
from openllm.engine.runners.slots import Piece
from openllm.export.gguf.llama_cpp import MOST_CONTEXT, has_tiles, library
from openllm.integrations.llama_tokenizer import LlamaTokenizer
from openllm.text.chat import ChatTemplate, find_chat_template
from openllm.text.load import load_tokenizer

MOST_TOKENS = 512
"""Tokens that llama.cpp computes in one run; the memory for their logits grows with it."""


class LlamaModel:
    """A GGUF file; a `SlotModel`, whose slots llama.cpp calls sequences.

    Attributes:
        vocab_size, max_positions, num_bytes, token_bytes: see `SlotModel`.
        parameters: number of weights.
        description: architecture, size and type, as llama.cpp says it.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int | None = None,
        threads: int | None = None,
        kernels: bool = True,
    ) -> None:
        """Map a file into memory.

        Args:
            path: the file.
            context: longest text; none: what the file says, at most `MOST_CONTEXT`.
            threads: none: one for each core.
            kernels: let llama.cpp copy weights into the forms of its fastest kernels, but where
                these crash (`has_tiles`).

        Raises:
            CheckpointError: missing, damaged, or refused by llama.cpp.
            ConfigError: the context is longer than the model's.
            MissingExtra: `llama-cpp-python` is not installed.
        """
        self._lib = lib = library()
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; give a file that ends in .gguf")
        params = lib.llama_model_default_params()
        params.use_extra_bufts = kernels and not has_tiles()
        self._model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise CheckpointError(
                f"llama.cpp cannot load {path}; it is damaged, or made for a newer version; copy "
                "or export it again"
            )
        self.vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_size: int = lib.llama_vocab_n_tokens(self.vocab)
        self.num_bytes: int = lib.llama_model_size(self._model)
        self.parameters: int = lib.llama_model_n_params(self._model)
        self.description = self._describe()
        self.max_positions = self._context(path, context)
        self.token_bytes = self._token_bytes()
        self._threads = threads or os.cpu_count() or 1
        self._ctx: Any = None

    def metadata(self, key: str) -> str | None:
        """A value of the file as text; none if it has none."""
        size = 1 << 10
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, size)
            if length < size:
                return None if length < 0 else buffer.raw[:length].decode("utf-8", "replace")
            size = length + 1

    def allocate(self, slots: int) -> None:
        """See `SlotModel.allocate`."""
        lib = self._lib
        params = lib.llama_context_default_params()
        # sequences lie apart, so that each step looks at its own only
        params.kv_unified = False
        params.n_seq_max = slots
        params.n_ctx = slots * self.max_positions
        params.n_batch = params.n_ubatch = MOST_TOKENS
        params.n_outputs_max = params.n_outputs_max_per_seq = MOST_TOKENS
        params.n_threads = params.n_threads_batch = self._threads
        self._ctx = lib.llama_init_from_model(self._model, params)
        if not self._ctx:
            raise EngineError(
                f"llama.cpp has no memory for {slots} texts of {self.max_positions} tokens; ask "
                "for a smaller cache or a shorter context"
            )
        self._memory = lib.llama_get_memory(self._ctx)
        self._batch = lib.llama_batch_init(MOST_TOKENS, 0, 1)

    def copy(self, source: int, target: int, length: int) -> None:
        """See `SlotModel.copy`."""
        lib = self._lib
        lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        # sequences that lie apart can be copied as a whole only
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._cut(target, length)

    def extend(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """See `SlotModel.extend`."""
        for piece in pieces:
            self._cut(piece.slot, piece.start)
        rows = [
            (token, piece.start + place, piece.slot, place in wanted)
            for piece in pieces
            for wanted in [frozenset(piece.wanted)]
            for place, token in enumerate(piece.tokens)
        ]
        parts = [
            self._decode(rows[begin : begin + MOST_TOKENS])
            for begin in range(0, len(rows), MOST_TOKENS)
        ]
        return np.concatenate(parts)

    def close(self) -> None:
        """See `SlotModel.close`."""
        if self._ctx:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._ctx)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._ctx = self._model = None

    def _cut(self, slot: int, length: int) -> None:
        if not self._lib.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise EngineError(
                f"llama.cpp cannot forget the end of a text with this model ({self.description}); "
                "serve the model folder instead"
            )

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> NDArray[np.float32]:
        """Run (token, position, slot, wanted) rows."""
        lib, batch = self._lib, self._batch
        batch.n_tokens = len(rows)
        for at, (token, position, slot, wanted) in enumerate(rows):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = slot
            batch.logits[at] = wanted
        code = lib.llama_decode(self._ctx, batch)
        if code != 0:
            raise EngineError(f"llama.cpp failed with code {code}; give it more memory")
        count = sum(wanted for *_, wanted in rows)
        if not count:
            return np.empty((0, self.vocab_size), np.float32)
        logits = lib.llama_get_logits(self._ctx)
        return np.ctypeslib.as_array(logits, (count, self.vocab_size)).copy()

    def _describe(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def _context(self, path: Path, wanted: int | None) -> int:
        longest: int = self._lib.llama_model_n_ctx_train(self._model)
        if wanted is not None and wanted > longest:
            raise ConfigError(f"{path} is made for texts of {longest} tokens, not {wanted}")
        if wanted is None:
            wanted = min(longest, MOST_CONTEXT)
            shape = self.metadata("general.architecture")
            scaling = f"{shape}.rope.scaling"
            # beyond it, all texts would be rotated by the factors for long ones
            original = self.metadata(f"{scaling}.original_context_length")
            if self.metadata(f"{scaling}.type") == "longrope" and original:
                wanted = min(wanted, int(original))
        return wanted

    def _token_bytes(self) -> int:
        """Of keys and values in float16."""
        lib, shape = self._lib, self.metadata("general.architecture")
        usual = lib.llama_model_n_embd(self._model) // lib.llama_model_n_head(self._model)
        sizes = [
            int(self.metadata(f"{shape}.attention.{name}_length") or usual)
            for name in ("key", "value")
        ]
        heads = lib.llama_model_n_head_kv(self._model)
        return 2 * lib.llama_model_n_layer(self._model) * heads * sum(sizes)


def llama_backend(
    path: Path,
    cfg: EngineConfig | None = None,
    *,
    name: str | None = None,
    tokenizer: Path | None = None,
    context: int | None = None,
    threads: int | None = None,
) -> SlotBackend:
    """A backend that runs a GGUF file.

    Args:
        path: the file.
        cfg: how large the cache is, how many texts are computed at a time, and whether llama.cpp
            may use its fastest kernels.
        name: as requests call it; none: the file's name.
        tokenizer: folder with the tokenizer and chat template; none: those in the file.
        context: longest text; none: what the file says, at most `MOST_CONTEXT`.
        threads: none: one for each core.

    Raises:
        CheckpointError: missing, damaged, or refused by llama.cpp.
        TokenizerError: the folder has no tokenizer.
        TemplateError: the chat template is broken.
        ConfigError: the tokenizer is not the model's, or the context is too long.
        MissingExtra: `llama-cpp-python` is not installed.
    """
    cfg = cfg or EngineConfig()
    model = LlamaModel(path, context=context, threads=threads, kernels=cfg.kernels)
    try:
        own = LlamaTokenizer(model.vocab, model.metadata, library())
        source = model.metadata("tokenizer.chat_template")
        template = None
        if tokenizer is not None:
            template = find_chat_template(tokenizer)
        elif source is not None:
            template = ChatTemplate(source, own.special, f"the chat template of {path}")
        slots = choose_slots(cfg, model)
        info = BackendInfo(
            name or path.stem,
            "llama.cpp",
            model.max_positions,
            model.description,
            model.parameters,
            model.num_bytes,
            slots * model.max_positions * model.token_bytes,
        )
        chosen = own if tokenizer is None else load_tokenizer(tokenizer)
        return SlotBackend(model, chosen, template, info, cfg, slots=slots)
    except BaseException:
        model.close()
        raise
