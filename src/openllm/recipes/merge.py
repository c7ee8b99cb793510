# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm merge`: a base model and a low-rank adapter become one model folder."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.files import atomic_folder, write_json
from openllm.core.log import say
from openllm.core.runs import source_commit
from openllm.export.inventory import digest_files, fingerprint, model_name, printable
from openllm.export.models.zoo import resolve_model
from openllm.recipes.import_model import (
    DTYPES,
    check_places,
    check_tokenizer,
    read_size,
    stated_licence,
)

if TYPE_CHECKING:
    from openllm.checkpoint.source import Source
    from openllm.nn.lora import Adapter


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm merge",
        description="Merge a LoRA, rsLoRA or DoRA adapter, in PEFT's format, into its base model.",
        epilog="example: openllm merge models/smollm2 adapters/poems models/poet",
    )
    parser.add_argument("base", help="model folder, or a name from 'models ls'")
    parser.add_argument(
        "adapter", help="folder with adapter_config.json and adapter_model.safetensors"
    )
    parser.add_argument("out", help="model folder to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="keep", help="of the weights; default: as in the base"
    )
    parser.add_argument(
        "--max-shard", default="4GB", metavar="SIZE", help="weights in one file; default: 4GB"
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    args = parser.parse_args(argv)
    max_shard_bytes = read_size(args.max_shard)
    facts = merge_adapter(
        resolve_model(args.base),
        Path(args.adapter),
        Path(args.out),
        dtype=args.dtype,
        max_shard_bytes=max_shard_bytes,
    )
    sys.stdout.write(json.dumps(facts, indent=1) + "\n" if args.json else _text(facts))
    return 0


def merge_adapter(
    base: Path, adapter: Path, out: Path, *, dtype: str = "keep", max_shard_bytes: int
) -> dict[str, Any]:
    """Write the folder `out`: the model `base` with the adapter in its weights.

    Args:
        base: a model folder.
        adapter: as PEFT writes it; left as it is.
        out: replaced if it is a model folder.
        dtype: one of `DTYPES`.
        max_shard_bytes: of weights in a file.

    Returns:
        Facts about the model.

    Raises:
        CheckpointError, TokenizerError: a folder cannot be read, or they do not fit; nothing is
            written.
    """
    import torch

    from openllm.checkpoint.adapter_modules import Base
    from openllm.checkpoint.adapters import read_adapter
    from openllm.checkpoint.copying import copy_model
    from openllm.checkpoint.merging import merged_tensors
    from openllm.checkpoint.source import open_source

    check_places(base, out)
    model = open_source(base)
    check_tokenizer(model)
    change = read_adapter(adapter, Base.of(model.cfg, model.family))
    check_places(adapter, out)
    name = DTYPES[dtype]
    chosen = None if name is None else getattr(torch, name)
    facts = _facts(model, change, adapter, chosen or model.dtype())
    replaced = merged_tensors(model, change, chosen)
    if model.values.get("quantization_config") is not None:
        say(f"{base} is quantised; the result has the weights that its integers stand for")
    with atomic_folder(out) as target:
        copy_model(model, target, dtype=chosen, max_shard_bytes=max_shard_bytes, replaced=replaced)
        _describe(model, adapter, facts, target)
    say(f"done: model in {out}")
    return facts


def _facts(model: "Source", change: "Adapter", adapter: Path, dtype: object) -> dict[str, Any]:
    """What a merge is about; becomes part of `openllm.json`."""
    from openllm.nn.cost import parameters

    return {
        "made_by": "merge",
        "base": model_name(model.folder),
        "adapter": printable(adapter.resolve().name),
        "family": model.family.model_type,
        "parameters": parameters(model.cfg).total,
        "dtype": str(dtype).removeprefix("torch."),
        "changed": len(change.changes),
        "ranks": sorted({low.rank for low in change.changes.values()}),
        "licence": stated_licence(model.folder),
    }


def _describe(model: "Source", adapter: Path, facts: dict[str, Any], target: Path) -> None:
    """Card and lineage."""
    from openllm.checkpoint.adapters import FILES
    from openllm.checkpoint.card import merge_card
    from openllm.checkpoint.copying import tokenizer_files

    base = [model.folder / "config.json", *model.weights.files, *tokenizer_files(model.folder)]
    digests = [
        digest_files({path.name: path for path in paths}, "checksums")
        for paths in (base, [adapter / name for name in FILES])
    ]
    lineage = {
        **facts,
        "parents": [
            {"name": facts[key], "fingerprint": fingerprint(found)}
            for key, found in zip(("base", "adapter"), digests, strict=True)
        ],
        "commit": source_commit(),
        "files": {name: digest.sha256 for found in digests for name, digest in found.items()},
    }
    (target / "README.md").write_text(merge_card(model.cfg, lineage), encoding="utf-8")
    write_json(target / "openllm.json", lineage)


def _text(facts: dict[str, Any]) -> str:
    ranks = ", ".join(f"{rank}" for rank in facts["ranks"])
    lines = [
        f"base        {facts['base']} ({facts['family']})",
        f"adapter     {facts['adapter']}: {facts['changed']} matrices, rank {ranks}",
        f"parameters  {facts['parameters']:,}",
        f"weights     {facts['dtype']}",
        f"licence     {facts['licence'] or 'not stated'} (of the base)",
    ]
    return "\n".join(lines) + "\n"
