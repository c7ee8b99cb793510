# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Held-out documents that are in the training split of some source of `openllm data mix`.

Each folder is clean by itself; this checks across folders. Training on such a document would reward
the mixtures that contain it, so it is scored for none.

OUT/leaks/DIGEST.json   which documents of one target one source has
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from openllm.core.errors import DataError
from openllm.core.files import read_json, write_json
from openllm.core.log import progress
from openllm.data.document import read_documents
from openllm.data.prepare.leaks import LEAK, find_leaked
from openllm.recipes.mixing.runs import Bench, Source, digest_of

LEAKS = "leaks"
_BATCH_CHARS = 1 << 19


def survey(bench: Bench) -> dict[str, dict[str, np.ndarray]]:
    """Target -> source -> which of the target's scored documents the source trains on, bool [D].

    Raises:
        DataError: no document of a target is left.
    """
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in bench.targets}
    for source in bench.sources.values():
        paths = {name: _path(bench, name, source) for name in bench.targets}
        missing = [name for name, path in paths.items() if not path.exists()]
        if missing:
            texts = [_heldout_texts(bench, name) for name in missing]
            for name, leaked in zip(missing, _look(source, texts), strict=True):
                write_json(paths[name], {"leaked": np.flatnonzero(leaked).tolist()})
        for name, path in paths.items():
            found[name][source.name] = _read(path, len(bench.targets[name]))
    for name, by_source in found.items():
        if kept(by_source).any():
            continue
        culprit = max(by_source, key=lambda source: int(by_source[source].sum()))
        raise DataError(
            f"every held-out document of '{name}' that would be scored shares {LEAK} words with "
            f"the training split of a source, most of them with '{culprit}'; remove that source, "
            "prepare both with one command, or choose another --target"
        )
    return found


def kept(by_source: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which documents of a target no source trains on."""
    return ~np.logical_or.reduce(list(by_source.values()))


def _path(bench: Bench, target: str, source: Source) -> Path:
    heldout = bench.sources[target]
    key = [heldout.fingerprint, bench.targets[target].tolist(), source.fingerprint]
    return bench.folder / LEAKS / f"{digest_of(key)}.json"


def _read(path: Path, count: int) -> np.ndarray:
    mend = "remove the file and repeat the command"
    numbers = read_json(path, DataError, mend).get("leaked")
    if not isinstance(numbers, list) or not all(number in range(count) for number in numbers):
        raise DataError(f"{path} is not a list of leaked documents; {mend}")
    leaked = np.zeros(count, dtype=bool)
    leaked[np.array(numbers, dtype=np.int64)] = True
    return leaked


def _look(source: Source, heldout: Sequence[Sequence[str]]) -> list[np.ndarray]:
    size = int(source.train.doc_bytes.sum()) / 1e6
    with progress(f"searching for held-out text in {source.name}", size, "MB") as meter:

        def batches() -> Iterator[list[str]]:
            batch: list[str] = []
            chars = 0
            for document in read_documents(source.folder, "train"):
                batch.append(document.text)
                chars += len(document.text)
                if chars >= _BATCH_CHARS:
                    yield batch
                    meter.advance(sum(len(text.encode("utf-8", "replace")) for text in batch) / 1e6)
                    batch, chars = [], 0
            if batch:
                yield batch

        return find_leaked(heldout, batches())


def _heldout_texts(bench: Bench, target: str) -> list[str]:
    wanted = set(bench.targets[target].tolist())
    documents = read_documents(bench.sources[target].folder, "validation")
    return [document.text for number, document in enumerate(documents) if number in wanted]
