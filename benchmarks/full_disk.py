# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs on a disk that fills up and is then freed, compared with an undisturbed one.

    mount -t tmpfs -o size=40m tmpfs /mnt/small
    python benchmarks/full_disk.py /mnt/small         writes benchmarks/results/full_disk.json

Before each run, the disk is filled, leaving between nothing and what a run needs; compared as in
`exactness.py`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from exactness import SETTINGS, Shop, outcome, prepare
from record import record

RUNS = 10


def fill(disk: Path, room: int) -> Path:
    """Create a file that leaves `room` bytes of the disk free."""
    place = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as handle:
        handle.write(bytes(max(0, place.f_bavail * place.f_frsize - room)))
    return filler


def run_out_of_room(shop: Shop, disk: Path, number: int, room: int) -> dict[str, Any]:
    """Start a run that the disk cannot hold; then free the disk and resume the run."""
    name = f"run-{number}"
    folder = disk / name
    folder.mkdir()
    (shop.folder / name).symlink_to(folder)
    filler = fill(disk, room)
    command = [sys.executable, "-m", "openllm", *shop.training(name)]
    first = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, check=False)
    filler.unlink()
    second = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, check=False)
    expected = outcome(shop.folder / "straight" / "run")
    equal = second.returncode == 0 and outcome(folder / "run") == expected
    shutil.rmtree(folder)
    return {
        "room_bytes": room,
        "exit_code": first.returncode,
        "message": first.stderr.strip().splitlines()[-1].replace(str(disk), "DISK"),
        "traceback": "Traceback" in first.stderr,
        "equal_after_room_was_made": equal,
    }


def main(argv: list[str]) -> int:
    """Fill, fail, free, resume, compare, write the result; fail if a run differs."""
    if not argv:
        print("skipped: give the folder where a small disk is mounted, see the top of this file")
        return 0
    if not Path(argv[0]).is_dir():
        sys.exit(f"{argv[0]} is no folder; mount a small disk there, see the top of this file")
    disk = Path(argv[0]).resolve()
    with tempfile.TemporaryDirectory() as name:
        shop = prepare(Path(name))
        straight = shop.folder / "straight"
        size = sum(file.stat().st_size for file in straight.rglob("*") if file.is_file())
        runs = []
        for number in range(RUNS):
            runs.append(run_out_of_room(shop, disk, number, size * number // RUNS))
            print(json.dumps(runs[-1]), flush=True)
    good = sum(
        run["exit_code"] == 1 and not run["traceback"] and run["equal_after_room_was_made"]
        for run in runs
    )
    what = "runs stopped by a full disk and taken up, equal bit by bit to a straight run"
    result = {"what": what, "settings": SETTINGS, "run_bytes": size, "good": good, "runs": runs}
    record("full_disk", result)
    print(f"{good} of {RUNS} stopped with a message and were equal afterwards")
    return 0 if good == RUNS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
