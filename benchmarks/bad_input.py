# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bad input of every kind, and the resulting messages.

    python benchmarks/bad_input.py      writes benchmarks/results/bad_input.md

The cases are also tests (tests/e2e/test_bad_input.py): each exits with its code and one message
that contains the given words, without a traceback, and changes no file.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from openllm.cli.main import main as openllm
from openllm.core.files import write_json

RESULT = Path(__file__).resolve().parent / "results" / "bad_input.md"
SHAPE = (
    "model.dim=64 model.num_layers=1 model.attention.num_heads=1 model.mlp.hidden_dim=64 "
    "model.max_positions=64 batch.seq_len=64 batch.tokens=128 batch.micro_rows=2 threads=1 "
    "validation.tokens=500 'duration=4 steps'"
)
GOOD = f"data=data tokenizer=tokenizer {SHAPE}"
MIX = "data mix --tokenizer tokenizer --out new a=data"


@dataclass(frozen=True)
class Case:
    """One bad input."""

    what: str
    line: str
    """The command line after `openllm`."""
    code: int
    says: str
    """Words that the message must contain."""
    stdin: bytes = b""


CASES = [
    # the command line itself
    Case("unknown command", "trian small", 2, "did you mean 'openllm train'"),
    Case("noun without verb", "data", 2, "needs a subcommand"),
    Case("unknown verb of a noun", "tokenizer trian", 2, "openllm tokenizer train"),
    Case("missing argument", "train small", 2, "required: --out"),
    Case("unknown option", "evaluate run/model --data data --speed", 2, "--speed"),
    Case("option that is no number", "generate run/model --prompt a --seed x", 2, "--seed"),
    # text sources
    Case("no such file", "data prepare none.txt --out new", 1, "none.txt"),
    Case("pattern without a match", "data prepare 'none/*.txt' --out new", 1, "none/*.txt"),
    Case("empty file", "data prepare empty.txt --out new", 1, "error: "),
    Case("empty folder", "data prepare hollow --out new", 1, "hollow"),
    Case("binary file", "data prepare noise.bin --out new", 1, "noise.bin"),
    Case("unknown format", "data prepare paper.pdf --out new", 1, "paper.pdf"),
    Case("damaged gzip", "data prepare damaged.txt.gz --out new", 1, "error: "),
    Case("jsonl without the field", "data prepare fields.jsonl --out new", 1, "error: "),
    Case("csv without the column", "data prepare table.csv --out new", 1, "text"),
    Case("no parquet", "data prepare noise.parquet --out new", 1, "error: "),
    Case("only short documents", "data prepare short.txt --out new", 1, "error: "),
    Case("empty standard input", "data prepare - --out new", 1, "error: "),
    Case("SQuAD that is none", "data prepare squad --source fields.jsonl --out new", 1, "error: "),
    Case("unknown setting", "data prepare stories.jsonl qualty.min_words=3 --out new", 2, "qualty"),
    Case(
        "shares above 1",
        "data prepare stories.jsonl --test 0.9 --validation 0.9 --out new",
        2,
        "error: ",
    ),
    Case("no workers", "data prepare stories.jsonl --workers 0 --out new", 2, "at least 1"),
    Case("output is a file", "data prepare stories.jsonl --out empty.txt", 2, "empty.txt"),
    Case("output has other files", "data prepare stories.jsonl --out precious", 2, "precious"),
    Case("output is there already", "data prepare stories.jsonl --out data", 2, "--force"),
    Case(
        "output holds a tokenizer, too",
        "data prepare stories.jsonl --out data-full --force",
        2,
        "which --force would delete",
    ),
    Case(
        "output is the current folder",
        "tokenizer train data --vocab-size 640 --out .",
        1,
        "error: ",
    ),
    Case("quote that is not closed", "data prepare quote.csv --out new", 1, "quote.csv:2"),
    Case("all documents share a phrase", "data prepare footers --out new", 1, "sincerely"),
    # prepared folders
    Case("no such folder", "data inspect none", 1, "none"),
    Case("not a prepared folder", "data inspect precious", 1, "precious"),
    Case(
        "documents cut off",
        "data tokenize data-cut --tokenizer tokenizer --out new",
        1,
        "prepare the folder again",
    ),
    Case("broken index", "data inspect data-broken", 1, "not valid JSON"),
    Case("index of a later version", "data inspect data-later", 1, "format_version 99"),
    # tokenizers
    Case("tokenizer of no data", "tokenizer train none --out new", 1, "none"),
    Case(
        "more tokens than the text gives",
        "tokenizer train data --vocab-size 60000 --out new",
        1,
        "vocab",
    ),
    Case("too few tokens", "tokenizer train data --vocab-size 10 --out new", 2, "576"),
    Case(
        "output of another kind",
        "tokenizer train data --vocab-size 640 --out precious",
        1,
        "precious",
    ),
    Case("no tokenizer there", "tokenizer inspect precious --data data", 1, "precious"),
    Case(
        "damaged tokenizer",
        "data tokenize data --tokenizer tokenizer-broken",
        1,
        "tokenizer-broken",
    ),
    Case(
        "shards into another folder",
        "data tokenize data --tokenizer tokenizer --out precious",
        1,
        "precious",
    ),
    # mixtures
    Case("nothing to mix", MIX, 2, "two or more"),
    Case("source without a name", f"{MIX} data", 2, "NAME=FOLDER"),
    Case("two sources of one name", f"{MIX} a=run", 2, "two sources are called 'a'"),
    Case("mixture of an unknown source", f"{MIX} b=run --mixtures a:1,c:1", 2, "sources: a, b"),
    Case("negative weight", f"{MIX} b=run --mixtures a:1,b:-1", 2, "positive numbers"),
    Case("weight that is no number", f"{MIX} b=run --mixtures a:1,b:nan", 2, "positive numbers"),
    Case("the same mixture twice", f"{MIX} b=run --mixtures a:1,b:1 a:.5,b:.5", 2, "are the same"),
    Case("unknown target", f"{MIX} b=run --target c", 2, "--target c"),
    Case("no tokens to train on", f"{MIX} b=run --tokens 0", 2, "tokens"),
    Case("misspelt setting beside sources", f"{MIX} clip_nrom=2", 2, "did you mean 'clip_norm'"),
    Case("setting that is an option", f"{MIX} b=run 'duration=1 epochs'", 2, "--tokens"),
    Case("source folder missing", f"{MIX} b=none", 1, "none"),
    Case("source of a later version", f"{MIX} b=data-later", 1, "format_version 99"),
    Case("source that is no prepared folder", f"{MIX} b=precious", 1, "openllm data prepare"),
    Case("the same documents twice", f"{MIX} b=data-full", 2, "same documents"),
    Case("mixtures into a foreign folder", f"{MIX} b=run --out precious", 2, "thesis.txt"),
    # recipes and settings
    Case("unknown preset", "model inspect smal", 2, "did you mean 'small'"),
    Case("unknown recipe", f"train tini {GOOD} --out new", 2, "did you mean 'tiny'"),
    Case("recipe file missing", "train none.yaml --out new", 2, "none.yaml does not exist"),
    Case("recipe is no YAML", "train broken.yaml --out new", 2, "not valid YAML"),
    Case("recipe is a list", "train list.yaml --out new", 2, "key: value"),
    Case("recipes in a circle", "train circle.yaml --out new", 2, "break the cycle"),
    Case("unknown key", f"train tiny {GOOD} batch.sequence=3 --out new", 2, "batch.sequence"),
    Case(
        "misspelt key",
        f"train tiny {GOOD} optim.weight_decey=3 --out new",
        2,
        "did you mean 'weight_decay'",
    ),
    Case("word for a number", f"train tiny {GOOD} optim.lr=fast --out new", 2, "optim.lr"),
    Case("number out of range", f"train tiny {GOOD} optim.lr=-1 --out new", 2, "optim.lr"),
    Case("not a number", f"train tiny {GOOD} clip_norm=.nan --out new", 2, "clip_norm"),
    Case("setting without a value", f"train tiny {GOOD} nonsense --out new", 2, "key=value"),
    Case(
        "heads that do not fit",
        "model inspect small model.attention.num_kv_heads=3",
        2,
        "multiple of num_kv_heads",
    ),
    Case(
        "row longer than the context", "model inspect small batch.seq_len=4096", 2, "max_positions"
    ),
    Case("step that is no whole rows", "model inspect small batch.tokens=1000", 2, "try "),
    Case("unknown kind", "model inspect small model.mlp.kind=moe", 2, "model.mlp"),
    Case("duration without a unit", f"train tiny {GOOD} duration=4 --out new", 2, "duration"),
    # training
    Case("no data named", "train tiny tokenizer=tokenizer --out new", 2, "'data' is missing"),
    Case("no tokenizer named", "train tiny data=data --out new", 2, "'tokenizer' is missing"),
    Case("data folder missing", f"train tiny {GOOD} data=none --out new", 1, "none"),
    Case("wrong vocabulary", f"train tiny {GOOD} model.vocab_size=99 --out new", 2, "vocab_size"),
    Case("device that is not there", f"train tiny {GOOD} device=cuda --out new", 2, "device=auto"),
    Case("run of another recipe", f"train tiny {GOOD} seed=7 --out run", 2, "--fresh"),
    Case("run of other data", f"train tiny {GOOD} --out run-other", 2, "--fresh"),
    Case("run folder of another kind", f"train tiny {GOOD} --out precious", 2, "precious"),
    Case("run folder is a file", f"train tiny {GOOD} --out empty.txt", 1, "empty.txt"),
    # machine speed
    Case("unknown preset of the bench", "bench --presets smal", 2, "large, medium, small, tiny"),
    Case("preset without a name", "bench --presets tiny,,small", 2, "unknown preset ''"),
    Case("no time to measure", "bench --minutes 0", 2, "between 0 and 1440"),
    Case("time that is no number", "bench --minutes nan", 2, "--minutes nan"),
    Case("no threads", "bench --threads 0", 2, "--threads 0 must be between 1 and"),
    Case("more threads than cores", "bench --threads 99999", 2, "the number of cores here"),
    Case("unknown device", "bench --device tpu", 2, "invalid choice: 'tpu'"),
    Case("report into a folder", "bench --out precious", 2, "name a file"),
    Case("report over another file", "bench --out precious/thesis.txt", 2, "thesis.txt"),
    Case("report over a JSON of ours", "bench --out data/index.json", 2, "not a report of"),
    # model folders
    Case("no such model", "generate none --prompt a", 1, "none"),
    Case("no model there", "generate precious --prompt a", 1, "precious"),
    Case("weights missing", "generate model-weightless --prompt a", 1, "model-weightless"),
    Case("weights damaged", "generate model-damaged --prompt a", 1, "model-damaged"),
    Case("weights of another shape", "generate model-other --prompt a", 1, "model-other"),
    Case("heads that do not divide", "generate model-odd --prompt a", 1, "num_key_value_heads"),
    Case("vocabulary of null", "model inspect model-null", 1, "vocab_size"),
    Case("unknown architecture", "generate model-foreign --prompt a", 1, "mamba"),
    Case("model config is no JSON", "model inspect model-unreadable", 1, "not valid JSON"),
    # evaluation and text
    Case("evaluation data missing", "evaluate run/model --data none", 1, "none"),
    Case("no such split", "evaluate run/model --data data --split dev", 1, "dev"),
    Case("empty evaluation file", "evaluate run/model --data empty.txt", 1, "empty.txt"),
    Case("prompt is missing", "generate run/model", 2, "--prompt"),
    Case(
        "negative temperature", "generate run/model --prompt a --temperature -1", 2, "temperature"
    ),
    Case("endless temperature", "generate run/model --prompt a --temperature inf", 2, "finite"),
    Case("top-p above 1", "generate run/model --prompt a --top-p 2", 2, "top_p"),
    Case(
        "no tokens wanted", "generate run/model --prompt a --max-new-tokens 0", 2, "max_new_tokens"
    ),
    Case("empty stop text", "generate run/model --prompt a --stop ''", 2, "--stop"),
    Case("prompt is no text", "generate run/model --prompt -", 2, "UTF-8", b"\xff\xfe\x80"),
    Case(
        "prompt longer than the context",
        f"generate run/model --prompt '{'ba ' * 200}'",
        2,
        "shorten the prompt",
    ),
]


def build(folder: Path) -> None:
    """Create the good folders, using the commands themselves, and the bad ones."""
    draw = random.Random(0)
    words = [
        "".join(draw.choices(["ba", "ko", "li", "mu", "ne", "po", "ra"], k=3)) for _ in range(80)
    ]
    texts = [" ".join(draw.choices(words, k=40)).capitalize() + "." for _ in range(300)]
    (folder / "stories.jsonl").write_text(
        "".join(
            json.dumps({"text": text, "title": f"{i // 3}"}) + "\n" for i, text in enumerate(texts)
        )
    )
    for line in (
        "data prepare stories.jsonl --out data --workers 1",
        "tokenizer train data --vocab-size 640 --out tokenizer",
        f"train tiny {GOOD} --out run",
    ):
        code, said = run(Case("", line, 0, ""), folder)
        if code:
            raise RuntimeError(f"openllm {line}: {said}")
    noise = draw.randbytes(4000)
    for name in ("noise.bin", "noise.parquet", "paper.pdf"):
        (folder / name).write_bytes(noise)
    (folder / "damaged.txt.gz").write_bytes(gzip.compress(noise)[:-2000])
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("Too short.")
    (folder / "fields.jsonl").write_text('{"words": "these are not in the field named text"}\n' * 9)
    (folder / "table.csv").write_text("title,body\na,this text is in the column named body\n")
    (folder / "broken.yaml").write_text("model: [1, 2\n")
    (folder / "list.yaml").write_text("- model\n")
    (folder / "circle.yaml").write_text("base: circle.yaml\n")
    (folder / "quote.csv").write_text('text\n"To be, or not to be\nthat is the question\n')
    (folder / "footers").mkdir()
    for i, text in enumerate(texts[:40]):
        shared = "sincerely yours, all of us at the office of the company on the hill by the sea"
        (folder / "footers" / f"{i}.txt").write_text(f"{text} {shared}")
    (folder / "hollow").mkdir()
    (folder / "precious").mkdir()
    (folder / "precious" / "thesis.txt").write_text("years of work")
    _spoil(folder)


def _spoil(folder: Path) -> None:
    """Copy the good folders, with one fault each."""
    for name in ("data-broken", "data-later", "data-full", "data-cut"):
        shutil.copytree(folder / "data", folder / name)
    shutil.copytree(folder / "tokenizer", folder / "data-full" / "tokenizer")
    lines = (folder / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "data-cut" / "train.jsonl").write_text("".join(lines[:-9]))
    (folder / "data-broken" / "index.json").write_text('{"kind": ')
    (folder / "data-later" / "index.json").write_text('{"format_version": 99}')
    shutil.copytree(folder / "tokenizer", folder / "tokenizer-broken")
    (folder / "tokenizer-broken" / "tokenizer.model").write_bytes(b"\x00" * 99)
    shutil.copytree(folder / "run", folder / "run-other")
    write_json(folder / "run-other" / "inputs.json", {"data": "0" * 64, "tokenizer": "0" * 64})
    for fault in ("weightless", "damaged", "other", "odd", "null", "foreign", "unreadable"):
        shutil.copytree(folder / "run" / "model", folder / f"model-{fault}")
    (folder / "model-weightless" / "model.safetensors").unlink()
    weights = folder / "model-damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    for fault, changes in (
        ("other", {"num_hidden_layers": 3}),
        ("odd", {"num_key_value_heads": 3}),
        ("null", {"vocab_size": None}),
        ("foreign", {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}),
    ):
        path = folder / f"model-{fault}" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (folder / "model-unreadable" / "config.json").write_text("{")


def run(case: Case, folder: Path) -> tuple[int, str]:
    """Run one command line inside `folder`; return exit code and standard error."""
    err = io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(case.stdin))
    here = os.getcwd()
    os.chdir(folder)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", stdin),
        ):
            return openllm(shlex.split(case.line)), err.getvalue()
    finally:
        os.chdir(here)


def snapshot(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder with everything the cases need."""
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        yield Path(name)


def main() -> int:
    """Run all cases and write the table."""
    lines = [
        "# Bad input, and what is said about it",
        "",
        "Written by `python benchmarks/bad_input.py`.",
        "",
        "| what | command | exit code | message |",
        "|---|---|---|---|",
    ]
    with workshop() as folder:
        for case in CASES:
            code, said = run(case, folder)
            shown = said.replace(f"{folder.resolve()}/", "").replace("\n  ", " ")
            shown = " ".join(shown[shown.index("error: ") :].split())
            command = case.line.replace(GOOD, "(good settings)")[:70]
            cells = (case.what, f"`openllm {command}`", str(code), shown)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(CASES)} cases: {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
