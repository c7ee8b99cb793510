# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from collections.abc import Sequence as Many
from itertools import count
from typing import Any

import pytest
from tests.engine.histories import PARAMS, play

from openllm.engine.blocks import BlockPool
from openllm.engine.request import Request
from openllm.engine.scheduler import Plan, Scheduler
from openllm.engine.sequence import Sequence

NUMBERS = count()


def scheduler(blocks: int, **settings: Any) -> Scheduler:
    wishes = {"block_size": 4, "max_batch_tokens": 16, "max_sequences": 4} | settings
    return Scheduler(BlockPool(blocks), **wishes)


def text(tokens: Many[int], new: int = 4, kind: Any = "generate") -> Sequence:
    request = Request(str(next(NUMBERS)), tuple(tokens), PARAMS, kind=kind)
    return Sequence(request, 0, list(tokens), len(tokens) + new)


def carry_out(owner: Scheduler, plan: Plan) -> None:
    """Commit a plan, with the token 7 for each sequence that may choose one; remove the ended."""
    for sequence, _ in plan.restore:
        sequence.saved = None
    for piece in plan.slices:
        is_last = piece.is_last
        if is_last:
            piece.sequence.tokens.append(7)
        owner.commit(piece)
        if is_last and len(piece.sequence.tokens) == piece.sequence.most:
            owner.remove(piece.sequence)


def sizes(plan: Plan) -> list[tuple[int, int]]:
    return [(piece.start, piece.count) for piece in plan.slices]


@pytest.mark.integration
def test_thousands_of_histories_keep_the_invariants() -> None:
    events = play(range(1500))
    rare = ("swaps", "aborts while put aside", "changes of weights", "waits for a prefix")
    assert all(events[name] > 5 for name in (*rare, "shared blocks", "accepted", "preemptions"))


def test_a_long_prompt_is_read_in_parts_beside_those_that_write() -> None:
    owner = scheduler(32)
    short, long = text([1, 2, 3]), text(range(30))
    owner.add(short)
    carry_out(owner, owner.plan())
    owner.add(long)
    plans = []
    for _ in range(3):
        plans.append(owner.plan())
        carry_out(owner, plans[-1])
    # one token of the writer; the rest of the room is cut to end with a block
    assert [sizes(plan) for plan in plans] == [
        [(3, 1), (0, 12)],
        [(4, 1), (12, 12)],
        [(5, 1), (24, 6)],
    ]


def test_a_room_smaller_than_a_block_is_used() -> None:
    owner = scheduler(8, max_batch_tokens=3, max_sequences=1)
    owner.add(text(range(7)))
    found = []
    for _ in range(3):
        plan = owner.plan()
        found += sizes(plan)
        carry_out(owner, plan)
    assert found == [(0, 3), (3, 1), (4, 3)]


def test_drafts_stop_where_the_text_must() -> None:
    owner = scheduler(8)
    sequence = text([1, 2, 3], new=4)
    owner.add(sequence)
    carry_out(owner, owner.plan())
    sequence.draft = [7] * 10
    (piece,) = owner.plan().slices
    # one token is left over, which the last of the draft chooses
    assert (piece.count, piece.drafted) == (3, 2)
    sequence.tokens += [7, 7, 7]
    owner.commit(piece, accepted=2)
    assert sequence.pending == 1 and len(sequence.tokens) == sequence.most


def test_a_second_sample_waits_for_the_prompt_and_shares_it() -> None:
    owner = scheduler(16)
    first, second = text(range(13)), text(range(13))
    owner.add(first)
    owner.add(second)
    plan = owner.plan()
    assert [piece.sequence for piece in plan.slices] == [first]
    carry_out(owner, plan)
    plan = owner.plan()
    assert sizes(plan) == [(13, 1), (12, 1)] and second.cached == 12
    assert second.blocks[:3] == first.blocks[:3] and second.blocks[3] != first.blocks[3]


def test_the_last_token_of_a_known_prompt_is_computed_all_the_same() -> None:
    owner = scheduler(16)
    for _ in range(2):
        owner.add(text(range(8), new=1))
        carry_out(owner, plan := owner.plan())
    assert sizes(plan) == [(4, 4)]


def test_who_only_reads_shares_nothing_but_leaves_it_to_others() -> None:
    owner = scheduler(16)
    for kind, expected in (("score", (0, 9)), ("score", (0, 9)), ("generate", (8, 1))):
        sequence = text(range(9), new=1, kind=kind)
        owner.add(sequence)
        plan = owner.plan()
        assert sizes(plan) == [expected]
        owner.commit(plan.slices[0])
        owner.remove(sequence)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_the_youngest_makes_place_and_comes_back(preemption: str) -> None:
    owner = scheduler(4, preemption=preemption, prefix_cache=False)
    old, young = text([1] * 8, new=6), text([2] * 7, new=6)
    owner.add(old)
    owner.add(young)
    carry_out(owner, owner.plan())
    assert len(owner.running) == 2
    carry_out(owner, plan := owner.plan())
    assert [piece.sequence for piece in plan.slices] == [old]
    assert list(owner.waiting) == [young] and owner.preemptions == 1
    assert bool(plan.save) == (preemption == "swap")
    while young not in owner.running:
        carry_out(owner, plan := owner.plan())
    assert len(old.tokens) == old.most, "there is no room before the other has ended"
    assert sizes(plan) == [(7, 1) if preemption == "swap" else (0, 8)]
    assert bool(plan.restore) == (preemption == "swap")


def test_a_sequence_that_the_cache_could_never_hold_is_refused() -> None:
    owner = scheduler(2)
    owner.add(text(range(4)))
    with pytest.raises(ValueError, match="9 tokens do not fit into 8"):
        owner.add(text(range(5)))


@pytest.mark.parametrize("common", [True, False])
def test_nobody_starves_beside_an_endless_stream_of_others(common: bool) -> None:
    """A prompt as large as the cache, while new short ones come with every run."""
    owner = scheduler(8)
    for _ in range(8):
        owner.add(text([3, 3, 3, 3, 3]))
    large = text([3] * 30 if common else range(30), new=2)
    owner.add(large)
    for runs in range(100):
        owner.add(text([3] * (8 + runs % 8)))
        carry_out(owner, owner.plan())
        if len(large.tokens) == large.most:
            return
    pytest.fail("the large one does not end")


def test_after_a_change_of_weights_all_is_computed_again_in_the_same_order() -> None:
    owner = scheduler(16, max_sequences=2)
    texts = [text([token] * 6) for token in range(3)]
    for each in texts:
        owner.add(each)
    carry_out(owner, owner.plan())
    owner.restart()
    assert list(owner.waiting) == texts and not owner.running
    assert owner.pool.num_free == 16 and owner.pool.find(texts[0].keys) == []
    assert sizes(owner.plan()) == [(0, 7), (0, 7)]
