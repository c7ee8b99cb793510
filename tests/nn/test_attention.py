# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import itertools
import math

import pytest
import torch
from tests.tiny import random_model
from tests.tolerances import assert_close
from torch import Tensor

from openllm.core.errors import ConfigError
from openllm.nn.cache import KVCache
from openllm.nn.config import ModelConfig
from openllm.nn.context import AttentionContext
from openllm.nn.cost import parameters
from openllm.nn.kernels.attention import ScoreRule, attend, attention

RULES = [
    ScoreRule(0.25),
    ScoreRule(0.4),
    ScoreRule(0.25, window=3),
    ScoreRule(0.25, window=100),
    ScoreRule(0.25, softcap=1.5),
    ScoreRule(0.3, softcap=2.0, window=4),
    ScoreRule(0.25, window=1),
]


def naive(q: Tensor, k: Tensor, v: Tensor, borders: tuple[int, ...], rule: ScoreRule) -> Tensor:
    """Token by token, head by head."""
    out = torch.zeros_like(q)
    groups = q.shape[1] // k.shape[1]
    for start, end in itertools.pairwise(borders):
        for at in range(start, end):
            first = start if rule.window is None else max(start, at - rule.window + 1)
            for head in range(q.shape[1]):
                keys = k[first : at + 1, head // groups]
                scores = keys @ q[at, head] * rule.scale
                if rule.softcap is not None:
                    scores = rule.softcap * torch.tanh(scores / rule.softcap)
                out[at, head] = scores.softmax(0) @ v[first : at + 1, head // groups]
    return out


def heads(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, count, 16, generator=generator) for count in (4, 2, 2))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("borders", [(0, 10, 20), (0, 1, 8, 20), (0, 20)])
def test_attention_is_that_of_single_tokens(borders: tuple[int, ...], rule: ScoreRule) -> None:
    q, k, v = heads(20)
    found = attention(q, k, v, AttentionContext(borders), rule)
    assert_close(found, naive(q, k, v, borders, rule))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("new", [1, 2, 7])
def test_the_last_tokens_may_be_read_alone(new: int, rule: ScoreRule) -> None:
    q, k, v = heads(20)
    whole = attention(q, k, v, AttentionContext((0, 20)), rule)
    q_1NTH, k_1KSH, v_1KSH = (x.transpose(0, 1)[None] for x in (q[-new:], k, v))
    assert_close(attend(q_1NTH, k_1KSH, v_1KSH, rule)[0].transpose(0, 1), whole[-new:])


SHAPE = {
    "vocab_size": 100,
    "dim": 32,
    "num_layers": 4,
    "max_positions": 64,
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16},
    "mlp": {"kind": "swiglu", "hidden_dim": 48},
}
LONGROPE = {
    "kind": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
    "original_max_positions": 40,
    "factor": 4.0,
}
CHANGES = {
    "windows": {"attention.window": 5, "attention.window_layers": (0, 2)},
    "caps": {"attention.softcap": 2.0, "logit_softcap": 3.0, "attention.scale": 0.1},
    "post norms": {"norm_placement": "post", "attention.qk_norm_over": "all"},
    "four norms": {"norm_placement": "both", "norm": {"kind": "rms", "unit_offset": True}},
    "layers without positions": {"position": {"unrotated_layers": (1, 3)}},
    "half of a head rotated": {"position": {"fraction": 0.5}},
    "two bases": {
        "attention.window": 6,
        "attention.window_layers": (0, 1, 2),
        "position": {"theta": 1e6, "window_theta": 1e4, "scaling": {"kind": "linear", "factor": 8}},
    },
    "llama3": {
        "position": {"scaling": {"kind": "llama3", "factor": 8, "original_max_positions": 32}}
    },
    "yarn": {"position": {"scaling": {"kind": "yarn", "factor": 4, "original_max_positions": 16}}},
    "longrope": {"position": {"scaling": LONGROPE}},
    "geglu and a scale": {"mlp": {"kind": "geglu", "hidden_dim": 40}, "embed_scale": math.sqrt(32)},
    "biases": {"attention.bias": True, "attention.output_bias": False, "attention.qk_norm": False},
}


def shape(name: str) -> ModelConfig:
    values = SHAPE | {"attention": dict(SHAPE["attention"])}
    for key, value in CHANGES[name].items():
        part, _, setting = key.rpartition(".")
        (values[part] if part else values)[setting] = value
    return ModelConfig.parse(values, name)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_ingredient_counts_decodes_and_learns(name: str) -> None:
    cfg = shape(name)
    model = random_model(cfg, spread=0.3)
    assert parameters(cfg).total == sum(p.numel() for p in model.parameters())
    tokens = torch.randint(0, 100, (2, 30), generator=torch.Generator().manual_seed(0))
    plain = ModelConfig.parse(SHAPE, "plain")
    with torch.no_grad():
        whole = model(tokens).x
        if cfg.mlp == plain.mlp and parameters(cfg) == parameters(plain):
            other = random_model(plain, spread=0.3)
            assert not torch.allclose(whole, other(tokens).x, atol=1e-3), "it does nothing"
        cache = KVCache(cfg, 2, 30)
        steps = [model(piece, cache=cache).x for piece in tokens.split([7, 1, 1, 12, 9], dim=1)]
    assert_close(torch.cat(steps, dim=1), whole)
    model.train()
    model(tokens).x.square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent in ([], ["lm_head.weight"])


def test_a_long_text_uses_the_long_factors() -> None:
    cfg = shape("longrope")
    tables = [random_model(cfg).rotations(torch.arange(length)[None])[0] for length in (40, 41)]
    assert not torch.allclose(tables[0][0], tables[1][0][:40], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention.window": 0}, "window"),
        ({"attention.window_layers": (4,)}, "names layer 4, but there are 4"),
        ({"position": {"unrotated_layers": (-1,)}}, "names layer -1"),
        ({"position": {"fraction": 0.2}}, "as must the part that"),
        ({"position": {"scaling": LONGROPE | {"long_factor": [1.0]}}}, "has 1 values"),
        ({"position": {"scaling": {"kind": "linear", "factor": 0.5}}}, "factor"),
        ({"norm_placement": "middle"}, "norm_placement"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    CHANGES["wrong"] = change
    try:
        with pytest.raises(ConfigError, match=words):
            shape("wrong")
    finally:
        del CHANGES["wrong"]
