# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Decides what the next model run computes. Plain Python without torch.

Sequences run in the order of arrival. Each run has room for a number of tokens: first one token
(and its draft) of each sequence that is writing, then as much as fits of the prompts. When the
blocks run out, the youngest sequences make place; they go on later, from a copy of their blocks or
by computing them again. The oldest is never displaced, so each sequence ends some day.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from openllm.engine.blocks import BlockPool, block_keys
from openllm.engine.sequence import Sequence

Preemption = Literal["recompute", "swap"]


@dataclass(frozen=True)
class Slice:
    """Tokens [start, start + count) of a sequence; the last `drafted` of them are its draft."""

    sequence: Sequence
    start: int
    count: int
    drafted: int = 0

    @property
    def is_last(self) -> bool:
        """Whether the sequence is then computed up to its last token."""
        return self.start + self.count - self.drafted == len(self.sequence.tokens)

    @property
    def wanted(self) -> range:
        """Tokens whose states are needed, counted from the first of the slice."""
        if self.sequence.request.kind != "generate":
            return range(self.count)
        return range(self.count - self.drafted - 1 if self.is_last else self.count, self.count)


@dataclass
class Plan:
    """What the next run does, in this order.

    Attributes:
        save: sequences to put aside, with the blocks to copy.
        restore: sequences to bring back, with the blocks to fill.
        slices: tokens to compute.
    """

    save: list[tuple[Sequence, list[int]]] = field(default_factory=list)
    restore: list[tuple[Sequence, list[int]]] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)


class Scheduler:
    """Holds all sequences and plans run after run."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        block_size: int,
        max_batch_tokens: int,
        max_sequences: int,
        preemption: Preemption = "recompute",
        prefix_cache: bool = True,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_batch_tokens = max_batch_tokens
        self.max_sequences = max_sequences
        self.preemption: Preemption = preemption
        self.prefix_cache = prefix_cache
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.preemptions = 0

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    @property
    def capacity(self) -> int:
        """Most tokens that one sequence may have."""
        return self.pool.num_blocks * self.block_size

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ValueError: the cache could never hold it.
        """
        if sequence.most > self.capacity:
            raise ValueError(f"{sequence.most} tokens do not fit into {self.capacity}")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended or is not wanted any more."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._drop_blocks(sequence)
        sequence.saved = None

    def restart(self) -> None:
        """Compute everything again, since the weights have changed."""
        for sequence in reversed(self.running):
            sequence.draft = []
            self._drop_blocks(sequence)
            self.waiting.appendleft(sequence)
        self.running.clear()
        for sequence in self.waiting:
            sequence.saved = None
            sequence.computed = 0
        self.pool.forget()

    def plan(self) -> Plan:
        """Choose what to compute next, and take the blocks for it."""
        plan, room = Plan(), self.max_batch_tokens
        displaced: set[Sequence] = set()
        running = list(self.running)
        writing = [sequence for sequence in running if sequence.pending == 1]
        for sequence in [*writing, *(s for s in running if s.pending != 1)]:
            if not room or sequence in displaced:
                continue
            piece = self._piece(sequence, room)
            while sequence not in displaced and not self._reserve(sequence, piece):
                victim = self.running[-1]
                displaced.add(victim)
                room += self._unplan(plan, victim)
                self._preempt(victim, plan)
            if sequence not in displaced:
                plan.slices.append(piece)
                room -= piece.count
        if self.waiting and not displaced:
            self._admit(plan, room)
        return plan

    def commit(self, piece: Slice, accepted: int = 0) -> None:
        """Note that a slice is computed, and how much of its draft was right.

        The new tokens, drafted or chosen, must be in the sequence already.
        """
        sequence = piece.sequence
        sequence.computed = piece.start + piece.count - piece.drafted + accepted
        if not self.prefix_cache:
            return
        full = sequence.computed // self.block_size
        if full > len(sequence.keys):
            tokens = sequence.tokens[: full * self.block_size]
            sequence.keys = block_keys(tokens, self.block_size, sequence.keys, sequence.salt)
        for index in range(piece.start // self.block_size, full):
            self.pool.publish(sequence.blocks[index], sequence.keys[index])

    def _piece(self, sequence: Sequence, room: int) -> Slice:
        """As much of a sequence as there is room for; parts of prompts end with a block."""
        pending = sequence.pending
        if pending > room:
            end = (sequence.computed + room) // self.block_size * self.block_size
            # a room smaller than a block must not stop a prompt for ever
            count = end - sequence.computed if end > sequence.computed else room
            return Slice(sequence, sequence.computed, count)
        left = sequence.most - len(sequence.tokens)
        drafted = max(0, min(len(sequence.draft), room - pending, left - 1))
        return Slice(sequence, sequence.computed, pending + drafted, drafted)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _reserve(self, sequence: Sequence, piece: Slice) -> bool:
        missing = self._blocks_for(piece.start + piece.count) - len(sequence.blocks)
        if missing > self.pool.num_free:
            return False
        if missing > 0:
            sequence.blocks += self.pool.take(missing)
        return True

    def _unplan(self, plan: Plan, victim: Sequence) -> int:
        """Take a sequence out of the plan; returns the tokens that this leaves room for."""
        mine = [piece for piece in plan.slices if piece.sequence is victim]
        plan.slices = [piece for piece in plan.slices if piece.sequence is not victim]
        return sum(piece.count for piece in mine)

    def _preempt(self, victim: Sequence, plan: Plan) -> None:
        self.preemptions += 1
        self.running.remove(victim)
        victim.draft = []
        kept = victim.blocks[: self._blocks_for(victim.computed)]
        aside = sum(self._blocks_for(s.computed) for s in self.waiting if s.saved is not None)
        self.waiting.appendleft(victim)
        # what is put aside takes as much memory as the cache at most
        if self.preemption == "swap" and kept and aside + len(kept) <= self.pool.num_blocks:
            plan.save.append((victim, kept))
            victim.saved = kept  # replaced by the copy when the plan is carried out
            self.pool.release(victim.blocks)
            victim.blocks = []
        else:
            self._drop_blocks(victim)

    def _drop_blocks(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _admit(self, plan: Plan, room: int) -> None:
        """Start waiting sequences, in order, while there is room."""
        coming = self._coming_keys()
        skipped: list[Sequence] = []
        while self.waiting and room and len(self.running) < self.max_sequences:
            sequence = self.waiting.popleft()
            found = self._find_prefix(sequence)
            if self._will_be_found(sequence, found, coming):
                skipped.append(sequence)
                continue
            if not self._start(sequence, found, plan):
                self.waiting.appendleft(sequence)
                break
            piece = self._piece(sequence, room)
            self._reserve(sequence, piece)
            plan.slices.append(piece)
            room -= piece.count
            coming |= set(sequence.keys[sequence.computed // self.block_size :])
        self.waiting.extendleft(reversed(skipped))

    def _start(self, sequence: Sequence, found: list[int], plan: Plan) -> bool:
        """Move a sequence to the running ones if the blocks for its tokens are free."""
        have = 0 if sequence.saved is not None else len(found)
        free = self.pool.free_after(found[:have])
        if self._blocks_for(len(sequence.tokens)) - have > free:
            return False
        if sequence.saved is not None:
            sequence.blocks = self.pool.take(self._blocks_for(sequence.computed))
            plan.restore.append((sequence, list(sequence.blocks)))
        else:
            self.pool.share(found)
            sequence.blocks = list(found)
            sequence.computed = len(found) * self.block_size
            if not sequence.admitted:
                sequence.cached = sequence.computed
        sequence.admitted = True
        self.running.append(sequence)
        return True

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        if not self.prefix_cache or sequence.saved is not None:
            return []
        full = len(sequence.tokens) // self.block_size
        if len(sequence.keys) < full:
            size = self.block_size
            sequence.keys = block_keys(sequence.tokens, size, sequence.keys, sequence.salt)
        if not sequence.shares_prefix:
            return []
        # the last token is always computed: its state chooses the next one
        return self.pool.find(sequence.keys[: (len(sequence.tokens) - 1) // self.block_size])

    def _coming_keys(self) -> set[bytes]:
        """Keys of blocks that running sequences are about to compute."""
        size = self.block_size
        return {key for s in self.running if s.pending > 1 for key in s.keys[s.computed // size :]}

    def _will_be_found(self, sequence: Sequence, found: list[int], coming: set[bytes]) -> bool:
        """Whether waiting a little saves computing what another sequence computes now."""
        if not self.prefix_cache or not sequence.shares_prefix or sequence.saved is not None:
            return False
        usable = (len(sequence.tokens) - 1) // self.block_size
        return len(found) < usable and sequence.keys[len(found)] in coming
