# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The quickstart with a model that is trained for seconds."""

import json
import math
from pathlib import Path

import pytest

from openllm.core.errors import ConfigError
from openllm.recipes import quickstart as q


@pytest.mark.integration
def test_all_stages_run_and_a_repeated_call_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(q, "NUM_SAMPLES", 4)
    plan = q.Plan(tokens=20_480, documents=800, seed=0)
    out = tmp_path / "q"
    q.quickstart(out, plan)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tokens"] == plan.tokens
    assert 0 < summary["heldout_bpb"] < 8 and math.isfinite(summary["ngram_bpb"])
    assert 0 <= summary["consistency"] <= 1
    assert len(summary["samples"]) == 4
    assert (Path(summary["model"]) / "config.json").exists()
    assert "bits per byte" in capsys.readouterr().out
    weights = (Path(summary["model"]) / "model.safetensors").read_bytes()
    q.quickstart(out, plan)
    assert (Path(summary["model"]) / "model.safetensors").read_bytes() == weights


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        q.main(["--out", str(tmp_path)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]
