# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The compiled decoder: equal to the model, and bit for bit to itself in any company."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close, difference
from torch import Tensor

from openllm.core.errors import EngineError
from openllm.nn.config import (
    AttentionConfig,
    ModelConfig,
    ReluSquaredConfig,
    ResearchConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.heads import logits
from openllm.nn.kernels.decoder import Decoder, pack_model, supports
from openllm.nn.kernels.decoder_step import Adapter, RowAdapters
from openllm.nn.kernels.library import library
from openllm.nn.kernels.packed import KINDS, Kind
from openllm.nn.norm import LayerNormConfig
from openllm.nn.rope_scaling import LongRopeScaling

CONFIGS = SHAPES | {
    # partial rotation, odd sizes, norms with mean and bias of queries and keys
    "odd": ModelConfig(
        vocab_size=101,
        dim=36,
        num_layers=3,
        max_positions=128,
        norm=LayerNormConfig(),
        position=RopeConfig(fraction=0.5),
        attention=AttentionConfig(
            num_heads=6, num_kv_heads=2, head_dim=20, window=20, softcap=20.0, bias=True
        ),
        mlp=ReluSquaredConfig(hidden_dim=70),
    ),
}
EVERY_MODEL = pytest.mark.parametrize("name", CONFIGS)
compiled = pytest.mark.skipif(library() is None, reason="no kernels on this machine")
LENGTHS = (50, 17, 33)


class Texts:
    """Random texts of a decoder, and a cache for them whose memory held anything before."""

    def __init__(
        self,
        decoder: Decoder,
        lengths: Sequence[int] = LENGTHS,
        dtype: torch.dtype = torch.float32,
        block_size: int = 16,
    ) -> None:
        cfg = decoder.cfg
        rng = torch.Generator().manual_seed(3)
        self.decoder, self.lengths = decoder, lengths
        self.tokens = [torch.randint(cfg.vocab_size, (n,), generator=rng) for n in lengths]
        each = -(-max(lengths) // block_size)
        count = each * len(lengths)
        self.tables = torch.randperm(count, generator=rng).view(-1, each).int()
        heads, dim = cfg.attention.kv_heads, cfg.attention.head_dim
        shape = (cfg.num_layers, count, heads, block_size, dim)
        self.caches = [torch.full(shape, float("nan"), dtype=dtype) for _ in range(2)]
        self.done = [0] * len(lengths)

    def arguments(self, news: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Of a step in which each text of (number, count) goes on by `count` tokens."""
        tokens = [self.tokens[i][self.done[i] : self.done[i] + n] for i, n in news]
        positions = [torch.arange(self.done[i], self.done[i] + n) for i, n in news]
        owners = [torch.full((n,), i) for i, n in news]
        parts = {"tokens": tokens, "positions": positions, "sequences": owners}
        found = {name: torch.cat(part) for name, part in parts.items()}
        wanted = torch.arange(len(found["tokens"]))
        caches = dict(zip(("k_cache", "v_cache"), self.caches, strict=True))
        return {**found, "tables": self.tables, "wanted": wanted, **caches}

    def step(self, *news: tuple[int, int], **more: Any) -> list[Tensor]:
        out = self.decoder.forward(**(self.arguments(news) | more))
        for i, n in news:
            self.done[i] += n
        return list(out.split([n for _, n in news]))

    def alone(self) -> list[Tensor]:
        """Each text in one step of its own."""
        return [self.step((i, n))[0] for i, n in enumerate(self.lengths)]

    def mixed(self, seed: int) -> list[Tensor]:
        """All texts in steps of random pieces and orders."""
        rng = torch.Generator().manual_seed(seed)
        parts: list[list[Tensor]] = [[] for _ in self.lengths]
        while any(done < n for done, n in zip(self.done, self.lengths, strict=True)):
            news = []
            for i in torch.randperm(len(self.lengths), generator=rng).tolist():
                most = int(torch.randint(0, 20, (), generator=rng)) if seed % 2 else 1
                count = min(most, self.lengths[i] - self.done[i])
                if count:
                    news.append((i, count))
            for (i, _), part in zip(news, self.step(*news), strict=True):
                parts[i].append(part)
        return [torch.cat(part) for part in parts]


def decoder_of(name: str, kind: Kind = "fp32") -> Decoder:
    return pack_model(random_model(CONFIGS[name]), CONFIGS[name], kind)


@EVERY_MODEL
def test_it_equals_the_model(name: str) -> None:
    cfg = CONFIGS[name]
    model = random_model(cfg)
    decoder = pack_model(model, cfg, "fp32")
    texts = Texts(decoder)
    for found, tokens in zip(texts.alone(), texts.tokens, strict=True):
        with torch.no_grad():
            hidden = model(tokens[None]).x[0]
            assert_close(found, hidden)
            assert_close(decoder.logits(found), logits(hidden, model.head))


@pytest.mark.integration
@EVERY_MODEL
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_equal_the_reference(
    name: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(name, kind)
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    found = torch.cat(Texts(decoder, dtype=dtype).mixed(1))
    monkeypatch.setenv("OPENLLM_KERNELS", "0")
    library.cache_clear()
    expected = torch.cat(Texts(decoder, dtype=dtype).mixed(1))
    monkeypatch.undo()
    library.cache_clear()
    assert_close(found, expected, dtype)


@pytest.mark.integration
@compiled
@EVERY_MODEL
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_company(name: str, kind: Kind) -> None:
    decoder = decoder_of(name, kind)
    before = torch.get_num_threads()
    expected = [Texts(decoder, dtype=dtype).alone() for dtype in (torch.float32, torch.bfloat16)]
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for seed in range(3):
                for alone, dtype in zip(expected, (torch.float32, torch.bfloat16), strict=True):
                    mixed = Texts(decoder, dtype=dtype, block_size=16 << seed).mixed(seed)
                    assert all(map(torch.equal, mixed, alone))
    finally:
        torch.set_num_threads(before)


@pytest.mark.integration
@compiled
def test_groups_of_many_rows_keep_their_bits() -> None:
    """Long pieces use other loops than single rows."""
    cfg = ModelConfig(
        vocab_size=200,
        dim=128,
        num_layers=2,
        max_positions=512,
        attention=AttentionConfig(num_heads=8, num_kv_heads=2, head_dim=64),
        mlp=SwiGLUConfig(hidden_dim=192),
    )
    for kind in KINDS:
        decoder = pack_model(random_model(cfg), cfg, kind)
        lengths, dtype = (300, 5), torch.bfloat16
        whole = Texts(decoder, lengths, dtype).step((0, 300), (1, 5))
        texts = Texts(decoder, lengths, dtype)
        first = texts.step((0, 290))[0]
        rest = [texts.step((0, 1))[0] for _ in range(10)]
        assert torch.equal(torch.cat([first, *rest]), whole[0])
        assert torch.equal(texts.step((1, 5))[0], whole[1])


def test_only_wanted_rows_come_back() -> None:
    decoder = decoder_of("qwen3")
    every = torch.cat(Texts(decoder).step((0, 20), (2, 9)))
    wanted = torch.tensor([28, 3, 3])
    assert torch.equal(torch.cat(Texts(decoder).step((0, 20), (2, 9))), every)
    some = decoder.forward(**(Texts(decoder).arguments([(0, 20), (2, 9)]) | {"wanted": wanted}))
    assert torch.equal(some, every[wanted])
    none = Texts(decoder).arguments([(0, 20)]) | {"wanted": torch.tensor([], dtype=torch.int32)}
    assert decoder.forward(**none).shape == (0, decoder.cfg.dim)


@pytest.mark.parametrize("switch", ["1", "0"], ids=["kernels", "reference"])
def test_a_step_may_be_empty(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLLM_KERNELS", switch)
    library.cache_clear()
    decoder = decoder_of("qwen3")
    found = decoder.forward(**Texts(decoder).arguments([(0, 0)]))
    assert decoder.logits(found).shape == (0, decoder.cfg.vocab_size)


@pytest.mark.integration
def test_positions_beyond_the_first_tables() -> None:
    cfg = ModelConfig(**{**dict(SHAPES["qwen3"]), "max_positions": 5000})
    model = random_model(cfg)
    decoder = pack_model(model, cfg, "fp32")
    texts = Texts(decoder, [4200])
    pieces = [texts.step((0, n))[0] for n in (2100, 1990, 110)]
    with torch.no_grad():
        assert_close(torch.cat(pieces), model(texts.tokens[0][None]).x[0])


@compiled
@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_smaller_kinds_stay_close(kind: Kind) -> None:
    exact = torch.cat(Texts(decoder_of("qwen3")).alone())
    found = torch.cat(Texts(decoder_of("qwen3", kind), dtype=torch.bfloat16).alone())
    assert difference(found, exact) < {"bf16": 0.03, "int8": 0.1, "int4": 0.9}[kind]
    assert not torch.equal(found, exact)


def test_kinds_may_be_mixed() -> None:
    cfg = SHAPES["qwen3"]
    kinds: list[Kind] = ["fp32", "bf16", "int8", "int4"]
    decoder = pack_model(random_model(cfg), cfg, lambda name: kinds[sum(map(ord, name)) % 4])
    assert len({matrix.kind for matrix in decoder.matrices.values()}) == 4
    alone, mixed = (
        Texts(decoder, dtype=torch.bfloat16).alone(),
        Texts(decoder, dtype=torch.bfloat16).mixed(1),
    )
    assert all(map(torch.equal, alone, mixed))
    assert decoder.num_bytes < decoder_of("qwen3").num_bytes


def adapter_of(decoder: Decoder, seed: int) -> Adapter:
    rng = torch.Generator().manual_seed(seed)
    return Adapter(
        decoder.cfg,
        {
            name: (
                torch.randn(4, matrix.shape[1], generator=rng) * 0.1,
                torch.randn(matrix.shape[0], 4, generator=rng) * 0.1,
                0.5 + seed,
            )
            for number, (name, matrix) in enumerate(decoder.matrices.items())
            if name.startswith("layers") and (number + seed) % 3
        },
    )


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gemma2"])
def test_adapters_are_added_to_their_rows(name: str) -> None:
    cfg = CONFIGS[name]
    decoder = decoder_of(name)
    adapters = [adapter_of(decoder, seed) for seed in range(2)]
    merged = []
    for adapter in adapters:
        state = dict(random_model(cfg).state_dict())
        for matrix, (a_rK, b_rN, scale) in adapter.factors.items():
            state[matrix] = state[matrix] + scale * (b_rN.T @ a_rK)
        merged.append(pack_model(state.items(), cfg, "fp32"))
    rows = torch.tensor([-1] * 20 + [1] * 17 + [0] * 9)
    news = (0, 20), (1, 17), (2, 9)
    found = Texts(decoder).step(*news, adapters=RowAdapters(adapters, rows))
    assert_close(found[1], Texts(merged[1]).step(*news)[1])
    assert_close(found[2], Texts(merged[0]).step(*news)[2])
    assert difference(found[1], Texts(decoder).step(*news)[1]) > 0.01
    if library() is not None:
        assert torch.equal(found[0], Texts(decoder).step(*news)[0])


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gemma2", "odd"])
def test_adapters_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(name)
    rows = RowAdapters([adapter_of(decoder, 0)], torch.tensor([0] * 20 + [-1] * 17))
    found = Texts(decoder).step((0, 20), (1, 17), adapters=rows)
    monkeypatch.setenv("OPENLLM_KERNELS", "0")
    library.cache_clear()
    expected = Texts(decoder).step((0, 20), (1, 17), adapters=rows)
    monkeypatch.undo()
    library.cache_clear()
    assert_close(torch.cat(found), torch.cat(expected))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": torch.tensor([5, 640])}, "token 640"),
        ({"tokens": torch.tensor([5, -1])}, "token -1"),
        ({"positions": torch.tensor([63, 64])}, "position 64"),
        ({"positions": torch.tensor([-1, 0])}, "position -1"),
        ({"positions": torch.tensor([3, 5])}, "consecutive"),
        ({"positions": torch.tensor([0])}, "equally many"),
        ({"sequences": torch.tensor([3, 3])}, "sequence 3"),
        ({"wanted": torch.tensor([2])}, "wanted row 2"),
        ({"wanted": torch.tensor([[1]])}, "axes"),
        ({"tables": torch.full((3, 4), 12)}, "blocks"),
        ({"tables": torch.full((3, 4), -1)}, "blocks"),
        ({"k_cache": torch.zeros(2, 12, 2, 8, 16)}, "the cache is"),
        ({"v_cache": torch.zeros(2, 12, 2, 16, 16, dtype=torch.bfloat16)}, "alike"),
        ({"adapters": RowAdapters([], torch.tensor([0, -1]))}, "adapter 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_step_is_refused(changed: dict[str, Any], said: str) -> None:
    texts = Texts(decoder_of("qwen3"))
    with pytest.raises(EngineError, match=said):
        texts.step((0, 2), **changed)
    assert texts.caches[0].isnan().all()


def test_rows_of_a_sequence_must_be_neighbours() -> None:
    texts = Texts(decoder_of("qwen3"))
    sequences = torch.tensor([0, 1, 0])
    with pytest.raises(EngineError, match="neighbours"):
        texts.step((0, 3), sequences=sequences, positions=torch.tensor([0, 0, 1]))


def test_blocks_outside_every_window_may_be_gone() -> None:
    cfg = CONFIGS["odd"]
    decoder = decoder_of("odd")
    kept, freed = Texts(decoder, [60]), Texts(decoder, [60])
    for texts in (kept, freed):
        texts.step((0, 40))
    assert cfg.attention.window == 20
    freed.tables[0, 0] = -1
    assert torch.equal(kept.step((0, 20))[0], freed.step((0, 20))[0])
    freed.tables[0, 1] = -1
    freed.done[0] = 40
    with pytest.raises(EngineError, match="blocks"):
        freed.step((0, 20))


def test_what_is_not_supported_is_said() -> None:
    scaling = LongRopeScaling(
        short_factor=(1.0,) * 8, long_factor=(2.0,) * 8, original_max_positions=64, factor=2.0
    )
    shape = dict(SHAPES["qwen3"])
    long = ModelConfig(**{**shape, "position": RopeConfig(scaling=scaling)})
    assert "LongRoPE" in str(supports(long))
    research = ModelConfig(**{**shape, "research": ResearchConfig(embedding_mix=True)})
    assert "research" in str(supports(research))
    assert all(supports(cfg) is None for cfg in CONFIGS.values())
    with pytest.raises(EngineError, match="LongRoPE"):
        pack_model(random_model(long), long, "fp32")


def test_parameters_must_be_the_models() -> None:
    cfg = SHAPES["qwen3"]
    state = random_model(cfg).state_dict()
    less = {name: value for name, value in state.items() if "k_norm" not in name}
    with pytest.raises(EngineError, match=r"layers.0.self_attn.k_norm.weight' is missing"):
        pack_model(less.items(), cfg, "fp32")
    with pytest.raises(EngineError, match=r"'extra\.weight'"):
        pack_model([*state.items(), ("extra.weight", torch.ones(2, 2))], cfg, "fp32")
    with pytest.raises(EngineError, match="an adapter cannot change"):
        Adapter(cfg, {"lm_head.weight": (torch.ones(1, 48), torch.ones(640, 1), 1.0)})


@pytest.fixture(autouse=True)
def kernels_stay() -> Iterator[None]:
    """A test that fails without kernels must not leave the others without."""
    yield
    library.cache_clear()
