# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The certificate of an export: how far its answers are from the original model's, and a verdict.

Importable without torch.
"""

# R rows, T time, V vocabulary, D model

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError
from openllm.core.files import read_json, write_json
from openllm.core.log import progress
from openllm.export.inventory import digest_files, list_files
from openllm.export.reference import Reference, log_softmax, negative_log_likelihood
from openllm.export.runtime import Runtime, Tokenizes

FILE = "certificate.json"
PASSED, FAILED = "passed", "failed"
ENOUGH_TOKENS, ENOUGH_NEW_TOKENS = 1000, 64
"""Of text and of greedy text; less is a sample, and the verdict says so."""
FREE = (FILE, "certificate.js", "README.md", "LICENSE", "LICENCE", "NOTICE")
"""Files of an export that may change; a changed tokenizer would make another model of it."""


@dataclass(frozen=True)
class Limits:
    """The most that an export in some precision may differ from the original in float32.

    Attributes:
        logits: largest logit difference, relative to the largest logit.
        kl: mean Kullback-Leibler divergence in nats per token.
        perplexity: relative change of perplexity.
        greedy: whether greedy text must be the same, but for ties within the logit difference.
    """

    logits: float
    kl: float
    perplexity: float
    greedy: bool = False


LIMITS = {
    "fp32": Limits(1e-3, 1e-5, 1e-3, greedy=True),
    "fp16": Limits(0.05, 1e-3, 0.01),
    "bf16": Limits(0.1, 1e-2, 0.01),
    "int8": Limits(math.inf, 0.02, 0.02),
    "int4": Limits(math.inf, 0.3, 0.25),
}
"""By the precision of the weights; Q8_0 counts as int8, Q4_0 as int4."""


@dataclass(frozen=True)
class Measured:
    """How far an export is from the original.

    Attributes:
        max_logit_difference: over the kept positions.
        mean_logit_difference: of all logits of these.
        logit_scale: the original's largest absolute logit there.
        kl: mean divergence of the export's predictions from the original's, nats per token.
        greedy_tokens: length of the greedy texts, in all.
        greedy_agreement: share of their tokens before the first difference in each.
        greedy_mismatches: texts that differ where the original's best two were not nearly tied.
        tokens: scored tokens of the texts.
        perplexity: per token, of the export.
        original_perplexity: per token, of the original.
    """

    max_logit_difference: float
    mean_logit_difference: float
    logit_scale: float
    kl: float
    greedy_tokens: int
    greedy_agreement: float
    greedy_mismatches: int
    tokens: int
    perplexity: float
    original_perplexity: float

    @property
    def relative(self) -> float:
        """Largest logit difference relative to the logits' scale."""
        return self.max_logit_difference / max(self.logit_scale, 1e-30)

    def faults(self, limits: Limits) -> list[str]:
        """What exceeds the limits, in words; NaN exceeds all."""
        change = self.perplexity / self.original_perplexity - 1
        found = []
        if not self.relative <= limits.logits:
            found.append(f"logits differ by {self.relative:.2g} of their scale")
        if not self.kl <= limits.kl:
            found.append(f"KL divergence {self.kl:.2g} nats")
        if not abs(change) <= limits.perplexity:
            found.append(f"perplexity {change:+.2%}")
        if limits.greedy and self.greedy_mismatches:
            found.append(f"{self.greedy_mismatches} greedy texts differ")
        return found


def measure(reference: Reference, runtime: Runtime) -> Measured:
    """Ask a runtime what the original was asked, and compare.

    Raises:
        CheckpointError: the runtime's vocabulary is another.
    """
    nats = 0.0
    rows: list[NDArray[np.float32]] = []
    with progress(f"asking {runtime.name}", sum(map(len, reference.texts)), "tokens") as meter:
        for number, text in enumerate(reference.texts):
            found_TV = runtime.logits(text)
            nats += negative_log_likelihood(found_TV, text)
            rows += [found_TV[place] for which, place in reference.rows if which == number]
            meter.advance(len(text))
    theirs_RV, ours_RV = np.stack(rows), reference.logits_RV
    if theirs_RV.shape[1] < ours_RV.shape[1]:
        raise CheckpointError(
            f"the exported model has {theirs_RV.shape[1]} logits, the original "
            f"{ours_RV.shape[1]}; export it again"
        )
    theirs_RV = theirs_RV[:, : ours_RV.shape[1]]  # some formats pad the vocabulary
    difference = np.abs(theirs_RV - ours_RV)
    logprobs, others = log_softmax(ours_RV), log_softmax(theirs_RV)
    kl = float((np.exp(logprobs) * (logprobs - others)).sum(1).mean())
    longest = float(difference.max())
    agreed, mismatches = _compare_greedy(reference, runtime, longest)
    return Measured(
        max_logit_difference=longest,
        mean_logit_difference=float(difference.mean()),
        logit_scale=float(np.abs(ours_RV).max()),
        kl=kl,
        greedy_tokens=sum(map(len, reference.continuations)),
        greedy_agreement=agreed,
        greedy_mismatches=mismatches,
        tokens=reference.scored,
        perplexity=_perplexity(nats, reference.scored),
        original_perplexity=_perplexity(reference.nats, reference.scored),
    )


def _perplexity(nats: float, tokens: int) -> float:
    mean = nats / tokens
    return math.exp(mean) if mean < 700 else math.inf


def _compare_greedy(reference: Reference, runtime: Runtime, gap: float) -> tuple[float, int]:
    """Share of tokens before the first difference; texts that differ without a near tie."""
    length = len(reference.continuations[0])
    agreed, mismatches = 0, 0
    answers = runtime.greedy(reference.prompts, length)
    for mine, theirs, margins in zip(
        reference.continuations, answers, reference.margins, strict=True
    ):
        pairs = zip(mine, theirs, strict=True)
        same = next((place for place, (a, b) in enumerate(pairs) if a != b), length)
        agreed += same
        # a tie that the logit difference can decide either way is no fault
        mismatches += same < length and margins[same] > 2 * gap
    return agreed / (length * len(answers)), mismatches


def first_difference(reference: Reference, runtime: Runtime, limit: float) -> str:
    """In words: the first layer whose residual stream differs by more than `limit` of its scale."""
    probe = reference.layers_LTD
    found = runtime.layers(reference.texts[0][: probe.shape[1]])
    if found is None:
        return f"{runtime.name} does not show its layers"
    if len(found) != len(probe):
        return f"the export has {len(found)} layers, the original {len(probe)}"
    for number, (mine_TD, theirs_TD) in enumerate(zip(probe, found, strict=True)):
        gap = np.abs(mine_TD - theirs_TD).max() / max(float(np.abs(mine_TD).max()), 1e-30)
        if not gap <= limit:
            where = "the embeddings or layer 0" if number == 0 else f"layer {number}"
            return f"the first difference is in {where} (of {len(probe)}): {gap:.2g} of its scale"
    return "all layers agree; the difference is in the final norm or the output head"


def certify(
    reference: Reference, runtime: Runtime, *, format_name: str, precision: str
) -> dict[str, Any]:
    """Measure an export; returns the contents of `certificate.json`.

    Args:
        reference: the original's answers.
        runtime: the export, loaded in its own runtime.
        format_name: such as `onnx`.
        precision: a key of `LIMITS`.
    """
    limits = LIMITS[precision]
    found = measure(reference, runtime)
    faults = found.faults(limits) + _token_faults(reference, runtime)
    certificate = {
        "verdict": _verdict(faults, reference),
        "format": format_name,
        "precision": precision,
        "runtime": {"name": runtime.name, "version": runtime.version},
        "original": {"fingerprint": reference.fingerprint},
        "prompts": reference.prompts,
        "new_tokens": len(reference.continuations[0]),
        "text_tokens": reference.scored,
        "measured": asdict(found) | {"relative_logit_difference": found.relative},
        "limits": {key: value for key, value in asdict(limits).items() if value != math.inf},
    }
    if faults:
        certificate["faults"] = faults
        limit = limits.logits if math.isfinite(limits.logits) else 0.5
        certificate["where"] = first_difference(reference, runtime, limit)
    return certificate


def _token_faults(reference: Reference, runtime: Runtime) -> list[str]:
    """Texts that the runtime's own tokenizer, if it has one, cuts into other tokens."""
    if not isinstance(runtime, Tokenizes):
        return []
    pairs = zip(reference.strings, reference.string_ids, strict=True)
    wrong = [text for text, ids in pairs if runtime.encode(text) != ids]
    if not wrong:
        return []
    return [f"{len(wrong)} of {len(reference.strings)} texts have other tokens, as {wrong[0]!r}"]


def _verdict(faults: list[str], reference: Reference) -> str:
    if faults:
        return FAILED
    few = reference.scored < ENOUGH_TOKENS or len(reference.continuations[0]) < ENOUGH_NEW_TOKENS
    return f"{PASSED} on few questions" if few else PASSED


def digest_export(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an export that must stay as it is, by name; not of hidden files."""
    found = list_files(folder).items()
    files = {name: path for name, path in found if name not in FREE and not name.startswith(".")}
    return {name: digest.sha256 for name, digest in digest_files(files, "checksums").items()}


def add_changes(certificate: dict[str, Any], folder: Path, known: Any) -> None:
    """Fail a certificate if files are not those of `known`: name -> SHA-256, none if unknown.

    Raises:
        CheckpointError: the folder holds links that lead nowhere, or devices.
    """
    if not isinstance(known, dict):
        return
    now = digest_export(folder)
    changed = [name for name in sorted(known) if now.get(name) != known[name]]
    faults = [f"{name} {'was changed' if name in now else 'is missing'}" for name in changed]
    faults += [f"{name} was added" for name in sorted(set(now) - set(known))]
    if faults:
        certificate["verdict"] = FAILED
        certificate["faults"] = [*certificate.get("faults", []), *faults]


def write_certificate(folder: Path, certificate: Mapping[str, Any]) -> None:
    """Write `certificate.json`, and its section of the model card."""
    write_json(folder / FILE, _finite(dict(certificate)))
    card = folder / "README.md"
    text = card.read_text("utf-8", errors="replace") if card.exists() else ""
    before, _, rest = text.partition(f"{HEADING}\n")
    _, newline, after = rest.partition("\n## ")
    section = "\n".join([HEADING, "", *summary(certificate), ""])
    parts = [before.rstrip("\n"), section, f"## {after}" if newline else ""]
    card.write_text("\n\n".join(part for part in parts if part).rstrip("\n") + "\n", "utf-8")


HEADING = "## Certificate"


def read_certificate(folder: Path) -> dict[str, Any]:
    """Read `certificate.json`.

    Raises:
        CheckpointError: missing or damaged.
    """
    mend = "give a folder that 'openllm export' has written"
    return read_json(folder / FILE, CheckpointError, mend)


def summary(certificate: Mapping[str, Any]) -> list[str]:
    """A certificate as lines of Markdown."""
    found, runtime = certificate["measured"], certificate["runtime"]
    lines = [
        f"Verdict: **{certificate['verdict']}**, against the original model in float32 "
        f"(fingerprint {certificate['original']['fingerprint'][:16]}).",
        "",
        "| what | measured |",
        "|---|---|",
        f"| format, precision | {certificate['format']}, {certificate['precision']} |",
        f"| runtime | {runtime['name']} {runtime['version']} |",
        f"| largest logit difference | {found['max_logit_difference']:.3g} "
        f"({found['relative_logit_difference']:.2g} of the scale) |",
        f"| mean logit difference | {found['mean_logit_difference']:.3g} |",
        f"| KL divergence, nats per token | {found['kl']:.3g} |",
        f"| greedy text, {len(certificate['prompts'])} prompts of {certificate['new_tokens']} "
        f"tokens | {found['greedy_agreement']:.1%} the same |",
        f"| perplexity, {found['tokens']:,} tokens | {found['perplexity']:.4f}, original "
        f"{found['original_perplexity']:.4f} |",
    ]
    for fault in certificate.get("faults", []):
        lines.append(f"| **beyond the limit** | {fault} |")
    if "where" in certificate:
        lines.append(f"| where | {certificate['where']} |")
    return lines


def refuse_failed(certificate: Mapping[str, Any], folder: Path | str) -> None:
    """Raise if the verdict is `failed`.

    Raises:
        CheckpointError: names the faults and the layer.
    """
    if certificate["verdict"] == FAILED:
        where = certificate.get("where")
        found = [*certificate["faults"], *([where] if where else [])]
        mend = "Choose a higher precision" if where else "Export the model again"
        raise CheckpointError(
            f"{folder}: the exported model is not the original: {'; '.join(found)}. "
            f"{mend}, or keep it anyway with --allow-mismatch"
        )


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity; they become text."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(part) for part in value]
    return value
