# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Check that everything OpenLLM needs at run time has a licence compatible with ours.

OpenLLM is also offered under a commercial licence, so its dependencies must be permissive. The
check walks the requirements of `openllm-lab` and its extras (except `bench` and `dev`, which no
user needs) through the metadata of installed packages. `--list` prints the table.
"""

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = "openllm-lab"
TOOL_EXTRAS = {"bench", "dev", "llama"}
"""What only measures or tests OpenLLM; `llama` (MIT) takes ten minutes to build."""

PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-CMU",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
}
"""SPDX identifiers of licences that require no more than a notice."""

SPOKEN = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "The BSD 2-Clause License": "BSD-2-Clause",
}
"""Names that older metadata uses -> SPDX identifier. "BSD" does not tell two from three clauses;
both are permissive."""

SPECIAL = {
    "certifi": (
        "MPL-2.0",
        "a list of certificates, used unchanged; the MPL covers its own file only",
    ),
    "tld": (
        "MPL-1.1 OR GPL-2.0-only OR LGPL-2.1-or-later",
        "taken under the MPL 1.1, which covers its own files only; only with the extra 'data'",
    ),
    "tqdm": ("MPL-2.0 AND MIT", "used unchanged; the MPL covers its own files only"),
}
"""Distribution -> its licence, and why it is accepted although not in `PERMISSIVE`."""

USER_PLATFORM = re.compile(r"nvidia-|cuda-")
"""CUDA builds of torch bring NVIDIA's libraries under NVIDIA's own terms. Whoever has such a
GPU installs them; OpenLLM neither ships nor needs them."""


def closure(name: str, extras: set[str]) -> Iterator[metadata.Distribution]:
    """Every distribution that `name[extras]` needs on this machine, except `name` itself.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset(extras))]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, wanted = waiting.pop()
        fresh = [extra for extra in ("", *wanted) if (name, extra) not in seen]
        first = "" in fresh
        distribution = metadata.distribution(name)
        seen |= {(name, extra) for extra in fresh}
        if first and name != DISTRIBUTION:
            yield distribution
        for line in distribution.requires or []:
            need = Requirement(line)
            if any(need.marker is None or need.marker.evaluate({"extra": e}) for e in fresh):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))


def licence_of(facts: metadata.PackageMetadata) -> str:
    """The licence that a distribution states, as an SPDX expression where possible."""
    expression = facts.get_all("License-Expression")
    if expression:
        return expression[0]
    spoken = (facts.get_all("License") or [""])[0].strip()
    if spoken and "\n" not in spoken and len(spoken) < 60:
        return SPOKEN.get(spoken, spoken)
    kinds = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or []
        if line.startswith("License :: OSI")
    ]
    return " AND ".join(SPOKEN.get(kind, kind) for kind in kinds) or "not stated"


def permissive(expression: str) -> bool:
    """Whether an SPDX expression lets us choose permissive terms only."""
    words = re.findall(r"\(|\)|[^()\s]+", expression)
    # Join the words of one identifier ("X WITH Y", or words that are not SPDX at all).
    parts: list[str] = []
    for word in words:
        glue = parts and not {word, parts[-1]} & {"(", ")", "AND", "OR"}
        parts[-1:] = [f"{parts[-1]} {word}"] if glue else [*parts[-1:], word]
    return _any(parts)


def _any(parts: list[str]) -> bool:
    """`a OR b`; consumes `parts` up to a closing bracket."""
    good = _all(parts)
    while parts and parts[0] == "OR":
        parts.pop(0)
        good = _all(parts) or good
    return good


def _all(parts: list[str]) -> bool:
    """`a AND b`, which binds tighter than OR."""
    good = _one(parts)
    while parts and parts[0] == "AND":
        parts.pop(0)
        good = _one(parts) and good
    return good


def _one(parts: list[str]) -> bool:
    part = parts.pop(0) if parts else ""
    if part != "(":
        return part in PERMISSIVE
    good = _any(parts)
    return bool(parts) and parts.pop(0) == ")" and good


def verdict(name: str, licence: str) -> str | None:
    """Why the licence of `name` is not accepted; None if it is."""
    if permissive(licence) or USER_PLATFORM.match(name):
        return None
    if name in SPECIAL:
        known = SPECIAL[name][0]
        return None if licence == known else f"its licence changed from {known} to {licence}"
    return f"{licence} is not on the list of permissive licences"


def main(argv: list[str]) -> int:
    """Print each distribution whose licence is not accepted; returns 1 if there is one."""
    extras = set(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []) - TOOL_EXTRAS
    bad = 0
    found = {}
    for distribution in closure(DISTRIBUTION, extras):
        name = canonicalize_name(distribution.metadata["Name"])
        found[name] = (distribution.version, licence_of(distribution.metadata))
    for name, (version, licence) in sorted(found.items()):
        problem = verdict(name, licence)
        bad += problem is not None
        if problem:
            print(f"{name} {version}: {problem}; replace it, or give a reason in {__file__}")
        elif "--list" in argv:
            print(f"{name:<22} {version:<14} {licence}")
    print(f"dependency licences: {len(found) - bad} of {len(found)} accepted")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
