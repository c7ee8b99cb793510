# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Where benchmarks find real text, and how they write their results."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from openllm.core.files import write_json
from openllm.core.runs import cpu_name, source_commit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TUNING = ("GLIBC_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "OMP_")
"""Environment variables that change the speed of the same program."""
SHARED = Path(os.environ.get("OPENLLM_SHARED_DATA", ROOT.parent / "shared" / "data"))


def record(name: str, facts: dict[str, Any], packages: Sequence[str] = ("torch", "numpy")) -> Path:
    """Write `results/NAME.json`: the facts, and the machine, versions and commit behind them."""
    path = RESULTS / f"{name}.json"
    machine = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    versions = {package: metadata.version(package) for package in packages}
    settings = {name: value for name, value in os.environ.items() if name.startswith(TUNING)}
    measured = {
        "hardware": machine,
        "environment": settings,
        "versions": versions,
        "commit": source_commit(),
    }
    write_json(path, {**measured, **facts})
    return path
