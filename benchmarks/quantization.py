# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What quantisation costs and saves, on models that are trained here.

    python benchmarks/quantization.py [MODEL ...]       all of MODELS, or those named

Models and text go to runs/quantization; every stage resumes what an earlier call left there. The
table goes to benchmarks/results/quantization.json, the plot beside it.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from record import RESULTS, SHARED, record

from openllm.checkpoint.model_dir import load_model, read_lineage, write_model
from openllm.core.errors import DataError
from openllm.core.files import read_json, write_json
from openllm.recipes import pretrain, quickstart, tokenizer
from openllm.recipes import quantize as command
from openllm.recipes.prepare import prepare_main
from openllm.recipes.quantize_text import Measured, compare, measure_folder, read_texts

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
    "4 bits, GPTQ, groups of 128": ("--bits", "4", "--group", "128", "--calibrate"),
    "4 bits, GPTQ, portable": ("--bits", "4", "--portable", "--calibrate"),
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


def squad_model(
    name: str, *settings: str, recipe: str = "tiny", vocab_size: int = 2_048
) -> Trained:
    """A model on real text, by a recipe with these settings."""
    data, vocabulary, out = WORK / "squad", WORK / f"squad-tokenizer-{vocab_size}", WORK / name
    if not (data / "index.json").exists():
        prepare_main([*SQUAD, "--out", str(data)])
    if not (vocabulary / "tokenizer.json").exists():
        words = [str(data), "--vocab-size", str(vocab_size), "--out", str(vocabulary)]
        tokenizer.train_main(words)
    words = [recipe, f"data={data}", f"tokenizer={vocabulary}", *settings]
    pretrain.main([*words, "--out", str(out)])
    aware = any(setting.startswith("quantize=") for setting in settings)
    return Trained(out / "model", data, aware)


MILLION = "duration=1_000_000 tokens"
MODELS = {
    "quickstart": quickstart_model,
    "squad-tiny": lambda: squad_model("squad-tiny", MILLION),
    "squad-small": lambda: squad_model("squad-small", recipe="squad-small", vocab_size=8_192),
    "squad-8k": lambda: squad_model("squad-8k", MILLION, recipe="small", vocab_size=8_192),
    "squad-tiny, trained for 4 bits": lambda: squad_model(
        "squad-tiny-4bit", MILLION, "quantize={bits: 4, group: 32}"
    ),
    "squad-tiny, trained for 4 bits in groups of 128": lambda: squad_model(
        "squad-tiny-4bit-128", MILLION, "quantize={bits: 4, group: 128}"
    ),
}


def rows(name: str, trained: Trained) -> list[dict[str, Any]]:
    """One row of the table for each scheme; those of an earlier call are kept."""
    if trained.aware:
        return [_kept(name, "trained", partial(_aware, name, trained))]
    before = _Before(trained)
    found = [
        _kept(name, title, partial(_row_of, name, title, words, trained, before))
        for title, words in SCHEMES.items()
    ]
    return [*found, _kept(name, "torchao", partial(_torchao, name, trained, before))]


def _kept(name: str, title: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = WORK / "rows" / name / f"{title}.json"
    if not path.exists():
        write_json(path, make())
    row = read_json(path, DataError, "remove it")
    row.pop("format_version")
    print({key: row[key] for key in ("model", "scheme", "bits_per_byte", "loss")}, flush=True)
    return row


class _Before:
    """The original, asked once."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        args = command._parser().parse_args(["x", "y", "--report", "--data", str(trained.data)])
        command._check(args)
        self.texts = read_texts(trained.model, load_model(trained.model).cfg, args)

    @cached_property
    def measured(self) -> Measured:
        return measure_folder(self.trained.model, self.texts)

    def against(self, folder: Path, *, dynamic: bool = False) -> dict[str, Any]:
        """`measured` of a quantised folder."""
        after = measure_folder(folder, self.texts, dynamic=dynamic)
        size = {"before": _bytes(self.trained.model), "after": _bytes(folder)}
        parts = (self.measured.facts, after.facts)
        return {
            "bytes": size["after"],
            "share_of_size": size["after"] / size["before"],
            "bits_per_byte": [part["bits_per_byte"]["value"] for part in parts],
            "engine_bits_per_byte": [part["engine_bits_per_byte"] for part in parts],
            "loss": compare(self.measured, after, self.texts)["loss"],
            "cloze": [part["cloze"] for part in parts],
            "tokens_per_second": [part["tokens_per_second"] for part in parts],
        }


def _row_of(
    name: str, title: str, words: Sequence[str], trained: Trained, before: _Before
) -> dict[str, Any]:
    out = WORK / "out" / name / title.replace(" ", "-")
    data = [str(trained.data)] if words[-1] == "--calibrate" else []
    args = command._parser().parse_args([str(trained.model), str(out), *words, *data])
    command._check(args)
    facts = command.quantize_model(trained.model, out, args)
    bits: dict[str, int] = {}
    for unit in facts["units"].values():
        bits[str(unit["bits"])] = bits.get(str(unit["bits"]), 0) + 1
    measured = before.against(out, dynamic=args.dynamic)
    return {"model": name, "scheme": title, "parts_by_bits": bits, **measured}


def _bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def _aware(name: str, trained: Trained) -> dict[str, Any]:
    """The folder that training wrote, against the model of the same recipe without rounding."""
    measured = _Before(MODELS["squad-tiny"]()).against(trained.model)
    return {"model": "squad-tiny", "scheme": name.partition(", ")[2], **measured}


def _torchao(name: str, trained: Trained, before: _Before) -> dict[str, Any]:
    """The layers in torchao's 4 bits in groups of 32, all else as it was, at no smaller a size."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    out = WORK / "out" / name / "torchao"
    model = load_model(trained.model)
    state = dict(model.state_dict())
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))
    for key, tensor in model.state_dict().items():
        if type(tensor) is not torch.Tensor:
            state[key] = tensor.dequantize()
    lineage = read_lineage(trained.model)
    write_model(out, model.cfg, state, tokenizer=trained.model, lineage=lineage, card="")
    row = before.against(out)
    kept = ("bits_per_byte", "loss", "cloze")
    title = "torchao, 4 bits, layers alone"
    return {"model": name, "scheme": title, **{key: row[key] for key in kept}}


def peers() -> dict[str, float]:
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
    lines = -(-len(names) // 2)
    figure = Figure(figsize=(13, 4.5 * lines), layout="constrained")
    for axes, name in zip(figure.subplots(lines, 2, squeeze=False).flat, names, strict=False):
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
    trained = {name: MODELS[name]() for name in sys.argv[1:] or MODELS}
    torch.set_num_threads(1)
    table = [row for name, model in trained.items() for row in rows(name, model)]
    facts = {
        "what": "openllm quantize on held-out text; loss: share of bits per byte that is added",
        "aims": {str(bits): aim for bits, aim in AIMS.items()},
        "table": table,
        "transformers": peers(),
    }
    record(
        "quantization", facts, ("torch", "numpy", "torchao", "transformers", "compressed-tensors")
    )
    draw(table)


if __name__ == "__main__":
    main()
