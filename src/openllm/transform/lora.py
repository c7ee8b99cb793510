# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Low-rank adapters on a built model: put on, merge, take off.

LoRA (arXiv:2106.09685), rsLoRA (arXiv:2312.03732) and DoRA (arXiv:2402.09353).
"""

import difflib

import torch
from torch import Tensor, nn

from openllm.core.errors import ConfigError
from openllm.nn.lora import Adapter, LoraLinear, LowRank, adaptable, row_lengths
from openllm.nn.model import Transformer
from openllm.transform.lora_config import LoraConfig


def apply_lora(model: Transformer, cfg: LoraConfig, seed: int = 0) -> Transformer:
    """Put a new adapter on a model; the model then computes what it did before.

    Only the adapter is trained afterwards. Its weights depend on the seed alone.

    Raises:
        ConfigError: the model has no such matrices, or has an adapter already.
    """
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name, module in _chosen(model, cfg).items():
        height, width = module.weight.shape
        a_RK = torch.empty(cfg.rank, width)
        a_RK.uniform_(-(width**-0.5), width**-0.5, generator=generator)
        b_NR = torch.zeros(height, cfg.rank)
        lengths = row_lengths(module.weight.detach()) if cfg.kind == "dora" else None
        device = module.weight.device
        changes[f"{name}.weight"] = LowRank(a_RK.to(device), b_NR.to(device), cfg.scale, lengths)
    return attach(model, Adapter(changes, cfg.kind == "rslora", cfg.dropout))


def attach(model: Transformer, adapter: Adapter) -> Transformer:
    """Put an adapter on a model and freeze everything else.

    The adapter's tensors become the parameters, without a copy where dtype and device fit.

    Raises:
        ConfigError: it does not fit the model, or the model has an adapter already.
    """
    _refuse_second(model)
    found = adaptable(model)
    check_fit(model, adapter)
    model.requires_grad_(False)
    for name, change in adapter.changes.items():
        base = found[name.removesuffix(".weight")]
        a_RK, b_NR, magnitude_N = (
            None if part is None else part.detach().to(base.weight.device, torch.float32)
            for part in (change.a_RK, change.b_NR, change.magnitude_N)
        )
        assert a_RK is not None and b_NR is not None
        fitting = LowRank(a_RK, b_NR, change.scale, magnitude_N)
        layer = LoraLinear(
            base, fitting, dropout=adapter.dropout, rank_stabilised=adapter.rank_stabilised
        )
        _replace(model, name.removesuffix(".weight"), layer.train(base.training))
    return model


def check_fit(model: Transformer, adapter: Adapter) -> None:
    """Refuse an adapter that was made for another model.

    Raises:
        ConfigError: it names a matrix that the model lacks or that has another shape.
    """
    found = adaptable(model)
    for name, change in adapter.changes.items():
        module = found.get(name.removesuffix(".weight"))
        if module is None:
            raise ConfigError(
                f"the adapter changes {name}, which the model does not have as a plain matrix; use "
                "the model that the adapter was made for"
            )
        height, width = module.weight.shape
        needed = [(change.rank, width), (height, change.rank), (height,)]
        given = [tuple(tensor.shape) for tensor in change.tensors()]
        if given != needed[: len(given)]:
            raise ConfigError(
                f"the adapter's matrices for {name} have the shapes {given}, but the model needs "
                f"{needed[: len(given)]}; use the model that the adapter was made for"
            )


def adapter_of(model: Transformer) -> Adapter:
    """The adapter on a model, to be saved or loaded elsewhere; its tensors are not copies."""
    layers = _adapted(model)
    changes = {}
    for name, layer in layers.items():
        parts = (layer.lora_A, layer.lora_B, layer.magnitude)
        a_RK, b_NR, magnitude_N = (None if part is None else part.detach() for part in parts)
        assert a_RK is not None and b_NR is not None
        changes[f"{name}.weight"] = LowRank(a_RK, b_NR, layer.scale, magnitude_N)
    first = next(iter(layers.values()))
    return Adapter(changes, first.rank_stabilised, first.dropout.p)


def lora_state(model: Transformer) -> dict[str, Tensor]:
    """The parameters of the adapter alone, as they are called in the model's state dict."""
    return {
        f"{name}.{part}": tensor.detach()
        for name, layer in _adapted(model).items()
        for part, tensor in layer.named_parameters()
        if part not in ("weight", "bias")
    }


def merge_lora(model: Transformer) -> Transformer:
    """Put the adapter into the weights, so that it costs no time; the old weights are kept."""
    for layer in _adapted(model).values():
        layer.merge()
    return model


def unmerge_lora(model: Transformer) -> Transformer:
    """Undo `merge_lora`, bit for bit."""
    for layer in _adapted(model).values():
        layer.unmerge()
    return model


def detach(model: Transformer) -> Transformer:
    """Make the layers plain again, with their weights as they are: merged or not.

    Nothing of the model is trained afterwards, until it is told so.
    """
    for name, layer in _adapted(model).items():
        _replace(model, name, layer.plain())
    return model


def _chosen(model: Transformer, cfg: LoraConfig) -> dict[str, nn.Linear]:
    _refuse_second(model)
    found = adaptable(model)
    if cfg.targets == "all":
        return found
    known = sorted({name.rpartition(".")[2] for name in found})
    for target in cfg.targets:
        if target not in known:
            close = difflib.get_close_matches(target, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ConfigError(
                f"the model has no matrix '{target}' to adapt; {hint}it has {', '.join(known)}"
            )
    chosen = {n: module for n, module in found.items() if n.rpartition(".")[2] in cfg.targets}
    if not chosen:
        raise ConfigError(f"'targets' is empty; name some of {', '.join(known)}, or write 'all'")
    return chosen


def _adapted(model: Transformer) -> dict[str, LoraLinear]:
    """The layers that have an adapter.

    Raises:
        ConfigError: there are none.
    """
    layers = {n: module for n, module in model.named_modules() if isinstance(module, LoraLinear)}
    if not layers:
        raise ConfigError("the model has no adapter; put one on with apply_lora or attach")
    return layers


def _refuse_second(model: Transformer) -> None:
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ConfigError("the model has an adapter already; take it off with detach first")


def _replace(model: Transformer, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
