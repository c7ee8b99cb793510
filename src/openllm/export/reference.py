# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the original model says: numbers kept beside an export, so that it can be checked anywhere.

Importable without torch.
"""

# P prompts, R rows (positions whose logits are kept), T time, V vocabulary, L layers, D model

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from openllm.core.errors import CheckpointError
from openllm.core.log import progress
from openllm.export.inventory import REFERENCE as FILE

KEPT_BYTES = 16 * 2**20
"""Of logits at most, and of layers: vocabularies and widths differ a hundredfold."""
MAX_ROWS = 256
PROBE_TOKENS = 16
"""Tokens whose residual stream is kept after each layer."""


class Original(Protocol):
    """The model before it was exported."""

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        ...

    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer."""
        ...

    def greedy_with_margins(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """The most likely continuation of each prompt; the gaps between the two best logits."""
        ...


@dataclass(frozen=True)
class Reference:
    """Inputs, and the original model's answers to them.

    Attributes:
        fingerprint: of the original model folder.
        texts: token ids of each text.
        nats: -log p of all tokens of the texts after each text's first, summed.
        rows: (text, position) of the logits that are kept.
        logits_RV: the logits after these positions.
        prompts: token ids of each prompt.
        continuations: the greedy continuation of each prompt.
        margins: gap between the two best logits at each token of a continuation.
        layers_LTD: residual stream of the first text's first tokens.
        strings: texts as text.
        string_ids: token ids of each, without what a document begins with.
    """

    fingerprint: str
    texts: list[list[int]]
    nats: float
    rows: list[tuple[int, int]]
    logits_RV: NDArray[np.float32] = field(repr=False)
    prompts: list[list[int]]
    continuations: list[list[int]]
    margins: list[list[float]]
    layers_LTD: NDArray[np.float32] = field(repr=False)
    strings: list[str] = field(default_factory=list)
    string_ids: list[list[int]] = field(default_factory=list)

    @property
    def scored(self) -> int:
        """Number of tokens whose probability counts."""
        return sum(len(text) - 1 for text in self.texts)

    def save(self, folder: Path) -> None:
        """Write `reference.safetensors` into a folder."""
        facts = {
            name: getattr(self, name)
            for name in ("fingerprint", "texts", "nats", "rows", "prompts")
        }
        facts |= {"continuations": self.continuations, "margins": self.margins}
        facts |= {"strings": self.strings, "string_ids": self.string_ids}
        arrays = {"logits": self.logits_RV, "layers": self.layers_LTD}
        path = folder / FILE
        path.touch()
        mode = path.stat().st_mode
        save_file(arrays, path, metadata={"reference": json.dumps(facts)})
        path.chmod(mode)  # safetensors makes it readable by the owner only

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        """Read it back.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        path = folder / FILE
        if not path.exists():
            raise CheckpointError(
                f"{folder} has no {FILE}, so there is nothing to compare it with; export the model "
                "again, or name the original: openllm verify FOLDER --model MODEL"
            )
        try:
            arrays = load_file(path)
            facts = json.loads(_metadata(path)["reference"])
            facts["rows"] = [(text, position) for text, position in facts["rows"]]
            return cls(**facts, logits_RV=arrays["logits"], layers_LTD=arrays["layers"])
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); export the model again") from None


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "np") as handle:
        return handle.metadata() or {}


def make_reference(
    model: Original,
    *,
    fingerprint: str,
    texts: list[list[int]],
    prompts: list[list[int]],
    new_tokens: int,
    strings: Mapping[str, list[int]] | None = None,
) -> Reference:
    """Ask the original model.

    Args:
        model: the original.
        fingerprint: of its folder.
        texts: token ids of each text, at least two each, none longer than the context.
        prompts: token ids of each prompt.
        new_tokens: length of the greedy continuations.
        strings: texts and their token ids.
    """
    nats, kept, rows = 0.0, [], []
    every = None
    total = sum(map(len, texts))
    with progress("asking the original model", total, "tokens") as meter:
        for number, text in enumerate(texts):
            found_TV = model.logits(text)
            nats += negative_log_likelihood(found_TV, text)
            if every is None:
                room = KEPT_BYTES // (4 * found_TV.shape[1])
                every = max(1, -(-total // max(1, min(room, MAX_ROWS))))
            places = range(0, len(text), every)
            rows += [(number, place) for place in places]
            kept.append(found_TV[list(places)])
            meter.advance(len(text))
    continuations, margins = model.greedy_with_margins(prompts, new_tokens)
    layers = model.layers(texts[0][:PROBE_TOKENS])
    return Reference(
        fingerprint=fingerprint,
        texts=texts,
        nats=nats,
        rows=rows,
        logits_RV=np.concatenate(kept),
        prompts=prompts,
        continuations=continuations,
        margins=margins,
        layers_LTD=np.stack(layers),
        strings=list(strings or {}),
        string_ids=list((strings or {}).values()),
    )


def negative_log_likelihood(logits_TV: NDArray[np.float32], ids: Sequence[int]) -> float:
    """Sum of -log p(token) in nats over all tokens after the first."""
    logprobs = log_softmax(logits_TV[:-1])
    return -float(logprobs[np.arange(len(ids) - 1), list(ids[1:])].sum())


def log_softmax(scores_RV: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities of each row, in float64."""
    wide = scores_RV.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(1, keepdims=True))
