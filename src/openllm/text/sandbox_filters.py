# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Filters, tests and global names of chat templates; each does its work within the budget."""

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import filters
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.runtime import Context, Undefined
from jinja2.utils import Namespace, pass_context, pass_environment

from openllm.text.sandbox_work import Metered

Function = Callable[..., Any]

# a width or precision of four digits, one from an argument, or a field inside a field
_WIDE = re.compile(r"\d{4}|\*|\{[^{}]*\{")
_MAX_INDENT = 16
_MAX_DEPTH = 100


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def check_format(text: str) -> None:
    """Refuse a format that makes long texts of short ones.

    Raises:
        SecurityError: it does.
    """
    if _WIDE.search(text.replace("{{", "").replace("}}", "")):
        raise SecurityError("it formats with a wide field")


class QuietUndefined(Undefined):
    """A name that is not there; unlike jinja2's, it never spells out a value used as a name."""

    @property
    def _undefined_message(self) -> str:
        name = self._undefined_name
        return super()._undefined_message if isinstance(name, str | int) else "no such element"


class QuietNamespace(Namespace):
    """jinja2's `namespace`, which never spells out what it holds."""

    def __repr__(self) -> str:
        return "<namespace>"


@pass_context
def _raise_exception(context: Context, message: object) -> None:
    raise TemplateError(str(_sandbox(context).printable(message))[:1000])


def _strftime_now(pattern: str) -> str:
    if len(pattern) > 100:
        raise SecurityError("its date is too long")
    check_format(pattern)
    return datetime.datetime.now().strftime(pattern)


@pass_context
def _dict(context: Context, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    return _sandbox(context).weighed(dict(*args, **kwargs))


GLOBALS: Mapping[str, Any] = {
    "dict": _dict,
    "namespace": QuietNamespace,
    "raise_exception": _raise_exception,
    "range": range,
    "strftime_now": _strftime_now,
}


def _sandbox(context: Any) -> Metered:
    return context.environment


def _guard(function: Function, look: str) -> Function:
    """The same filter or test, with its arguments looked through first.

    `look` names the method of the sandbox that does it: `sized`, `weighed` or `printable`.
    """
    kind = getattr(function, "jinja_pass_arg", None)

    @functools.wraps(function)
    def guarded(context: Context, *args: Any, **kwargs: Any) -> Any:
        getattr(_sandbox(context), look)(args[0] if look == "sized" else [*args, *kwargs.values()])
        passed = {"context": context, "eval_context": context.eval_ctx}
        first = [passed.get(kind.name, context.environment)] if kind else []
        return function(*first, *args, **kwargs)

    return pass_context(guarded)


@pass_environment
def _tojson(
    sandbox: Metered,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    sandbox.printable(value)
    width = len(indent) if isinstance(indent, str) else indent or 0
    if width > _MAX_INDENT or _depth(value) > _MAX_DEPTH or len(str(separators)) > 100:
        raise SecurityError("it indents JSON too far")
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    sandbox.grow(len(text))
    return text


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list, tuple)):
        return 0
    return 1 + max(map(_depth, inner), default=0)


@pass_environment
def _join(sandbox: Metered, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items: Iterable[Any] = sandbox.sized(value)
    if attribute is not None:
        items = map(filters.make_attrgetter(sandbox, attribute), items)
    texts = [str(sandbox.printable(item)) for item in items]
    sandbox.grow(sum(map(len, texts)) + len(texts) * len(d))
    return d.join(texts)


@pass_environment
def _replace(sandbox: Metered, value: Any, old: str, new: str, count: int | None = None) -> str:
    text = str(sandbox.printable(value))
    sandbox.grow(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


@pass_environment
def _indent(
    sandbox: Metered, value: Any, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    text = str(sandbox.printable(value))
    size = len(width) if isinstance(width, str) else width
    sandbox.grow(len(text) + (1 + len(text.splitlines())) * size)
    return filters.do_indent(text, width, first, blank)


@pass_environment
def _format(sandbox: Metered, value: Any, *args: Any, **kwargs: Any) -> str:
    check_format(str(value))
    sandbox.printable([*args, *kwargs.values()])
    text = str(value) % (kwargs or args)
    sandbox.grow(len(text))
    return text


@pass_environment
def _list(sandbox: Metered, value: Any) -> list[Any]:
    if isinstance(value, str):
        sandbox.tick(len(value) // 4)
    return list(sandbox.sized(value))


@pass_environment
def _escape(sandbox: Metered, value: Any) -> str:
    text = str(filters.escape(str(sandbox.printable(value))))
    sandbox.grow(len(text))
    return text


_PRINTING = names("capitalize lower string title trim upper")
_SHALLOW = names("abs count default d first float int items last length reverse round")
_DEEP = names("dictsort groupby map max min reject rejectattr select selectattr sort unique")

FILTERS: Mapping[str, Function] = {
    **{name: _guard(filters.FILTERS[name], "printable") for name in _PRINTING},
    **{name: _guard(filters.FILTERS[name], "sized") for name in _SHALLOW},
    **{name: _guard(filters.FILTERS[name], "weighed") for name in _DEEP},
    "e": _escape,
    "escape": _escape,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "list": _list,
    "replace": _replace,
    "safe": _guard(str, "printable"),
    "tojson": _tojson,
}
"""All filters that templates have."""

_CHEAP_TESTS = names(
    "boolean callable defined divisibleby even false filter float integer iterable mapping none "
    "number odd sameas sequence string test true undefined"
)


def guarded_tests(tests: Mapping[str, Function]) -> dict[str, Function]:
    """Tests that look through their arguments first, unless they only look at types."""
    return {
        name: test if name in _CHEAP_TESTS else _guard(test, "weighed")
        for name, test in tests.items()
    }
