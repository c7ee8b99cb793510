# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm generate`: a model continues a prompt, streamed to standard output."""

import argparse
import json
import sys

from openllm.core.errors import UsageError
from openllm.engine.request import SamplingParams
from openllm.export.models.zoo import resolve_model


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = argparse.ArgumentParser(
        prog="openllm generate", description="Continue a prompt with a model."
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
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: greedy decoding")
    parser.add_argument("--top-k", type=int, default=0, help="keep the k most likely tokens")
    parser.add_argument("--top-p", type=float, default=0.95, help="probability mass to keep")
    parser.add_argument("--min-p", type=float, default=0.0, help="relative to the best token")
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--stop", action="append", default=[], help="stop before this text")
    parser.add_argument("--seed", type=int, default=0)
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
