# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The engine over a runtime with slots: what is used again, and that nothing is mixed up."""

import asyncio
import random
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.backend import BackendInfo
from openllm.engine.backends.slot_backend import SlotBackend
from openllm.engine.request import SamplingParams, Update
from openllm.engine.runner import Batch
from openllm.engine.runners.slots import Piece, SlotRunner
from openllm.text.byte_tokenizer import ByteTokenizer

VOCAB = 260


def logits_after(text: Sequence[int]) -> NDArray[np.float32]:
    """Logits that depend on every token of a text."""
    seed = zlib.crc32(array("i", text).tobytes())
    return np.random.default_rng(seed).standard_normal(VOCAB).astype(np.float32) * 3


class HashModel:
    """Its slots hold texts, and its logits are a digest of them."""

    vocab_size, max_positions, num_bytes, token_bytes = VOCAB, 64, 1000, 4

    def __init__(self) -> None:
        self.texts: list[list[int]] = []
        self.computed = self.copies = 0
        self.fails = False
        self.closed = False

    def allocate(self, slots: int) -> None:
        self.texts = [[] for _ in range(slots)]

    def copy(self, source: int, target: int, length: int) -> None:
        assert source != target and 0 < length <= len(self.texts[source])
        self.texts[target] = self.texts[source][:length]
        self.copies += 1

    def extend(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        assert len({piece.slot for piece in pieces}) == len(pieces)
        rows = []
        for piece in pieces:
            text = self.texts[piece.slot]
            assert piece.tokens and piece.start <= len(text)
            del text[piece.start :]
            for place, token in enumerate(piece.tokens):
                text.append(token)
                if place in piece.wanted:
                    rows.append(logits_after(text))
            assert len(text) <= self.max_positions
            self.computed += len(piece.tokens)
        if self.fails:
            self.texts = [[-1] for _ in self.texts]
            raise RuntimeError("the runtime failed")
        return np.array(rows, np.float32).reshape(-1, VOCAB)

    def close(self) -> None:
        self.closed = True


def make(slots: int = 4) -> tuple[SlotBackend, HashModel]:
    model = HashModel()
    info = BackendInfo("m", "fake", model.max_positions)
    return SlotBackend(model, ByteTokenizer(), None, info, slots=slots), model


def run(texts: dict[int, tuple[int, list[int]]], wanted: dict[int, list[int]]) -> Batch:
    """A batch of slot -> (start, tokens), and the places in each whose logits are wanted."""
    rows, counts = 0, []
    places: list[int] = []
    for slot, (_, tokens) in texts.items():
        places += [rows + place for place in wanted.get(slot, ())]
        counts.append(len(tokens))
        rows += len(tokens)
    return Batch(
        tokens=[token for _, tokens in texts.values() for token in tokens],
        positions=[at + i for at, tokens in texts.values() for i in range(len(tokens))],
        counts=counts,
        tables=[[slot] for slot in texts],
        adapters=[-1] * len(texts),
        wanted=places,
    )


def runner(slots: int = 4) -> tuple[SlotRunner, HashModel]:
    model = HashModel()
    made = SlotRunner(model)
    made.allocate(slots, model.max_positions)
    return made, model


def test_rows_in_order() -> None:
    made, _ = runner()
    rows = made.forward(run({2: (0, [1, 2, 3]), 0: (0, [9, 8])}, {2: [0, 2], 0: [1]}))
    expected = [logits_after(text) for text in ([1], [1, 2, 3], [9, 8])]
    assert torch.equal(rows, torch.from_numpy(np.array(expected)))
    logits = made.logits(rows).all_WV
    logits.zero_()
    assert rows.abs().sum() > 0, "sampling must not overwrite"


def test_nothing_wanted() -> None:
    made, model = runner()
    assert made.forward(run({0: (0, [1, 2])}, {})).shape == (0, VOCAB)
    made.forward(run({1: (0, [1, 2])}, {}))
    assert made.forward(run({0: (2, [3])}, {0: [0]})).shape == (1, VOCAB)
    assert model.texts[0] == [1, 2, 3]


def test_a_text_is_used_again() -> None:
    """In its slot whatever its length; from another slot if it is long."""
    made, model = runner()
    text = list(range(40))
    made.forward(run({0: (0, text)}, {0: [39]}))
    assert model.computed == 40
    made.forward(run({0: (0, [*text[:10], 77])}, {0: [10]}))
    assert (model.computed, model.copies) == (41, 0)
    made.forward(run({0: (0, text)}, {0: [39]}))
    before = model.computed
    rows = made.forward(run({1: (0, [*text[:30], 88, 89])}, {1: [31]}))
    assert (model.computed - before, model.copies) == (2, 1)
    assert np.array_equal(rows[0], logits_after([*text[:30], 88, 89]))
    before = model.computed
    made.forward(run({2: (0, text[:15])}, {2: [14]}))
    assert (model.computed - before, model.copies) == (15, 1)
    assert made.reused_tokens == 10 + 10 + 30


def test_logits_that_are_wanted_are_computed() -> None:
    made, model = runner()
    text = list(range(40))
    made.forward(run({0: (0, text)}, {0: [39]}))
    before = model.computed
    rows = made.forward(run({0: (0, text)}, {0: list(range(20, 40))}))
    assert (len(rows), model.computed - before) == (20, 20)


def test_equal_prompts_of_one_batch_are_read_once() -> None:
    made, model = runner()
    text = list(range(40))
    batch = run(dict.fromkeys(range(4), (0, text)), {slot: [39] for slot in range(4)})
    rows = made.forward(batch)
    assert model.computed == 40 + 3
    assert torch.equal(rows, rows[:1].expand(4, -1))


def test_a_failure_forgets_the_slots() -> None:
    made, model = runner()
    made.forward(run({0: (0, [1, 2, 3])}, {0: [2]}))
    model.fails = True
    with pytest.raises(RuntimeError):
        made.forward(run({0: (3, [4])}, {0: [0]}))
    model.fails = False
    rows = made.forward(run({0: (0, [1, 2, 3])}, {0: [2]}))
    assert np.array_equal(rows[0], logits_after([1, 2, 3]))


def test_save_and_restore() -> None:
    made, model = runner()
    made.forward(run({0: (0, [1, 2, 3])}, {0: [2]}))
    saved = made.save([0])
    made.forward(run({0: (0, [7])}, {0: [0]}))
    made.restore(saved, [1])
    assert model.texts[1] == [1, 2, 3]


async def collect(backend: SlotBackend, prompt: Any, params: SamplingParams) -> list[Update]:
    return [update async for update in backend.generate(prompt, params)]


def alone(prompt: Sequence[int], params: SamplingParams) -> list[list[int]]:
    """What one slot alone makes of a request."""

    async def main() -> list[list[int]]:
        backend, _ = make(1)
        updates = await collect(backend, prompt, params)
        await backend.close()
        return tokens_of(updates, params.n)

    return asyncio.run(main())


def tokens_of(updates: Sequence[Update], n: int) -> list[list[int]]:
    return [
        [token for update in updates if update.index == index for token in update.token_ids]
        for index in range(n)
    ]


def test_continuations_do_not_depend_on_companions() -> None:
    """Many requests with common beginnings over few slots, some cancelled."""
    rng = random.Random(1)
    stems = [[rng.randrange(256) for _ in range(30)] for _ in range(3)]
    requests = []
    for seed in range(40):
        stem = rng.choice(stems)
        prompt = [*stem[: rng.randrange(1, 31)], *(rng.randrange(256) for _ in range(5))]
        params = SamplingParams(
            max_new_tokens=rng.randrange(1, 20),
            n=rng.choice([1, 1, 3]),
            seed=seed,
            temperature=rng.choice([0.0, 1.0]),
            top_k=20,
        )
        requests.append((prompt, params))

    async def main() -> list[list[list[int]]]:
        backend, model = make(4)

        async def cancelled(prompt: Any, params: SamplingParams) -> None:
            async for _ in backend.generate(prompt, params):
                break

        async def one(prompt: Any, params: SamplingParams) -> list[list[int]]:
            return tokens_of(await collect(backend, prompt, params), params.n)

        jobs = [one(*request) for request in requests]
        noise = [cancelled(*request) for request in requests[::3]]
        found = await asyncio.gather(*jobs, *noise)
        used = sum(len(p) * params.n for p, params in requests)
        assert model.copies > 5 and model.computed < used * 2
        await backend.close()
        assert model.closed
        return [one for one in found if one is not None]

    found = asyncio.run(main())
    assert found == [alone(*request) for request in requests]


def test_score() -> None:
    async def main() -> None:
        backend, _ = make()
        prompt = [5, 6, 7]
        for _ in range(2):
            found = await backend.score(prompt, top=2)
            for place, one in enumerate(found, 1):
                expected = torch.from_numpy(logits_after(prompt[:place])).log_softmax(0)
                assert one.token_id == prompt[place]
                assert one.logprob == pytest.approx(float(expected[prompt[place]]), abs=1e-5)
                assert max(one.top.values()) == pytest.approx(float(expected.max()), abs=1e-5)
        await backend.close()

    asyncio.run(main())


def test_refusals() -> None:
    async def main() -> None:
        backend, _ = make()
        with pytest.raises(ConfigError, match="shows no hidden states"):
            await backend.embed("x")
        with pytest.raises(ConfigError, match="no adapter 'fine'"):
            await backend.score("xy", adapter="fine")
        with pytest.raises(ConfigError, match="at most 64"):
            await collect(backend, "x" * 64, SamplingParams())
        await backend.close()

    asyncio.run(main())


def test_a_failed_step_is_survived() -> None:
    params = SamplingParams(max_new_tokens=3, temperature=0)
    expected = alone(list(b"abc"), params)

    async def main() -> None:
        backend, model = make()
        model.fails = True
        with pytest.raises(EngineError):
            await collect(backend, "abc", params)
        model.fails = False
        updates = await collect(backend, "abc", params)
        assert tokens_of(updates, 1) == expected
        await backend.close()

    asyncio.run(main())


def test_the_tokenizer_must_fit() -> None:
    model = HashModel()
    model.vocab_size = 100
    with pytest.raises(ConfigError, match="vocabulary size is 100"):
        SlotBackend(model, ByteTokenizer(), None, BackendInfo("m", "fake"), slots=1)
