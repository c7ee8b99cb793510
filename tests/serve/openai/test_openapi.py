# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The OpenAPI schema describes every path and refers to nothing that is not there."""

import json
import re

import pytest
from tests.serve.live import echo_app

from openllm.serve.openai.openapi import BODIES, REF


@pytest.fixture(scope="module")
def schema():
    return echo_app().openapi()


def test_all_references_lead_somewhere(schema):
    found = set(re.findall(rf'"{re.escape(REF)}([^"]+)"', json.dumps(schema)))
    assert found <= set(schema["components"]["schemas"])
    # and nothing is described that is used nowhere
    assert found == set(schema["components"]["schemas"])


def test_all_posts_have_bodies_and_errors(schema):
    posts = {path for path, methods in schema["paths"].items() if "post" in methods}
    assert posts == set(BODIES)
    for path in posts:
        operation = schema["paths"][path]["post"]
        assert operation["requestBody"]["required"]
        assert {"200", "400", "401", "404", "413", "415", "429", "500", "503"} <= set(
            operation["responses"]
        )
        assert "422" not in operation["responses"]


def test_names_of_operations_are_different_and_readable(schema):
    names = [one["operationId"] for methods in schema["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names)
    assert "post_v1_chat_completions" in names


def test_bodies_forbid_unknown_fields(schema):
    parts = schema["components"]["schemas"]
    for body, _, _ in BODIES.values():
        assert parts[body.__name__]["additionalProperties"] is False


def test_every_endpoint_of_the_application_is_described(schema):
    assert set(schema["paths"]) == {
        *BODIES,
        "/v1/models",
        "/v1/models/{model}",
        "/info",
        "/health",
    }
