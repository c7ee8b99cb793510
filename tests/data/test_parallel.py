# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from openllm.core.errors import DataError
from openllm.data.parallel import ordered_map


def double(item: int, offset: int) -> int:
    time.sleep(0.002 * (item % 3))
    return 2 * item + offset


def die(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail(item: int) -> int:
    raise DataError(f"item {item}")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(ordered_map(double, range(40), workers, 1)) == [2 * i + 1 for i in range(40)]


def test_items_are_read_only_a_little_ahead():
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield i

    results = ordered_map(double, items(), 2, 0)
    next(results)
    assert len(taken) <= 6
    results.close()


def test_a_killed_worker_is_an_error_that_says_so():
    with pytest.raises(DataError, match="--workers 1"):
        list(ordered_map(die, range(4), 2))


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(DataError, match="item 0"):
        list(ordered_map(fail, range(4), 2))


def test_workers_end_with_a_killed_parent(tmp_path):
    script = textwrap.dedent("""
        import os, sys, time
        from openllm.data.parallel import ordered_map

        def work(item):
            with open(f"{sys.argv[1]}/{os.getpid()}", "w"):
                pass
            time.sleep(0.05)

        for _ in ordered_map(work, iter(int, 1), 2):
            pass
    """)
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
