# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm generate`: a model continues a prompt, streamed to standard output."""

import json
import sys

from openllm.core.arguments import Parser
from openllm.core.errors import UsageError
from openllm.engine.request import SamplingParams
from openllm.export.models.zoo import resolve_model

SAMPLING = (
    ("--max-new-tokens", int, 200, "N", "most tokens to write"),
    ("--temperature", float, 0.8, "T", "0: always the likeliest token"),
    ("--top-k", int, 0, "K", "keep the K likeliest tokens; 0: all"),
    ("--top-p", float, 0.95, "P", "keep the likeliest tokens of total probability P"),
    ("--min-p", float, 0.0, "P", "drop tokens below P times the top probability"),
    ("--repetition-penalty", float, 1.0, "X", "above 1: avoid tokens used before"),
    ("--seed", int, 0, "N", "another seed, another text"),
)
"""Option, type, default, letter and meaning."""


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm generate",
        description="Continue a prompt with a model.",
        epilog="example: openllm generate runs/quickstart/tiny/model --prompt 'One morning'",
    )
    parser.add_argument("model", help="model folder, such as RUN/model, or a name from 'models ls'")
    parser.add_argument(
        "--prompt", required=True, help="text to continue; '-' reads standard input"
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="answer the prompt as a user's message, with the model's chat template",
    )
    for option, kind, value, letter, meaning in SAMPLING:
        parser.add_argument(
            option, type=kind, default=value, metavar=letter, help=f"{meaning} (default: {value})"
        )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop before this text"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a stream")
    args = parser.parse_args(argv)
    if any(not stop for stop in args.stop):
        raise UsageError("--stop must not be empty")
    names = SamplingParams.model_fields
    wishes = {name: value for name, value in vars(args).items() if name in names}
    params = SamplingParams.parse({**wishes, "stop": tuple(args.stop)}, "sampling settings")
    prompt = _read_prompt(args.prompt)

    from openllm.engine.llm import LLM
    from openllm.text.chat import encode_chat, load_chat_template

    folder = resolve_model(args.model)
    llm = LLM.load(folder)
    given: str | list[int] = prompt
    if args.chat:
        template = load_chat_template(folder)
        messages = [{"role": "user", "content": prompt}]
        given = encode_chat(llm.tokenizer, template, messages, add_generation_prompt=True)
    if args.json:
        answer = llm.generate([given], params)[0]
        sys.stdout.write(json.dumps({"prompt": prompt, **vars(answer)}, ensure_ascii=False) + "\n")
        return 0
    if not args.chat:
        sys.stdout.write(prompt)
    for piece in llm.stream(given, params):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _read_prompt(given: str) -> str:
    if given != "-":
        try:
            given.encode()
        except UnicodeEncodeError:
            raise UsageError("--prompt is not valid UTF-8; check the terminal's encoding") from None
        return given
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not valid UTF-8 ({error})") from None
