# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm import`: a model folder of `transformers` becomes one of ours."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.download import cache_folder
from openllm.core.errors import CheckpointError, TokenizerError, UsageError
from openllm.core.files import atomic_folder, check_replaceable, read_json, write_json
from openllm.core.log import say
from openllm.core.runs import source_commit
from openllm.export.inventory import digest_files, fingerprint, model_name, place
from openllm.export.models.safety import choose_downloads
from openllm.export.models.zoo import find_model

if TYPE_CHECKING:
    import torch

    from openllm.checkpoint.source import Source

DTYPES = {"keep": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
VOCABULARIES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Files of which a folder needs at least one group."""

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
CACHE = re.compile(r"models--([\w.-]+)/snapshots/([0-9a-f]{6,64})")
"""Where the hub's cache keeps a model: its id with `--` for `/`, its revision."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm import",
        description="Check a model folder of transformers and write it as one of ours: config and "
        "weights of ten public families, the tokenizer as it is, never code.",
        epilog="example: openllm import downloads/SmolLM2-135M --out models/smollm2",
    )
    parser.add_argument(
        "source", help="folder with config.json, weights and tokenizer; or OWNER/NAME on the Hub"
    )
    parser.add_argument("--revision", help="Hub: branch, tag or commit (default: main)")
    parser.add_argument("--out", help="model folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="keep", help="of the weights")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="also read pickled weights (tensors only)"
    )
    parser.add_argument(
        "--max-shard", default="4GB", metavar="SIZE", help="weights in one file; default: 4GB"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, show the facts and stop")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    args = parser.parse_args(argv)
    if args.out is None and not args.dry_run:
        raise UsageError("--out is missing; name the model folder to write, or add --dry-run")
    max_shard_bytes = read_size(args.max_shard)
    with _folder(args) as source:
        facts = import_model(
            source,
            None if args.dry_run else Path(args.out),
            dtype=args.dtype,
            allow_pickle=args.allow_pickle,
            max_shard_bytes=max_shard_bytes,
        )
    sys.stdout.write(json.dumps(facts, indent=1) + "\n" if args.json else _text(facts))
    return 0


@contextmanager
def _folder(args: argparse.Namespace) -> Iterator[Path]:
    """The folder that the command line names: a path, a model of the zoo, or one of the Hub."""
    found = find_model(args.source)
    if found is not None or HUB_ID.fullmatch(args.source) is None:
        if args.revision is not None:
            raise UsageError("--revision is for models of the Hub")
        yield found or Path(args.source)
        return
    if args.dry_run:
        raise UsageError(
            f"{args.source} is not on this machine; to see its files: "
            f"openllm pull {args.source} --dry-run"
        )
    from openllm.export.models.hub import downloaded, read_repository

    repository = read_repository(args.source, args.revision)
    wanted, _ = choose_downloads(repository.files, allow_pickle=args.allow_pickle)
    with downloaded(repository, wanted) as files, TemporaryDirectory(dir=cache_folder()) as cache:
        # named as in the hub's own cache, from which id and revision are read
        name = f"models--{args.source.replace('/', '--')}"
        folder = Path(cache, name, "snapshots", repository.commit)
        folder.mkdir(parents=True)
        place(files, folder, "reading")
        yield folder


def read_size(text: str, option: str = "--max-shard") -> int:
    """`500MB` -> 500,000,000.

    Raises:
        UsageError: not a size, or less than 1 MB.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?B)?", text.strip().upper())
    size = int(float(match[1]) * UNITS[match[2] or ""]) if match else 0
    if size < 10**6:
        raise UsageError(f"{option} {text}: give a size of at least 1MB, such as 500MB or 4GB")
    return size


def import_model(
    source: Path,
    out: Path | None,
    *,
    dtype: str = "keep",
    allow_pickle: bool = False,
    max_shard_bytes: int,
) -> dict[str, Any]:
    """Check the folder `source` and write the folder `out`, if one is given.

    Args:
        source: a folder as `save_pretrained` or the hub gives it.
        out: replaced if it is a model folder; none: check only.
        dtype: one of `DTYPES`.
        allow_pickle: read pickled weights, if there are no others.
        max_shard_bytes: of weights in a file.

    Returns:
        Facts about the model.

    Raises:
        CheckpointError, TokenizerError: the folder cannot be read; nothing is written.
    """
    import torch

    from openllm.checkpoint.source import open_source

    check_places(source, out)
    model = open_source(source, allow_pickle=allow_pickle)
    check_tokenizer(model)
    name = DTYPES[dtype]
    chosen = None if name is None else getattr(torch, name)
    facts = _facts(model, chosen)
    if model.values.get("quantization_config") is not None:
        say(f"{source} is quantised; the copy has the weights that its integers stand for")
    if out is not None:
        _write(model, out, facts, chosen, max_shard_bytes)
        say(f"done: model in {out}")
    return facts


def check_places(source: Path, out: Path | None) -> None:
    """Refuse what cannot be read or must not be replaced.

    Raises:
        CheckpointError, UsageError: `source` is no folder, or `out` is in its way or holds other
            files than those of a model.
    """
    from openllm.checkpoint.model_dir import MODEL_FILES
    from openllm.checkpoint.weights import SHARD

    if not source.is_dir():
        raise CheckpointError(
            f"{source} is not a folder; give the folder of a model, or OWNER/NAME on the Hub"
        )
    if out is None:
        return
    mine = (
        {file.name for file in out.iterdir() if SHARD.fullmatch(file.name)} if out.is_dir() else ()
    )
    check_replaceable(out, {*MODEL_FILES, *mine}, CheckpointError)
    inside, around = out.resolve(), source.resolve()
    if inside == around or inside.is_relative_to(around) or around.is_relative_to(inside):
        raise UsageError(f"{out} and {source} lie in each other; choose another folder")


def check_tokenizer(model: "Source") -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        TokenizerError: it has none.
    """
    folder = model.folder
    if not any(all((folder / name).is_file() for name in group) for group in VOCABULARIES):
        raise TokenizerError(
            f"{folder} has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with "
            "merges.txt); copy it from where the weights came from"
        )


def _facts(model: "Source", dtype: "torch.dtype | None") -> dict[str, Any]:
    """What an import is about; becomes part of `openllm.json`."""
    from openllm.nn.cost import parameters

    # a hub cache is made of links, so the path as given says more than where it leads
    found = CACHE.search(model.folder.absolute().as_posix())
    return {
        "made_by": "import",
        "parent": found[1].replace("--", "/") if found else model_name(model.folder),
        "revision": found[2] if found else None,
        "family": model.family.model_type,
        "parameters": parameters(model.cfg).total,
        "dtype": str(dtype or model.dtype()).removeprefix("torch."),
        "licence": stated_licence(model.folder),
    }


def stated_licence(folder: Path) -> str | None:
    """The licence of a model, or those of the data it was trained on, as far as stated."""
    return licence(folder / "README.md") or _data_licences(folder)


def licence(card: Path) -> str | None:
    """The licence that the head of a model card states, if any."""
    if not card.is_file():
        return None
    with open(card, encoding="utf-8", errors="replace") as handle:
        head = handle.read(20_000)
    front = re.match(r"\s*---\n(.*?)\n---", head, re.DOTALL)
    found = {
        key: re.search(rf"^{key}:\s*[\"']?([\w.+ -]{{1,80}}?)[\"']?\s*$", front[1], re.MULTILINE)
        for key in ("license_name", "license")
        if front
    }
    return next((match[1] for match in found.values() if match), None)


def _data_licences(folder: Path) -> str | None:
    """The licences of the data that one of our models was trained on."""
    if not (folder / "openllm.json").is_file():
        return None
    lineage = read_json(folder / "openllm.json", CheckpointError, "mend it, or remove it")
    data = lineage.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    found = [source.get("licence") for source in sources or [] if isinstance(source, dict)]
    stated = sorted({licence for licence in found if isinstance(licence, str)})
    return f"of its data: {', '.join(stated)}" if stated else None


def _write(
    model: "Source",
    out: Path,
    facts: dict[str, Any],
    dtype: "torch.dtype | None",
    max_shard_bytes: int,
) -> None:
    from openllm.checkpoint.card import import_card
    from openllm.checkpoint.copying import copy_model, tokenizer_files

    files = [
        model.folder / "config.json", *model.weights.files, *tokenizer_files(model.folder)
    ]  # fmt: skip
    digests = digest_files({path.name: path for path in files}, "checksums")
    lineage = {
        **{key: value for key, value in facts.items() if key != "parent"},
        "parents": [{"name": facts["parent"], "fingerprint": fingerprint(digests)}],
        "commit": source_commit(),
        "files": {name: digest.sha256 for name, digest in digests.items()},
    }
    with atomic_folder(out) as target:
        copy_model(model, target, dtype=dtype, max_shard_bytes=max_shard_bytes)
        (target / "README.md").write_text(import_card(model.cfg, lineage), encoding="utf-8")
        write_json(target / "openllm.json", lineage)


def _text(facts: dict[str, Any]) -> str:
    lines = [
        f"family      {facts['family']}",
        f"parameters  {facts['parameters']:,}",
        f"weights     {facts['dtype']}",
        f"from        {facts['parent']}"
        + (f", revision {facts['revision']}" if facts["revision"] else ""),
        f"licence     {facts['licence'] or 'not stated'}",
    ]
    return "\n".join(lines) + "\n"
