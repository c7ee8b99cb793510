# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Hostile chat templates end in one error, soon, and do nothing else."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import TemplateError
from openllm.text.chat import ChatTemplate
from openllm.text.sandbox import MAX_TEMPLATE

GROW = "{% set ns = namespace(x=START) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}"


def grow(start: str, step: str, end: str = "{{ ns.x }}") -> str:
    """A template that replaces a value again and again."""
    return GROW.replace("START", start).replace("STEP", step) + end


HOSTILE = {
    # Python's own objects
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'].system('touch HERE') }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('touch HERE').read() }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "lipsum text": "{{ lipsum(n=100000) }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map attribute": "{{ [''] | map(attribute='__class__') | list }}{{ [''].x.y }}",
    "item": "{{ ''['__class__']['__mro__'] }}",
    "self": "{{ self.__init__.__globals__ }}",
    "loop": "{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "undefined": "{{ nothing.__class__.__init__.__globals__ }}",
    "format attribute": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "format through map": "{{ ['{0.__class__}'] | map(attribute='format') | first | string }}",
    "class method": "{{ {}.fromkeys(range(100000000)) }}",
    "code": "{% macro f() %}{% endmacro %}{{ f._func.__code__ }}",
    "generator": "{{ (['a'] | map('upper')).gi_frame.f_globals }}",
    "print a generator": "{{ ['a'] | map('upper') }}",
    # files
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from": "{% from '/etc/passwd' import x %}",
    "extends": "{% extends '/etc/passwd' %}",
    # changing what it is given
    "append": "{{ messages.append(1) }}",
    "clear": "{{ messages[0].clear() }}",
    "update": "{{ messages[0].update({'role': 'system'}) }}",
    "sort": "{{ messages.sort() }}",
    "set attribute": "{% set messages.x = 1 %}",
    # time
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for a in range(9999) %}{% for b in range(9999) if b < 0 %}{% endfor %}"
    "{% endfor %}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "macros": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "compare": "{% set x = 'a' * 9999999 %}{% for i in range(99999) %}{{ x == x ~ '' }}"
    "{% endfor %}",
    "contains": "{% set l = range(99999) | list %}{% for i in l %}{{ -1 in l }}{% endfor %}",
    "tests": "{% set l = range(99999) | list %}{% for i in l %}{{ -1 is in l }}{% endfor %}",
    "count": "{% set l = range(99999) | list %}{% for i in l %}{{ l.count(-1) }}{% endfor %}",
    "slices": "{% set l = range(99999) | list %}{% for i in l %}{% set x = l[::-1] %}{% endfor %}",
    "filters": "{% set l = range(99999) | list %}{% for i in l %}{% set x = l | sort %}"
    "{% endfor %}",
    "twins": grow("1", "[ns.x, ns.x]", "{{ ns.x == [ns.x] }}"),
    "hash": grow("1", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"),
    "tuples": grow("(1,)", "ns.x + ns.x").replace(
        "{{ ns.x }}", "{% set y = (ns.x,) * 9999 %}{{ {}[y * 9999] }}"
    ),
    "name": grow("1", "namespace(a=ns.x, b=ns.x)", "{{ {}[ns.x].y }}"),
    "name of a list": "{% set l = [range(999) | list] * 9999 %}{{ {}[l * 99].y }}",
    "namespaces": grow("1", "namespace(a=ns.x, b=ns.x)", "{{ ns.x is upper }}{{ ns.x }}"),
    "message": grow("1", "namespace(a=ns.x, b=ns.x)", "{{ raise_exception(ns.x) }}"),
    "nested dict": grow("1", "dict(a=ns.x, b=ns.x)", "{{ ns.x | tojson }}"),
    # memory
    "times": "{{ 'a' * 10**9 }}",
    "times list": "{{ [1] * 10**9 }}",
    "times in steps": "{{ 'a' * 10**5 * 10**5 }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "powers": grow("9", "ns.x * ns.x"),
    "add": grow("'ab'", "ns.x + ns.x"),
    "add lists": grow("[1]", "ns.x + ns.x"),
    "tilde": grow("'ab'", "ns.x ~ ns.x"),
    "join": grow("'ab'", "[ns.x, ns.x] | join"),
    "join method": grow("'ab'", "ns.x.join(['', '', ''])"),
    "replace": grow("'ab'", "ns.x.replace('a', 'aa')"),
    "replace filter": grow("'ab'", "ns.x | replace('a', 'aa')"),
    "block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "output": "{% set x = 'a' * 9999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    "literal output": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "literal block": "{% set y %}{% for i in range(99999) %}"
    + "x" * 9999
    + "{% endfor %}{% endset %}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "percent filter": "{{ '%999999999d' | format(1) }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "format field": "{{ '{:{}}'.format(1, 999999999) }}",
    "center": "{{ 'a' | center(999999999) }}",
    "center method": "{{ 'a'.center(999999999) }}",
    "zfill": "{{ 'a'.zfill(999999999) }}",
    "expandtabs": "{{ '\\t'.expandtabs(999999999) }}",
    "indent": "{{ 'a\nb' | indent(999999999) }}",
    "tojson indent": "{{ [1] | tojson(indent=999999999) }}",
    "to bytes": "{{ (1).to_bytes(999999999, 'big') }}",
    "batch": "{{ [1] | batch(999999999, 0) | list }}",
    "strftime": "{{ strftime_now('%999999999d') }}",
    # the compiler
    "brackets": "{{ " + "(" * 9999 + ")" * 9999 + " }}",
    "blocks": "{% if x %}" * 3000 + "{% endif %}" * 3000,
    "unfinished": "{% for x in",
    "long": "a" * (MAX_TEMPLATE + 1),
    "many nodes": "{{ x }}" * 30_000,
    "number": "{{ " + "9" * 9999 + " }}",
    "autoescape": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
    began = time.perf_counter()
    with pytest.raises(TemplateError, match=r"failed: .*check the messages|which no chat template"):
        template = ChatTemplate(HOSTILE[name])
        text = template.render(messages)
        pytest.fail(f"it made {text[:80]!r}")
    assert time.perf_counter() - began < 20  # alone one or two seconds
    assert messages == [{"role": "user", "content": "hello"}]
    assert not list(tmp_path.iterdir())


def test_the_budget_is_of_one_rendering_in_any_thread() -> None:
    template = ChatTemplate(
        "{% for i in range(n) %}{% for j in range(999) %}{% endfor %}{% endfor %}x"
    )
    failed: list[int] = []
    made: list[str] = []

    def render(n: int) -> None:
        try:
            made.append(template.render([], n=n))
        except TemplateError:
            failed.append(n)

    threads = [threading.Thread(target=render, args=(n,)) for n in (9, 99999, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, failed) == (["x", "x"], [99999])
    assert template.render([], n=9) == "x"


def test_a_long_conversation_fits() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' and m.content is string %}"
        "{{ '<u>' + m.content | trim ~ '</u>' }}{% elif 'x' in m.content %}{{ m.content }}"
        "{% else %}{{ m.content.split('\n')[0] }}{% endif %}{% endfor %}"
    )
    long = [{"role": role, "content": "word " * 200} for role in ("user", "assistant")] * 2000
    assert len(ChatTemplate(source).render(long)) > 3_000_000


@given(st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "for", "x", "in", "[1]", "|", "if", " "])))
def test_any_text_is_a_template_or_an_error(parts: list[str]) -> None:
    try:
        ChatTemplate(" ".join(parts)).render([])
    except TemplateError as error:
        assert "the chat template failed: " in str(error)
