# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The blocks of the key-value cache: who uses them, and which prefixes they hold. Without torch.

A block holds the keys and values of `block_size` consecutive tokens in all layers. A full block
never changes, so sequences that begin alike share their full blocks (arXiv:2309.06180). A block
that nobody uses keeps its content, and can be found again by its key, until its place is needed.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


def block_keys(
    tokens: Sequence[int], block_size: int, known: Sequence[bytes] = (), salt: bytes = b""
) -> list[bytes]:
    """Keys of the full blocks of a sequence: digests of all tokens up to each block's end.

    Args:
        tokens: of the sequence.
        block_size: tokens per block.
        known: keys of its first blocks, if they were computed before.
        salt: what else the content depends on, such as an adapter.
    """
    keys = list(known)
    last = keys[-1] if keys else salt
    for start in range(len(keys) * block_size, len(tokens) - block_size + 1, block_size):
        block = array("q", tokens[start : start + block_size]).tobytes()
        last = hashlib.blake2b(last + block, digest_size=16).digest()
        keys.append(last)
    return keys


class BlockPool:
    """Hands out blocks by number and counts who uses them."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._users = [0] * num_blocks
        self._unused: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody uses; they may hold content that can be found again."""
        return len(self._unused)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """Blocks that hold the beginning of these keys, without gaps. They are not yet taken."""
        found = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def free_after(self, found: Iterable[int]) -> int:
        """Number of free blocks left if these, from `find`, are shared."""
        return self.num_free - sum(self._users[block] == 0 for block in found)

    def share(self, blocks: Iterable[int]) -> None:
        """Use blocks from `find`."""
        for block in blocks:
            if not self._users[block]:
                del self._unused[block]
            self._users[block] += 1

    def take(self, count: int) -> list[int]:
        """New blocks for one user; content that was used longest ago is forgotten.

        Raises:
            ValueError: so many are not free.
        """
        if count > self.num_free:
            raise ValueError(f"{count} blocks wanted, but {self.num_free} are free")
        blocks = []
        for _ in range(count):
            block, _ = self._unused.popitem(last=False)
            self._users[block] = 1
            key = self._key_of.pop(block, None)
            if key is not None:
                del self._block_of[key]
            blocks.append(block)
        return blocks

    def release(self, blocks: Sequence[int]) -> None:
        """Give up a sequence's use of its blocks; the ends of prefixes are forgotten first."""
        for block in reversed(blocks):
            if not self._users[block]:
                raise ValueError(f"block {block} is not in use")
            self._users[block] -= 1
            if not self._users[block]:
                self._unused[block] = None
                if block not in self._key_of:
                    self._unused.move_to_end(block, last=False)

    def publish(self, block: int, key: bytes) -> None:
        """Let others find a full block, unless one with the same content is known."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def forget(self) -> None:
        """No content can be found any more: the weights have changed."""
        self._key_of.clear()
        self._block_of.clear()

    def users(self, block: int) -> int:
        """How many sequences use a block."""
        return self._users[block]
