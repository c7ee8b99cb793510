# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Run an ONNX export in onnxruntime: logits, residual streams, text.

`OnnxModel.generate` is the reference loop for users of the exported files: what to feed, what to
keep, how to pad.
"""

# B batch, T new tokens, S all tokens so far, V vocabulary

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError, ConfigError
from openllm.core.files import read_json
from openllm.core.plugins import require
from openllm.export.onnx.writer import GRAPH, with_layer_outputs

LENGTHS = ("max_position_embeddings", "n_positions", "max_positions")
"""Keys of `config.json` that may hold the longest context."""


class OnnxModel:
    """A `Runtime` over the folder of an ONNX export, on the CPU.

    Args:
        folder: with `model.onnx` and `config.json`.
        threads: none: one for each core.
        graph: the content of `model.onnx`, if it is not in the folder.

    Attributes:
        longest: tokens of the context; none if the config does not say.
        token_bytes: memory that a token takes in a cache.

    Raises:
        CheckpointError: the folder lacks a file, or it cannot be loaded.
    """

    name = "onnxruntime"

    def __init__(
        self, folder: Path | str, *, threads: int | None = None, graph: bytes | None = None
    ) -> None:
        self._ort = require("onnxruntime")
        self._path = Path(folder) / GRAPH
        self._threads = threads
        self.version: str = self._ort.__version__
        self._graph: str | bytes = str(self._path) if graph is None else graph
        if graph is None and not self._path.is_file():
            raise CheckpointError(
                f"{self._path} does not exist; export the model again with: "
                "openllm export MODEL --to onnx"
            )
        config = read_json(Path(folder) / "config.json", CheckpointError, "copy the whole folder")
        self.longest = next((int(config[key]) for key in LENGTHS if key in config), None)
        self._session = self._open(self._graph)
        self._past = [
            (value.name, (value.shape[1], value.shape[3]))
            for value in self._session.get_inputs()
            if value.name.startswith("past_key_values.")
        ]
        self.token_bytes = 4 * sum(heads * dim for _, (heads, dim) in self._past)

    def _open(self, graph: str | bytes) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads or 0
        folder = str(self._path.parent)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
        errors = self._ort.capi.onnxruntime_pybind11_state
        try:
            return self._ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except (
            errors.Fail,
            errors.InvalidArgument,
            errors.InvalidGraph,
            errors.InvalidProtobuf,
            errors.NotImplemented,
            errors.RuntimeException,
        ) as error:
            first = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{self._path} is damaged ({first}); export it again") from None

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        return self._session.run(["logits"], self._whole(ids))[0][0]

    def start(self) -> list[Any]:
        """The cache of an empty text, which `extend` and `cut` do not change."""
        kind = self._ort.OrtValue
        return [kind.ortvalue_from_numpy(value) for value in self._empty(1)]

    def extend(
        self, cache: list[Any], length: int, ids: Sequence[int]
    ) -> tuple[NDArray[np.float32], list[Any]]:
        """Logits (T, V) after each of the ids that follow a text of `length`, and its new cache."""
        ids_BT = np.array([ids])
        mask_BS = np.ones((1, length + len(ids)))
        logits_BTV, *new = self._step(ids_BT, mask_BS, length + np.arange(len(ids))[None], cache)
        return logits_BTV.numpy()[0], new

    def cut(self, cache: list[Any], length: int) -> list[Any]:
        """The cache of the first tokens of a text."""
        kind = self._ort.OrtValue
        return [
            kind.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
            for value in cache
        ]

    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer; loads the model once more."""
        graph, names = with_layer_outputs(self._graph)
        return [stream[0] for stream in self._open(graph).run(names, self._whole(ids))]

    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, with the cache, past any end token."""
        return self.generate(prompts, new_tokens)

    def generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, *, stop: Collection[int] = ()
    ) -> list[list[int]]:
        """Continue a batch of prompts, the most likely token at a time.

        Args:
            prompts: ids of each; shorter ones are padded before their first token.
            new_tokens: at most so many for each prompt.
            stop: ids that end a text; they are not part of it.

        Raises:
            ConfigError: a prompt is empty, or a text would be longer than the context.
        """
        self._check(prompts, new_tokens)
        longest = max(map(len, prompts))
        mask_BS = np.array([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        ids_BT = np.array([[0] * (longest - len(p)) + list(p) for p in prompts])
        places_BT = (mask_BS.cumsum(1) - 1).clip(0)
        cache = self._empty(len(prompts))
        chosen, going = [], np.ones(len(prompts), bool)
        for _ in range(new_tokens):
            logits_BTV, *cache = self._step(ids_BT, mask_BS, places_BT, cache)
            newest_B = logits_BTV.numpy()[:, -1].argmax(1)
            chosen.append(newest_B)
            going &= ~np.isin(newest_B, list(stop))
            if not going.any():
                break
            ids_BT, places_BT = newest_B[:, None], places_BT[:, -1:] + 1
            mask_BS = np.concatenate((mask_BS, np.ones_like(mask_BS[:, :1])), axis=1)
        rows = np.array(chosen).reshape(-1, len(prompts)).T.tolist()
        return [_until(row, stop) for row in rows]

    def _check(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        if not prompts or not all(prompts):
            raise ConfigError("a prompt has no tokens; begin it with the bos token")
        total = max(map(len, prompts)) + new_tokens
        if self.longest is not None and total > self.longest:
            raise ConfigError(
                f"prompt and new text would have {total} tokens, but the context has "
                f"{self.longest}; shorten one of them"
            )

    def _whole(self, ids: Sequence[int]) -> dict[str, Any]:
        """Inputs to read one text at once."""
        ids_BT = np.array([ids], dtype=np.int64)
        places_BT = np.arange(len(ids))[None]
        return self._inputs(ids_BT, np.ones_like(ids_BT), places_BT) | dict(
            zip((name for name, _ in self._past), self._empty(1), strict=True)
        )

    def _empty(self, batch: int) -> list[NDArray[np.float32]]:
        """A cache without tokens."""
        return [np.zeros((batch, heads, 0, dim), np.float32) for _, (heads, dim) in self._past]

    @staticmethod
    def _inputs(*values: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
        names = ("input_ids", "attention_mask", "position_ids")
        return {name: v.astype(np.int64) for name, v in zip(names, values, strict=True)}

    def _step(
        self, ids: NDArray[Any], mask: NDArray[Any], places: NDArray[Any], cache: list[Any]
    ) -> list[Any]:
        """Logits and the new cache, which stay in onnxruntime's memory."""
        feed = self._inputs(ids, mask, places) | dict(
            zip((name for name, _ in self._past), cache, strict=True)
        )
        kind = self._ort.OrtValue
        values = {
            name: value if isinstance(value, kind) else kind.ortvalue_from_numpy(value)
            for name, value in feed.items()
        }
        return self._session.run_with_ort_values(None, values)


def _until(ids: list[int], stop: Collection[int]) -> list[int]:
    """The ids before the first that stops."""
    return next((ids[:at] for at, token in enumerate(ids) if token in stop), ids)
