# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm push` and `openllm pull`: models to and from the Hugging Face Hub."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.errors import DownloadError, UsageError
from openllm.core.files import atomic_folder, check_replaceable
from openllm.core.log import say
from openllm.export.inventory import CONFIG, WEIGHTS, check_model, list_files, place, printable
from openllm.export.models.entry import Origin
from openllm.export.models.safety import check_upload, choose_downloads
from openllm.export.models.zoo import Zoo, resolve_model

_GO_ON = "repeat the command to go on; what was transferred is not transferred again"


def push_main(argv: list[str]) -> int:
    """Entry point of `openllm push`."""
    parser = Parser(
        prog="openllm push",
        description="Upload a model to the Hugging Face Hub; a new repository is private.",
        epilog="example: openllm push runs/squad/model me/squad-small --dry-run",
    )
    parser.add_argument("model", help="model folder, or a name from 'models ls'")
    parser.add_argument("repo", help="OWNER/NAME; created if there is none")
    parser.add_argument("--public", action="store_true", help="anyone may read the repository")
    parser.add_argument("--revision", help="branch to commit to (default: main)")
    parser.add_argument("--message", default="Upload model", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="list the files and stop")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    from openllm.export.models.hub import check_repository_name, push

    if not args.message.strip():
        raise UsageError("--message must not be empty")
    check_repository_name(args.repo, owner=True)
    folder = resolve_model(args.model)
    files = list_files(folder)
    check_model(files, str(folder))
    check_upload(folder, files)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    facts: dict[str, Any] = {"repository": args.repo, "public": args.public, **_listed(sizes)}
    if args.dry_run or not args.json:
        _show(facts, as_json=args.json)
    if args.dry_run:
        return 0
    try:
        url = push(
            files,
            args.repo,
            public=args.public,
            revision=args.revision,
            message=args.message,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_GO_ON) from None
    _show({**facts, "url": url}, as_json=True) if args.json else sys.stdout.write(f"{url}\n")
    return 0


def pull_main(argv: list[str]) -> int:
    """Entry point of `openllm pull`."""
    args = _pull_parser().parse_args(argv)
    from openllm.export.models.hub import downloaded, read_repository

    out = None if args.out is None else Path(args.out)
    if out is not None:
        check_replaceable(out, (), UsageError)
    repository = read_repository(args.repo, args.revision)
    wanted, skipped = choose_downloads(
        repository.files, args.include, allow_pickle=args.allow_pickle
    )
    sizes = {name: repository.files[name].size for name in wanted}
    facts = {"repository": args.repo, "commit": repository.commit, **_listed(sizes)}
    facts["skipped"] = skipped
    if args.dry_run or not args.json:
        _show(facts, as_json=args.json)
    _check_wanted(args.repo, sizes, to_zoo=out is None)
    origin = Origin(kind="hub", repository=args.repo, commit=repository.commit)
    if args.dry_run or (out is None and _is_here(origin, wanted, args.replace)):
        return 0
    try:
        with downloaded(repository, wanted) as files:
            where = _keep(files, out, origin, args.replace)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_GO_ON) from None
    _show({**facts, "folder": where}, as_json=True) if args.json else sys.stdout.write(f"{where}\n")
    return 0


def _pull_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="openllm pull",
        description="Download a model from the Hugging Face Hub and register it for 'models ls'. "
        "Only weights and text are downloaded, and nothing is run.",
        epilog="example: openllm pull owner/name --dry-run",
    )
    add = parser.add_argument
    add("repo", help="OWNER/NAME")
    add("--revision", help="branch, tag or commit (default: main)")
    add("--out", help="a new folder (default: a model for 'models ls')")
    what = "only files that match, such as '*.json'; may be repeated"
    add("--include", action="append", default=[], metavar="PATTERN", help=what)
    add("--allow-pickle", action="store_true", help="also *.bin, *.pt, *.pkl and the like")
    add("--replace", action="store_true", help="replace a model of that name")
    add("--dry-run", action="store_true", help="list the files and stop")
    add("--json", action="store_true", help="print as JSON")
    return parser


def _is_here(origin: Origin, names: Sequence[str], replace: bool) -> bool:
    """Whether the zoo holds that commit; refuses a name that is taken by something else."""
    zoo, name = Zoo(), str(origin.repository)
    entry = zoo.find(name)
    record = None if entry is None or entry.problems else entry.record
    if record is not None and record.origin == origin and set(record.files) == set(names):
        say(f"{name} is here already, at that commit")
        return True
    zoo.check_free(name, replace=replace)
    return False


def _keep(files: Mapping[str, Path], out: Path | None, origin: Origin, replace: bool) -> str:
    """Put downloaded files where they belong; returns that folder."""
    if out is None:
        name = str(origin.repository)
        return str(Zoo().add(files, name, origin=origin, replace=replace).model)
    with atomic_folder(out) as target:
        place(files, target, f"writing {out.name}")
    return str(out)


def _check_wanted(repo: str, sizes: Mapping[str, int], *, to_zoo: bool) -> None:
    """Refuse before the first byte what would not be a model."""
    if not sizes:
        raise DownloadError(
            f"{repo} holds no files to download; see: openllm pull {repo} --dry-run"
        )
    weights = any(name.endswith(WEIGHTS) for name in sizes)
    gguf = any(name.endswith(".gguf") for name in sizes)
    if to_zoo and not (weights and (gguf or CONFIG in sizes)):
        raise DownloadError(
            f"what would be downloaded from {repo} is not a model: it needs {CONFIG} and weights "
            f"({', '.join('*' + suffix for suffix in WEIGHTS)}); for the files alone, use --out"
        )


def _listed(sizes: Mapping[str, int]) -> dict[str, Any]:
    return {"files": dict(sizes), "bytes": sum(sizes.values())}


def _show(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the files and their sizes."""
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    rows = [(f"{size:,}", name) for name, size in facts["files"].items()]
    rows.append((f"{facts['bytes']:,}", f"bytes in {len(rows)} files"))
    width = max(len(size) for size, _ in rows)
    lines = [f"{size:>{width}}  {name}" for size, name in rows]
    lines += [f"skipped: {name} ({why})" for name, why in facts.get("skipped", {}).items()]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
