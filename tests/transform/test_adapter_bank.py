# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close
from torch import Tensor

from openllm.core.errors import ConfigError
from openllm.nn.cache import KVCache
from openllm.nn.lora import Adapter, LowRank
from openllm.nn.model import Transformer
from openllm.transform.adapter_bank import NONE, AdapterBank
from openllm.transform.compile import compile_blocks
from openllm.transform.lora import adapter_of, apply_lora, attach
from openllm.transform.lora_config import LoraConfig

TOKENS = torch.randint(4, 600, (5, 11), generator=torch.Generator().manual_seed(3))


def make_adapter(shape: str, seed: int, kind: str = "lora", **settings: object) -> Adapter:
    cfg = LoraConfig.parse({"kind": kind, "rank": 2 + seed, "alpha": 6, **settings}, "test")
    adapter = adapter_of(apply_lora(random_model(SHAPES[shape]), cfg))
    generator = torch.Generator().manual_seed(seed)
    for change in adapter.changes.values():
        for tensor in change.tensors():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return adapter


def base(shape: str) -> Transformer:
    return random_model(SHAPES[shape]).eval()


@torch.no_grad()
def ask(model: Transformer, tokens: Tensor = TOKENS) -> Tensor:
    return model(tokens).x


@pytest.mark.parametrize("shape", ["qwen3", "gpt2", "smollm3"])
def test_each_row_has_its_adapter(shape: str) -> None:
    adapters = [
        make_adapter(shape, 0), make_adapter(shape, 1, "dora"),
        make_adapter(shape, 2, "rslora", targets=("q_proj", "down_proj")),
    ]  # fmt: skip
    model = base(shape)
    bank = AdapterBank(model)
    assert [bank.load(f"a{number}", adapter) for number, adapter in enumerate(adapters)] == [
        0,
        1,
        2,
    ]
    plain = ask(model)
    indices = [1, NONE, 0, 2, 1]
    with bank.rows(indices):
        mixed = ask(model)
    for row, index in enumerate(indices):
        if index == NONE:
            assert torch.equal(mixed[row], plain[row])
        else:
            alone = ask(attach(base(shape), adapters[index]))[row]
            assert_close(mixed[row], alone)
            assert not torch.allclose(alone, plain[row], rtol=0.05)
    assert torch.equal(ask(model), plain), "nothing may stay behind"


def test_tokens_of_a_packed_row_and_of_cached_decoding() -> None:
    adapter, model = make_adapter("qwen3", 1), base("qwen3")
    bank = AdapterBank(model)
    bank.load("one", adapter)
    with bank.rows([0, NONE]):
        expected = ask(model, TOKENS[:2])
    cache = KVCache(model.cfg, 2, 11)
    with bank.rows([0, NONE]), torch.no_grad():
        parts = [model(piece, cache=cache).x for piece in TOKENS[:2].split([7, 1, 3], 1)]
    assert_close(torch.cat(parts, 1), expected)
    # one index for each token, through one layer: a row of the batch may mix adapters
    layer, x = model.get_submodule("layers.0.mlp.up_proj"), torch.randn(1, 4, 48)
    with torch.no_grad():
        plain = layer(x)
        with bank.rows([NONE, 0, NONE, 0]):
            mixed = layer(x)
    change = adapter.changes["layers.0.mlp.up_proj.weight"]
    added = change.scale * x @ change.a_RK.T @ change.b_NR.T
    assert_close(mixed[0, 1::2], (plain + added)[0, 1::2])
    assert torch.equal(mixed[0, ::2], plain[0, ::2])
    with bank.rows([0] * 3), pytest.raises(ValueError, match="4 tokens cannot share 3"):
        layer(x)


def test_exact_rows_do_not_depend_on_the_adapters_of_others() -> None:
    model = base("qwen3")
    bank = AdapterBank(model)
    for number, kind in enumerate(("lora", "dora", "rslora")):
        bank.load(kind, make_adapter("qwen3", number, kind))
    layer, x = model.get_submodule("layers.1.mlp.down_proj"), torch.randn(1, 16, 96)
    for mine in range(3):
        found = []
        for others in ([NONE] * 15, [mine] * 15, [0, 1, 2, NONE, 2] * 3):
            with bank.rows([*others[:7], mine, *others[7:]], exact=True), torch.no_grad():
                found.append(layer(x)[0, 7])
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_bfloat16_base() -> None:
    adapters = [make_adapter("llama", 0), make_adapter("llama", 1, "dora")]
    model = base("llama").to(torch.bfloat16)
    bank = AdapterBank(model)
    for number, adapter in enumerate(adapters):
        bank.load(str(number), adapter)
    plain = ask(model)
    with bank.rows([0, NONE, 1, NONE, NONE]):
        mixed = ask(model)
    assert torch.equal(mixed[[1, 3, 4]], plain[[1, 3, 4]])
    for row, adapter in ((0, adapters[0]), (2, adapters[1])):
        assert_close(mixed[row], ask(attach(base("llama"), adapter))[row], torch.bfloat16)


def test_load_replace_and_unload() -> None:
    first, second, third = (make_adapter("qwen3", number) for number in range(3))
    model = base("qwen3")
    bank = AdapterBank(model)
    assert bank.num_bytes == 0
    bank.load("a", first)
    bank.load("b", second)
    assert bank.num_bytes == first.num_bytes + second.num_bytes
    versions = {bank.version("a"), bank.version("b")}
    assert bank.load("a", third) == bank.index("a") == 0
    assert bank.num_bytes == third.num_bytes + second.num_bytes
    assert bank.version("a") not in versions and bank.version("b") in versions
    with bank.rows([0] * 5):
        replaced = ask(model)
    assert_close(replaced, ask(attach(base("qwen3"), third)))
    bank.unload("a")
    assert bank.names == ["b"] and bank.num_bytes == second.num_bytes and bank.index("b") == 1
    with pytest.raises(ConfigError, match="no adapter 'a'; loaded: b"):
        bank.index("a")
    with pytest.raises(ConfigError, match="no adapter has the index 0"), bank.rows([0]):
        pass
    assert bank.load("c", first) == 0 and bank.names == ["c", "b"]


def test_matrices_for_compiled_code() -> None:
    full, few = make_adapter("qwen3", 0), make_adapter("qwen3", 1, targets=("q_proj",))
    with torch.device("meta"):
        bank = AdapterBank(Transformer(SHAPES["qwen3"]))
    bank.load("full", full)
    bank.load("gone", few)
    bank.load("few", few)
    bank.unload("gone")
    for name, change in full.changes.items():
        found = bank.matrices(name)
        assert found is bank.matrices(name)
        ranks = [2, 0, 3 if "q_proj" in name else 0]
        for (a_RK, b_NR, scale), rank in zip(found, ranks, strict=True):
            assert a_RK.shape == (rank, change.a_RK.shape[1])
            assert b_NR.shape == (change.b_NR.shape[0], rank)
            assert a_RK.is_contiguous() and b_NR.is_contiguous()
            assert a_RK.dtype == b_NR.dtype == torch.float32 and a_RK.device.type == "cpu"
            assert scale == (6 / rank if rank else 0)
        assert torch.equal(found[0][0], change.a_RK) and torch.equal(found[0][1], change.b_NR)
    bank.unload("full")
    assert bank.matrices("layers.0.mlp.up_proj.weight")[0][2] == 0
    with pytest.raises(ConfigError, match="'d' is DoRA, which needs the weights"):
        bank.load("d", make_adapter("qwen3", 0, "dora"))
    assert bank.names == ["few"]
    whole = AdapterBank(base("qwen3"))
    whole.load("d", make_adapter("qwen3", 0, "dora"))
    with pytest.raises(ConfigError, match="'d' is DoRA, not a plain sum; merge it"):
        whole.matrices("layers.0.mlp.up_proj.weight")


def test_dora_follows_the_weights_of_the_base() -> None:
    adapter, model = make_adapter("qwen3", 0, "dora"), base("qwen3")
    bank = AdapterBank(model)
    bank.load("d", adapter)
    before = bank.version("d")
    model.load_state_dict(random_model(SHAPES["qwen3"], seed=8).state_dict())
    bank.refresh()
    with bank.rows([0] * 5):
        found = ask(model)
    assert_close(found, ask(attach(random_model(SHAPES["qwen3"], seed=8).eval(), adapter)))
    assert bank.version("d") != before


@pytest.mark.integration
def test_refusals() -> None:
    model = base("qwen3")
    bank = AdapterBank(model)
    with pytest.raises(ConfigError, match="use the model that the adapter was made for"):
        bank.load("a", make_adapter("llama", 0))
    wrong = Adapter(
        {"layers.0.mlp.up_proj.weight": LowRank(torch.ones(1, 48), torch.ones(96, 2), 1)}
    )
    with pytest.raises(ConfigError, match="have the shapes"):
        bank.load("a", wrong)
    bank.load("a", make_adapter("qwen3", 0))
    compile_blocks(model)
    with pytest.raises(ConfigError, match="compiled model"), bank.rows([0]):
        pass
