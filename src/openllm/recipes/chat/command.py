# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm chat`: talk to a model in the terminal, or through a pipe."""

import argparse
import sys
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.config import parse_overrides
from openllm.core.errors import UsageError
from openllm.engine.config import EngineConfig
from openllm.recipes.backend import SOURCES
from openllm.serve.web import require_web

TEMPERATURE = 0.7
"""What is not said otherwise: less random than the unmodified model."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm chat",
        description="Talk to a model. In a terminal, /help lists the commands; through a pipe, "
        "standard input is the question, and only the answer is written.",
        epilog="example: openllm chat runs/quickstart/tiny/model --complete",
    )
    parser.add_argument("model", help=SOURCES)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument(
        "--complete", action="store_true", help="continue texts, for models not made for chat"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        metavar="T",
        help=f"0: always the likeliest token (default: {TEMPERATURE})",
    )
    parser.add_argument("--top-p", type=float, metavar="P", help="probability mass to keep")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most new tokens of an answer")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="for repeatable answers (default: a random one each)"
    )
    parser.add_argument("--stop", action="append", metavar="TEXT", help="stop before this text")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of /set"
    )
    parser.add_argument(
        "--load", type=Path, metavar="FILE", help="go on with a conversation that /save wrote"
    )
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the engine, such as precision=int8; see docs/engine.md",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="holds the key of the server that is called (default: $OPENAI_API_KEY)",
    )
    parser.add_argument("--no-history", action="store_true", help="keep no file of what is typed")
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    args = parser.parse_args(argv)
    cfg = EngineConfig.parse(parse_overrides(args.engine), "engine settings")
    piped = args.json or not (sys.stdin.isatty() and sys.stdout.isatty())
    question = _read_input() if piped else None
    require_web()

    from openllm.recipes.backend import SourceLoader
    from openllm.recipes.chat.program import Program
    from openllm.recipes.chat.session import Session

    session = Session(args.complete, args.system)
    for name, value in _settings(args).items():
        session.set(name, value)
    if args.load is not None:
        session.load(args.load)
    program = Program(session, SourceLoader(cfg, key_file=args.api_key_file))
    with program.opened(args.model):
        if question is None:
            program.run(keep_history=not args.no_history)
            return 0
        return program.answer_once(question, as_json=args.json)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "top_p", "max_tokens", "seed", "stop")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return {**given, **parse_overrides(args.set)}


def _read_input() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not valid UTF-8 ({error})") from None
    if not text.strip():
        raise UsageError(
            "standard input is empty; pipe a question: echo hello | openllm chat MODEL"
        )
    return text.removesuffix("\n")
