# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm bench`: how fast this machine trains and generates, and what limits it."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openllm.core.arguments import Parser
from openllm.core.errors import TrainingError, UsageError
from openllm.core.files import read_json, write_json
from openllm.core.log import Meter, format_duration, progress
from openllm.nn.cost import parameters
from openllm.recipes import build, quickstart
from openllm.recipes.bench_report import KIND, Report, make_report, render
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.evaluate.speed import Decoding, Machine, Training

MINUTES = 2.0
MACHINE, DECODING, TRAINING = 0.1, 0.2, 0.7
"""Shares of the time."""
TYPICAL = 0.7
"""Share of the peak assumed to estimate the length of a step before it is measured."""
BUILDING = 100
"""Initialising random weights takes about as long as reading them this many times."""
GIB = 2**30

Configs = Mapping[str, PretrainConfig]


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm bench",
        description="Measure this machine (matrix products, memory, training steps of each "
        "preset, text generation) and say what limits it.",
        epilog="example: openllm bench --presets tiny,small --minutes 1 --out bench.json",
    )
    parser.add_argument("--presets", metavar="NAME,NAME,...", help="default: all shipped presets")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="approximate duration")
    parser.add_argument("--threads", type=int, help="default: chosen by torch")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="training device"
    )
    parser.add_argument("--out", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    if not 0 < args.minutes <= 24 * 60:
        raise UsageError(f"--minutes {args.minutes:g} must be between 0 and 1440")
    if args.out is not None:
        check_target(Path(args.out))
    cfgs = configs(args.presets, args.device, args.threads)
    report = bench(cfgs, 60 * args.minutes)
    if args.out is not None:
        write_json(args.out, report)
    sys.stdout.write(json.dumps(report, indent=1) + "\n" if args.json else render(report))
    return 0


def check_target(path: Path) -> None:
    """Refuse early a file that cannot or must not be written."""
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; name a file, such as {path / 'bench.json'}")
    if path.exists():
        mend = "choose another file for --out"
        if read_json(path, UsageError, mend).get("kind") != KIND:
            raise UsageError(f"{path} is not a report of 'openllm bench'; {mend}")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"--out {path}: cannot write to {above}; choose another file")


def configs(presets: str | None, device: str, threads: int | None) -> dict[str, PretrainConfig]:
    """The resolved recipes of the requested presets, the smallest first.

    Raises:
        UsageError: no such preset, or not that many cores.
        ConfigError: no such device.
    """
    recipes = sorted(path.stem for path in build.CONFIGS.glob("*.yaml"))
    shipped = [name for name in recipes if build.load_config(name).scale is None]
    names = shipped if presets is None else [name.strip() for name in presets.split(",")]
    for name in names:
        if name not in shipped:
            raise UsageError(f"--presets: unknown preset '{name}'; presets: {', '.join(shipped)}")
    settings = [f"device={device}"]
    if threads is not None:
        most = os.cpu_count() or 1
        if not 1 <= threads <= most:
            raise UsageError(
                f"--threads {threads} must be between 1 and {most}, the number of cores here"
            )
        settings.append(f"threads={threads}")
    resolved = {}
    for name in names:
        cfg = build.load_config(name, settings)
        usual = name == quickstart.RECIPE and "vocab_size" not in cfg.model.model_fields_set
        vocab_size = quickstart.VOCAB_SIZE if usual else cfg.model.vocab_size
        resolved[name] = build.resolve(cfg, vocab_size)
    return dict(sorted(resolved.items(), key=lambda item: parameters(item[1].model).total))


def bench(cfgs: Configs, seconds: float) -> Report:
    """Measure everything in about `seconds`."""
    import torch

    from openllm.evaluate import speed
    from openllm.train.forecast import peak_bytes

    began, first = time.monotonic(), next(iter(cfgs.values()))
    torch.set_num_threads(first.threads or 1)
    others = speed.OtherWork()
    with progress("measuring", 100, "%") as meter:
        with _stage(meter, MACHINE, "matrix products and memory"):
            free = speed.free_bytes(first.device)
            machine = speed.measure_machine(first.device, min(6.0, MACHINE * seconds))
            needs = {name: peak_bytes(cfg) for name, cfg in cfgs.items()}
        decodings = _decode(cfgs, machine, DECODING * seconds, meter)
        build.prepare_process(first)
        left = max(TRAINING * seconds / 2, seconds - (time.monotonic() - began))
        trainings = _train(cfgs, needs, machine, left, meter)
    machine = replace(machine, busy_elsewhere=others.cores())
    report = make_report(cfgs, needs, machine, decodings, trainings)
    return {**report, "free_bytes": free, "seconds": round(time.monotonic() - began, 1)}


@contextmanager
def _stage(meter: Meter, part: float, what: str) -> Iterator[None]:
    meter.advance(0, what)
    yield
    meter.advance(100 * part, what)


def _decode(
    cfgs: Configs, machine: "Machine", seconds: float, meter: Meter
) -> dict[str, "Decoding | str"]:
    """Decoding speed of each preset, or why it was not measured."""
    from openllm.evaluate import speed

    bandwidth, share = machine.memory_bytes_per_second, seconds / len(cfgs)
    found: dict[str, Decoding | str] = {}
    for name, cfg in cfgs.items():
        with _stage(meter, DECODING / len(cfgs), f"decoding {name}"):
            needed, free = 5 * parameters(cfg.model).total, speed.free_bytes("cpu")
            reading = speed.decoded_bytes(cfg.model, "fp32") / bandwidth
            building = (BUILDING + 2 * speed.DECODED_TOKENS) * reading
            if needed > free:
                found[name] = lacks_memory(needed, free)
            elif building > share:
                found[name] = too_long(name, "initialising its weights takes", building, DECODING)
            else:
                left = min(3.0, share - building)
                found[name] = speed.measure_decoding(cfg.model, bandwidth, left)
    return found


def _train(
    cfgs: Configs, needs: Mapping[str, int], machine: "Machine", seconds: float, meter: Meter
) -> dict[str, "Training | str"]:
    """Training speed of each preset, or why it was not measured."""
    from openllm.evaluate import speed

    found: dict[str, Training | str] = {}
    steps: dict[str, float] = {}
    for name, cfg in cfgs.items():
        free = speed.free_bytes(cfg.device)
        if needs[name] > free:
            found[name] = lacks_memory(needs[name], free)
        else:
            steps[name] = sum(speed.training_flops(cfg)) / machine.peak(cfg.precision) / TYPICAL
    shares = allot(steps, seconds)
    for name, step in steps.items():
        if name not in shares:
            what = f"a step of {cfgs[name].batch.tokens:,} tokens takes"
            found[name] = too_long(name, what, step, TRAINING / 2)
    for name, share in shares.items():
        with _stage(meter, TRAINING / len(shares), f"training {name}"):
            cfg = cfgs[name]
            try:
                with build.memory_errors(cfg):
                    left = max(0.0, share - 2 * steps[name])
                    found[name] = speed.measure_training(cfg, machine.peak(cfg.precision), left)
            except TrainingError:
                found[name] = "it ran out of memory"
    return found


def allot(steps: Mapping[str, float], seconds: float) -> dict[str, float]:
    """An equal share of the time for each preset that can make two steps in it.

    Args:
        steps: estimated seconds per step of each.
        seconds: total time.
    """
    kept = dict(steps)
    while kept and 2 * max(kept.values()) > seconds / len(kept):
        del kept[max(kept, key=lambda name: kept[name])]
    return {name: seconds / len(kept) for name in kept}


def lacks_memory(needed: int, free: int) -> str:
    """Why a preset was left out."""
    return f"it needs about {needed / GIB:.1f} GiB of memory, but {free / GIB:.1f} GiB are free"


def too_long(name: str, what: str, seconds: float, part: float) -> str:
    """Why a preset was left out, and with which settings it would be measured."""
    minutes = int(seconds / part / 60) + 1
    return (
        f"{what} about {format_duration(seconds)} here; to measure it: "
        f"openllm bench --presets {name} --minutes {minutes}"
    )
