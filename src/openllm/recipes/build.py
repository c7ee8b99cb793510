# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Build the parts of a run from a recipe: settings for this machine, loader, model, loop."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.config import load_recipe
from openllm.core.errors import CheckpointError, ConfigError
from openllm.core.files import sha256_file
from openllm.core.runs import environment
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.data.loader import Batch, TokenLoader
    from openllm.data.mixture import MixtureLoader
    from openllm.data.shards import Shards
    from openllm.train.loop import Trainer
    from openllm.train.objective import Objective

CONFIGS = Path(__file__).parent / "configs"


def load_config(name: str, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Load a shipped recipe or the user's own, with overrides.

    Raises:
        ConfigError: the recipe is invalid; the message names the key.
    """
    return PretrainConfig.parse(load_recipe(name, CONFIGS, overrides), f"recipe {name}")


def resolve(cfg: PretrainConfig, vocab_size: int, *, epoch_tokens: int = 0) -> PretrainConfig:
    """Fill in what depends on the machine, the tokenizer and the size of the training text.

    Raises:
        ConfigError: the recipe's vocabulary size differs from the tokenizer's, or it sets what
            `scale` determines.
    """
    import torch

    from openllm.train.scale import apply_scale
    from openllm.transform.precision import has_fast_bf16

    cfg = apply_scale(cfg, vocab_size, epoch_tokens)
    device = cfg.device
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch sees no CUDA GPU here; use device=auto")
    elif device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps, but torch sees no Apple GPU here; use device=auto")
    precision = cfg.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if "vocab_size" in cfg.model.model_fields_set and cfg.model.vocab_size != vocab_size:
        raise ConfigError(
            f"model.vocab_size={cfg.model.vocab_size}, but the tokenizer has {vocab_size} tokens; "
            "remove the setting, or train a tokenizer of that size"
        )
    model = cfg.model.model_copy(update={"vocab_size": vocab_size})
    threads = cfg.threads or torch.get_num_threads()
    return cfg.model_copy(
        update={
            "device": device,
            "precision": precision,
            "compile": device == "cuda" if cfg.compile == "auto" else cfg.compile,
            "model": model,
            "threads": threads,
        }
    )


def prepare_process(cfg: PretrainConfig) -> None:
    """Set up torch and the allocator for a resolved recipe."""
    import torch

    from openllm.transform.memory import keep_freed_memory, return_freed_memory

    torch.set_num_threads(cfg.threads or 1)
    # like use_deterministic_algorithms(True), which would also load the compiler
    torch.set_deterministic_debug_mode("error")
    # otherwise this mode fills all new memory with NaN before it is overwritten
    torch.utils.deterministic.fill_uninitialized_memory = False
    if cfg.activation_checkpointing:
        return_freed_memory()
    else:
        keep_freed_memory()


def build_loader(cfg: PretrainConfig, shards: "Shards") -> "TokenLoader":
    """The batches of a training split."""
    from openllm.data.loader import TokenLoader

    return TokenLoader(
        shards,
        seq_len=cfg.batch.seq_len,
        micro_rows=cfg.batch.micro_rows,
        seed=cfg.seed,
        reshuffle=cfg.batch.reshuffle,
    )


def build_trainer(cfg: PretrainConfig, loader: "TokenLoader | MixtureLoader") -> "Trainer":
    """Model, optimizers and loop of a resolved recipe, without hooks."""
    from openllm.train.assemble import assemble

    steps = cfg.total_steps(loader.rows_per_epoch)

    def batches(step: int) -> list["Batch"]:
        first, stop = (cfg.batch.rows_before(number, steps) for number in (step, step + 1))
        return loader.batches(first, stop)

    return assemble(cfg, _objective(cfg), batches, steps)


def _objective(cfg: PretrainConfig) -> "Objective":
    """The training objective; the weights of teachers are read here."""
    from openllm.checkpoint.model_dir import load_model
    from openllm.train.objective import Distill, NextToken

    if cfg.distill is None:
        return NextToken()
    teachers = [load_model(folder).to(cfg.device) for folder in cfg.distill.teachers]
    return Distill(teachers, cfg.distill.share)


def check_teachers(cfg: PretrainConfig, tokenizer: str) -> dict[str, str]:
    """The fingerprint of each teacher of a resolved recipe, as inputs of a run.

    Args:
        cfg: resolved, so that rows and vocabulary are known.
        tokenizer: fingerprint of the student's tokenizer.

    Raises:
        CheckpointError, TokenizerError: a teacher cannot be read.
        ConfigError: a teacher has another tokenizer, or reads shorter rows than the student.
    """
    from openllm.checkpoint.model_dir import read_model_config
    from openllm.checkpoint.weights import weight_files
    from openllm.text.load import load_tokenizer

    found = {}
    for folder in cfg.distill.teachers if cfg.distill else []:
        try:
            teacher = read_model_config(folder)
            files = [Path(folder) / "config.json", *weight_files(Path(folder))]
        except CheckpointError as error:
            raise ConfigError(f"distill.teachers: {error}") from None
        if load_tokenizer(folder).fingerprint != tokenizer:
            raise ConfigError(
                f"distill.teachers: {folder} has a different tokenizer from {cfg.tokenizer}; "
                "teachers and student must share one"
            )
        if teacher.position.kind == "learned" and teacher.max_positions < cfg.batch.seq_len:
            raise ConfigError(
                f"distill.teachers: {folder} reads rows of up to {teacher.max_positions} tokens; "
                f"set batch.seq_len={teacher.max_positions}"
            )
        found[f"teacher {folder}"] = "-".join(sha256_file(path)[:32] for path in files)
    return found


@contextmanager
def memory_errors(cfg: PretrainConfig) -> Iterator[None]:
    """Turn out-of-memory errors into one that says what to change."""
    import torch

    from openllm.train.forecast import out_of_memory

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(cfg) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise out_of_memory(cfg) from error


def describe_machine(cfg: PretrainConfig) -> dict[str, Any]:
    """What the numbers of a resolved recipe depend on besides the recipe."""
    import torch

    from openllm.nn.kernels.library import fingerprint as kernels

    return environment(
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        threads=cfg.threads or 1,
        device=cfg.device,
        kernels=kernels() if cfg.device == "cpu" else "none",
        compiled=cfg.compile is True,
    )
