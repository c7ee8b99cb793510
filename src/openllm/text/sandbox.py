# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rendering of chat templates that nobody has checked.

A template is a program from whoever made the model. It runs in jinja2's immutable sandbox, which
keeps it from attributes of Python's own objects, and here it also has a budget: each step and each
128 characters that it makes or looks through cost one unit, so endless work ends in an error, in
any thread and without a timer. For that, loops, comparisons, literals and `~` are rewritten to
report what they cost, and methods and filters are those of `METHODS` and `FILTERS` alone.

Limits: a template of 256 KiB, an output of 64 million characters, 2 million units of work (a few
seconds; a conversation of a hundred turns takes some ten thousand).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, MethodWrapperType
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.utils import pass_context

from openllm.core.errors import TemplateError
from openllm.text.sandbox_filters import (
    FILTERS,
    GLOBALS,
    QuietNamespace,
    QuietUndefined,
    check_format,
    guarded_tests,
    names,
)
from openllm.text.sandbox_nodes import Meter
from openllm.text.sandbox_work import CHARS, SEQUENCES, Metered, budget, work_left

MAX_TEMPLATE = 2**18
MAX_BITS = 4096

METHODS: Mapping[type, frozenset[str]] = {
    str: names(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
        "islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix "
        "removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper"
    ),
    dict: names("get items keys values"),
    list: names("count index"),
    tuple: names("count index"),
}
"""What a template may call on Python's own objects; `str.format` is called through a guard."""

_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # also RecursionError
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a faulty template can raise."""


class GenerationBlock(Extension):
    """`{% generation %}`, which marks the assistant's text for training: just its contents."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 wants a set)

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse the block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


@pass_context
def _output(context: Context, value: object) -> object:
    return cast(Metered, context.environment).printable(value)


class Sandbox(Metered):
    """The environment of all chat templates."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            optimized=False,  # nothing is computed while it is compiled
            finalize=_output,
            undefined=QuietUndefined,
            extensions=[GenerationBlock, loopcontrols],
        )
        self.globals = dict(GLOBALS)
        self.filters = dict(FILTERS)
        self.tests = guarded_tests(self.tests)

    def compile_source(self, source: str, name: str) -> jinja2.Template:
        """Compile a template.

        Raises:
            TemplateError: it is too long or not a template.
        """
        if len(source) > MAX_TEMPLATE:
            raise TemplateError(
                f"{name} is longer than {MAX_TEMPLATE:,} characters, which no chat template is; "
                "give another template"
            )
        with _faults(name):
            return self.from_string(source)

    def render_all(self, template: jinja2.Template, variables: Mapping[str, Any], name: str) -> str:
        """The text that a template makes.

        Raises:
            TemplateError: it fails, refuses the variables, or does too much.
        """
        pieces: list[str] = []
        size = 0
        with _faults(name):
            for piece in template.root_render_func(template.new_context(dict(variables))):
                pieces.append(piece)
                size += len(piece)
                self.check_size(size)
        return "".join(pieces)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, **options: Any
    ) -> str:
        return super()._generate(Meter().visit(source), name, filename, **options)

    def joined(self, *values: Any) -> str:
        """The operator `~`."""
        texts = [str(self.printable(value)) for value in values]
        self.grow(sum(map(len, texts)))
        return "".join(texts)

    def concat(self, pieces: Any) -> str:
        """Join the output of a block."""
        texts = list(pieces)
        self.grow(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An arithmetic operator, once its result is known to be small."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length(), right.bit_length()
            bound = {"*": sum(bits), "**": bits[0] * max(0, right)}.get(operator, max(bits))
            if bound > MAX_BITS:
                raise SecurityError("it makes too large a number")
        elif operator == "%" and isinstance(left, str):
            check_format(left)
            self.printable(right)
        elif isinstance(left, (str, *SEQUENCES)) or isinstance(right, (str, *SEQUENCES)):
            self._pay_sequence(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def _pay_sequence(self, operator: str, left: Any, right: Any) -> None:
        sides = [side for side in (left, right) if isinstance(side, (str, *SEQUENCES))]
        times = [side for side in (left, right) if isinstance(side, int)] if operator == "*" else []
        size = sum(map(len, sides)) * max([1, *times])
        self.check_size(size)
        self.tick(1 + size // (CHARS if isinstance(sides[0], str) else 1))
        if isinstance(sides[0], tuple):  # tuples can be keys, for which all that is in them counts
            before = work_left()
            self.weighed(sides)
            self.tick((before - work_left()) * max([1, *times]))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something, once its work is paid."""
        owner = getattr(__obj, "__self__", None)
        if owner is __self:  # reports of the rewritten template
            return __obj(*args)
        for value in (*args, *kwargs.values()):
            __self.sized(value)
        __self.tick(4)
        if isinstance(__obj, BuiltinFunctionType | MethodWrapperType):
            args = __self._check_method(owner, __obj.__name__, args)
        elif isinstance(owner, LoopContext):
            __self.weighed(args)  # loop.changed compares them
        elif isinstance(__obj, type) and __obj not in (QuietNamespace, range):
            raise SecurityError(f"it calls {__obj.__name__}")
        return super().call(__context, __obj, *args, **kwargs)

    def _check_method(self, owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pay for a method of one of Python's own objects; returns its arguments."""
        if name not in METHODS.get(type(owner), ()):
            raise SecurityError(f"it calls the method {name} of {type(owner).__name__}")
        if name in ("count", "index"):
            self.weighed((owner, args))
        elif isinstance(owner, str):
            self.sized(owner)
        if name == "join" and args:
            args = (list(args[0]), *args[1:])
            self.grow(sum(len(text) + len(owner) for text in args[0]))
        elif name == "replace" and len(args) > 1:
            self.grow(len(owner) + owner.count(args[0]) * max(0, len(args[1]) - len(args[0])))
        elif name in ("split", "rsplit", "splitlines"):
            known = bool(args) and isinstance(args[0], str) and args[0]
            self.tick(owner.count(args[0]) if known else len(owner) // 4)
        return args

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, without wide fields."""
        guarded = super().wrap_str_format(value)
        if guarded is None:
            return None

        def format_text(*args: Any, **kwargs: Any) -> str:
            check_format(self.sized(value.__self__))
            self.printable([*args, *kwargs.values()])
            text = guarded(*args, **kwargs)
            self.grow(len(text))
            return text

        return format_text


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Give a template its budget, and turn its faults into one error."""
    try:
        with budget():
            yield
    except _FAULTS as error:
        first = " ".join(str(error).split())[:300] or type(error).__name__
        raise TemplateError(
            f"{name} failed: {first}; check the messages, or give another template"
        ) from None
