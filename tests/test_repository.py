# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What holds for the repository as a whole."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from openllm.cli import doctor
from openllm.cli.main import COMMANDS
from openllm.core.plugins import DISTRIBUTIONS, EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "openllm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPANIONS = {"lxml_html_clean", "opentelemetry-exporter-otlp-proto-http"}
"""Distributions of an extra that another library imports, not OpenLLM."""
FRAMEWORKS = {"fastapi": "openllm.serve"}
"""What a whole package is written in; the package is imported after `require` of it."""
MOST_LINES = 400


def modules() -> Iterator[tuple[Path, str]]:
    """Each source file and its module name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in requirements}


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level names of a file's imports, and whether each happens inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "require"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        for name in names:
            yield name.partition(".")[0], node in inside


def test_extras_table_matches_pyproject() -> None:
    extras = PROJECT["optional-dependencies"]
    imported_as = {name: module for module, name in DISTRIBUTIONS.items()}
    stated = {
        (imported_as.get(name, name), extra)
        for extra, lines in extras.items()
        if extra not in {"bench", "dev"}
        for name in names_of(lines) - COMPANIONS
    }
    assert {(name.lower(), extra) for name, extra in EXTRAS.items()} == stated


@pytest.mark.integration
def test_an_optional_library_is_imported_in_one_module_inside_functions() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    for path, module in modules():
        for name, inside in imported(path):
            if name in EXTRAS and not module.startswith(FRAMEWORKS.get(name, "-")):
                if name not in FRAMEWORKS:
                    users[name].add(module)
                assert inside, f"{module} imports {name} at its top; move it into the function"
    assert {name: len(found) for name, found in users.items()} == dict.fromkeys(
        EXTRAS.keys() - FRAMEWORKS.keys(), 1
    ), users


@pytest.mark.integration
def test_nothing_is_imported_that_is_not_asked_for() -> None:
    core = {doctor.IMPORT_NAMES.get(name, name) for name in names_of(PROJECT["dependencies"])}
    known = {name.partition(".")[0] for name in core} | set(EXTRAS) | {"openllm", "starlette"}
    for path, module in modules():
        strange = {name for name, _ in imported(path)} - known - sys.stdlib_module_names
        assert not strange, f"{module} imports {strange}; add it to pyproject.toml"


def test_every_direct_dependency_is_pinned() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
    pinned = {line.partition("==")[0] for line in pins if not line.startswith("#")}
    asked = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    direct = {name.replace("_", "-") for lines in asked for name in names_of(lines)}
    assert direct <= pinned
    assert "torch==2.13.0" in pins


@pytest.mark.integration
def test_configs_and_lower_rows_load_without_torch() -> None:
    lower = ("openllm.core", "openllm.text", "openllm.data")
    names = [name for _, name in modules() if name.startswith(lower) or name.endswith("config")]
    assert "openllm.nn.config" in names
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} loads torch')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_package_files_are_empty() -> None:
    for path in PACKAGE.glob("*/**/__init__.py"):
        lines = path.read_text().splitlines()
        assert all(line.startswith("#") for line in lines), f"{path} must hold no code"


def test_no_file_is_too_long_to_read() -> None:
    long = {
        path.name: count
        for path, _ in modules()
        if (count := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long


@pytest.mark.integration
def test_a_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "LICENSES"):
        ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("openllm_lab-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("openllm/")}
    files = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*") if path.is_file()}
    assert held == {path.as_posix() for path in files if "__pycache__" not in path.parts}


def readme_commands() -> list[str]:
    """Every line of the README's code blocks that calls `openllm`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    return [line for line in lines if line.startswith("openllm ")]


def test_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make quickstart\n" in text and "make test\n" in text
    assert "python -m openllm" in text


@pytest.mark.parametrize("line", readme_commands())
def test_readme_commands_are_understood(line: str) -> None:
    from tools.cli_reference import parser_of

    from openllm.cli.main import _load

    words = shlex.split(line, comments=True)[1:]
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
    parser_of(_load(COMMANDS[name][1])).parse_args(words[len(name.split()) :])


def test_readme_names_every_verb() -> None:
    assert {name for name in COMMANDS if f"openllm {name}" in "\n".join(readme_commands())} == set(
        COMMANDS
    )


def test_cli_page_is_up_to_date() -> None:
    from tools.cli_reference import PAGE, reference

    assert PAGE.read_text(encoding="utf-8") == reference(), "write it anew with: make docs"


def test_pages_name_modules_that_exist() -> None:
    rows = "|".join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    for page in ROOT.glob("docs/**/*.md"):
        for name in re.findall(rf"(?<![\w/])(?:{rows})/[a-z0-9_/]+\.py", page.read_text()):
            assert (PACKAGE / name).exists(), f"{page.name} names {name}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
