# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Schemathesis calls the server with what its schema allows, and with what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.fuzz import mend
from tests.serve.live import echo_app, live

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--checks",
    "all",
    "--max-response-time",
    "120",
    "--phases",
    "fuzzing,stateful",
    "--max-examples",
    "12",
]


@pytest.mark.integration
def test_the_schema_is_true(tmp_path):
    with live(echo_app()) as url:
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *ARGUMENTS],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.serve.fuzz", "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert found.returncode == 0, found.stdout
    assert "No issues found" in found.stdout


def test_mended_requests_keep_what_they_say():
    body = {"prompt": ["", "a"], "n": 3, "best_of": 2, "guided_regex": "a", "model": None}
    mend(body)
    assert body == {
        "prompt": ["a", "a"],
        "n": 3,
        "best_of": 3,
        "guided_regex": None,
        "model": "echo",
    }
    body = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    mend(body)
    assert body["tool_choice"] == "required"
