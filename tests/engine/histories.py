# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Random histories of requests, played against the scheduler and the block pool without a model.

Requests with common beginnings arrive, write, are drafted for, read only, displace each other, are
given up, and see the weights change. Instead of keys and values, the cache holds for each place
which text it was computed from, so that a wrong, stale or overwritten block is seen at once.
"""

import random
from collections import Counter

from openllm.engine.blocks import BlockPool
from openllm.engine.request import Request, SamplingParams
from openllm.engine.scheduler import Plan, Scheduler, Slice
from openllm.engine.sequence import Sequence

PARAMS = SamplingParams()
MOST_RUNS = 1000
"""Runs that no history of so few requests needs."""


class Cache:
    """What each place of each block was computed from: a number for each text and state of weights.

    Equal texts have equal numbers.
    """

    def __init__(self, block_size: int) -> None:
        self.weights = 0
        self._size = block_size
        self._places: dict[tuple[int, int], int] = {}
        self._texts: dict[tuple[object, int], int] = {}

    def text(self, sequence: Sequence, count: int) -> list[int]:
        """The numbers of the first texts of a sequence and its draft, one for each length."""
        before: object = (sequence.salt, self.weights)
        numbers = []
        for token in (sequence.tokens + sequence.draft)[:count]:
            before = self._texts.setdefault((before, token), len(self._texts))
            numbers.append(before)
        return numbers

    def write(self, piece: Slice, blocks: list[int]) -> set[tuple[int, int]]:
        """Compute a slice; returns the places that it fills."""
        text = self.text(piece.sequence, piece.start + piece.count)
        filled = set()
        for at in range(piece.start, len(text)):
            place = blocks[at // self._size], at % self._size
            self._places[place] = text[at]
            filled.add(place)
        return filled

    def check(self, piece: Slice) -> None:
        """What a slice attends to is what its own text was computed to."""
        blocks = piece.sequence.blocks
        for at, number in enumerate(self.text(piece.sequence, piece.start + piece.count)):
            found = self._places.get((blocks[at // self._size], at % self._size))
            assert found == number, f"token {at} is not what is in its place"

    def save(self, blocks: list[int]) -> list[list[int | None]]:
        """A copy of blocks."""
        size = range(self._size)
        return [[self._places.get((block, at)) for at in size] for block in blocks]

    def restore(self, saved: list[list[int | None]], blocks: list[int]) -> None:
        """Put a copy into blocks."""
        for block, numbers in zip(blocks, saved, strict=True):
            for at, number in enumerate(numbers):
                if number is not None:
                    self._places[block, at] = number


class History:
    """One random history.

    Attributes:
        tally: how often each kind of event occurred.
    """

    def __init__(self, seed: int) -> None:
        self.random = draw = random.Random(seed)
        size, blocks, most = draw.choice([1, 2, 4]), draw.randint(4, 24), draw.randint(1, 6)
        self.scheduler = Scheduler(
            BlockPool(blocks),
            block_size=size,
            # at least what `EngineConfig` demands for drafts of two tokens
            max_batch_tokens=most * 3 + draw.randint(0, 12),
            max_sequences=most,
            preemption=draw.choice(["swap", "recompute"]),
            prefix_cache=draw.random() < 0.8,
        )
        self.cache = Cache(size)
        self.tally: Counter[str] = Counter(histories=1)
        self._alive: list[Sequence] = []
        self._read: dict[Sequence, int] = {}
        self._begun: set[Sequence] = set()

    def play(self) -> Counter[str]:
        """To the end of all its requests; returns the tally.

        Raises:
            AssertionError: an invariant is broken.
        """
        left = self.random.randint(1, 10)
        while left or self._alive:
            while left and self.random.random() < 0.5:
                left -= 1
                self._arrive()
            self._disturb()
            self._run()
            assert self.tally["runs"] < MOST_RUNS, "it does not come to an end"
        assert self.scheduler.pool.num_free == self.scheduler.pool.num_blocks, "blocks are lost"
        self.tally["preemptions"] = self.scheduler.preemptions
        return self.tally

    def _arrive(self) -> None:
        draw, capacity = self.random, self.scheduler.capacity
        length = draw.randint(1, max(1, capacity - 1))
        common = [0] * draw.choice([0, 2, 4, 8])
        tokens = (common + [draw.randint(0, 1) for _ in range(length)])[:length]
        kind = draw.choice(["generate"] * 5 + ["score"])
        most = min(capacity, length + draw.randint(1, 8)) if kind == "generate" else length
        salt = draw.choice([b"", b"", b"adapter"])
        request = Request(str(self.tally["requests"]), tuple(tokens), PARAMS, kind=kind)
        for sample in range(2 if kind == "generate" and draw.random() < 0.2 else 1):
            sequence = Sequence(request, sample, list(tokens), most, salt)
            self.scheduler.add(sequence)
            self._alive.append(sequence)
            self.tally["requests"] += 1

    def _disturb(self) -> None:
        draw = self.random
        if self._alive and draw.random() < 0.03:
            given_up = draw.choice(self._alive)
            self.tally["aborts while put aside"] += given_up.saved is not None
            self._end(given_up)
            self.tally["aborts"] += 1
        if draw.random() < 0.005:
            self.scheduler.restart()
            self.cache.weights += 1
            self.tally["changes of weights"] += 1

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self._alive.remove(sequence)
        self._begun.discard(sequence)

    def _run(self) -> None:
        """Carry out one plan."""
        oldest, waiting = self.scheduler.running[:1], list(self.scheduler.waiting)
        plan = self.scheduler.plan()
        self._check_plan(plan, oldest)
        self._check_order(waiting)
        for sequence, blocks in plan.save:
            sequence.saved = self.cache.save(blocks)
            self.tally["swaps"] += 1
        for sequence, blocks in plan.restore:
            self.cache.restore(sequence.saved, blocks)
            sequence.saved = None
        self._compute(plan)
        for piece in plan.slices:
            self._advance(piece)
        self._check_counts()
        self.tally["runs"] += bool(plan.slices)

    def _check_plan(self, plan: Plan, oldest: list[Sequence]) -> None:
        scheduler = self.scheduler
        assert plan.slices or not self._alive, "nothing is computed"
        used = sum(piece.count for piece in plan.slices)
        assert used <= scheduler.max_batch_tokens, "too many tokens"
        assert len(scheduler.running) <= scheduler.max_sequences, "too many sequences"
        idle = len(scheduler.running) > len(plan.slices)
        assert not idle or used == scheduler.max_batch_tokens, "room is left unused"
        planned = [piece.sequence for piece in plan.slices]
        assert len(set(planned)) == len(planned), "a sequence has two slices"
        assert set(planned) <= set(scheduler.running), "a slice of a sequence that does not run"
        assert all(sequence in planned for sequence in oldest), "the oldest does not advance"
        aside = sum(len(s.saved) for s in scheduler.waiting if s.saved is not None)
        assert aside <= scheduler.pool.num_blocks, "more is put aside than the cache holds"
        self._check_counts()

    def _check_order(self, waiting: list[Sequence]) -> None:
        """Nobody is overtaken, except who waits for blocks that are just being computed."""
        now = list(self.scheduler.waiting)
        stayed = [sequence for sequence in waiting if sequence in now]
        assert stayed == [sequence for sequence in now if sequence in stayed], "the queue is mixed"
        ran = [sequence.admitted for sequence in now]
        assert ran == sorted(ran, reverse=True), "who had to make place is behind who never ran"
        started = [sequence in self.scheduler.running for sequence in waiting]
        last = max((at for at, started in enumerate(started) if started), default=0)
        for sequence, has_started in zip(waiting[:last], started, strict=False):
            if not has_started:
                assert self.scheduler.prefix_cache and sequence.shares_prefix, "out of turn"
                self.tally["waits for a prefix"] += 1

    def _check_counts(self) -> None:
        """Each block has as many users as there are sequences with it; no block is lost."""
        pool = self.scheduler.pool
        users = Counter(block for sequence in self.scheduler for block in sequence.blocks)
        for block in range(pool.num_blocks):
            assert pool.users(block) == users[block], "the count of users is wrong"
        assert pool.num_free == pool.num_blocks - len(users), "the count of free blocks is wrong"
        self.tally["shared blocks"] += sum(count > 1 for count in users.values())
        assert set(self.scheduler) == set(self._alive), "a sequence is lost"

    def _compute(self, plan: Plan) -> None:
        size, filled = self.scheduler.block_size, set[tuple[int, int]]()
        for piece in plan.slices:
            sequence, end = piece.sequence, piece.start + piece.count
            assert piece.start == sequence.computed and piece.count > 0
            assert end <= sequence.most, "more tokens than it may have"
            assert end == len(sequence.tokens) + piece.drafted or not piece.drafted
            written = sequence.blocks[piece.start // size : (end - 1) // size + 1]
            assert all(self.scheduler.pool.users(block) == 1 for block in written), (
                "a shared block is written to"
            )
            places = self.cache.write(piece, sequence.blocks)
            assert not places & filled, "two sequences fill the same place"
            filled |= places
        for piece in plan.slices:
            self.cache.check(piece)
        self.tally["tokens"] += len(filled)

    def _advance(self, piece: Slice) -> None:
        """Choose tokens, of which the first may be as drafted; end some sequences."""
        sequence, draw, accepted = piece.sequence, self.random, 0
        first = sequence not in self._begun
        self._begun.add(sequence)
        if first:
            self.tally["cached tokens"] += sequence.cached
            assert sequence.cached == piece.start < sequence.num_prompt
        is_last = piece.is_last
        if not sequence.shares_prefix:
            self._read[sequence] = (self._read.get(sequence, 0) if piece.start else 0) + piece.count
            if is_last:
                assert self._read[sequence] == len(sequence.tokens), "a state was not read once"
                self.scheduler.commit(piece)
                self._end(sequence)
                return
        elif is_last:
            accepted = draw.randint(0, piece.drafted)
            self.tally["drafted"] += piece.drafted
            self.tally["accepted"] += accepted
            sequence.tokens += [*sequence.draft[:accepted], draw.randint(0, 1)]
            sequence.draft = []
        self.scheduler.commit(piece, accepted)
        if is_last:
            sequence.draft = [draw.randint(0, 1) for _ in range(draw.randint(0, 2))]
        assert len(sequence.tokens) <= sequence.most
        if len(sequence.tokens) == sequence.most or (is_last and draw.random() < 0.05):
            self._end(sequence)


def play(seeds: range) -> Counter[str]:
    """Play histories; returns their events.

    Raises:
        AssertionError: one breaks an invariant; the message begins with its seed.
    """
    total: Counter[str] = Counter()
    for seed in seeds:
        try:
            total += History(seed).play()
        except (AssertionError, ValueError, IndexError, KeyError) as error:
            raise AssertionError(f"history {seed}: {error}") from error
    return total
