# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The examples of docs/serving.md run, and docs/api.md is up to date."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.serve.live import echo_app, live

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def page():
    with live(echo_app()) as url:
        yield (DOCS / "serving.md").read_text(encoding="utf-8").replace(ADDRESS, url)


def test_python_examples_run_one_after_the_other(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    out = capsys.readouterr().out
    assert out.startswith("Hello\n\nOnce upon a time\nTell me a story.\n")
    assert '{"name": "Bern"}' in out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_runs(page):
    (command,) = re.findall(r"^(curl .*?)\n```", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(["sh", "-c", f"{command} -s"], capture_output=True, text=True, check=True)
    assert '"content":"Hello\\n"' in done.stdout


def test_the_api_page_is_up_to_date():
    from tools.api_reference import PAGE, reference

    assert PAGE.read_text(encoding="utf-8") == reference(), "write it anew with: make docs"
