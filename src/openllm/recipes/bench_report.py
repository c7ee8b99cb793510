# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The report of `openllm bench`: plain values for JSON, tables and text for people."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from openllm.core.log import format_duration
from openllm.nn.cost import parameters
from openllm.recipes.build import describe_machine
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.evaluate.speed import Decoding, Machine, Training

KIND = "bench"
DAY = 86_400

Report = dict[str, Any]


def make_report(
    cfgs: Mapping[str, PretrainConfig],
    needs: Mapping[str, int],
    machine: "Machine",
    decodings: Mapping[str, "Decoding | str"],
    trainings: Mapping[str, "Training | str"],
) -> Report:
    """The report as plain values; text in place of a measurement says why it is missing."""
    from openllm.evaluate import limits

    first = next(iter(cfgs.values()))
    presets, words = [], limits.machine_limits(machine)
    for name, cfg in cfgs.items():
        training, decoding = trainings[name], decodings[name]
        if not isinstance(training, str):
            words.append(limits.training_limit(name, training))
        if not isinstance(decoding, str):
            words.append(limits.decoding_limit(name, decoding))
        presets.append(
            {
                "name": name,
                "parameters": parameters(cfg.model).total,
                "vocab_size": cfg.model.vocab_size,
                "precision": cfg.precision,
                "peak_bytes": needs[name],
                "training": _training_facts(cfg, training),
                "decoding": _decoding_facts(decoding),
            }
        )
    return {
        "kind": KIND,
        "environment": describe_machine(first),
        "machine": asdict(machine),
        "presets": presets,
        "limits": words,
    }


def _training_facts(cfg: PretrainConfig, training: "Training | str") -> Report:
    if isinstance(training, str):
        return {"skipped": training}
    seconds = None
    if not cfg.duration.endswith("epochs"):  # whose length depends on the text
        seconds = (
            cfg.total_steps(rows_per_epoch=0) * cfg.batch.mean_tokens / training.tokens_per_second
        )
    return {
        **asdict(training),
        "step_seconds": training.step_seconds,
        "share_of_peak": training.share_of_peak,
        "optimizer_share_of_peak": training.optimizer_share_of_peak,
        "recipe_duration": cfg.duration,
        "recipe_seconds": seconds,
    }


def _decoding_facts(decoding: "Decoding | str") -> Report:
    if isinstance(decoding, str):
        return {"skipped": decoding}
    return {
        **asdict(decoding),
        "limit_tokens_per_second": decoding.limit,
        "share_of_limit": decoding.share_of_limit,
    }


def render(report: Report) -> str:
    """The report as text."""
    lines = [*_machine_lines(report), ""]
    lines.append("training      tokens/s  of peak  memory     the recipe takes")
    for preset in report["presets"]:
        facts = preset["training"]
        if "skipped" in facts:
            lines.append(f"  {preset['name']:<8}  not measured: {facts['skipped']}")
            continue
        whole = f"{facts['recipe_duration'].replace('_', ',')}"
        if facts["recipe_seconds"] is not None:
            whole += f" in {_long(facts['recipe_seconds'])}"
        lines.append(
            f"  {preset['name']:<8}  {facts['tokens_per_second']:>10,.0f}  "
            f"{facts['share_of_peak']:>6.0%}  {preset['peak_bytes'] / 2**30:>4.1f} GiB   {whole}"
        )
    lines += ["", "decoding      tokens/s  of the limit set by memory"]
    for preset in report["presets"]:
        facts = preset["decoding"]
        if "skipped" in facts:
            lines.append(f"  {preset['name']:<8}  not measured: {facts['skipped']}")
            continue
        lines.append(
            f"  {preset['name']:<8}  {facts['tokens_per_second']:>10,.1f}  "
            f"{facts['share_of_limit']:>6.0%} of {facts['limit_tokens_per_second']:,.0f}"
        )
    lines += ["", "what limits it", *(f"- {words}" for words in report["limits"])]
    return "\n".join(lines) + "\n"


def _machine_lines(report: Report) -> list[str]:
    env, machine = report["environment"], report["machine"]
    kernels = "yes" if machine["kernels"] else f"no: {machine['kernels_mend']}"
    products = f"fp32 {machine['fp32_flops'] / 1e9:,.0f} GFLOP/s"
    if machine["bf16_flops"] is None:
        products += ", no instructions for bf16"
    else:
        products += f", bf16 {machine['bf16_flops'] / 1e9:,.0f} GFLOP/s"
    return [
        f"machine   {env['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"trains on {machine['device']}, torch {env['torch']}",
        f"products  {products}",
        f"memory    {machine['memory_bytes_per_second'] / 1e9:,.1f} GB/s read, "
        f"{report['free_bytes'] / 2**30:,.1f} GiB free",
        f"kernels   {kernels}",
    ]


def _long(seconds: float) -> str:
    """Like `format_duration`, but in days from two days on."""
    return f"{seconds / DAY:,.1f} days" if seconds >= 2 * DAY else format_duration(seconds)
