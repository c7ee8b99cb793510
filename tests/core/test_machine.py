# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from pathlib import Path

import pytest

from openllm.core import machine
from openllm.core.machine import free_memory

MEMINFO = "MemTotal: 2000 kB\nMemFree: 100 kB\nMemAvailable: 1500 kB\nHugePages: 0\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a machine with 1500 KiB to give away, of which 100 are not used at all."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CONTAINER", tmp_path)
    return tmp_path


def limit(folder: Path, most: str, used: int, files: int) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_what_files_only_borrow_is_free(system: Path) -> None:
    assert free_memory() == 1500 * 1024


@pytest.mark.parametrize(
    ("most", "used", "files", "free"),
    [
        ("max", 0, 0, 1500 * 1024),
        ("1000000", 400_000, 0, 600_000),
        ("1000000", 900_000, 300_000, 400_000),
        ("1000000", 1_000_100, 0, 0),
        ("9000000", 0, 0, 1500 * 1024),
    ],
)
def test_a_container_has_less(system: Path, most: str, used: int, files: int, free: int) -> None:
    limit(system, most, used, files)
    assert free_memory() == free


def test_where_the_system_does_not_tell(system: Path) -> None:
    (system / "meminfo").unlink()
    assert free_memory() > 2**20
