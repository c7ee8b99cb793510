# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm quantize`: a model folder in, a smaller one of 8- and 4-bit integers out."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.errors import CheckpointError, ConfigError, UsageError
from openllm.core.files import atomic_folder, check_replaceable, read_json, write_json
from openllm.core.log import progress, say, warn
from openllm.core.runs import source_commit
from openllm.export.inventory import model_fingerprint, model_name
from openllm.export.models.zoo import resolve_model
from openllm.recipes.import_model import read_size
from openllm.recipes.quantize_report import FILES, card, lines, write_report
from openllm.recipes.quantize_text import Texts, measure, read_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openllm.checkpoint.source import Source
    from openllm.evaluate.divergence import Divergence
    from openllm.evaluate.sensitivity import Trial
    from openllm.nn.model import Transformer
    from openllm.nn.quantized import QuantizedTensor, Scheme
    from openllm.transform.quantize_plan import Plan

GROUPS = (32, 64, 128)
HEADER_BYTES = 400
"""Of a quantised matrix in the header of a weights file, at most."""

ROUNDS = 4
"""Plans that are tried under a limit of loss."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    args = _parser().parse_args(argv)
    _check(args)
    source, out = resolve_model(args.model), Path(args.out)
    facts = quantize_model(source, out, args)
    sys.stdout.write(json.dumps(facts) + "\n" if args.json else "\n".join(lines(facts)) + "\n")
    say(f"done: model in {out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="openllm quantize",
        description="Write a model with weights of 8 or 4 bits. Text to calibrate on makes 4 bits "
        "better and can choose the bits of each part under a limit of size or loss.",
        epilog="example: openllm quantize runs/squad/model models/squad-4bit --bits 4 "
        "--calibrate data/squad --report",
    )
    add = parser.add_argument
    add("model", help="model folder, such as RUN/model, or a name from 'models ls'")
    add("out", help="model folder to write")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--bits",
        type=int,
        choices=(8, 4),
        help="bits of a weight (default: 8); at 4, embedding and head keep 8",
    )
    limit.add_argument("--max-size", metavar="SIZE", help="choose bits by part, such as 20MB")
    limit.add_argument("--max-loss", metavar="PERCENT", help="choose bits by part, such as 1%%")
    add("--group", type=int, choices=GROUPS, help="weights that share a scale (default: 32)")
    add("--dynamic", action="store_true", help="8-bit activations too; one scale per row")
    add(
        "--portable",
        action="store_true",
        help="leave the embedding in 16 bits, as transformers and vLLM need",
    )
    add("--calibrate", metavar="DATA", help="prepared folder (its validation split) or text file")
    add(
        "--tokens",
        type=int,
        default=32_768,
        metavar="N",
        help="tokens of --calibrate to use (default: 32768)",
    )
    add("--data", help="held-out text for the report (default: the test split of --calibrate)")
    add("--report", action="store_true", help="measure sensitivity, quality, size and speed")
    add("--seed", type=int, default=0, metavar="N", help="which documents are chosen (default: 0)")
    add("--json", action="store_true", help="print the facts as JSON")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself, and fill in defaults."""
    planned = args.max_size or args.max_loss
    if planned and not args.calibrate:
        raise UsageError("--max-size and --max-loss need text: add --calibrate DATA")
    if args.report and not (args.calibrate or args.data):
        raise UsageError("--report needs text: add --calibrate DATA or --data DATA")
    if args.dynamic and (planned or args.bits == 4 or args.group):
        raise UsageError("--dynamic is for 8 bits with one scale per row; leave out the others")
    if args.tokens < 256:
        raise UsageError("--tokens must be at least 256")
    args.bits = None if planned else args.bits or 8
    args.group = None if args.dynamic else args.group or 32
    args.max_size = read_size(args.max_size, "--max-size") if args.max_size else None
    args.max_loss = _percent(args.max_loss) if args.max_loss else None


def _percent(text: str) -> float:
    """`1%` -> 0.01."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0
    if not 0 < value < 100:
        raise UsageError(f"--max-loss {text}: give a percentage between 0 and 100, such as 1%")
    return value / 100


def quantize_model(model: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Write the folder `out`.

    Args:
        model: a model folder that is not quantised.
        out: replaced if it is a quantised folder.
        args: of the command line, checked.

    Returns:
        Facts about the result, as in `quantization.json`.

    Raises:
        CheckpointError: the model cannot be read, or is quantised already.
        ConfigError: no plan is within the limits.
    """
    from openllm.checkpoint.model_dir import MODEL_FILES
    from openllm.checkpoint.quantization import KEY
    from openllm.checkpoint.quantized_copy import copy_quantized, portable
    from openllm.checkpoint.source import open_source

    check_replaceable(out, {*MODEL_FILES, *FILES}, UsageError)
    inside, around = out.resolve(), model.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise UsageError(f"{out} and {model} lie in each other; choose another folder")
    source = open_source(model)
    if source.values.get(KEY) is not None:
        raise CheckpointError(f"{model} is quantised already; give the model that it was made from")
    texts = read_texts(model, source.cfg, args)
    found = _Quantizer(source, args, texts).run()
    if not found.matrices:
        warn("no matrix is quantised: within this limit all of them keep 16 bits")
    facts = {
        "method": found.method,
        "scheme": {"bits": args.bits, "group": args.group, "dynamic": args.dynamic},
        "limits": {"max_size": args.max_size, "max_loss": args.max_loss},
        "calibration": None if texts.calibration is None else texts.calibration.facts(),
        "portable": portable(source, found.matrices),
        "units": found.units(),
        "trials": [{**t._asdict(), "change": t.change._asdict()} for t in found.trials],
        "left": found.left,
    }
    parent = {"name": model_name(model), "fingerprint": model_fingerprint(model)}
    with atomic_folder(out) as target:
        copy_quantized(source, target, found.matrices, dynamic=args.dynamic, half=True)
        size = _weight_bytes(target)
        if args.max_size is not None and size > args.max_size:
            raise ConfigError(f"--max-size: the weights take {size / 1e6:.3g} MB; allow more")
        facts["size"] = {"before": _weight_bytes(model), "after": size}
        facts["measured"] = None
        if args.report:
            facts["measured"] = measure(model, target, texts, dynamic=args.dynamic, seed=args.seed)
        _describe(source, target, parent, facts)
    return facts


def _weight_bytes(folder: Path) -> int:
    from openllm.checkpoint.weights import weight_files

    return sum(path.stat().st_size for path in weight_files(folder))


def _describe(
    source: "Source", target: Path, parent: dict[str, str], facts: dict[str, Any]
) -> None:
    """Card, lineage and report."""
    original = source.folder / "README.md"
    text = original.read_text("utf-8", errors="replace") if original.is_file() else ""
    (target / "README.md").write_text(card(text, parent["name"], facts), encoding="utf-8")
    lineage: dict[str, Any] = {}
    if (source.folder / "openllm.json").exists():
        lineage = read_json(
            source.folder / "openllm.json", CheckpointError, "mend it, or remove it"
        )
    keys = ("method", "scheme", "limits", "calibration")
    lineage["parents"] = [parent]
    lineage["quantization"] = {key: facts[key] for key in keys} | {"commit": source_commit()}
    write_json(target / "openllm.json", lineage)
    write_report(target, parent["name"], facts)


class _Quantizer:
    """Chooses bits, and quantises."""

    def __init__(self, source: "Source", args: argparse.Namespace, texts: Texts) -> None:
        from openllm.nn.quantized import Scheme, bits_of
        from openllm.transform.quantize import fitting, units

        self.source, self.args, self.texts = source, args, texts
        self.trials: list[Trial] = []
        self.left: list[str] = []
        self.matrices: dict[str, QuantizedTensor] = {}
        self.schemes: dict[str, dict[str, Scheme]] = {}
        """Unit -> its matrices -> their schemes, whose bits may change."""
        for unit, names in units(source.shapes).items():
            wanted = {name: Scheme(bits_of(name, args.bits or 8), args.group) for name in names}
            fits = {name: fitting(wanted[name], source.shapes[name][1]) for name in names}
            if args.portable and unit == "embed":
                continue
            if None in fits.values():
                self.left.append(unit)
            else:
                self.schemes[unit] = {name: s for name, s in fits.items() if s is not None}
        if self.left:
            warn(
                f"{len(self.left)} parts stay as they are, for their rows are not multiples of 32 "
                f"long; the first is {self.left[0]}"
            )
        if not self.schemes:
            raise ConfigError(f"no matrix of {source.folder} has rows in multiples of 32")

    def run(self) -> "_Quantizer":
        """Fill in `matrices` and `trials`."""
        if self.texts.calibration is None:
            self._round()
            return self
        from openllm.checkpoint.model_dir import load_model

        model = load_model(self.source.folder)
        if self.args.report or self.args.bits is None:
            text = self.texts.calibration.divergence(model)
            self._try(model, text)
        if self.args.bits is None:
            self._planned(model, text)
        else:
            self._calibrate(model)
        return self

    @property
    def method(self) -> str:
        """`gptq` if text was used for the integers, else `rounding`; 8 bits do not need it."""
        fitted = any(matrix.bits == 4 for matrix in self.matrices.values())
        return "gptq" if fitted and self.texts.calibration is not None else "rounding"

    def units(self) -> dict[str, dict[str, Any]]:
        """What became of each unit."""
        from openllm.transform.quantize import units

        found = {}
        for unit, names in units(self.source.shapes).items():
            made = [self.matrices[name] for name in names if name in self.matrices]
            scheme = made[0].scheme._asdict() if made else {"bits": None, "group": None}
            sizes = [matrix.stored_bytes for matrix in made] or [self._kept_bytes(names)]
            found[unit] = {**scheme, "bytes": sum(sizes)}
        return found

    def _kept_bytes(self, names: list[str]) -> int:
        """Bytes of matrices that are not quantised: at most 16 bits a weight."""
        size = min(2, self.source.dtype().itemsize)
        return size * sum(rows * columns for rows, columns in map(self.source.shapes.get, names))

    def _round(self) -> None:
        from openllm.transform.quantize import quantize

        wanted = {name: s for matrices in self.schemes.values() for name, s in matrices.items()}
        with progress("quantising", len(wanted), "matrices") as meter:
            for link in self.source.links:
                if not any(name in wanted for name in link.ours):
                    continue
                for name, weight in link.split(self.source.read(link), self.source.shapes).items():
                    self.matrices[name] = quantize(weight, wanted[name])
                    meter.advance(1)

    def _calibrate(self, model: "Transformer") -> None:
        from openllm.transform.calibrate import calibrated

        assert self.texts.calibration is not None
        wanted = {name: s for matrices in self.schemes.values() for name, s in matrices.items()}
        with progress("calibrating", len(wanted), "matrices") as meter:
            batches = self.texts.calibration.batches(model)
            self.matrices = calibrated(model, wanted, batches, lambda: meter.advance(1))

    def _try(self, model: "Transformer", text: "Divergence") -> None:
        from openllm.evaluate.sensitivity import TRIED, sensitivity

        with progress("sensitivity", len(self.schemes) * len(TRIED), "trials") as meter:
            self.trials = sensitivity(model, self.schemes, text, lambda: meter.advance(1))

    def _planned(self, model: "Transformer", text: "Divergence") -> None:
        """Choose the bits of each unit; under a limit of loss, measure and choose again."""
        from openllm.transform.quantize_plan import plan

        original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        choices, every = self._choices(), dict(self.schemes)
        args = self.args
        if args.max_size is not None:
            most = args.max_size - self._rest_bytes()
            chosen = plan(choices, max_size=most)
            if chosen is None:
                least = sum(min(c.size for c in given) for given in choices.values())
                raise ConfigError(
                    f"--max-size: even at 4 bits the weights take "
                    f"{(least + self._rest_bytes()) / 1e6:.3g} MB; allow more"
                )
            self._take(chosen, every)
            self._calibrate(model)
            return
        limit = args.max_loss * text.bits_per_byte
        budget = limit
        for _ in range(ROUNDS):
            chosen = plan(choices, max_loss=budget)
            assert chosen is not None  # nothing quantised loses nothing
            self._take(chosen, every)
            self._calibrate(model)
            measured = text.of(model).divergence
            if measured <= limit:
                return
            budget *= 0.8 * limit / measured
            model.load_state_dict(original)
        raise ConfigError(
            f"--max-loss: {ROUNDS} plans lost more than {args.max_loss:.2%} of the bits per byte; "
            "allow more, or use --bits 8"
        )

    def _choices(self) -> "dict[str, list[Any]]":
        """Each unit at 4 and 8 bits, with what its trial cost, and as it is."""
        from openllm.transform.quantize import stored_bytes
        from openllm.transform.quantize_plan import Choice

        shapes = self.source.shapes
        choices: dict[str, list[Choice]] = {
            unit: [Choice(None, self._kept_bytes(list(matrices)), 0.0)]
            for unit, matrices in self.schemes.items()
        }
        for trial in self.trials:
            matrices = self.schemes[trial.unit]
            schemes = {name: s._replace(bits=trial.bits) for name, s in matrices.items()}
            size = sum(stored_bytes(shapes[name], s) for name, s in schemes.items())
            first = next(iter(schemes.values()))
            choices[trial.unit].append(Choice(first, size, trial.change.divergence))
        return choices

    def _take(self, chosen: "Plan", every: "Mapping[str, Mapping[str, Scheme]]") -> None:
        """Set the schemes of a plan."""
        self.schemes = {
            unit: {name: s._replace(bits=choice.scheme.bits) for name, s in every[unit].items()}
            for unit, choice in chosen.items()
            if choice.scheme is not None
        }

    def _rest_bytes(self) -> int:
        """Bytes of what no plan changes: other tensors and the header."""
        planned = {name for matrices in self.schemes.values() for name in matrices}
        sizes = [
            stored.size if len(stored.shape) != 2 else min(stored.size, 2 * rows * columns)
            for link in self.source.links
            if not planned & set(link.ours)
            for stored in [self.source.weights.tensors[self.source.names[link.theirs]]]
            for rows, columns in [(*stored.shape, 1, 1)[:2]]
        ]
        return sum(sizes) + HEADER_BYTES * len(self.source.links)
