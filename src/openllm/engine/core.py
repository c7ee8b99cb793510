# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The engine: many requests at once over one model.

Each step asks the scheduler what to compute, lets the runner compute it, chooses tokens, and tells
what is new. Continuous batching (Orca, OSDI 2022) over a paged cache (arXiv:2309.06180).
"""

# W wanted rows, D model

from collections.abc import Iterable

import torch
from torch import Tensor

from openllm.core.errors import ConfigError
from openllm.engine.backend import EngineStats
from openllm.engine.blocks import BlockPool
from openllm.engine.config import EngineConfig
from openllm.engine.live import Group, Live, Reading
from openllm.engine.output import Output
from openllm.engine.request import Request, SamplingParams, Update
from openllm.engine.runner import Batch, Runner
from openllm.engine.sampler import SamplerState
from openllm.engine.scheduler import Plan, Scheduler, Slice
from openllm.engine.sequence import Drafter, Sequence
from openllm.engine.structured import compile_structure
from openllm.engine.writing import Pen, write
from openllm.nn.lora import Adapter
from openllm.text.tokenizer import Tokenizer
from openllm.transform.adapter_bank import NONE, AdapterBank

SCORED_LOGITS = 2**22
"""Logits computed at a time for requests that want those of their prompt."""


class ModelEngine:
    """See `Engine` for the methods that a backend calls.

    Attributes:
        max_positions: most tokens of prompt and new text together.
        vocab_size: of the model, which may exceed the tokenizer's.
        bank: the loaded adapters.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        max_positions: int,
        vocab_size: int,
        num_blocks: int,
        cfg: EngineConfig,
        bank: AdapterBank,
        drafter: Drafter | None = None,
    ) -> None:
        self.max_positions = max_positions
        self.vocab_size = vocab_size
        self.bank = bank
        self._runner = runner
        self._tokenizer = tokenizer
        self._drafter = drafter
        runner.allocate(num_blocks, cfg.block_size)
        runner.set_adapters(bank)
        self._scheduler = Scheduler(
            BlockPool(num_blocks),
            block_size=cfg.block_size,
            max_batch_tokens=cfg.max_batch_tokens,
            max_sequences=cfg.max_sequences,
            preemption=cfg.preemption,
            prefix_cache=cfg.prefix_cache,
        )
        banned = tokenizer.banned_ids | set(range(tokenizer.vocab_size, vocab_size))
        self._banned = torch.tensor(sorted(banned), dtype=torch.long)
        self._groups: dict[str, Group | Reading] = {}
        self._live: dict[Sequence, Live] = {}
        self._totals = dict.fromkeys(("prompt", "cached", "new", "drafted", "accepted", "steps"), 0)

    @property
    def most_tokens(self) -> int:
        """Most tokens that a sequence may have: by the model, and by the cache."""
        return min(self.max_positions, self._scheduler.capacity)

    def add(self, request: Request, *, sample: int = 0) -> None:
        """See `Engine.add`; `sample` is the number of its first continuation."""
        if request.id in self._groups:
            raise ConfigError(f"a request '{request.id}' is running already; choose another id")
        most = self._most_tokens(request)
        salt = b""
        if request.adapter is not None:
            salt = f"adapter {self.bank.version(request.adapter)}".encode()
        if request.kind != "generate":
            sequence = Sequence(request, 0, list(request.prompt), most, salt)
            self._groups[request.id] = Reading(sequence, max(1, SCORED_LOGITS // self.vocab_size))
            self._scheduler.add(sequence)
            return
        numbers = range(sample, sample + request.params.samples)
        lives = [self._begin(request, number, most, salt) for number in numbers]
        self._groups[request.id] = Group(request, lives)
        for live in lives:
            self._live[live.sequence] = live
            self._scheduler.add(live.sequence)

    def prepare(self, params: SamplingParams) -> None:
        """See `Engine.prepare`."""
        if params.structure is not None:
            compile_structure(params.structure, self._tokenizer, self.vocab_size)

    def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        group = self._groups.pop(request_id, None)
        lives = group.lives if isinstance(group, Group) else [] if group is None else [group]
        for live in lives:
            self._end(live.sequence)

    def has_work(self) -> bool:
        """See `Engine.has_work`."""
        return bool(self._groups)

    def reset(self) -> None:
        """See `Engine.reset`."""
        for request_id in list(self._groups):
            self.abort(request_id)
        self._scheduler.pool.forget()

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        scheduler, totals = self._scheduler, self._totals
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks=scheduler.pool.num_blocks,
            free_blocks=scheduler.pool.num_free,
            prompt_tokens=totals["prompt"],
            cached_tokens=totals["cached"],
            new_tokens=totals["new"],
            preemptions=scheduler.preemptions,
            drafted_tokens=totals["drafted"],
            accepted_tokens=totals["accepted"],
            steps=totals["steps"],
        )

    def load_adapter(self, name: str, adapter: Adapter) -> None:
        """Add an adapter, or replace the one of this name; if that fails, the old one stays.

        Raises:
            ConfigError: it does not fit the model, or what runs the model; or a request uses the
                one of this name.
        """
        self._check_unused(name)
        with self.bank.undone_on_failure():
            self.bank.load(name, adapter)
            self._runner.set_adapters(self.bank)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ConfigError: there is none of this name, or a request uses it.
        """
        self._check_unused(name)
        self.bank.unload(name)
        self._runner.set_adapters(self.bank)

    def _check_unused(self, adapter: str) -> None:
        if any(sequence.request.adapter == adapter for sequence in self._scheduler):
            raise ConfigError(f"the adapter '{adapter}' is in use; try again when it is not")

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace weights, under our names; what was read with the old ones is read again.

        Raises:
            CheckpointError: an unknown name, or another shape.
        """
        try:
            self._runner.update(weights)
        finally:
            # part of the weights may have changed even if one was refused
            self.bank.refresh()
            self._runner.set_adapters(self.bank)
            self._scheduler.restart()

    @torch.inference_mode()
    def step(self) -> list[Update]:
        """See `Engine.step`."""
        plan = self._scheduler.plan()
        for sequence, blocks in plan.save:
            sequence.saved = self._runner.save(blocks)
        for sequence, blocks in plan.restore:
            self._runner.restore(sequence.saved, blocks)
            sequence.saved = None
        if not plan.slices:
            return []
        self._totals["steps"] += 1
        states_WD = self._runner.forward(self._batch(plan))
        updates: list[Update] = []
        pens: list[Pen] = []
        row = 0
        for piece in plan.slices:
            count = len(piece.wanted)
            if piece.sequence.request.kind != "generate":
                updates += self._read(piece, states_WD[row : row + count])
            elif piece.is_last:
                pens.append(Pen(piece, self._live[piece.sequence], row))
            else:
                self._scheduler.commit(piece)
            row += count
        for pen, accepted in zip(pens, write(self._runner, pens, states_WD), strict=True):
            updates += self._settle(pen.piece, accepted)
        if self._drafter is not None:
            written = [pen.piece.sequence for pen in pens]
            self._drafter.propose([sequence for sequence in written if sequence in self._live])
        return updates

    def _most_tokens(self, request: Request) -> int:
        """Most tokens that a sequence of this request may have.

        Raises:
            ConfigError: its prompt is empty or too long, or has ids that the model lacks; or it
                wants less than no alternatives.
        """
        used, writes = len(request.prompt), request.kind == "generate"
        most = self.most_tokens
        if not used:
            raise ConfigError("the prompt is empty; give a prompt")
        if used + writes > most:
            room = "prompt and new text together" if writes else "it"
            raise ConfigError(
                f"the prompt has {used} tokens, but {room} may have at most {most}; "
                "shorten the prompt"
            )
        if min(request.prompt) < 0 or max(request.prompt) >= self.vocab_size:
            raise ConfigError(
                f"the prompt has a token that is none of the {self.vocab_size} of the model; use "
                "the model's own tokenizer"
            )
        if request.top < 0:
            raise ConfigError(f"top={request.top} alternatives cannot be told; give 0 or more")
        return min(most, used + request.params.max_new_tokens) if writes else used

    def _begin(self, request: Request, index: int, most: int, salt: bytes) -> Live:
        params = request.params
        sequence = Sequence(request, index, list(request.prompt), most, salt)
        state = SamplerState(params, request.prompt, vocab_size=self.vocab_size, sample=index)
        grammar = None
        if params.structure is not None:
            grammar = compile_structure(params.structure, self._tokenizer, self.vocab_size).start()
        limit = most - len(request.prompt)
        output = Output(self._tokenizer, params, self._tokenizer.end_ids, limit)
        early = self._banned
        if params.min_new_tokens:
            early = torch.tensor(sorted({*early.tolist(), *output.ends}), dtype=torch.long)
        return Live(sequence, output, state, self._banned, early, grammar)

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        self._live.pop(sequence, None)
        if self._drafter is not None:
            self._drafter.forget(sequence)

    def _batch(self, plan: Plan) -> Batch:
        tokens: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for piece in plan.slices:
            sequence, end = piece.sequence, piece.start + piece.count
            wanted += [len(tokens) + row for row in piece.wanted]
            given = sequence.tokens[piece.start : end]
            tokens += [*given, *sequence.draft[: piece.count - len(given)]]
            positions += range(piece.start, end)
        names = [piece.sequence.request.adapter for piece in plan.slices]
        return Batch(
            tokens,
            positions,
            counts=[piece.count for piece in plan.slices],
            tables=[piece.sequence.blocks for piece in plan.slices],
            adapters=[NONE if name is None else self.bank.index(name) for name in names],
            wanted=wanted,
        )

    def _read(self, piece: Slice, states_WD: Tensor) -> list[Update]:
        """Advance a request that only reads."""
        sequence = piece.sequence
        reading = self._groups[sequence.request.id]
        assert isinstance(reading, Reading)
        reading.add(self._runner, piece.start, states_WD)
        is_last = piece.is_last
        self._scheduler.commit(piece)
        if not is_last:
            return []
        self._totals["prompt"] += len(sequence.tokens)
        del self._groups[sequence.request.id]
        self._end(sequence)
        return [reading.result()]

    def _settle(self, piece: Slice, accepted: int) -> list[Update]:
        """Commit a sequence that has new tokens, and tell its news."""
        sequence = piece.sequence
        live = self._live.get(sequence)
        if live is None:  # another continuation of its request has failed
            return []
        if live.failure is not None:
            self.abort(sequence.request.id)
            return [Update(sequence.request.id, finish_reason="error", error=live.failure)]
        if piece.start + piece.count - piece.drafted == sequence.num_prompt:
            self._totals["prompt"] += sequence.num_prompt
            self._totals["cached"] += sequence.cached
        self._totals["new"] += accepted + 1
        self._totals["drafted"] += piece.drafted
        self._totals["accepted"] += accepted
        self._scheduler.commit(piece, accepted)
        sequence.draft = []
        group = self._groups[sequence.request.id]
        assert isinstance(group, Group)
        if live.output.finish_reason is not None:
            self._end(sequence)
        updates = group.news(live)
        if group.is_over():
            del self._groups[sequence.request.id]
        return updates
