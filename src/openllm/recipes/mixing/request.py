# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The arguments of `openllm data mix`, checked before a folder is opened."""

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from openllm.core.arguments import Parser
from openllm.core.config import Config
from openllm.core.errors import ConfigError
from openllm.data.mixture import EQUAL, NATURAL, Mixture, refuse_twins
from openllm.export.models.zoo import find_model
from openllm.recipes.build import load_config
from openllm.train.config import PretrainConfig

_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
_FIXED = {
    "data": "folders are given as NAME=FOLDER; choose another name for the source",
    "tokenizer": "use --tokenizer FOLDER",
    "distill": "mixtures are compared without teachers; remove it",
    "duration": "use --tokens",
}


class MixConfig(Config):
    """How much is trained and scored."""

    tokens: int = Field(500_000, ge=1, description="training tokens per run")
    seeds: int = Field(2, ge=1, le=100, description="runs per mixture")
    score_tokens: int = Field(100_000, ge=1, description="approximate tokens scored per target")
    resamples: int = Field(1000, ge=40, description="bootstrap resamples")


@dataclass(frozen=True)
class Request:
    """What to compare, as given on the command line.

    Attributes:
        folders: name of a source -> prepared folder.
        tokenizer: the tokenizer folder.
        mixtures: as written; if empty: each source alone, `natural` and `equal`.
        targets: sources whose validation splits are scored.
        recipe: settings of all runs, except data and tokenizer.
        cfg: how much is trained and scored.
    """

    folders: Mapping[str, Path]
    tokenizer: Path
    mixtures: Sequence[str]
    targets: Sequence[str]
    recipe: PretrainConfig
    cfg: MixConfig

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in self.folders:
                raise ConfigError(
                    f"--target {name}: unknown source; sources: {', '.join(self.folders)}"
                )
        alike = dict.fromkeys(self.folders, 1)
        refuse_twins([Mixture.parse(text, alike) for text in self.mixtures if text != NATURAL])

    def find_mixtures(self, sizes: Mapping[str, int]) -> list[Mixture]:
        """The mixtures, given the tokens of each source."""
        if self.mixtures:
            found = [Mixture.parse(text, sizes) for text in self.mixtures]
            refuse_twins(found)
            return found
        usual = [Mixture.parse(text, sizes) for text in (*sizes, NATURAL, EQUAL)]
        # if all sources are of one size, natural shares are equal ones
        return usual[:-1] if usual[-2].shares == usual[-1].shares else usual


def build_parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    default = MixConfig()
    parser = Parser(
        prog="openllm data mix",
        description="Train tiny models on mixtures of prepared folders and say which mixture gives "
        "the fewest bits per byte on held-out text. Repeating the command does only missing runs.",
        epilog="example: openllm data mix squad=data/squad books=data/books --tokenizer "
        "data/tokenizer --target squad --mixtures squad:1 books:1 squad:0.5,books:0.5 "
        "--out runs/mix",
    )
    add = parser.add_argument
    what = "prepared folders, and key=value settings of the recipe such as model.dim=128"
    add("sources", nargs="+", metavar="NAME=FOLDER", help=what)
    add("--tokenizer", required=True, metavar="DIR", help="tokenizer folder or model")
    add("--out", required=True, metavar="DIR", help="folder for results, report and plot")
    what = "score the validation split of this source (default: of all); repeatable"
    add("--target", action="append", default=[], metavar="NAME", help=what)
    what = (
        "weights such as squad:0.7,books:0.3, the name of one source, natural (by size) or equal "
        "(default: each source alone, natural, equal)"
    )
    add("--mixtures", action="extend", nargs="+", default=[], metavar="MIXTURE", help=what)
    add("--recipe", default="tiny", help="a shipped recipe, or a YAML file")
    add("--tokens", type=int, default=default.tokens, help="training tokens per run")
    add("--seeds", type=int, default=default.seeds, help="runs per mixture")
    what = "approximate number of tokens scored per target; at least 20 documents"
    add("--score-tokens", type=int, default=default.score_tokens, metavar="TOKENS", help=what)
    add("--resamples", type=int, default=default.resamples, help="bootstrap resamples")
    add("--dry-run", action="store_true", help="show the plan and forecast, and stop")
    add("--json", action="store_true", help="print the report (or the plan) as JSON")
    return parser


def read_request(args: argparse.Namespace) -> Request:
    """Check everything that can be checked without opening a folder.

    Raises:
        ConfigError: an argument is invalid; the message says which.
    """
    # argparse takes a setting after --mixtures for another mixture
    stray = [text for text in args.mixtures if "=" in text]
    mixtures = [text for text in args.mixtures if "=" not in text]
    folders, settings = sort_arguments([*args.sources, *stray])
    values = {name: getattr(args, name) for name in MixConfig.model_fields}
    cfg = MixConfig.parse(values, "data mix")
    recipe = load_config(args.recipe, [*settings, f"duration={cfg.tokens} tokens"])
    if recipe.distill is not None:
        raise ConfigError(f"{args.recipe} sets 'distill'; {_FIXED['distill']}")
    targets = tuple(dict.fromkeys(args.target)) or tuple(folders)
    tokenizer = find_model(args.tokenizer) or Path(args.tokenizer)
    return Request(folders, tokenizer, mixtures, targets, recipe, cfg)


def sort_arguments(arguments: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Separate sources from settings: a setting's key has a dot, or is a field of a recipe.

    Raises:
        ConfigError: an argument that is neither, or fewer than two sources.
    """
    fields = sorted(PretrainConfig.model_fields)
    folders: dict[str, Path] = {}
    settings: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(
                f"cannot parse '{argument}'; write sources as NAME=FOLDER, settings as key=value"
            )
        fixed = _FIXED.get(name.partition(".")[0])
        if fixed:
            raise ConfigError(f"'{name}' is not a setting of this command; {fixed}")
        if "." in name or name in fields:
            settings.append(argument)
            continue
        close = difflib.get_close_matches(name, fields, n=1, cutoff=0.8)
        if close and not Path(value).exists():
            raise ConfigError(f"unknown setting '{name}'; did you mean '{close[0]}'?")
        if not _NAME.fullmatch(name) or name in (NATURAL, EQUAL):
            raise ConfigError(
                f"'{name}' is not a valid source name; use letters, digits, '_' and '-', but not "
                f"'{NATURAL}' or '{EQUAL}'"
            )
        if name in folders:
            raise ConfigError(f"two sources are called '{name}'; give each its own name")
        folders[name] = Path(value)
    if len(folders) < 2:
        raise ConfigError("nothing to mix; give two or more sources as NAME=FOLDER")
    return folders, settings
