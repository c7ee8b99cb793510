# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bad input gives one clear message, its exit code, no traceback, and loses nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.bad_input import CASES, Case, run, snapshot, workshop

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workshop() as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_bad_input(case: Case, folder: Path) -> None:
    before = snapshot(folder)
    code, said = run(case, folder)
    assert code == case.code, said
    assert case.says in said and "error: " in said
    assert "Traceback" not in said and "bug in OpenLLM" not in said
    assert snapshot(folder) == before


def test_the_table_is_long_enough() -> None:
    assert len({case.what for case in CASES}) == len(CASES) >= 40
