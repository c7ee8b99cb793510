# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm recipes list`: the recipes that ship with OpenLLM."""

import json
import sys
from pathlib import Path

from openllm.core.arguments import Parser

FOLDER = Path(__file__).parent / "configs"
"""The folder of the shipped recipes."""
MARKS = ("# SPDX-", "# Copyright")


def main(argv: list[str]) -> int:
    """List name and purpose of each shipped recipe."""
    parser = Parser(
        prog="openllm recipes list",
        description="List the recipes that ship with OpenLLM; each is a name for `openllm train`.",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    options = parser.parse_args(argv)
    recipes = catalogue(FOLDER)
    if options.json:
        sys.stdout.write(json.dumps(recipes, indent=1) + "\n")
        return 0
    width = max((len(recipe["name"]) for recipe in recipes), default=0)
    for recipe in recipes:
        sys.stdout.write(f"{recipe['name']:<{width}}  {recipe['purpose']}\n")
    sys.stdout.write(f"\nRecipe files: {FOLDER}\n")
    return 0


def catalogue(folder: Path) -> list[dict[str, str]]:
    """Name, purpose and file of each recipe in `folder`, by name."""
    return [
        {"name": path.stem, "purpose": purpose(path), "file": path.name}
        for path in sorted(folder.glob("*.yaml"))
    ]


def purpose(path: Path) -> str:
    """The first comment line of a recipe that is not a licence line; empty if there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith(MARKS):
            return line.lstrip("#").strip()
        if line.strip() and not line.startswith("#"):
            break
    return ""
