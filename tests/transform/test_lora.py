# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close
from torch import Tensor
from torch.nn import functional as F

from openllm.core.errors import ConfigError
from openllm.nn.heads import logits
from openllm.nn.lora import LoraLinear, row_lengths
from openllm.nn.model import Transformer
from openllm.transform.lora import (
    adapter_of,
    apply_lora,
    attach,
    detach,
    lora_state,
    merge_lora,
    unmerge_lora,
)
from openllm.transform.lora_config import LoraConfig

KINDS = ("lora", "rslora", "dora")
TOKENS = torch.randint(4, 600, (3, 17), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def ask(model: Transformer) -> Tensor:
    return logits(model(TOKENS).x, model.head)


def adapted(shape: str, kind: str, **settings: object) -> Transformer:
    """A model in evaluation mode with an adapter whose weights all matter."""
    cfg = LoraConfig.parse({"kind": kind, "rank": 4, "alpha": 6, **settings}, "test")
    model = apply_lora(random_model(SHAPES[shape]).eval(), cfg)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_adapter_changes_no_bit(shape: str, kind: str) -> None:
    model = random_model(SHAPES[shape]).eval()
    before = ask(model)
    names = set(model.state_dict())
    apply_lora(model, LoraConfig(kind=kind, rank=3, dropout=0.3))  # type: ignore[arg-type]
    assert torch.equal(ask(model), before)
    assert names < set(model.state_dict()), "the base's names must stay"
    assert set(model.state_dict()) - names == set(lora_state(model))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["qwen3", "gpt2", "gemma2"])
def test_merged_is_unmerged(shape: str, kind: str) -> None:
    model = adapted(shape, kind)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = ask(random_model(SHAPES[shape]).eval())
    expected = ask(model)
    assert (expected - plain).abs().max() > 0.1 * plain.abs().max()
    assert_close(ask(merge_lora(merge_lora(model))), expected)
    after = ask(unmerge_lora(unmerge_lora(model)))
    assert torch.equal(after, expected)
    assert all(tensor.equal(weights[name]) for name, tensor in model.state_dict().items())
    assert_close(ask(detach(merge_lora(model))), expected)
    base = random_model(SHAPES[shape])
    assert [(n, type(m)) for n, m in model.named_modules()] == [
        (n, type(m)) for n, m in base.named_modules()
    ]


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_is_trained_and_the_loss_falls(kind: str) -> None:
    model = adapted("qwen3", kind, dropout=0.1).train()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == len(lora_state(model)) == 14 * (3 if kind == "dora" else 2)
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    torch.manual_seed(0)  # of the dropout
    for _ in range(20):
        scores = logits(model(TOKENS[:, :-1]).x, model.head)
        loss = F.cross_entropy(scores.flatten(0, 1), TOKENS[:, 1:].flatten())
        loss.backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (name in lora_state(model)), name
            if parameter.grad is not None:
                assert parameter.grad.abs().max() > 0, name
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not tensor.equal(base[name])}
    assert changed == set(lora_state(model))


def test_what_each_kind_computes() -> None:
    """Against the formulas of the papers, in float64."""
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    for kind, scale in (("lora", 6 / 4), ("rslora", 6 / 4**0.5), ("dora", 6 / 4)):
        model = adapted("smollm3", kind)  # with biases
        layer = model.get_submodule("layers.0.self_attn.q_proj")
        assert isinstance(layer, LoraLinear) and layer.bias is not None
        change = layer.lora_B.double() @ layer.lora_A.double()
        weight = layer.weight.double() + scale * change
        if layer.magnitude is not None:
            lengths = weight.square().sum(1).sqrt()
            weight = layer.magnitude.double()[:, None] * weight / lengths[:, None]
            assert_close(row_lengths(weight), layer.magnitude.detach().abs())
        expected = x.double() @ weight.T + layer.bias.double()
        assert_close(layer(x).detach(), expected.float().detach())


def test_dora_starts_from_the_lengths_of_the_rows_and_counts_them_as_constants() -> None:
    """Section 4.3 of arXiv:2402.09353: no gradient flows through the norm."""
    model = random_model(SHAPES["qwen3"])
    weight = model.get_parameter("layers.1.mlp.up_proj.weight").detach().clone()
    apply_lora(model, LoraConfig(kind="dora", rank=2))
    layer = model.get_submodule("layers.1.mlp.up_proj")
    assert isinstance(layer, LoraLinear) and layer.magnitude is not None
    assert_close(layer.magnitude.detach(), torch.linalg.vector_norm(weight, dim=1))
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    layer(x).sum().backward()
    # the gradient of B with the factors (here 1) held fixed
    low = (x @ layer.lora_A.T).sum(0).detach()
    assert layer.lora_B.grad is not None
    assert_close(layer.lora_B.grad, layer.scale * low.expand_as(layer.lora_B))


def test_rows_of_zeros_stay_zeros() -> None:
    """Models start with matrices of zeros if `init_residual` is 0."""
    model = random_model(SHAPES["qwen3"]).eval()
    with torch.no_grad():
        model.get_parameter("layers.0.mlp.down_proj.weight").zero_()
    before = ask(model)
    assert torch.equal(ask(apply_lora(model, LoraConfig(kind="dora"))), before)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_bfloat16_weights(kind: str) -> None:
    exact = ask(adapted("llama", kind))
    adapter = adapter_of(adapted("llama", kind))
    model = attach(random_model(SHAPES["llama"]).eval().to(torch.bfloat16), adapter)
    assert all(tensor.dtype == torch.float32 for tensor in lora_state(model).values())
    assert_close(ask(model), exact, torch.bfloat16)
    assert_close(ask(merge_lora(model)), exact, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(ask(adapted("llama", kind)).float(), exact, torch.bfloat16)


def test_an_adapter_moves_to_another_copy_of_the_base() -> None:
    model = adapted("qwen3", "rslora", dropout=0.25)
    adapter = adapter_of(model)
    assert (adapter.rank_stabilised, adapter.dropout) == (True, 0.25)
    assert adapter.num_bytes == sum(tensor.nbytes for tensor in lora_state(model).values())
    again = attach(random_model(SHAPES["qwen3"]).eval(), adapter)
    assert torch.equal(ask(again), ask(model))


def test_the_seed_alone_decides() -> None:
    one, two, other = (
        lora_state(apply_lora(random_model(SHAPES["qwen3"], seed=base), LoraConfig(), seed))
        for base, seed in ((0, 4), (1, 4), (0, 5))
    )
    assert all(tensor.equal(two[name]) for name, tensor in one.items())
    assert not any(tensor.equal(other[name]) for name, tensor in one.items() if "_A" in name)


def test_refusals() -> None:
    model = random_model(SHAPES["qwen3"])
    with pytest.raises(ConfigError, match="no adapter; put one on"):
        merge_lora(model)
    with pytest.raises(ConfigError, match=r"'q_prj' to adapt; did you mean 'q_proj'\?"):
        apply_lora(model, LoraConfig(targets=("q_prj",)))
    with pytest.raises(ConfigError, match="'targets' is empty"):
        apply_lora(model, LoraConfig(targets=()))
    with pytest.raises(ConfigError, match="rank"):
        LoraConfig.parse({"rank": 0}, "test")
    adapter = adapter_of(adapted("llama", "lora"))
    with pytest.raises(ConfigError, match=r"layers\.0\.self_attn\.q_proj\.weight have the shapes"):
        attach(model, adapter)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    apply_lora(model, LoraConfig(targets=("q_proj",)))
    with pytest.raises(ConfigError, match="has an adapter already"):
        apply_lora(model, LoraConfig(targets=("v_proj",)))
    gated = adapter_of(adapted("qwen3", "lora", targets=("gate_proj",)))
    with pytest.raises(ConfigError, match="which the model does not have"):
        attach(random_model(SHAPES["gpt2"]), gated)
