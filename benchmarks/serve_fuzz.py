# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Schemathesis against `openllm serve echo`: every check, in every phase.

    python benchmarks/serve_fuzz.py [--max-examples 200]

It calls each path with what the OpenAPI schema allows and with what it does not, and checks status,
form and content of each answer. `tests/serve/fuzz.py` keeps what no schema can say, such as that
`best_of` is not below `n`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

from record import ROOT, record
from serving import serving


def main() -> None:
    """Run and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-examples", type=int, default=200)
    args = parser.parse_args()
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.serve.fuzz",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
    }
    with serving("echo") as url, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
        # a machine that is shared with other work may stall
        command += ["--checks", "all", "--max-response-time", "120"]
        command += ["--max-examples", str(args.max_examples)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    print(done.stdout[-6000:])
    operations = re.search(r"Tested: (\d+)", done.stdout)
    cases = re.search(r"([\d,]+) generated, (.*)", done.stdout)
    seed = re.search(r"Seed: (\d+)", done.stdout)
    if operations is None or cases is None or seed is None:
        raise SystemExit(done.stderr)
    facts = {
        "operations": int(operations[1]),
        "max examples": args.max_examples,
        "cases": int(cases[1].replace(",", "")),
        "outcome": cases[2],
        "failures": 0
        if "No issues found" in done.stdout
        else len(re.findall(r"Test Case ID", done.stdout)),
        "seed": seed[1],
    }
    record("serve_fuzz", facts, packages=("schemathesis", "fastapi", "uvicorn"))
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
