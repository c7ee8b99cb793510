# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm export` and `openllm verify`: a model for other programs, with a certificate."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.errors import CheckpointError, DataError, UsageError
from openllm.core.files import atomic_folder, check_replaceable, read_json, write_json
from openllm.core.log import say, warn
from openllm.export.card import export_card
from openllm.export.certificate import (
    FILE,
    LIMITS,
    add_changes,
    certify,
    digest_export,
    read_certificate,
    refuse_failed,
    summary,
    write_certificate,
)
from openllm.export.formats import FORMATS, PRECISIONS
from openllm.export.inventory import model_fingerprint, model_name
from openllm.export.models.zoo import resolve_model
from openllm.export.reference import Reference, make_reference
from openllm.recipes.import_model import read_size

if TYPE_CHECKING:
    from openllm.text.tokenizer import Tokenizer

PROMPT_TOKENS = 16
ODD_TEXTS = (
    "Once upon a time there was a small house.",
    " two  spaces\tand\n\nnew lines \r\n",
    "naïve café, Straße, \u0130stanbul, 日本語, עברית, 👩‍👩‍👧‍👦, e\u0301",
    "x = 3.14159; y += 10_000 # don't <b>stop</b>",
    "\u200b\ufeff\u2028\U0001f3f4\U000e0067",
)
"""What tokenizers disagree on, for those that come with a runtime."""
LOGIT_BYTES = 2**30
"""Of the logits of one text at most; a text of a large vocabulary is shorter."""


def export_main(argv: list[str]) -> int:
    """Command-line entry point of `openllm export`."""
    args = _export_parser().parse_args(argv)
    shape = FORMATS[args.to]
    options = _options(args)
    source, out = resolve_model(args.model), Path(args.out)
    if not (out / FILE).is_file():  # an earlier export may be replaced
        check_replaceable(out, (), UsageError)
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"--out {out} lies in the model's own folder; choose another one")
    reference = ask_original(source, args)
    with atomic_folder(out) as target:
        say(f"writing {args.to}")
        dtype = shape.write(source, target, **options)
        certificate = certify(
            reference, shape.load(target), format_name=args.to, precision=PRECISIONS[dtype]
        )
        if not args.allow_mismatch:
            refuse_failed(certificate, out)
        reference.save(target)
        _describe(source, target, reference.fingerprint, args.to, dtype)
        certificate["files"] = digest_export(target)
        write_certificate(target, certificate)
        shape.show(target, certificate["verdict"])
    _show(certificate, out, args.json)
    return 0


def verify_main(argv: list[str]) -> int:
    """Command-line entry point of `openllm verify`."""
    parser = Parser(
        prog="openllm verify",
        description="Compute the certificate of an exported folder again, in its own runtime.",
    )
    parser.add_argument("folder", help="what 'openllm export' has written")
    parser.add_argument("--model", help="ask this original again instead of the kept answers")
    _add_questions(parser)
    args = parser.parse_args(argv)
    folder = resolve_model(args.folder)
    old = read_certificate(folder)
    shape = FORMATS.get(str(old.get("format")))
    if shape is None or str(old.get("precision")) not in LIMITS:
        raise CheckpointError(f"{folder / FILE} names no known format; export the model again")
    if args.model is None:
        reference = Reference.load(folder)
        if old.get("original") != {"fingerprint": reference.fingerprint}:
            raise CheckpointError(
                f"{folder}: {FILE} and the kept answers are of different models; export the model "
                "again, or name the original: openllm verify FOLDER --model MODEL"
            )
    else:
        reference = ask_original(resolve_model(args.model), args)
        if old.get("original") != {"fingerprint": reference.fingerprint}:
            warn(f"{args.model} is not the model that {folder} was exported from")
    certificate = certify(
        reference, shape.load(folder), format_name=old["format"], precision=old["precision"]
    )
    add_changes(certificate, folder, old.get("files"))
    _show(certificate, folder, args.json)
    if not args.allow_mismatch:
        refuse_failed(certificate, folder)
    return 0


def _export_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="openllm export",
        description="Write a model for other programs, run it there, and compare: the folder holds "
        "a certificate of how far its answers are from the original's.",
        epilog="; ".join(f"{name}: {shape.help}" for name, shape in FORMATS.items()),
    )
    parser.add_argument("model", help="model folder, such as RUN/model")
    parser.add_argument("--to", required=True, choices=list(FORMATS))
    parser.add_argument("--out", required=True, help="folder to write")
    choices = [f"{name}: {', '.join(shape.dtypes)}" for name, shape in FORMATS.items()]
    dtypes = "; ".join(choice for choice in choices if not choice.endswith(": "))
    parser.add_argument("--dtype", help=f"of the weights; {dtypes}; the first is the default")
    parser.add_argument("--max-mb", type=float, help="web: the folder's largest size in MB")
    parser.add_argument("--runtime", help="web: an unpacked onnxruntime-web package")
    parser.add_argument(
        "--max-shard", metavar="SIZE", help="hf: weights in one file, such as 500MB; default: 4GB"
    )
    _add_questions(parser)
    return parser


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the format's exporter takes.

    Raises:
        UsageError: an option that the format does not have, or lacks.
    """
    shape = FORMATS[args.to]
    given = {
        name: getattr(args, name)
        for name in ("dtype", "max_mb", "runtime", "max_shard")
        if getattr(args, name) is not None
    }
    for name in given:
        if name not in shape.options and not (name == "dtype" and shape.dtypes):
            raise UsageError(f"--{name.replace('_', '-')} has no effect with --to {args.to}")
    if shape.dtypes:
        given.setdefault("dtype", shape.dtypes[0])
        if given["dtype"] not in shape.dtypes:
            choices = ", ".join(shape.dtypes)
            raise UsageError(f"--dtype {given['dtype']}: choose one of {choices} for {args.to}")
    if "max_mb" in shape.options and "max_mb" not in given:
        raise UsageError(f"--to {args.to} needs --max-mb, the largest size of the folder in MB")
    if not given.get("max_mb", 1) > 0:
        raise UsageError("--max-mb must be above 0")
    if "max_shard" in given:
        given["max_shard_bytes"] = read_size(given.pop("max_shard"))
    if "runtime" in given:
        given["runtime"] = Path(given["runtime"])
    return given


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", help="text file to compare on (default: generated text)")
    parser.add_argument("--text-tokens", type=int, default=2048, help="tokens of it")
    parser.add_argument("--prompts", type=int, default=8, help="texts continued greedily")
    parser.add_argument("--new-tokens", type=int, default=256, help="length of each")
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="a failed certificate is no error"
    )
    parser.add_argument("--json", action="store_true", help="print the certificate as JSON")


def ask_original(source: Path, args: argparse.Namespace) -> Reference:
    """The answers of the original model to the questions that the arguments ask."""
    from openllm.export.eager import EagerModel
    from openllm.text.load import load_tokenizer

    if min(args.prompts, args.new_tokens) < 1 or args.text_tokens < 2:
        raise UsageError("--prompts and --new-tokens must be at least 1, --text-tokens at least 2")
    original = EagerModel.load(source)
    context = original.model.cfg.max_positions
    room = LOGIT_BYTES // (4 * original.model.cfg.vocab_size)
    longest = min(context, args.text_tokens, max(room, 2 * PROMPT_TOKENS))
    tokenizer = load_tokenizer(source)
    texts = _texts(tokenizer, args.text, longest)
    chosen: list[list[int]] = []
    room = args.text_tokens
    prompts: list[list[int]] = []
    for text in texts:
        if room >= 2:
            chosen.append(text[:room])
            room -= len(chosen[-1])
        if len(prompts) < args.prompts:
            prompts.append(text[: min(PROMPT_TOKENS, context - 1)])
        elif room < 2:
            break
    new_tokens = min(args.new_tokens, context - max(map(len, prompts)))
    return make_reference(
        original,
        fingerprint=model_fingerprint(source),
        texts=chosen,
        prompts=prompts,
        new_tokens=new_tokens,
        strings={text: tokenizer.encode(text) for text in (*ODD_TEXTS, *tokenizer.controls)},
    )


def _texts(tokenizer: "Tokenizer", path: str | None, longest: int) -> Iterator[list[int]]:
    """Texts as token ids, none longer than `longest`: pieces of a file, or generated ones."""
    from openllm.data.builtin.corpus import generate

    if path is None:
        yield _long_text(tokenizer, longest)
        for document in generate("test", seed=0):
            ids = [*tokenizer.prefix, *tokenizer.encode(document.text)][:longest]
            if len(ids) >= 2:
                yield ids
        return
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); give a UTF-8 file") from None
    ids = tokenizer.encode(text)
    pieces = [ids[at : at + longest - 1] for at in range(0, len(ids), longest - 1)]
    if not pieces or len(pieces[0]) < 2:
        raise DataError(f"{path} holds less than two tokens; give a longer text")
    for piece in pieces:
        yield [*tokenizer.prefix, *piece]


def _long_text(tokenizer: "Tokenizer", length: int) -> list[int]:
    """Documents in one text: what depends on distance does not show in short ones."""
    from openllm.data.builtin.corpus import generate

    ids = list(tokenizer.prefix)
    for document in generate("validation", seed=0):
        ids += tokenizer.encode(f"{document.text}\n\n")
        if len(ids) >= length:
            return ids[:length]
    raise AssertionError("the corpus is endless")


def _describe(source: Path, target: Path, fingerprint: str, to: str, dtype: str) -> None:
    """Card and lineage: those of the original, and what was made of it."""
    for name in ("README.md", "LICENSE", "LICENCE", "NOTICE"):
        if (source / name).exists() and not (target / name).exists():
            shutil.copyfile(source / name, target / name)
    if usage := FORMATS[to].usage:
        card = target / "README.md"
        text = card.read_text("utf-8", errors="replace") if card.exists() else ""
        text = export_card(text, name=model_name(source), to=to, usage=usage)
        card.write_text(text, "utf-8")
    lineage: dict[str, Any] = {}
    if (source / "openllm.json").exists():
        lineage = read_json(source / "openllm.json", CheckpointError, "mend it, or remove it")
    lineage["parents"] = [{"name": model_name(source), "fingerprint": fingerprint}]
    lineage["export"] = {"format": to, "dtype": dtype}
    write_json(target / "openllm.json", lineage)


def _show(certificate: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(certificate) + "\n")
        return
    sys.stdout.write("\n".join([f"{folder}", "", *summary(certificate)]) + "\n")
