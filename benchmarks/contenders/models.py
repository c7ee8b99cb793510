# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Ours and the peers: each trains the same shape with the same optimizer."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from plain_gpt import PlainGPT, adamw
from torch import Tensor, nn

from contenders.documents import Loader
from contenders.job import ADAMW, Job, is_compiled
from openllm.data.loader import Batch
from openllm.nn.config import ModelConfig
from openllm.recipes.build import prepare_process, resolve
from openllm.train.assemble import assemble
from openllm.train.objective import NextToken
from openllm.transform.memory import keep_freed_memory
from openllm.transform.precision import arithmetic

CLIP_NORM = 1.0


class Step(NamedTuple):
    """One training step: its seconds, those waiting for data, tokens predicted and read."""

    seconds: float
    waiting: float
    predicted: int
    cells: int


class Feed:
    """A loader with a timer."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.waiting = 0.0
        self.batches: list[Batch] = []

    def __call__(self, step: int) -> list[Batch]:
        """Return the batches of a step."""
        began = time.perf_counter()
        self.batches = self.loader(step)
        self.waiting = time.perf_counter() - began
        return self.batches


class Contender:
    """A model that trains."""

    def __init__(
        self, feed: Feed, model: nn.Module, advance: Callable[[], object], *, compiled: bool
    ) -> None:
        self.feed, self.model, self.compiled = feed, model, compiled
        self._advance = advance

    def step(self) -> Step:
        """Run one training step."""
        began = time.perf_counter()
        self._advance()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        predicted = sum(batch.num_targets for batch in self.feed.batches)
        cells = sum(batch.tokens.size for batch in self.feed.batches)
        return Step(seconds, self.feed.waiting, predicted, cells)


def build(name: str, job: Job, loader: Loader) -> Contender:
    """Build a contender by name."""
    feed = Feed(loader)
    if name.partition("-")[0] == "ours":
        return _ours(name, job, feed)
    model, loss = PEERS[name.partition("-")[0]](job)
    return _peer(name, job, feed, model, loss)


def _ours(name: str, job: Job, feed: Feed) -> Contender:
    """The trainer that `openllm train` builds, with the same process setup."""
    cfg = job.recipe()
    if is_compiled(name):
        cfg = cfg.model_copy(update={"compile": True})
    cfg = resolve(cfg, job.vocab_size)
    prepare_process(cfg)
    trainer = assemble(cfg, NextToken(), feed, total_steps=100_000)
    trainer.model.train()
    return Contender(feed, trainer.model, trainer.train_step, compiled=cfg.compile is True)


Loss = Callable[[Tensor, Tensor], Tensor]
"""From (B, T) tokens and their next tokens to a mean loss."""


def _peer(name: str, job: Job, feed: Feed, model: nn.Module, loss: Loss) -> Contender:
    """The usual training loop around such a model; it keeps freed memory, as ours does."""
    keep_freed_memory()
    model.to(job.device).train()
    if is_compiled(name):
        model.compile()
    betas = (ADAMW.beta1, ADAMW.beta2)
    optimizer = adamw(model, ADAMW.lr, ADAMW.weight_decay, betas)
    precision = "bf16" if job.precision == "bf16" else "fp32"
    done = 0

    def advance() -> None:
        nonlocal done
        (batch,) = feed(done)
        tokens = torch.from_numpy(batch.tokens).to(job.device)
        targets = torch.from_numpy(batch.targets).to(job.device)
        with arithmetic(precision, job.device):
            value = loss(tokens, targets)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value.item()
        done += 1

    return Contender(feed, model, advance, compiled=is_compiled(name))


def _shape(job: Job) -> ModelConfig:
    return job.recipe().model


def _plain(job: Job) -> tuple[nn.Module, Loss]:
    cfg = _shape(job)
    model = PlainGPT(
        cfg.vocab_size, cfg.dim, cfg.num_layers, cfg.attention.num_heads, cfg.max_positions
    )
    return model, model


def _llama(job: Job) -> tuple[nn.Module, Loss]:
    from transformers import LlamaConfig, LlamaForCausalLM

    cfg = _shape(job)
    shape = LlamaConfig(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.dim,
        intermediate_size=cfg.mlp.hidden_dim,
        num_hidden_layers=cfg.num_layers,
        num_attention_heads=cfg.attention.num_heads,
        num_key_value_heads=cfg.attention.kv_heads,
        head_dim=cfg.attention.head_dim,
        max_position_embeddings=cfg.max_positions,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return _transformers(LlamaForCausalLM(shape))


def _gpt2(job: Job) -> tuple[nn.Module, Loss]:
    from transformers import GPT2Config, GPT2LMHeadModel

    cfg = _shape(job)
    shape = GPT2Config(
        vocab_size=cfg.vocab_size,
        n_positions=cfg.max_positions,
        n_embd=cfg.dim,
        n_layer=cfg.num_layers,
        n_head=cfg.attention.num_heads,
        n_inner=4 * cfg.dim,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    return _transformers(GPT2LMHeadModel(shape))


def _transformers(model: nn.Module) -> tuple[nn.Module, Loss]:
    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=tokens, shift_labels=targets).loss

    return model, loss


def _litgpt(job: Job) -> tuple[nn.Module, Loss]:
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    cfg = _shape(job)
    model = GPT(
        Config(
            block_size=cfg.max_positions,
            vocab_size=cfg.vocab_size,
            padded_vocab_size=cfg.vocab_size,
            n_layer=cfg.num_layers,
            n_head=cfg.attention.num_heads,
            n_query_groups=cfg.attention.kv_heads,
            head_size=cfg.attention.head_dim,
            n_embd=cfg.dim,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=cfg.mlp.hidden_dim,
        )
    )

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return chunked_cross_entropy(model(tokens), targets)

    return model, loss


PEERS: dict[str, Callable[[Job], tuple[nn.Module, Loss]]] = {
    "plain": _plain,
    "llama": _llama,
    "gpt2": _gpt2,
    "litgpt": _litgpt,
}
"""First part of a contender's name -> model and loss."""
