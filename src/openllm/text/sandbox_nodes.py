# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rewriting of a template's syntax tree, so that the template reports the work it does."""

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateAssertionError
from jinja2.visitor import NodeTransformer

MAX_NODES = 20_000
_FORBIDDEN = (
    nodes.Block,
    nodes.EvalContextModifier,
    nodes.Extends,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
)
_NODES_PER_UNIT = 16


class Meter(NodeTransformer):
    """Wraps what can take long in calls of the sandbox's methods `tick`, `sized` and `weighed`."""

    def visit_Template(self, node: nodes.Template) -> nodes.Node:
        """Check the whole, then rewrite it."""
        for number, child in enumerate(node.find_all(nodes.Node)):
            if number > MAX_NODES:
                raise TemplateAssertionError("it is too complicated", child.lineno)
            if isinstance(child, _FORBIDDEN):
                what = type(child).__name__.lower()
                raise TemplateAssertionError(f"it uses '{what}'", child.lineno)
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Each round and the values gone through."""
        self.generic_visit(node)
        node.iter = _report("sized", node.iter)
        node.body = [_tick(node), *node.body]
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Each call."""
        self.generic_visit(node)
        node.body = [_tick(node), *node.body]
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """The operator `~`."""
        self.generic_visit(node)
        return _report("joined", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Both sides of a comparison."""
        self.generic_visit(node)
        node.expr = _report("weighed", node.expr)
        for operand in node.ops:
            operand.expr = _report("weighed", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A slice, which is a copy."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _report("sized", node.node)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        """A literal; weighing each keeps values from growing without end by holding each other."""
        self.generic_visit(node)
        plain = all(isinstance(item, nodes.Const) for item in node.items)
        return node if plain else _report("weighed", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """A literal, or the names that a tuple is assigned to."""
        if node.ctx != "load":
            return node
        self.generic_visit(node)
        return _report("weighed", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        """A literal."""
        self.generic_visit(node)
        return _report("weighed", node) if node.items else node


def _report(method: str, *arguments: Any) -> nodes.Call:
    """A call of a method of the sandbox."""
    function = nodes.EnvironmentAttribute(method)
    call = nodes.Call(function, list(arguments), [], None, None)
    call.set_lineno(arguments[0].lineno if arguments else 1)
    return call


def _tick(node: Any) -> nodes.Node:
    """A statement that does the work of a body once."""
    size = sum(1 for part in node.body for _ in part.find_all(nodes.Node))
    units = nodes.Const(1 + size // _NODES_PER_UNIT)
    return nodes.ExprStmt(_report("tick", units)).set_lineno(node.lineno)
