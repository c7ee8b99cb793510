# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The table behind the forecast's loss band, from the measured runs in benchmarks/results.

python benchmarks/reference_runs.py         writes src/openllm/train/reference_runs.json
"""

import json
from collections.abc import Iterator
from typing import Any

from record import RESULTS, ROOT

from openllm.core.files import write_json


def reference_runs() -> Iterator[dict[str, Any]]:
    """One row per run: corpus, model size, validation bits per byte by tokens."""
    quickstarts = json.loads((RESULTS / "quickstart.json").read_text())["runs"]
    real = json.loads((RESULTS / "real_text.json").read_text())["runs"]
    for name, run in (quickstarts | real).items():
        corpus = run.get("text", "builtin")
        if corpus in ("builtin", "squad"):
            yield {
                "name": name,
                "corpus": corpus,
                "parameters": run["parameters"],
                "curve": run["validation"],
            }


if __name__ == "__main__":
    path = ROOT / "src" / "openllm" / "train" / "reference_runs.json"
    write_json(path, {"runs": list(reference_runs())})
