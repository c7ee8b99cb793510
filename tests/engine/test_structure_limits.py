# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from typing import Any

import pytest

from openllm.core.errors import ConfigError
from openllm.engine.structure_limits import MAX_PATTERNS, check_schema, check_structure


def pattern(number: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"x{number}"}


def objects(count: int) -> list[dict[str, Any]]:
    return [{"properties": {"a": pattern(i)}} for i in range(count)]


def chain(count: int, **more: Any) -> dict[str, Any]:
    """References, each to the next, and the first one's schema."""
    names = {str(i): {"$ref": f"#/$defs/{i + 1}", **more} for i in range(count)}
    return {"$ref": "#/$defs/0", "$defs": {**names, str(count): {"type": "string"}}}


def nested(depth: int, key: str, inner: Any = True) -> Any:
    for _ in range(depth):
        inner = {key: inner}
    return inner


MANY = MAX_PATTERNS + 1


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{i}": pattern(i) for i in range(200)}},
        {"anyOf": [pattern(i) for i in range(200)]},
        {"prefixItems": [pattern(i) for i in range(200)]},
        {"allOf": [pattern(i) for i in range(MAX_PATTERNS)]},
        {"allOf": objects(MAX_PATTERNS)},
        chain(90),
        {"properties": {"child": {"$ref": "#"}, "name": pattern(0)}},
        {"$defs": {"a": pattern(0)}, "prefixItems": [{"$ref": "#/$defs/a"}] * 50},
        {"$defs": {"a/b~c": pattern(0)}, "$ref": "#/$defs/a~1b~0c"},
        {"$ref": "#/$defs/missing/0"},
        {"$ref": "#anchor", "$defs": {"x": {"$anchor": "anchor", **pattern(1)}}},
        nested(90, "items"),
        True,
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_ordinary_schemas_pass(schema: Any) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"allOf": [pattern(i) for i in range(MANY)]}, "patterns at once"),
        ({"allOf": objects(MANY)}, "patterns at once"),
        ({"allOf": [{"allOf": [pattern(i), pattern(-i)]} for i in range(7)]}, "patterns at once"),
        (chain(MANY, pattern="x"), "patterns at once"),
        (chain(MANY, format="date"), "patterns at once"),
        (
            {"$ref": "#a", "$defs": {str(i): pattern(i) for i in range(MANY)}},
            "patterns at once",
        ),
        (chain(200), "more than 100 deep"),
        (nested(200, "items"), "more than 100 deep"),
        (nested(200, "not"), "more than 100 deep"),
        ({"anyOf": [pattern(10**4000), pattern(10**4200)]}, "8,192 characters"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_expensive_schemas_are_refused(schema: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_schema(schema)


def test_schemas_inside_a_grammar_are_checked() -> None:
    wide = json.dumps({"allOf": [pattern(i) for i in range(MANY)]})
    check_structure("grammar", "start: %json {broken", "")
    check_structure("grammar", 'start: %json {"type": "integer"}', "")
    with pytest.raises(ConfigError, match="patterns at once"):
        check_structure("grammar", f'start: "a" b\nb: %json {wide}', "")
    with pytest.raises(ConfigError, match="deep"):
        check_structure("grammar", "start: %json " + '{"a":' * 2500 + "1" + "}" * 2500, "")
