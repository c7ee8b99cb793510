# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Adapters of a real model, each a model of its own to clients."""

import pytest
from tests.serve.live import client_of, error_of
from tests.tiny import SHAPES, random_model
from tests.transform.test_adapter_bank import make_adapter

from openllm.checkpoint.adapters import write_adapter
from openllm.checkpoint.model_dir import write_model
from openllm.engine.backends.pool import ModelPool
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.recipes.backend import SourceLoader
from openllm.serve.app import create_app
from openllm.serve.config import ServeSettings
from openllm.serve.service import Service

CONFIG = EngineConfig(precision="fp32", device="cpu", cache_tokens=2048, kernels=False)
PROMPT = "Clara found a lamp."


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer_folder):
    root = tmp_path_factory.mktemp("adapters")
    model = random_model(SHAPES["llama"], spread=0.3)
    weights = model.state_dict()
    write_model(root / "base", model.cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    for seed, name in enumerate(("poems", "law"), 1):
        write_adapter(root / name, make_adapter("llama", seed), root / "base")
    return root


@pytest.fixture(scope="module")
def expected(folders):
    """What each model says, offline."""
    llm = LLM.load(folders / "base", CONFIG)
    params = SamplingParams(max_new_tokens=12, temperature=0, ignore_eos=True)
    found = {"base": llm.generate([PROMPT], params)[0].text}
    for name in ("poems", "law"):
        llm.load_adapter(name, folders / name)
        found[f"base:{name}"] = llm.generate([PROMPT], params, adapter=name)[0].text
    assert len(set(found.values())) == 3
    return found


@pytest.mark.integration
def test_adapters_by_name(folders, expected):
    given = {"base": [("poems", str(folders / "poems"))]}
    pool = ModelPool(SourceLoader(CONFIG, given))
    pool.add("base", str(folders / "base"))
    service = Service(pool, adapters={"base": ["poems"]})
    wish = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "ignore_eos": True}

    def names(client):
        return [one["id"] for one in client.get("/v1/models").json()["data"]]

    def say(client, model):
        return client.post("/v1/completions", json={**wish, "model": model})

    with client_of(create_app(service, ServeSettings())) as client:
        assert names(client) == ["base", "base:poems"]  # nothing is loaded yet
        for model in ("base:poems", "base", "base:poems"):
            assert say(client, model).json()["choices"][0]["text"] == expected[model]
        error_of(say(client, "base:law"), 404)
        host = pool.loaded()["base"].adapter_host
        host.load_adapter("law", folders / "law")
        assert names(client) == ["base", "base:poems", "base:law"]
        for model, text in expected.items():
            assert say(client, model).json()["choices"][0]["text"] == text
        host.unload_adapter("poems")
        assert names(client) == ["base", "base:law"]
        error_of(say(client, "base:poems"), 404)
