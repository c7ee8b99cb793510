# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The checks of `make check` find what they should."""

import argparse
import os
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest
from tools import check_licences, check_spdx, cli_reference

ROOT = Path(__file__).resolve().parents[1]
HEAD = "".join(f"# {mark}\n" for mark in check_spdx.MARKS)


def test_licence_lines_are_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("src", ".ci"):
        (tmp_path / name).mkdir()
    (tmp_path / "Makefile").write_text(HEAD)
    (tmp_path / ".ci" / "run").write_text(f"#!/bin/sh\n{HEAD}")
    good, bad = tmp_path / "src" / "good.py", tmp_path / "src" / "bad.py"
    good.write_text(f"{HEAD}x = 1\n")
    assert check_spdx.main(tmp_path) == 0
    bad.write_text(f"x = 1\n{HEAD}")
    assert check_spdx.main(tmp_path) == 1
    assert "src/bad.py: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT AND (GPL-2.0-only OR BSD-3-Clause)", True),
        ("(MIT OR GPL-2.0-only) AND LGPL-2.1-only", False),
        ("MIT OR GPL-2.0-only AND LGPL-2.1-only", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("Apache-2.0 WITH Strange-exception", False),
        ("(MIT", False),
        ("not stated", False),
        ("", False),
    ],
)
def test_permissive(expression: str, good: bool) -> None:
    assert check_licences.permissive(expression) is good


@pytest.mark.parametrize(
    ("name", "licence", "accepted"),
    [
        ("anything", "MIT", True),
        ("anything", "MPL-2.0", False),
        ("certifi", "MPL-2.0", True),
        ("certifi", "GPL-3.0-only", False),
        ("nvidia-cublas-cu13", "LicenseRef-NVIDIA-Proprietary", True),
    ],
)
def test_verdict(name: str, licence: str, accepted: bool) -> None:
    assert (check_licences.verdict(name, licence) is None) is accepted


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "MIT", "License": "whatever"}, "MIT"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "My own terms"}, "My own terms"),
        (
            {"License": "x\n" * 99, "Classifier": "License :: OSI Approved :: BSD License"},
            "BSD-3-Clause",
        ),
        ({"Classifier": "Programming Language :: Python"}, "not stated"),
    ],
)
def test_licence_of(fields: dict[str, str], licence: str) -> None:
    facts = Message()
    for key, value in fields.items():
        facts[key] = value
    assert check_licences.licence_of(facts) == licence  # type: ignore[arg-type]


def test_all_dependencies_are_permissive(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_licences.main([]) == 0
    assert "torch" in {d.metadata["Name"] for d in check_licences.closure("openllm-lab", set())}


def test_cli_reference_reads_the_parser() -> None:
    def main(argv: list[str]) -> int:
        parser = argparse.ArgumentParser(prog="openllm noun verb", description="Does a thing.")
        parser.add_argument("source", nargs="+", help="what to read")
        parser.add_argument("-n", "--number", type=int, default=3, help="how many | how few")
        parser.parse_args(argv)
        return 0

    parser = cli_reference.parser_of(main)
    rows = [cli_reference._row(parser, action) for action in parser._actions[1:]]
    assert rows == [
        "| `source [source ...]` |  | what to read |",
        "| `-n, --number NUMBER` | `3` | how many \\| how few |",
    ]
    assert argparse.ArgumentParser.print_help.__module__ == "argparse"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("core/errors.py", "import openllm.recipes.catalogue", "openllm.recipes.catalogue"),
        ("text/added.py", "import openllm.nn.config", "openllm.nn.config"),
        ("data/added.py", "import torch", "torch"),
        ("text/words.py", "import openllm.text.load", ".words -> .load"),
        ("newpackage/__init__.py", "", "newpackage"),
    ],
)
def test_the_rows_are_guarded(file: str, line: str, told: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "openllm", tmp_path / "src" / "openllm")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    added = tmp_path / "src" / "openllm" / file
    added.parent.mkdir(exist_ok=True)
    with added.open("a") as handle:
        handle.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stdout
