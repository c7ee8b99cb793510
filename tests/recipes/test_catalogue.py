# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
from pathlib import Path

import pytest

from openllm.recipes import catalogue


def test_every_shipped_recipe_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert catalogue.main(["--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)
    assert {"tiny", "small", "medium", "large"} <= {recipe["name"] for recipe in recipes}
    assert all(recipe["purpose"] for recipe in recipes)


def test_text_lists_name_and_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert catalogue.main([]) == 0
    out = capsys.readouterr().out
    assert all(
        f"{recipe['name']} " in out and recipe["purpose"] in out
        for recipe in catalogue.catalogue(catalogue.FOLDER)
    )


@pytest.mark.parametrize(
    ("text", "purpose"),
    [
        ("# For laptops.\nmodel: {}\n", "For laptops."),
        (
            "# SPDX-License-Identifier: X\n# Copyright (C) Y\n\n#  For laptops.\nseed: 1\n",
            "For laptops.",
        ),
        ("seed: 1\n# too late\n", ""),
        ("", ""),
    ],
)
def test_purpose_is_the_first_comment(text: str, purpose: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert catalogue.purpose(path) == purpose
