# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the machine has to offer."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that new data can take without swapping; all memory where the system does not tell.

    Copies of files that the system keeps in memory count as free, for it gives them up.
    """
    if not MEMINFO.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = [1024 * _table(MEMINFO)["MemAvailable:"]]
    limit, used = CONTAINER / "memory.max", CONTAINER / "memory.current"
    if limit.exists() and (most := limit.read_text(encoding="utf-8").strip()).isdigit():
        files = _table(CONTAINER / "memory.stat").get("inactive_file", 0)
        free.append(int(most) - int(used.read_text(encoding="utf-8")) + files)
    return max(0, min(free))


def _table(path: Path) -> dict[str, int]:
    """Names and numbers of a file of the system's, one pair a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines)}
