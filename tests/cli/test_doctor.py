# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from openllm.cli import doctor
from openllm.nn.kernels.library import available

ROOT = Path(__file__).resolve().parents[2]


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = doctor.main(["--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys)
    assert code == 0 and found["ok"] is True
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["threads"] >= 1
    assert found["numbers"]["bfloat16 speed-up"] > 0


def test_text_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "versions\n  openllm " in out and "\nextras\n" in out


def test_core_distributions_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = {line.split(">")[0] for line in project["dependencies"]}
    assert set(doctor.core_distributions()) == stated


def test_a_missing_extra_is_no_failure_and_comes_with_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "no_such_library", "data")
    code, found = report(capsys)
    assert code == 0
    (problem,) = [p for p in found["problems"] if "no_such_library" in p["what"]]
    assert problem["mend"] == "pip install 'openllm-lab[data]'" and not problem["core"]


@pytest.mark.integration
def test_a_broken_core_library_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.IMPORT_NAMES, "ftfy", "no_such_library")
    code, found = report(capsys)
    assert code == 1 and found["ok"] is False
    assert any(p["core"] and p["mend"].endswith(" ftfy") for p in found["problems"])
    assert doctor.main([]) == 1
    assert "broken   ftfy cannot be imported" in capsys.readouterr().out


def test_it_speaks_where_every_library_is_broken(tmp_path: Path) -> None:
    for name in doctor.core_distributions():
        module = tmp_path / doctor.IMPORT_NAMES.get(name, name).partition(".")[0]
        module.mkdir()
        (module / "__init__.py").write_text("raise OSError('lib.so: cannot open shared object')")
    done = subprocess.run(
        [sys.executable, "-m", "openllm", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr == ""
    assert "broken   torch cannot be imported: OSError: lib.so" in done.stdout
    assert "pip install --force-reinstall numpy" in done.stdout


def test_without_a_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, found = report(capsys)
    assert code == 0 and found["compiler"]["C++ compiler"] is None
    assert found["compiler"]["CPU kernels"] == available()
    assert any("apt install g++" in p["mend"] for p in found["problems"])


def test_a_full_disk_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_GIB", 1e9)
    assert any("GiB of disk" in p["what"] for p in report(capsys)[1]["problems"])


def test_a_foreign_openllm_is_a_core_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "foreign_distribution", lambda: True)
    code, found = report(capsys)
    assert code == 1 and any("pip uninstall openllm" in p["mend"] for p in found["problems"])
