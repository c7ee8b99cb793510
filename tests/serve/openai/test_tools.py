# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Calls of tools as models write them."""

import re

import pytest

from openllm.serve.openai.tools import call_format, call_id, call_schema


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ messages }}", None),
        ("{% if tools %}<tool_call>{% endif %}", "hermes"),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", "mistral"),
        ("{% if tools %}<|python_tag|>{% endif %}", "llama3"),
        ('{% if tools %}{"name": x, "parameters": y} ipython{% endif %}', "llama3"),
        ("{% for tool in tools %}{{ tool }}{% endfor %}", "hermes"),
    ],
)
def test_the_template_tells_the_format(template, form):
    assert call_format(template) == form


def test_ids_are_new_and_as_templates_accept_them():
    ids = {call_id("hermes") for _ in range(50)} | {call_id("mistral") for _ in range(50)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"call_[a-zA-Z0-9]{24}|[a-zA-Z0-9]{9}", one) for one in ids)


def test_schema_of_a_call():
    functions = [{"name": "f", "parameters": {"type": "object"}}, {"name": "g"}]
    one, two = call_schema(functions[:1]), call_schema(functions)
    assert one["properties"]["name"] == {"const": "f"}
    assert [option["properties"]["name"]["const"] for option in two["anyOf"]] == ["f", "g"]
