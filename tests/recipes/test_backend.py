# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sources of models: what they are, how large, and that each of them answers."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.export.gguf.models import written
from tests.integrations.scripted_server import of_events, of_json, serving
from tests.tiny import SHAPES, random_model

from openllm.core.errors import BusyError, CheckpointError, ConfigError, EngineError
from openllm.engine.backend import Backend
from openllm.engine.backends.pool import ModelPool
from openllm.engine.config import EngineConfig
from openllm.engine.request import SamplingParams
from openllm.export.gguf.writer import export_gguf
from openllm.recipes.backend import SourceLoader, default_name, find_source

CFG = EngineConfig(precision="fp32", device="cpu", cache_tokens=256)


@pytest.fixture(scope="module")
def folder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model(SHAPES["qwen3"], 1, spread=0.2)
    return written(tmp_path_factory.mktemp("models"), model, tokenizer_folder)


async def answer(backend: Backend, prompt: str = "Anna", **params: Any) -> str:
    wish = SamplingParams(max_new_tokens=5, **params)
    return "".join([update.text async for update in backend.generate(prompt, wish)])


def load_and_ask(loader: SourceLoader, source: str) -> tuple[str, str]:
    """Kind of a source's backend, and what it says."""

    async def main() -> tuple[str, str]:
        backend = await asyncio.to_thread(loader.load, "m", source)
        assert backend.info.name == "m"
        text = await answer(backend)
        await backend.close()
        return backend.info.kind, text

    return asyncio.run(main())


def test_echo() -> None:
    assert load_and_ask(SourceLoader(), "echo") == ("echo", "Anna")
    assert SourceLoader().num_bytes("echo") == 0


def test_model_folder(folder: Path) -> None:
    kind, text = load_and_ask(SourceLoader(CFG), str(folder))
    assert kind == "openllm" and text


def test_the_estimate_is_about_what_it_takes(folder: Path) -> None:
    for precision in ("fp32", "bf16"):
        cfg = CFG.model_copy(update={"precision": precision})
        loader = SourceLoader(cfg)
        backend = loader.load("m", str(folder))
        info = backend.info
        assert info.num_bytes > 0 and info.cache_bytes > 0
        # kernels pad the small matrices of this model
        estimate = pytest.approx(loader.num_bytes(str(folder)), rel=0.4)
        assert info.num_bytes + info.cache_bytes == estimate
        asyncio.run(backend.close())


def test_a_budget_limits_the_cache(folder: Path) -> None:
    backend = SourceLoader(
        EngineConfig(precision="fp32", device="cpu"), budget_bytes=4 * 2**20
    ).load("m", str(folder))
    assert 2**19 < backend.info.cache_bytes <= 2**20
    asyncio.run(backend.close())


def test_gguf(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    export_gguf(folder, tmp_path, dtype="f32")
    path = tmp_path / "tiny-F32.gguf"
    loader = SourceLoader(EngineConfig(cache_tokens=256))
    for source in (path, tmp_path):
        kind, text = load_and_ask(loader, str(source))
        assert kind == "llama.cpp" and text
    assert loader.num_bytes(str(path)) == path.stat().st_size
    shutil.copy(path, tmp_path / "other.gguf")
    with pytest.raises(CheckpointError, match="2 files"):
        find_source(str(tmp_path))
    with pytest.raises(CheckpointError, match="does not exist"):
        loader.num_bytes(str(tmp_path / "none.gguf"))


def test_remote() -> None:
    models = of_json({"data": [{"id": "far"}]})
    text = of_events({"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]})
    with serving(models, text) as server:
        kind, said = load_and_ask(SourceLoader(), f"{server.url}#far")
    assert (kind, said) == ("remote", "Hello")
    assert server.seen[1].body["model"] == "far"


def test_onnx_folder_is_known(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"12345")
    (tmp_path / "model.onnx.data").write_bytes(b"123")
    assert find_source(str(tmp_path))[0] == "onnx"
    assert SourceLoader().num_bytes(str(tmp_path)) == 8


def test_names() -> None:
    assert default_name("http://host:8000/v1#llama") == "llama"
    assert default_name("http://host:8000/v1") == "host:8000"
    assert default_name("x/tiny-Q8_0.gguf") == "tiny-Q8_0"
    assert default_name("runs/stories/model") == "stories"
    assert default_name("owner/name") == "name"


def test_adapters_are_for_our_models() -> None:
    loader = SourceLoader(CFG, {"m": [("fine", "nowhere")]})
    with pytest.raises(ConfigError, match="takes no adapters"):
        loader.load("m", "echo")
    with pytest.raises(CheckpointError, match="does not exist"):
        loader.load("m", "no such model")


def test_models_take_turns_in_a_small_memory(folder: Path, tmp_path: Path) -> None:
    """Real models through the pool: the second frees the first, unless it is in use."""
    other = shutil.copytree(folder, tmp_path / "other")
    size = SourceLoader(CFG).num_bytes(str(folder))

    async def main() -> None:
        pool = ModelPool(SourceLoader(CFG), size * 7 // 4, patience=0.05)
        pool.add("a", str(folder))
        pool.add("b", str(other))
        texts = []
        for name in ("a", "b", "a"):
            async with pool.lease(name) as backend:
                texts.append(await answer(backend, temperature=0))
        assert len(set(texts)) == 1
        stats = pool.stats()
        assert (stats.loads, stats.evictions) == (3, 2)
        assert size * 0.6 < stats.used_bytes < size * 1.4
        async with pool.lease("a"):
            with pytest.raises(BusyError):
                await pool.load("b")
        await pool.close()
        small = ModelPool(SourceLoader(CFG), size // 2)
        small.add("a", str(folder))
        with pytest.raises(EngineError, match="does not fit"):
            await small.load("a")

    asyncio.run(main())
