# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What quantisation costs and saves, on models that are trained here.

    python benchmarks/quantization.py [MODEL ...]       all of MODELS, or those named

Models and text go to runs/quantization; every stage resumes what an earlier call left there. The
table goes to benchmarks/results/quantization.json, the plot beside it.
"""

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from record import RESULTS, SHARED, record

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.core.files import read_json
from openllm.recipes import pretrain, quickstart, tokenizer
from openllm.recipes import quantize as command
from openllm.recipes.prepare import prepare_main
from openllm.recipes.quantize_text import measure, read_texts

WORK = Path("runs/quantization")
SQUAD = [
    "squad",
    "--source",
    str(SHARED / "squad"),
    "--title-key",
    "title",
    "--title-key",
    "source",
]
SCHEMES: dict[str, tuple[str, ...]] = {
    "8 bits": ("--bits", "8"),
    "8 bits, dynamic": ("--dynamic",),
    "4 bits, rounding": ("--bits", "4"),
    "4 bits, GPTQ": ("--bits", "4", "--calibrate"),
    "4 bits, rounding, groups of 128": ("--bits", "4", "--group", "128"),
    "4 bits, GPTQ, groups of 128": ("--bits", "4", "--group", "128", "--calibrate"),
    "4 bits, GPTQ, portable": ("--bits", "4", "--portable", "--calibrate"),
    "planned, loss of 0.1 %": ("--max-loss", "0.1%", "--calibrate"),
    "planned, loss of 1 %": ("--max-loss", "1%", "--calibrate"),
}
AIMS = {8: 0.005, 4: 0.03}
"""Bits -> most that bits per byte may grow."""


class Trained(NamedTuple):
    """A model and the prepared folder with its text; `aware`: trained for these bits."""

    model: Path
    data: Path
    aware: bool = False


def quickstart_model() -> Trained:
    """The quickstart's model."""
    out = WORK / "quickstart"
    if not (out / "summary.json").exists():
        quickstart.main(["--out", str(out), "--minutes", "3"])
    return Trained(out / "tiny" / "model", out / "data")


def squad_model(name: str = "squad-tiny", *more: str) -> Trained:
    """A model of 4M parameters on a million tokens of real text."""
    data, vocabulary, out = WORK / "squad", WORK / "squad-tokenizer", WORK / name
    if not (data / "index.json").exists():
        prepare_main([*SQUAD, "--out", str(data)])
    if not (vocabulary / "tokenizer.json").exists():
        words = [str(data), "--vocab-size", "2048", "--out", str(vocabulary)]
        tokenizer.train_main(words)
    words = ["tiny", f"data={data}", f"tokenizer={vocabulary}", "duration=1_000_000 tokens"]
    pretrain.main([*words, *more, "--out", str(out)])
    return Trained(out / "model", data, bool(more))


MODELS = {
    "quickstart": quickstart_model,
    "squad-tiny": squad_model,
    "squad-tiny, trained for 4 bits": lambda: squad_model(
        "squad-tiny-4bit", "quantize={bits: 4, group: 32}"
    ),
    "squad-tiny, trained for 4 bits in groups of 128": lambda: squad_model(
        "squad-tiny-4bit-128", "quantize={bits: 4, group: 128}"
    ),
}


def rows(name: str, trained: Trained) -> list[dict[str, Any]]:
    """One row of the table for each scheme."""
    if trained.aware:
        return [_aware(name, trained)]
    found = []
    for title, words in SCHEMES.items():
        out = WORK / "out" / name / title.replace(" ", "-")
        facts_path = out / "quantization.json"
        if not facts_path.exists():
            data = [str(trained.data)] if words[-1] == "--calibrate" else []
            words = [str(trained.model), str(out), *words, *data]
            args = command._parser().parse_args([*words, "--report", "--data", str(trained.data)])
            command._check(args)
            command.quantize_model(trained.model, out, args)
        facts = read_json(facts_path, SystemExit, "run it again")  # type: ignore[arg-type]
        found.append({"model": name, "scheme": title, **_row(facts["size"], facts["measured"])})
        print(found[-1], flush=True)
    found.append(_torchao(name, trained))
    print(found[-1], flush=True)
    return found


def _row(size: dict[str, int], measured: dict[str, Any]) -> dict[str, Any]:
    parts = {key: measured[key] for key in ("before", "after")}
    return {
        "bytes": size["after"],
        "share_of_size": size["after"] / size["before"],
        "bits_per_byte": [part["bits_per_byte"]["value"] for part in parts.values()],
        "loss": measured["loss"],
        "cloze": [part["cloze"] for part in parts.values()],
        "tokens_per_second": [part["tokens_per_second"] for part in parts.values()],
    }


def _compare(model: Path, other: Path, data: Path) -> dict[str, Any]:
    """`measured` of two folders."""
    args = command._parser().parse_args([str(model), "x", "--report", "--data", str(data)])
    command._check(args)
    texts = read_texts(model, load_model(model).cfg, args)
    return measure(model, other, texts, args)


def _bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def _aware(name: str, trained: Trained) -> dict[str, Any]:
    """The folder that training wrote, against the model of the same recipe without rounding."""
    plain = squad_model().model
    size = {"before": _bytes(plain), "after": _bytes(trained.model)}
    measured = _compare(plain, trained.model, trained.data)
    row = {"model": "squad-tiny", "scheme": name.partition(", ")[2], **_row(size, measured)}
    print(row, flush=True)
    return row


def _torchao(name: str, trained: Trained) -> dict[str, Any]:
    """The layers in torchao's 4 bits in groups of 32, all else as it was."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    out = WORK / "out" / name / "torchao"
    model = load_model(trained.model)
    state = model.state_dict()
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))
    state |= {
        key: tensor.dequantize() if hasattr(tensor, "dequantize") else tensor
        for key, tensor in model.state_dict().items()
    }
    shutil.rmtree(out, ignore_errors=True)
    lineage = read_json(trained.model / "openllm.json", SystemExit, "")  # type: ignore[arg-type]
    folder = trained.model
    write_model(out, model.cfg, state, tokenizer=folder, lineage=lineage, card="")
    measured = _compare(folder, out, trained.data)
    row = _row({"before": 1, "after": 1}, measured)
    kept = ("bits_per_byte", "loss", "cloze")
    title = "torchao, 4 bits, layers alone"
    return {"model": name, "scheme": title, **{key: row[key] for key in kept}}


def peers(trained: Trained) -> dict[str, float]:
    """Largest difference of a logit in transformers, which reads the portable folder itself."""
    from transformers import AutoModelForCausalLM

    from openllm.nn.heads import logits

    folder = WORK / "out" / "quickstart" / "4-bits,-GPTQ,-portable"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_model(folder)
    ids = torch.randint(
        4, ours.cfg.vocab_size, (2, 200), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        mine = logits(ours(ids).x, ours.head)
        apart = (theirs(ids).logits - mine).abs().max()
    return {"largest_logit": float(mine.abs().max()), "largest_difference": float(apart)}


def draw(table: list[dict[str, Any]]) -> None:
    """Added bits per byte by scheme and model."""
    names = list(dict.fromkeys(row["model"] for row in table))
    figure = Figure(figsize=(6.5 * len(names), 5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        mine = [row for row in table if row["model"] == name][::-1]
        values = [100 * row["loss"]["value"] for row in mine]
        ends = [
            [100 * abs(row["loss"][end] - row["loss"]["value"]) for row in mine]
            for end in ("low", "high")
        ]
        labels = [
            row["scheme"] + (f" ({row['share_of_size']:.0%})" if "bytes" in row else "")
            for row in mine
        ]
        axes.barh(labels, values, xerr=ends, color="tab:blue", ecolor="0.4")
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel("bits per byte added, % (95 % interval)")
        axes.set_title(f"{name} (share of float32 size)")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(RESULTS / "quantization.png", dpi=120)


def main() -> None:
    """Measure the models that the command line names."""
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    for name in sys.argv[1:] or MODELS:
        table += rows(name, MODELS[name]())
    facts = {
        "what": "openllm quantize on held-out text; loss: share of bits per byte that is added",
        "aims": {str(bits): aim for bits, aim in AIMS.items()},
        "table": table,
        "transformers": peers(quickstart_model()),
    }
    record(
        "quantization", facts, ("torch", "numpy", "torchao", "transformers", "compressed-tensors")
    )
    draw(table)


if __name__ == "__main__":
    main()
