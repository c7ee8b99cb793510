# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Limits of structures: what a stranger may ask to have compiled. Importable without torch.

Compiling has no time limit and recurses. So what would take seconds, or overflow the stack, is
refused before: long texts, deep nesting, and many patterns that one string must satisfy together,
since time doubles with each.
"""

import json
from collections.abc import Iterator
from typing import Any

from openllm.core.errors import ConfigError

MAX_CHARACTERS = {
    "json_schema": 65_536,
    "json_object": 65_536,
    "choice": 65_536,
    "grammar": 16_384,
    "regex": 8_192,
}
MAX_DEPTH = 100
"""Of subschemas, references followed."""
MAX_PATTERNS = 12
"""That one string must satisfy together."""

_ALL = ("allOf",)
_ONE = ("anyOf", "oneOf", "prefixItems")
_PARTS = ("properties", "patternProperties")
_CHILDREN = ("items", "additionalProperties", "contains", "not", "if", "then", "else")


def check_structure(kind: str, text: str, value: Any) -> None:
    """Refuse a structure that would be too expensive.

    Args:
        kind: of the structure.
        text: its value, as JSON if it is no string.
        value: its value.

    Raises:
        ConfigError: it is too long, too deep, or has too many patterns.
    """
    most = MAX_CHARACTERS[kind]
    if len(text) > most:
        raise ConfigError(
            f"the structure ({kind}) has {len(text):,} characters, but may have at most {most:,}; "
            "shorten it"
        )
    if kind == "json_schema":
        check_schema(value)
    if kind == "grammar":
        if text.count("&") > MAX_PATTERNS:
            raise _too_many_patterns()
        for schema in _embedded(text):
            check_schema(schema)


def check_schema(schema: Any) -> None:
    """Refuse a JSON schema that is too deep, or merges too many patterns.

    Raises:
        ConfigError: it is.
    """
    if _Schema(schema).patterns(schema, 0) > MAX_PATTERNS:
        raise _too_many_patterns()


class _Schema:
    """Counts the patterns that may come together in one string: at least as many as do."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._length = 0

    def patterns(self, node: Any, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ConfigError(
                f"the structure (json_schema) is nested more than {MAX_DEPTH} deep, references "
                "included; flatten it"
            )
        if not isinstance(node, dict):
            return 0
        count = sum(isinstance(node.get(key), str) for key in ("pattern", "format"))
        self._length += len(str(node.get("pattern", "")))
        if self._length > MAX_CHARACTERS["regex"]:
            raise ConfigError(
                f"the patterns of the structure (json_schema) have more than "
                f"{MAX_CHARACTERS['regex']:,} characters; shorten them"
            )
        if isinstance(node.get("$ref"), str):
            count += self._referred(node["$ref"], depth)
        count += sum(self.patterns(part, depth + 1) for part in _items(node, _ALL))
        apart = [
            *_items(node, _ONE),
            *(part for key in _PARTS for part in _values(node.get(key))),
            *(node[key] for key in _CHILDREN if key in node),
        ]
        return count + max((self.patterns(part, depth + 1) for part in apart), default=0)

    def _referred(self, name: str, depth: int) -> int:
        if name not in self._known:
            # a cycle merges nothing new
            self._known[name] = 0
            if name == "#" or name.startswith("#/"):
                self._known[name] = self.patterns(self._resolve(name), depth + 1)
            else:
                # by another kind of name: it may be any part
                whole = json.dumps(self._root)
                self._known[name] = whole.count('"pattern"') + whole.count('"format"')
        return self._known[name]

    def _resolve(self, name: str) -> Any:
        """What a local pointer points to; none if that does not exist."""
        node = self._root
        for key in name.split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdigit() and int(key) < len(node):
                node = node[int(key)]
            else:
                node = node.get(key) if isinstance(node, dict) else None
        return node


def _items(node: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    lists = (node[key] for key in keys if isinstance(node.get(key), list))
    return [part for found in lists for part in found]


def _values(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else []


def _embedded(grammar: str) -> Iterator[Any]:
    """The JSON schemas in a grammar."""
    decoder = json.JSONDecoder()
    for rest in grammar.split("%json")[1:]:
        try:
            yield decoder.raw_decode(rest.lstrip())[0]
        except json.JSONDecodeError:
            continue  # the library says what is wrong with it
        except RecursionError:
            raise ConfigError(
                "the structure (grammar) has a JSON schema that is nested too deep; flatten it"
            ) from None


def _too_many_patterns() -> ConfigError:
    return ConfigError(
        f"the structure makes one string satisfy more than {MAX_PATTERNS} patterns at once; "
        "merge them into one"
    )
