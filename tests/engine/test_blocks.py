# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest

from openllm.engine.blocks import BlockPool, block_keys

TEXT = list(range(10))


def filled(num_blocks: int = 4, count: int = 3) -> tuple[BlockPool, list[int], list[bytes]]:
    """A pool whose first blocks were used for a text, published and released."""
    pool, keys = BlockPool(num_blocks), block_keys(TEXT, 3)
    blocks = pool.take(count)
    for block, key in zip(blocks, keys, strict=True):
        pool.publish(block, key)
    pool.release(blocks)
    return pool, blocks, keys


def test_a_key_stands_for_all_tokens_up_to_the_end_of_its_block() -> None:
    keys = block_keys(TEXT, 3)
    assert len(keys) == 3 == len(set(keys))
    assert block_keys(TEXT[:8], 3) == keys[:2], "a block that is not full has no key"
    assert block_keys([9, *TEXT[1:]], 3)[2] != keys[2], "an early token counts in each key"
    assert block_keys(TEXT, 3, keys[:2]) == keys == block_keys(TEXT, 3, keys)
    assert not set(block_keys(TEXT, 3, salt=b"adapter 1")) & set(keys)
    assert block_keys([2**40], 1) != block_keys([0], 1), "ids may be large"


def test_blocks_are_found_up_to_the_first_gap() -> None:
    pool, blocks, keys = filled()
    assert pool.find(keys) == blocks
    assert pool.find([keys[0], b"other", keys[2]]) == blocks[:1]
    assert pool.num_free == 4 and pool.free_after(blocks) == 1


def test_a_shared_block_is_free_when_its_last_user_leaves() -> None:
    pool, blocks, _ = filled()
    pool.share(blocks)
    pool.share(blocks[:1])
    assert [pool.users(block) for block in range(4)] == [2, 1, 1, 0]
    assert pool.num_free == pool.free_after(blocks) == 1
    pool.release(blocks)
    assert pool.num_free == 3
    pool.release(blocks[:1])
    assert pool.num_free == 4
    with pytest.raises(ValueError, match=f"block {blocks[0]} is not in use"):
        pool.release(blocks[:1])


def test_what_was_used_longest_ago_is_forgotten_first_and_ends_before_beginnings() -> None:
    pool, blocks, keys = filled()
    pool.take(1)  # the fourth block, which held nothing
    assert pool.find(keys) == blocks
    for left in (2, 1, 0):
        assert pool.take(1) == [blocks[left]]
        assert pool.find(keys) == blocks[:left]
    with pytest.raises(ValueError, match="1 blocks wanted, but 0 are free"):
        pool.take(1)


def test_a_use_makes_content_young_again() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.publish(first, b"first")
    pool.publish(second, b"second")
    pool.release([first])
    pool.release([second])
    pool.share([first])
    pool.release([first])
    assert pool.take(1) == [second]


def test_blocks_without_content_go_before_those_with() -> None:
    pool = BlockPool(3)
    kept, *rest = pool.take(3)
    pool.publish(kept, b"key")
    pool.release([kept])
    pool.release(rest)
    assert set(pool.take(2)) == set(rest)
    assert pool.find([b"key"]) == [kept]


def test_the_same_content_is_known_once() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.publish(first, b"key")
    pool.publish(second, b"key")
    pool.publish(first, b"another")
    assert pool.find([b"key"]) == [first] and pool.find([b"another"]) == []


def test_nothing_is_found_after_forgetting() -> None:
    pool, _, keys = filled()
    pool.forget()
    assert pool.find(keys) == [] and pool.num_free == 4
    assert len(set(pool.take(4))) == 4
