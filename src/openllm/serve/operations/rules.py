# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which scope each path needs. A path without a rule is closed.

The server's router and this table look at the same decoded path, and neither changes it first, so
no spelling of a path can pass one rule and reach another route.
"""

from dataclasses import dataclass
from typing import Literal

from openllm.serve.operations.keys import Scope


@dataclass(frozen=True)
class Rule:
    """Of a path, or of all paths below one that ends with `/*`.

    Attributes:
        path: as the client sends it, decoded.
        scope: that the key must have; none: open to all.
        work: whether a model computes for it, so that limits of rate and number hold.
    """

    path: str
    scope: Scope | None
    work: Literal["generate", "embed"] | None = None

    def matches(self, path: str) -> bool:
        """Whether it is the rule of this path."""
        if self.path.endswith("/*"):
            return path.startswith(self.path[:-1]) and len(path) > len(self.path) - 1
        return path == self.path


RULES: tuple[Rule, ...] = (
    Rule("/", None),
    Rule("/page/*", None),
    Rule("/favicon.ico", None),
    Rule("/health", None),
    Rule("/ready", None),
    Rule("/openapi.json", None),
    Rule("/metrics", "metrics"),
    Rule("/info", "models"),
    Rule("/v1/models", "models"),
    Rule("/v1/models/*", "models"),
    Rule("/v1/chat/completions", "generate", "generate"),
    Rule("/v1/completions", "generate", "generate"),
    Rule("/v1/responses", "generate", "generate"),
    Rule("/v1/embeddings", "embed", "embed"),
    Rule("/generate", "generate", "generate"),
    Rule("/generate/stream", "generate", "generate"),
    Rule("/admin/*", "admin"),
)


def rule_of(path: str, rules: tuple[Rule, ...] = RULES) -> Rule | None:
    """The rule of a path as the router sees it; none: closed."""
    return next((rule for rule in rules if rule.matches(path)), None)
