# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tasks for lm-evaluation-harness from data on this machine, and the comparison of two runs."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from record import SHARED

DOCUMENTS = 40
"""Of each task."""

COMMON = {"dataset_path": "json", "test_split": "test", "metadata": {"version": 1}}
TASKS: dict[str, dict[str, Any]] = {
    "local_hellaswag": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{ctx}}",
        "doc_to_choice": "{{endings}}",
        "doc_to_target": "{{label}}",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "local_lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1] | join(' ')}}",
        "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "local_wikitext": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "local_continue": {
        "output_type": "generate_until",
        "doc_to_text": "{{text.split(' ')[:20] | join(' ')}}",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}
"""Each kind of request that the harness knows; the form is that of its YAML files."""


def write_tasks(folder: Path) -> None:
    """Write the tasks and their data."""
    lambada = _lines("lambada/test.jsonl.gz", DOCUMENTS)
    data = {
        "local_hellaswag": _lines("hellaswag/val-subset.jsonl.gz", DOCUMENTS),
        "local_lambada": lambada,
        "local_wikitext": list(_paragraphs(DOCUMENTS)),
        "local_continue": lambada,
    }
    for name, task in TASKS.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data[name]))
        files = {"data_files": {"test": str(path)}}
        whole = {"task": name, "dataset_kwargs": files, **COMMON, **task}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))


def _lines(name: str, count: int) -> list[Any]:
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for _, line in zip(range(count), handle, strict=False)]


def _paragraphs(count: int) -> Iterator[dict[str, str]]:
    """Paragraphs that fit into a context: the harness cuts longer ones one token too short."""
    with gzip.open(SHARED / "wikitext2" / "test.txt.gz", "rt", encoding="utf-8") as handle:
        texts = [line.strip() for line in handle if 200 < len(line) < 900]
    yield from ({"text": text} for text in texts[:count])


def run_harness(python: str, folder: Path, out: Path, model: str, settings: str) -> dict[str, Any]:
    """Run all tasks; returns metrics, and the answers of the model for each task."""
    command = [python, "-m", "lm_eval", "--model", model, "--model_args", settings]
    command += ["--device", "cpu", "--tasks", ",".join(TASKS), "--include_path", str(folder)]
    command += ["--output_path", str(out), "--log_samples", "--batch_size", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lm-eval failed:\n{done.stderr[-3000:]}")
    (results,) = out.rglob("results_*.json")
    metrics = json.loads(results.read_text())["results"]
    samples = {}
    for name in TASKS:
        (path,) = out.rglob(f"samples_{name}_*.jsonl")
        rows = sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])
        samples[name] = [row["resps"] for row in rows]
    return {"metrics": metrics, "samples": samples}


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """How far two runs agree: metrics, log-likelihoods, greedy flags, generated texts."""
    found: dict[str, Any] = {}
    for name in TASKS:
        metrics = {
            key.partition(",")[0]: [ours["metrics"][name][key], peer["metrics"][name][key]]
            for key, value in peer["metrics"][name].items()
            if isinstance(value, float) and "stderr" not in key
        }
        pairs = list(zip(*(_flat(run["samples"][name]) for run in (ours, peer)), strict=True))
        facts: dict[str, Any] = {"metrics: server, transformers": metrics, "values": len(pairs)}
        if TASKS[name]["output_type"] == "generate_until":
            facts["equal texts"] = sum(a == b for a, b in pairs)
        else:
            numbers = [(float(a[0]), float(b[0])) for a, b in pairs]
            facts["max difference, nats"] = max(abs(a - b) for a, b in numbers)
            facts["equal greedy flags"] = sum(str(a[1:]) == str(b[1:]) for a, b in pairs)
        found[name] = facts
    return found


def _flat(samples: list[Any]) -> list[Any]:
    """The answers to all requests of a task: `[log-likelihood, greedy]`, a number, or a text."""
    found = []
    for resps in samples:
        for one in resps:
            answer = one[0] if isinstance(one, list) and isinstance(one[0], list) else one
            found.append(answer if isinstance(answer, list) else [answer])
    return found
