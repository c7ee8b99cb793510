# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Check that every source file begins with the licence line and the copyright line."""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "tools", "benchmarks", "docs", ".ci")
SUFFIXES = {".py", ".pyi", ".sh", ".c", ".cc", ".cpp", ".h", ".hpp", ".cu"}
NAMED = (Path("Makefile"), Path(".ci/run"))
MARKS = (
    "SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial",
    "Copyright (C) 2024-2026 The OpenLLM Authors",
)


def source_files(root: Path) -> Iterator[Path]:
    """Every source file below `root`, relative to it."""
    yield from NAMED
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path.relative_to(root)


def marked(text: str) -> bool:
    """Whether `text` begins with both lines; a `#!` line may precede them."""
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    return len(lines) >= 2 and all(
        line.strip("#/* ") == mark for line, mark in zip(lines[:2], MARKS, strict=True)
    )


def main(root: Path = ROOT) -> int:
    """Print each file without the two lines; returns 1 if there is one."""
    files = list(source_files(root))
    bad = [path for path in files if not marked((root / path).read_text(encoding="utf-8"))]
    for path in bad:
        print(f"{path}: the first two lines must be:\n  # {MARKS[0]}\n  # {MARKS[1]}")
    print(f"licence lines: {len(files) - len(bad)} of {len(files)} files have them")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
