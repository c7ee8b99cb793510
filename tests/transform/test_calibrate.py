# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from collections.abc import Callable

import pytest
import torch
from tests.tiny import SHAPES, random_model
from torch import Tensor

from openllm.nn.config import ModelConfig, ResearchConfig
from openllm.nn.heads import logits
from openllm.nn.model import Transformer
from openllm.nn.quantized import Scheme
from openllm.transform.calibrate import calibrated, gptq
from openllm.transform.quantize import quantize, units


def inputs(rows: int, columns: int) -> Tensor:
    """Columns that say much about each other, and one that is always zero."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(rows, columns // 8, generator=generator)
    x = few @ torch.randn(columns // 8, columns, generator=generator)
    x += 0.1 * torch.randn(rows, columns, generator=generator)
    x[:, 5] = 0
    return x


@pytest.mark.parametrize("group", [32, 64, None])
@pytest.mark.parametrize("columns", [192, 320])
def test_products_with_real_inputs_change_least(group: int | None, columns: int) -> None:
    x = inputs(500, columns)
    weight = torch.randn(40, columns, generator=torch.Generator().manual_seed(1))
    scheme = Scheme(4, group)
    found, plain = gptq(weight, x.T @ x, scheme), quantize(weight, scheme)
    assert found.scheme == scheme and found.shape == weight.shape

    def error(made: Tensor) -> float:
        return float(((made - weight) @ x.T).square().mean())

    assert error(found.dequantize()) < 0.5 * error(plain.dequantize())


def test_inputs_that_say_nothing_of_each_other_are_rounded_one_by_one() -> None:
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    found, plain = gptq(weight, torch.eye(128), Scheme(4, 32)), quantize(weight, Scheme(4, 32))
    assert found.scale.equal(plain.scale) and found.q.equal(plain.q)


def texts(model: Transformer) -> list[Callable[[], object]]:
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randint(4, 640, (4, 30), generator=generator) for _ in range(6)]
    return [lambda ids=ids: model(ids) for ids in batches]


@pytest.mark.integration
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_whole_models(name: str) -> None:
    original, model = random_model(SHAPES[name]).eval(), random_model(SHAPES[name]).eval()
    schemes = {n: Scheme(4, 16) for unit in units(model.state_dict()).values() for n in unit}
    schemes["embed_tokens.weight"] = Scheme(8, 16)
    done: list[None] = []
    found = calibrated(model, schemes, texts(model), lambda: done.append(None))
    assert len(done) == len(found) == len(schemes)
    state, before = model.state_dict(), original.state_dict()
    for key, tensor in state.items():
        if key in found:
            assert found[key].scheme == schemes[key]
            assert tensor.equal(found[key].dequantize())
        else:
            assert tensor.equal(before[key])
    plain = random_model(SHAPES[name]).eval()
    with torch.no_grad():
        for key, scheme in schemes.items():
            plain.get_parameter(key).copy_(quantize(before[key], scheme).dequantize())
    ids = torch.randint(4, 640, (8, 30), generator=torch.Generator().manual_seed(3))

    def error(changed: Transformer) -> float:
        with torch.no_grad():
            pair = [logits(m(ids).x, m.head) for m in (changed, original)]
        return float((pair[0] - pair[1]).square().mean())

    assert error(model) < 0.9 * error(plain)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


RESEARCH = SHAPES["qwen3"].model_copy(
    update={"research": ResearchConfig(unet_skips=True, embedding_mix=True, value_embeddings=True)}
)


@pytest.mark.integration
@pytest.mark.parametrize("cfg", [SHAPES["gemma2"], SHAPES["llama"], RESEARCH])
def test_each_layer_is_fitted_to_what_it_reads_in_the_changed_model(cfg: ModelConfig) -> None:
    original, model = random_model(cfg).eval(), random_model(cfg).eval()
    names = [name for unit in units(model.state_dict()).values() for name in unit]
    found = calibrated(model, dict.fromkeys(names, Scheme(4, 16)), texts(model))
    last = "layers.1.mlp.down_proj.weight"
    for name in ("layers.1.self_attn.k_proj.weight", last, "layers.0.mlp.up_proj.weight"):
        changed = random_model(cfg).eval()
        layer = name.split(".")[1]
        with torch.no_grad():  # all that comes before the layer
            for key, made in found.items():
                if key == "embed_tokens.weight" or key.startswith("layers.0.") > (layer == "0"):
                    changed.get_parameter(key).copy_(made.dequantize())
        grams: list[Tensor] = []
        module = changed.get_submodule(name.removesuffix(".weight"))
        module.register_forward_pre_hook(
            lambda _, args, grams=grams: grams.append(args[0].flatten(0, 1))
        )
        with torch.no_grad():
            for text in texts(changed):
                text()
            x = torch.cat(grams)
            wanted = gptq(original.get_parameter(name), x.T @ x, Scheme(4, 16))
        same = (found[name].q == wanted.q).float().mean()
        assert float(same) > 0.99, name  # sums of products are added in another order


def test_a_failing_text_leaves_no_hooks() -> None:
    model = random_model(SHAPES["llama"])

    def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        calibrated(model, {"layers.0.mlp.up_proj.weight": Scheme(4, 32)}, [fail])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_group_that_is_nearly_dead_does_not_widen_the_scales_of_the_others() -> None:
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    weight[:, 32:64] *= 1e-9
    assert gptq(weight, torch.eye(128), Scheme(4, 32)).scale.dtype == torch.float16
