# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Put an engine together: which runner, how large a cache, which draft model."""

import copy
import math
from pathlib import Path
from typing import Any

import torch

from openllm.checkpoint.model_dir import load_model, read_model_config
from openllm.checkpoint.source import open_source, read_quantized
from openllm.core.errors import ConfigError
from openllm.core.log import say
from openllm.core.machine import free_memory
from openllm.engine.backend import BackendInfo
from openllm.engine.config import EngineConfig, Kind
from openllm.engine.core import ModelEngine
from openllm.engine.runner import Runner
from openllm.engine.runners.compiled_runner import CompiledRunner, why_not_compiled
from openllm.engine.runners.torch_runner import TorchRunner
from openllm.engine.sequence import Drafter
from openllm.engine.speculation import ModelDrafter, NgramDrafter
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.transform.adapter_bank import AdapterBank
from openllm.transform.precision import has_fast_bf16

WEIGHT_BYTES: dict[Kind, float] = {"fp32": 4, "bf16": 2, "int8": 1.13, "int4": 0.63}
"""About as many bytes as a weight takes, with its share of the scales."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def assemble(
    model: Transformer, tokenizer: Tokenizer, cfg: EngineConfig, *, name: str
) -> tuple[ModelEngine, BackendInfo]:
    """An engine for a model in memory, which stays as it is.

    Raises:
        ConfigError: the tokenizer is not the model's, or the settings do not fit it.
    """
    check_vocabulary(model.cfg, tokenizer)
    device = choose_device(cfg.device)
    kind = choose_kind(cfg.precision, device, stored=None)
    reason = why_not_compiled(model.cfg, device, cfg)
    if reason is None:
        weights = model.state_dict().items()
        runner: Runner = CompiledRunner(model.cfg, weights, kind)
    else:
        weight, place = model.embed_tokens.weight, torch.empty(0, device=device)
        if (weight.device, weight.dtype) != (place.device, DTYPES.get(kind)):
            model = copy.deepcopy(model).to(device)
        runner = torch_runner(model, kind, cfg, reason)
    return _engine(runner, model.cfg, tokenizer, cfg, kind, name)


def assemble_folder(
    folder: Path, tokenizer: Tokenizer, cfg: EngineConfig, *, name: str
) -> tuple[ModelEngine, BackendInfo]:
    """An engine for a model folder, which is read tensor by tensor.

    Raises:
        CheckpointError: the folder is missing or damaged.
        ConfigError: the tokenizer is not the model's, or the settings do not fit it.
    """
    model_cfg = read_model_config(folder)
    check_vocabulary(model_cfg, tokenizer)
    device = choose_device(cfg.device)
    reason = why_not_compiled(model_cfg, device, cfg)
    kind = choose_kind(cfg.precision, device, stored=None if reason else stored_kind(folder))
    if reason is None:
        runner: Runner = CompiledRunner(model_cfg, read_quantized(folder), kind)
    else:
        model = load_model(folder, dtype=DTYPES.get(kind, torch.float32)).to(device)
        runner = torch_runner(model, kind, cfg, reason)
    return _engine(runner, model_cfg, tokenizer, cfg, kind, name)


def torch_runner(model: Transformer, kind: Kind, cfg: EngineConfig, reason: str) -> TorchRunner:
    """The runner in plain torch.

    Raises:
        ConfigError: it cannot run this precision.
    """
    if kind in ("int8", "int4"):
        raise ConfigError(
            f"precision {kind} needs the compiled kernels, but {reason}; choose bf16 or fp32"
        )
    say(f"the engine runs on plain PyTorch: {reason}")
    dtype = DTYPES[kind]
    if model.embed_tokens.weight.dtype != dtype:
        model = model.to(dtype)
    return TorchRunner(model, exact=cfg.exact)


def check_vocabulary(model_cfg: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raises ConfigError if the tokenizer knows ids that the model does not."""
    if model_cfg.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"the model's vocabulary size is {model_cfg.vocab_size}, but the tokenizer's is "
            f"{tokenizer.vocab_size}; use the tokenizer that the model was trained with"
        )


def choose_device(wanted: str) -> str:
    """The device that a setting means.

    Raises:
        ConfigError: there is no such device.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device '{wanted}' cannot be used ({reason}); choose cpu") from None
    return wanted


def choose_kind(wanted: Kind, device: str, *, stored: Kind | None) -> Kind:
    """The precision that a setting means.

    Args:
        wanted: the setting.
        device: of the model.
        stored: that of a quantized folder, if the kernels can keep its integers; plain torch
            computes with the weights that they stand for.
    """
    if wanted != "auto":
        return wanted
    if stored is not None:
        return stored
    return "bf16" if has_fast_bf16(torch.device(device).type) else "fp32"


def stored_kind(folder: Path) -> Kind | None:
    """The precision of most weights of a quantized folder."""
    source, sizes = open_source(folder), {"int8": 0, "int4": 0}
    for link in source.links:
        if scheme := source.scheme(link):
            sizes["int8" if scheme.bits == 8 else "int4"] += math.prod(link.shape(source.shapes))
    return max(sizes, key=sizes.__getitem__) if any(sizes.values()) else None


def _engine(
    runner: Runner,
    model_cfg: ModelConfig,
    tokenizer: Tokenizer,
    cfg: EngineConfig,
    kind: Kind,
    name: str,
) -> tuple[ModelEngine, BackendInfo]:
    with torch.device("meta"):
        shell = Transformer(model_cfg)
    base = runner.model if isinstance(runner, TorchRunner) else shell
    device = choose_device(cfg.device)
    num_blocks = count_blocks(cfg, model_cfg.max_positions, runner.token_bytes, device)
    engine = ModelEngine(
        runner,
        tokenizer,
        max_positions=model_cfg.max_positions,
        vocab_size=model_cfg.vocab_size,
        num_blocks=num_blocks,
        cfg=cfg,
        bank=AdapterBank(base),
        drafter=_drafter(cfg, tokenizer, device),
    )
    parameters = sum(weight.numel() for weight in shell.parameters())
    info = BackendInfo(
        name,
        "openllm",
        model_cfg.max_positions,
        kind,
        parameters,
        runner.num_bytes,
        num_blocks * cfg.block_size * runner.token_bytes,
    )
    return engine, info


def estimate_bytes(folder: Path, cfg: EngineConfig) -> int:
    """Memory that a model folder's engine will take, weights and cache, by its config.

    Raises:
        CheckpointError: the folder is missing or damaged.
    """
    model_cfg = read_model_config(folder)
    device = choose_device(cfg.device)
    reason = why_not_compiled(model_cfg, device, cfg)
    kind = choose_kind(cfg.precision, device, stored=None if reason else stored_kind(folder))
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in Transformer(model_cfg).parameters())
    shape = model_cfg.attention
    width = 4 if kind == "fp32" else 2
    token_bytes = 2 * model_cfg.num_layers * shape.kv_heads * shape.head_dim * width
    tokens = cache_tokens(cfg, model_cfg.max_positions, token_bytes, device)
    return int(parameters * WEIGHT_BYTES[kind]) + tokens * token_bytes


def count_blocks(cfg: EngineConfig, max_positions: int, token_bytes: int, device: str) -> int:
    """Blocks of the cache.

    Raises:
        ConfigError: there is not enough memory for one full context.
    """
    tokens = cache_tokens(cfg, max_positions, token_bytes, device)
    if cfg.cache_tokens is None and tokens < min(max_positions, 2048):
        raise ConfigError(
            f"there is memory for {tokens} tokens in the cache only; free some memory, or set "
            "cache_tokens or cache_bytes"
        )
    return max(1, tokens // cfg.block_size)


def cache_tokens(
    cfg: EngineConfig, max_positions: int, token_bytes: int, device: str = "cpu"
) -> int:
    """Tokens that the cache may hold on a device."""
    if cfg.cache_tokens is not None:
        return cfg.cache_tokens
    most = cfg.cache_bytes
    if most is None:
        on_cpu = torch.device(device).type == "cpu"
        most = (free_memory() if on_cpu else torch.cuda.mem_get_info(device)[0]) // 4
    return min(cfg.max_sequences * max_positions, most // token_bytes)


def _drafter(cfg: EngineConfig, tokenizer: Tokenizer, device: str) -> Drafter | None:
    wanted = cfg.speculation
    if wanted is None:
        return None
    if wanted.model is None:
        return NgramDrafter(wanted.tokens)
    folder = Path(wanted.model)
    other = load_tokenizer(folder)
    if other.fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"the draft model {folder} has another tokenizer; choose one with the same"
        )
    changes: dict[str, Any] = {"speculation": None, "prefix_cache": True}
    if why_not_compiled(read_model_config(folder), device, cfg) is not None:
        changes["block_size"] = 4  # what a guess finds in the cache ends with a block
    engine, _ = assemble_folder(folder, other, cfg.model_copy(update=changes), name="draft")
    return ModelDrafter(engine, wanted.tokens)
