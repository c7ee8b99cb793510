# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the pages show works: commands, Python, links, names of settings, metrics and files."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tools.cli_reference import parser_of

from openllm.checkpoint.adapters import write_adapter
from openllm.checkpoint.model_dir import write_model
from openllm.cli import main as cli
from openllm.engine.config import EngineConfig, SpeculationConfig
from openllm.engine.request import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = {"api.md", "cli.md"}
PAGES = [ROOT / "README.md", *(p for p in sorted(DOCS.glob("*.md")) if p.name not in GENERATED)]


def python_of(page: str) -> list[str]:
    """The blocks of Python of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


def commands() -> Iterator[tuple[str, str]]:
    """Each page's lines of code that call `openllm`, fenced or indented, with their page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", text, re.S | re.M)
        lines = "\n".join(map("".join, blocks)).replace("\\\n", " ").splitlines()
        for line in lines:
            if found := re.fullmatch(r"(?:.*\| )?openllm ([a-z].*)", line.strip()):
                yield page.name, found[1]


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_are_understood(page: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != "-first"]  # a tag
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in cli.COMMANDS)
    parser_of(cli._load(cli.COMMANDS[name][1])).parse_intermixed_args(words[len(name.split()) :])


@pytest.fixture
def models(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models that the pages name, in the working folder."""
    monkeypatch.chdir(tmp_path)
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, spread=0.4).state_dict()
    for folder in ("runs/quickstart/tiny/model", "models/smollm2"):
        Path(folder).parent.mkdir(parents=True)
        write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    return tmp_path


def test_python_of_the_engine_runs(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    first, second = python_of("engine.md")
    exec(first, names)
    assert names["answer"].text in {"yes", "no"}  # type: ignore[attr-defined]
    capsys.readouterr()
    exec(second, names)
    assert capsys.readouterr().out == names["first"].text  # type: ignore[attr-defined]


def test_python_of_adapters_runs(models: Path) -> None:
    from openllm.transform.lora import adapter_of, apply_lora
    from openllm.transform.lora_config import LoraConfig

    made = apply_lora(random_model(SHAPES["qwen3"]), LoraConfig(rank=4))
    write_adapter("adapters/poems", adapter_of(made), "models/smollm2")
    names: dict[str, object] = {}
    for block in python_of("lora.md"):
        exec(block, names)
    assert isinstance(names["hidden"], torch.Tensor)


def test_python_of_quantisation_runs(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quantize", "models/smollm2", "models/notes-4bit", "--bits", "4"]) == 0
    capsys.readouterr()
    (block,) = python_of("quantization.md")
    exec(block, {})
    assert "QuantizedTensor" in capsys.readouterr().out


def test_the_batch_of_the_page_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines,) = re.findall(r"```json\n(.*?)```", (DOCS / "batch.md").read_text(), re.S)
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    requests.write_text(lines)
    assert cli.main(["batch", str(requests), str(results), "--model", "echo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == len(lines.splitlines())


def test_the_engine_page_names_every_setting() -> None:
    page = (DOCS / "engine.md").read_text()
    speculation = [f"speculation.{name}" for name in SpeculationConfig.model_fields]
    for name in [*EngineConfig.model_fields, *speculation, *SamplingParams.model_fields]:
        assert f"`{name}" in page or name == "speculation", name


def test_metrics_that_are_named_exist() -> None:
    from openllm.serve.operations.config import LimitSettings
    from openllm.serve.operations.metrics import ENGINE, Metrics, ServerFacts
    from openllm.serve.operations.turns import Turns

    metrics = Metrics(Turns(LimitSettings()), lambda: ServerFacts({}))
    known = {family.name for family in metrics.registry.collect()}
    known |= {f"openllm_engine_{name}" for name in ENGINE}
    for page in ("engine.md", "deployment.md"):
        for name in re.findall(r"\bopenllm_[a-z_]+", (DOCS / page).read_text()):
            assert name.removesuffix("_total") in known, f"{page}: {name}"


def anchors(page: Path) -> set[str]:
    """What links can point to in a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_to_parts_of_pages_lead_somewhere() -> None:
    for page in [*PAGES, *DOCS.glob("adr/*.md")]:
        for file, part in re.findall(r"\]\(([^)#:\s]*\.md)?#([^)]+)\)", page.read_text()):
            target = page.parent / file if file else page
            assert part in anchors(target), f"{page.name} links to {file}#{part}"


def test_result_files_that_are_named_exist() -> None:
    results = ROOT / "benchmarks" / "results"
    for name in re.findall(r"`([a-z_]+\.(?:json|png|md))`", (DOCS / "results.md").read_text()):
        assert (results / name).exists() or (DOCS / name).exists(), name


def test_every_page_is_in_the_index() -> None:
    listed = set(re.findall(r"\(([a-zA-Z_]+\.md)\)", (DOCS / "index.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} == listed
