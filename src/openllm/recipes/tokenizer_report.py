# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What `openllm tokenizer inspect` measures and reports."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.core.errors import DataError
from openllm.core.log import say, warn
from openllm.data.document import Document, read_documents, read_index
from openllm.data.reading.readers import Place, ReadOptions, read_file
from openllm.data.reading.sources import InputFile, open_source
from openllm.nn.cost import matmul_parameters, parameters
from openllm.recipes.build import load_config
from openllm.text.load import load_tokenizer
from openllm.text.measure import Fit, fit_by_group, rare_share
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import TokenizerSettings, sample, train_model

PRESETS = ("tiny", "small", "medium", "large")
RARE = 20
"""A token seen less often in the training text has a barely trained embedding."""
MANY = 40
"""Most groups shown; of more, only both ends are shown."""


@dataclass(frozen=True)
class TextSource:
    """Texts from prepared folders and from files of any readable format; can be read repeatedly."""

    folders: tuple[Path, ...]
    files: tuple[InputFile, ...]

    @classmethod
    def open(cls, arguments: Sequence[str]) -> "TextSource":
        """Resolve the arguments of `--data`.

        Raises:
            DataError: nothing readable there.
        """
        folders, files = [], []
        for argument in arguments:
            if (Path(argument) / "index.json").exists():
                read_index(argument)
                folders.append(Path(argument))
            else:
                files += open_source(argument).files
        return cls(tuple(folders), tuple(files))

    def __bool__(self) -> bool:
        return bool(self.folders or self.files)

    def groups(self) -> Iterator[tuple[str, str]]:
        """`(group, text)` pairs; the group is a folder's split, or a file's language or name."""
        for folder in self.folders:
            for split in ("train", "validation", "test"):
                yield from ((split, doc.text) for doc in read_documents(folder, split))
        for file in self.files:
            for document in _read(file):
                language = document.title if file.format != ".json" else None
                yield language or Path(file.name).name, document.text

    def part(self, *, held_out: bool) -> Iterator[tuple[str, str]]:
        """`(id, text)` to train on, or held out: validation and test, or every tenth of a file."""
        for folder in self.folders:
            for split in ("validation", "test") if held_out else ("train",):
                yield from ((doc.id, doc.text) for doc in read_documents(folder, split))
        for file in self.files:
            for number, document in enumerate(_read(file)):
                if (number % 10 == 9) == held_out:
                    yield f"{file.name}:{number}", document.text


def _read(file: InputFile) -> Iterator[Document]:
    """The documents of a file, with the language, if stated, in place of the title."""
    options = ReadOptions(title_keys=("lang",), split_paragraphs=True)
    place = Place(file.name, file.path)
    broken = 0
    for record in read_file(
        file.path, file.format, file.compression, place, options, lambda _: None
    ):
        if isinstance(record, Document):
            yield record
        else:
            broken += 1
    if broken:
        warn(f"{file.path}: {broken} records could not be read and were skipped")


@dataclass
class Size:
    """One vocabulary size in the comparison."""

    vocab_size: int
    held_out: Fit
    rare: float

    def flops_per_byte(self, preset: str) -> float:
        """FLOPs of a forward pass per byte of text, without the attention scores."""
        shape = load_config(preset).model.model_copy(update={"vocab_size": self.vocab_size})
        return 2 * matmul_parameters(shape) / self.held_out.bytes_per_token


@dataclass
class Report:
    """Everything that was measured."""

    folder: str
    tokenizer: Tokenizer
    groups: dict[str, Fit] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)

    @property
    def total(self) -> Fit:
        """All groups together."""
        total = Fit()
        for fit in self.groups.values():
            for name, value in vars(fit).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def suits(self) -> dict[str, int]:
        """Preset -> the vocabulary size with the least compute per byte of held-out text."""
        if not self.sizes:
            return {}
        return {
            preset: min(self.sizes, key=lambda size: size.flops_per_byte(preset)).vocab_size
            for preset in PRESETS
        }

    def facts(self) -> dict[str, Any]:
        """The report as plain values."""
        tokenizer = self.tokenizer
        return {
            "folder": self.folder,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            "embeddings": embedding_shares(tokenizer.vocab_size),
            "groups": {name: fit.facts() for name, fit in self.groups.items()},
            "total": self.total.facts() if self.groups else None,
            "vocab_sizes": [
                {
                    "vocab_size": size.vocab_size,
                    "held_out": size.held_out.facts(),
                    f"pieces_seen_less_than_{RARE}_times": size.rare,
                    "embeddings": embedding_shares(size.vocab_size),
                    "forward_flops_per_byte": {p: size.flops_per_byte(p) for p in PRESETS},
                }
                for size in self.sizes
            ],
            "suits": self.suits(),
        }

    def text(self) -> str:
        """The report as text."""
        lines = [
            f"{self.folder}: {self.tokenizer.vocab_size:,} tokens, "
            f"fingerprint {self.tokenizer.fingerprint[:12]}",
            "",
            *_embedding_lines(self.tokenizer.vocab_size),
        ]
        if self.groups:
            lines += ["", *_group_lines(self.groups, self.total)]
        if self.sizes:
            lines += ["", *_size_lines(self.sizes, self.suits())]
        return "\n".join(lines) + "\n"


def inspect(folder: Path, texts: TextSource, sizes: Sequence[TokenizerSettings] = ()) -> Report:
    """Measure a tokenizer on texts, and train and measure other vocabulary sizes on them.

    Raises:
        TokenizerError: no tokenizer there, or too little text for one of the sizes.
        DataError: no text.
    """
    tokenizer = load_tokenizer(folder)
    report = Report(str(folder), tokenizer)
    if texts:
        report.groups = fit_by_group(tokenizer, texts.groups())
        if not report.total.tokens:
            raise DataError("there is no text in --data; give files or folders with documents")
    if sizes:
        report.sizes = compare(texts, sizes)
    return report


def compare(texts: TextSource, sizes: Sequence[TokenizerSettings]) -> list[Size]:
    """Train each size on the same sample and measure it on the same held-out text."""
    total = sum(len(text.encode("utf-8", "replace")) for _, text in texts.part(held_out=False))
    if not total or next(texts.part(held_out=True), None) is None:
        raise DataError(
            "comparing vocabulary sizes needs training text and held-out text; give a prepared "
            "folder with a validation split, or a file with at least ten documents"
        )
    results = []
    for settings in sizes:
        say(f"training a tokenizer of vocabulary size {settings.vocab_size:,} ...")
        tokenizer = SentencePieceTokenizer(
            train_model(sample(texts.part(held_out=False), total, settings), settings)
        )
        held_out = Fit()
        for _, text in texts.part(held_out=True):
            held_out.add(text, tokenizer.encode(text), tokenizer.byte_ids)
        sampled = sample(texts.part(held_out=False), total, settings)
        results.append(Size(tokenizer.vocab_size, held_out, rare_share(tokenizer, sampled, RARE)))
    return results


def embedding_shares(vocab_size: int) -> dict[str, dict[str, float]]:
    """Preset -> parameters with this vocabulary size, and the share of embeddings among them."""
    shares = {}
    for preset in PRESETS:
        shape = load_config(preset).model.model_copy(update={"vocab_size": vocab_size})
        count = parameters(shape)
        shares[preset] = {
            "parameters": count.total,
            "share": (count.embeddings + count.head) / count.total,
        }
    return shares


def _embedding_lines(vocab_size: int) -> list[str]:
    lines = [f"{'model':<10}{'parameters':>12}  in embeddings"]
    for preset, facts in embedding_shares(vocab_size).items():
        lines.append(f"{preset:<10}{facts['parameters'] / 1e6:>11.1f}M{facts['share']:>12.1%}")
    return lines


def _group_lines(groups: dict[str, Fit], total: Fit) -> list[str]:
    width = max(14, *(len(name) + 2 for name in groups))
    lines = [
        f"{'text':<{width}}{'documents':>10}{'bytes':>13}{'bytes/token':>13}"
        f"{'tokens/word':>13}{'tokens/char':>13}{'single bytes':>14}"
    ]
    ranked = sorted(groups.items(), key=lambda item: item[1].tokens_per_character)
    if len(ranked) > MANY:
        half = MANY // 2
        hidden = f"... {len(ranked) - MANY} more (--json shows all) ..."
        lines += [_group_line(name, fit, width) for name, fit in ranked[:half]]
        lines += [hidden, *(_group_line(name, fit, width) for name, fit in ranked[-half:])]
    else:
        lines += [_group_line(name, fit, width) for name, fit in ranked]
    if len(groups) > 1:
        lines.append(_group_line("all", total, width))
    return lines


def _group_line(name: str, fit: Fit, width: int) -> str:
    per_word = fit.tokens_per_word
    return (
        f"{name:<{width}}{fit.documents:>10,}{fit.bytes:>13,}{fit.bytes_per_token:>13.3f}"
        f"{'-' if per_word is None else f'{per_word:.3f}':>13}"
        f"{fit.tokens_per_character:>13.3f}{fit.byte_share:>14.1%}"
    )


def _size_lines(sizes: list[Size], suits: dict[str, int]) -> list[str]:
    head = "".join(f"{preset:>18}" for preset in PRESETS)
    lines = [
        f"Vocabulary sizes on held-out text; for each model the share of embeddings and the "
        f"MFLOPs per byte of text (* lowest). Rare: tokens seen < {RARE} times in training.",
        f"{'size':>8}{'bytes/token':>13}{'rare':>8}{head}",
    ]
    for size in sizes:
        shares = embedding_shares(size.vocab_size)
        cells = []
        for preset in PRESETS:
            mark = "*" if suits[preset] == size.vocab_size else " "
            cost = size.flops_per_byte(preset) / 1e6
            cells.append(f"{shares[preset]['share']:>8.1%}{cost:>9.2f}{mark}")
        lines.append(
            f"{size.vocab_size:>8,}{size.held_out.bytes_per_token:>13.3f}{size.rare:>8.1%}"
            + "".join(cells)
        )
    best = ", ".join(f"{preset} {size:,}" for preset, size in suits.items())
    return [*lines, f"Least compute per byte of text: {best}."]
