# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Write docs/cli.md from the parsers of the commands, or check that it is up to date.

    python tools/cli_reference.py           check whether docs/cli.md is up to date
    python tools/cli_reference.py --write   write it

The page is made from each command's argparse parser rather than from its printed help, whose
layout differs between Python versions.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from openllm.cli.main import COMMANDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Written by `make docs` from the commands themselves; do not edit.

Results go to standard output, news and errors to standard error. Exit codes: 0 well, 1 failed,
2 wrong use, 130 interrupted. With `OPENLLM_DEBUG=1` an error shows its traceback.
`python -m openllm` is the same as `openllm`.

"""


class _Found(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(main: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """The parser that `main(["--help"])` would print."""

    def found(self: argparse.ArgumentParser, file: object = None) -> NoReturn:
        raise _Found(self)

    original = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = found  # pyrefly: ignore[bad-assignment]
    try:
        main(["--help"])
    except _Found as caught:
        return caught.parser
    finally:
        argparse.ArgumentParser.print_help = original
    raise AssertionError(f"{main.__module__}.{main.__name__} does not answer to --help")


def reference() -> str:
    """The whole page."""
    index = [
        f"- [`openllm {name}`](#openllm-{name.replace(' ', '-')}): {text}"
        for name, (text, _) in COMMANDS.items()
    ]
    return HEAD + "\n".join([*index, "", *map(section, COMMANDS)])


def section(name: str) -> str:
    """The section of the page about one command."""
    module, _, function = COMMANDS[name][1].partition(":")
    parser = parser_of(getattr(importlib.import_module(module), function))
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    places = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings and action.dest != "help"]
    usage = [f"openllm {name}", *(_value(parser, action) for action in places)]
    lines = [f"## openllm {name}", "", f"`{' '.join(usage)}{' [options]' if options else ''}`", ""]
    if parser.description:
        lines += [" ".join(parser.description.split()), ""]
    if places or options:
        lines += ["| argument | default | meaning |", "|---|---|---|"]
        lines += [_row(parser, action) for action in [*places, *options]]
        lines.append("")
    if parser.epilog:
        lines += ["```", parser.epilog.strip("\n"), "```", ""]
    return "\n".join(lines)


def _value(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """How the value of an argument is written, e.g. `SOURCE [SOURCE ...]`."""
    formatter = parser._get_formatter()
    default = action.dest if not action.option_strings else action.dest.upper()
    return formatter._format_args(action, default)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    value = "" if action.nargs == 0 else _value(parser, action)
    empty = action.default is None or action.default is False or action.default == []
    shown = names and not empty and action.default != argparse.SUPPRESS
    meaning = parser._get_formatter()._expand_help(action) if action.help else ""
    needed = ", required" if names and action.required else ""
    cells = [
        f"`{' '.join(filter(None, [names, value]))}`{needed}",
        f"`{action.default}`" if shown else "",
        " ".join(meaning.split()),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(argv: list[str]) -> int:
    """Write or check the page; returns 1 if it is out of date."""
    page = reference()
    if "--write" in argv:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/cli.md is out of date; write it with: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
