# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""An ONNX export served by onnxruntime answers as the model folder does."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.export.gguf.models import our_logits, tokens
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.core.errors import CheckpointError, ConfigError, TokenizerError
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams, Update
from openllm.engine.runners.slots import Piece
from openllm.export.onnx.writer import export_onnx
from openllm.integrations.onnx import OnnxSlots, onnx_backend
from openllm.nn.model import Transformer

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.integration

TEMPLATE = "{% for m in messages %}<|user|>{{ m.content }}<|end_of_turn|>{% endfor %}"


@pytest.fixture(scope="module")
def folders(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and its export."""
    root = tmp_path_factory.mktemp("onnx")
    cfg = SHAPES["gemma2"]
    state = random_model(cfg, 1, spread=0.2).state_dict()
    write_model(root / "model", cfg, state, tokenizer=tokenizer_folder, lineage={}, card="")
    (root / "model" / "chat_template.jinja").write_text(TEMPLATE)
    (root / "exported").mkdir()
    export_onnx(root / "model", root / "exported")
    return root / "model", root / "exported"


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def model_of(folder: Path) -> Transformer:
    return load_model(folder).eval()


def test_slots_apart_and_together(folders: tuple[Path, Path]) -> None:
    model, runtime = model_of(folders[0]), OnnxSlots(folders[1], threads=1)
    assert (runtime.vocab_size, runtime.max_positions) == (640, 128)
    shape = model.cfg.attention
    assert runtime.token_bytes == 4 * 2 * 2 * shape.kv_heads * shape.head_dim
    assert runtime.num_bytes > 4 * sum(weight.numel() for weight in model.parameters())
    runtime.allocate(3)
    ids = tokens(60)
    first = runtime.extend([Piece(0, 0, ids[:20], [5, 19]), Piece(2, 0, ids[30:60], [29])])
    assert_close(first[:2], our_logits(model, ids[:20])[[5, 19]])
    assert_close(first[2:], our_logits(model, ids[30:60])[[29]])
    runtime.copy(2, 1, 15)
    runtime.copy(2, 0, 4)
    second = runtime.extend(
        [Piece(0, 4, ids[:3], [2]), Piece(1, 15, ids[5:7], [1]), Piece(2, 10, ids[:2], [0, 1])]
    )
    text = ids[30:60]
    assert_close(second[0], our_logits(model, [*text[:4], *ids[:3]])[-1])
    assert_close(second[1], our_logits(model, [*text[:15], *ids[5:7]])[-1])
    assert_close(second[2:], our_logits(model, [*text[:10], *ids[:2]])[-2:])
    assert runtime.extend([Piece(0, 7, ids[:5], [])]).shape == (0, 640)


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def tokens_of(updates: Sequence[Update], index: int) -> list[int]:
    return [token for u in updates if u.index == index for token in u.token_ids]


def test_answers_are_those_of_the_folder(folders: tuple[Path, Path]) -> None:
    """Greedy and drawn, several at a time, with log-probabilities, chat and structure."""
    llm = LLM.load(folders[0], EngineConfig(precision="fp32", device="cpu"))
    prompts = [tokens(length) for length in (3, 20, 21, 40)]
    wishes = [
        SamplingParams(max_new_tokens=15, temperature=0),
        SamplingParams(max_new_tokens=15, n=3, seed=5, logprobs=1, top_p=0.9),
        SamplingParams(max_new_tokens=15, stop=("a",), min_new_tokens=3),
        SamplingParams(max_new_tokens=15, repetition_penalty=1.3, temperature=0.5),
    ]
    expected = llm.generate(prompts, wishes)

    async def main() -> None:
        backend = onnx_backend(folders[1], threads=1)
        jobs = [collect(backend.generate(p, w)) for p, w in zip(prompts, wishes, strict=True)]
        found = await asyncio.gather(*jobs)
        flat = [(u, i) for u, w in zip(found, wishes, strict=True) for i in range(w.n)]
        assert [tokens_of(*one) for one in flat] == [one.token_ids for one in expected]
        texts = ["".join(u.text for u in updates if u.index == i) for updates, i in flat]
        assert texts == [one.text for one in expected]
        logprobs = [one.logprob for u in found[1] for one in u.logprobs or () if u.index == 2]
        ours = [one.logprob for one in expected[3].logprobs or ()]
        assert logprobs == pytest.approx(ours, abs=1e-3)
        scored = [one.logprob for one in await backend.score(prompts[3])]
        assert scored == pytest.approx(
            [one.logprob for one in llm.score([prompts[3]])[0]], abs=1e-3
        )
        chat = [{"role": "user", "content": "Anna"}]
        assert await backend.encode_chat(chat) == llm.encode_chat(chat)
        await backend.close()

    asyncio.run(main())


def test_info(folders: tuple[Path, Path]) -> None:
    backend = onnx_backend(folders[1], EngineConfig(cache_tokens=300), threads=1, name="x")
    assert (backend.info.name, backend.info.kind, backend.info.max_positions) == ("x", "onnx", 128)
    assert backend.info.cache_bytes == 2 * 128 * OnnxSlots(folders[1]).token_bytes
    asyncio.run(backend.close())


def test_refusals(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError):
        onnx_backend(tmp_path)
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    with pytest.raises(ConfigError, match="cache would hold 100 tokens"):
        onnx_backend(copy, EngineConfig(cache_tokens=100))
    config = json.loads((copy / "config.json").read_text())
    shorter = {name: value for name, value in config.items() if "max_position" not in name}
    (copy / "config.json").write_text(json.dumps(shorter))
    with pytest.raises(CheckpointError, match="how long a text may be"):
        onnx_backend(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        onnx_backend(copy)
