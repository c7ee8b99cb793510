# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parity table: ten public families in both directions, in two versions of transformers.

    OPENLLM_TRANSFORMERS_457=DIR python benchmarks/parity.py

It writes benchmarks/results/parity.json. DIR is an installation of the last 4.5x:
pip install --target DIR --no-deps transformers==4.57.6 'huggingface_hub<1' 'tokenizers<0.23'.
Differences are of logits in float32, as a share of the largest logit.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import ROOT, record

sys.path.insert(0, str(ROOT))

from tests.parity.families import CASES, build, load_quietly, some_tokens
from torch import Tensor

from openllm.checkpoint.model_dir import load_model
from openllm.export.hf.writer import export_hf
from openllm.nn.heads import logits

ALLOWED = 1e-4
OLD = "OPENLLM_TRANSFORMERS_457"


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest logit."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


@torch.no_grad()
def read(folder: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits of a folder in OpenLLM."""
    model = load_model(folder, dtype=dtype)
    return logits(model(some_tokens()).x, model.head)


@torch.no_grad()
def measure(name: str, number: int, folder: Path) -> dict[str, Any]:
    """A model of transformers in ours, and ours, written to `folder`, in transformers."""
    foreign = folder.parent / f"theirs-{folder.name}"
    build(name, number).save_pretrained(foreign)
    peer = load_quietly(foreign)[0]
    expected = peer(some_tokens()).logits
    folder.mkdir()
    export_hf(foreign, folder)
    again, said = load_quietly(folder)
    half = load_quietly(foreign, dtype=torch.bfloat16)[0](some_tokens()).logits
    return {
        "family": name,
        "config": number,
        "theirs_in_ours": difference(read(foreign), expected),
        "ours_in_theirs": difference(again(some_tokens()).logits, expected),
        "bfloat16": difference(read(foreign, torch.bfloat16), half),
        "warnings": said,
    }


def ask_old(installation: Path, folders: list[Path]) -> dict[str, Any]:
    """What the older version makes of folders."""
    answer = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "parity" / "families.py")],
        input="".join(f"{folder}\n" for folder in folders),
        env={**os.environ, "PYTHONPATH": str(installation), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(answer.stderr[-3000:])
    return json.loads(answer.stdout.splitlines()[-1])


def table(installation: Path | None) -> dict[str, Any]:
    """All rows, with the older version's if it is installed."""
    import transformers

    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / f"{name}-{number}" for name, number in CASES]
        rows = [measure(*case, folder) for case, folder in zip(CASES, folders, strict=True)]
        facts: dict[str, Any] = {"transformers": [transformers.__version__]}
        if installation is not None:
            said = ask_old(installation, folders)
            facts["transformers"].append(said["version"])
            for row, folder in zip(rows, folders, strict=True):
                old = torch.load(folder / "logits.pt", weights_only=True)
                ours = read(folder)
                row["ours_in_old"] = difference(ours, old)
                row["old_in_ours"] = difference(read(folder / "again"), ours)
                row["warnings_old"] = said["warnings"][folder.name]
    return facts | {"rows": rows, "allowed": ALLOWED}


def passes(found: dict[str, Any]) -> bool:
    """Whether every difference is small enough."""
    names = ("theirs_in_ours", "ours_in_theirs", "ours_in_old", "old_in_ours")
    return all(row.get(name, 0.0) <= ALLOWED for row in found["rows"] for name in names)


def main() -> int:
    """Measure, print and write the table."""
    place = os.environ.get(OLD)
    found = table(Path(place) if place else None)
    for row in found["rows"]:
        numbers = [f"{row.get(name, float('nan')):9.1e}" for name in row if "_in_" in name]
        warned = len(row["warnings"]), len(row.get("warnings_old", []))
        print(f"{row['family']:<12} {row['config']}", *numbers, f"{row['bfloat16']:9.1e}", *warned)
    record("parity", found, ["torch", "transformers"])
    return 0 if passes(found) else 1


if __name__ == "__main__":
    sys.exit(main())
