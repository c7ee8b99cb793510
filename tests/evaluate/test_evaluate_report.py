# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from openllm.evaluate.report import markdown, tables, write_report


def value(middle: float, spread: float = 0.1) -> dict[str, float]:
    return {"value": middle, "low": middle - spread, "high": middle + spread}


def measures(scale: float) -> dict[str, Any]:
    return {
        "loss": value(2.5 * scale),
        "token_perplexity": value(12.2 * scale),
        "bits_per_byte": value(1.2 * scale),
        "word_perplexity": value(40_000 * scale, 100),
    }


def quality(repeated: float, copy: int | None) -> dict[str, Any]:
    return {
        "texts": 2,
        "tokens": 90,
        "distinct_1": 0.4,
        "distinct_2": 0.8,
        "distinct_3": 0.95,
        "repeated_4": repeated,
        "copy_mean": None if copy is None else copy - 1.5,
        "copy_max": copy,
    }


RESULT: dict[str, Any] = {
    "model": {
        "name": "squad",
        "parameters": 36_800_000,
        "vocab_size": 32_000,
        "tokens_seen": 4_000_000,
        "step": 488,
    },
    "data": {
        "name": "squad",
        "split": "test",
        "fingerprint": "ab" * 32,
        "documents": 700,
        "tokens": 120_000,
        "bytes": 500_000,
    },
    "windows": {"context": 512, "stride": 256, "full_context_share": 0.97},
    "perplexity": {
        "model": measures(1.0),
        "ngram": measures(1.3),
        "difference": {**measures(-0.3), "reduction": value(0.231, 0.01)},
    },
    "ngram": {"order": 5, "tokens": 3_900_000},
    "curve": {
        "position": [1.0, 4.0, 16.0],
        "tokens": [700, 2100, 9000],
        "model": [6.0, 4.0, 3.0],
        "ngram": [6.2, 4.9, 4.8],
    },
    "generation": {
        "settings": {
            "prompt_tokens": 16,
            "temperature": 0.8,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": 0,
        },
        "model": quality(0.05, 11),
        "heldout": quality(0.01, 6),
        "longest_copy": {"tokens": 11, "sample": 1, "text": "of the city"},
        "samples": [{"prompt": "The river", "text": " flows.\n\nIt is long."}] * 2,
    },
    "cloze": {
        "model": {
            group: {"questions": 100, "choice": value(0.62), "recall": value(0.2)}
            for group in ("repeated", "new")
        },
        "ngram": {
            group: {"questions": 100, "choice": value(0.41), "recall": value(0.1)}
            for group in ("repeated", "new")
        },
    },
}


def test_markdown_holds_the_numbers() -> None:
    text = markdown(RESULT, "eval.png")
    assert "| bits per byte | 1.200 [1.100, 1.300] | 1.560 [1.460, 1.660] |" in text
    assert "needs 23.1 % [22.1, 24.1] fewer bits per byte than the n-gram" in text
    assert "![loss by position, and bits per byte](eval.png)" in text
    assert "36,800,000 parameters" in text
    assert "| repeated 4-grams | 0.050 | 0.010 |" in text
    assert "> **The river** flows.\n>\n> It is long." in text
    assert "| new in the document | 100 | 62.0 % [52, 72] | 20.0 % [10, 30] | 41.0 % " in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_a_model_worse_than_the_baseline_is_called_so() -> None:
    result = deepcopy(RESULT)
    result["perplexity"]["difference"]["reduction"] = {"value": -0.2, "low": -0.25, "high": 0.01}
    assert "needs 20.0 % [-1.0, 25.0] more bits per byte" in markdown(result)


def test_parts_that_were_not_measured_are_left_out() -> None:
    result = deepcopy(RESULT)
    del result["generation"], result["cloze"], result["ngram"]
    result["perplexity"] = {"model": measures(1.0)}
    result["model"] |= {"tokens_seen": None, "step": None}
    shown = tables(result)
    assert [table.title for table in shown] == ["Held-out text"]
    assert shown[0].header == ("", "model")
    assert "n-gram" not in markdown(result)
    assert "training tokens unknown, step unknown" in markdown(result)


def test_copies_not_measured_is_said() -> None:
    result = deepcopy(RESULT)
    result["generation"]["model"] = quality(0.05, None)
    result["generation"]["heldout"] = quality(0.05, None)
    result["generation"]["longest_copy"] = None
    text = markdown(result)
    assert "Copies were not measured" in text
    assert "longest copy" not in text.lower()


@pytest.mark.parametrize("ngram", [True, False])
def test_writes_json_report_and_picture(tmp_path: Path, ngram: bool) -> None:
    result = deepcopy(RESULT)
    result["perplexity"]["model"]["word_perplexity"] = {
        "value": math.inf,
        "low": 3.0,
        "high": math.inf,
    }
    if not ngram:
        del result["ngram"], result["cloze"]["ngram"]
        result["perplexity"] = {"model": result["perplexity"]["model"]}
    write_report(result, tmp_path / "eval")
    kept = json.loads(
        (tmp_path / "eval" / "eval.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert kept["perplexity"]["model"]["word_perplexity"] == {
        "value": None,
        "low": 3.0,
        "high": None,
    }
    assert kept["format_version"] == 1
    assert "too large [3.000, too large]" in (tmp_path / "eval" / "report.md").read_text()
    assert (tmp_path / "eval" / "eval.png").read_bytes().startswith(b"\x89PNG")
