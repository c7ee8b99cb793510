# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm batch`: answer a file of requests; what ended early goes on where it ended."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.errors import ConfigError, EngineError, OpenLLMError, UsageError
from openllm.core.log import progress, say
from openllm.engine.config import EngineConfig
from openllm.recipes.backend import SOURCES, SourceLoader, default_name
from openllm.serve.web import require_web

if TYPE_CHECKING:
    from openllm.core.log import Meter
    from openllm.recipes.batch_files import Requests, Results
    from openllm.serve.openai.batch import Task
    from openllm.serve.service import Service

TRIES = 3
PASSING = (429, 500, 503)
"""Statuses after which a request is tried again."""
AHEAD = 16
"""With --ordered, how many times the concurrency may be computed ahead of the next line."""
FEW_SHOWN = 5


@dataclass
class Counts:
    """What a run did.

    Attributes:
        requests: of the input.
        earlier: answered or refused by earlier runs.
        answered: by this one.
        failed: refused or failed, in this run or an earlier one.
        prompt_tokens, new_tokens: of this run.
        seconds: of this run.
    """

    requests: int
    earlier: int
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0

    def take(self, line: dict[str, Any]) -> None:
        """Count a result."""
        if line["response"]["status_code"] != 200:
            self.failed += 1
            return
        self.answered += 1
        usage = line["response"]["body"].get("usage") or {}
        # the newer of OpenAI's APIs has other names
        self.prompt_tokens += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        self.new_tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))

    @property
    def speed(self) -> float:
        """Tokens per second: new ones, or those of the prompts if nothing was generated."""
        return (self.new_tokens or self.prompt_tokens) / self.seconds if self.seconds else 0.0


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm batch",
        description="Answer a file of requests in OpenAI's batch format. A run that was killed "
        "goes on where it ended when the command is repeated. Exits with 1 if a request failed.",
        epilog="example: openllm batch requests.jsonl results.jsonl --model runs/notes/model",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="requests, one JSON object a line")
    parser.add_argument("output", type=Path, metavar="OUT", help="results, one JSON object a line")
    parser.add_argument("--model", required=True, help=SOURCES)
    parser.add_argument("--ordered", action="store_true", help="write in the order of the input")
    parser.add_argument(
        "--concurrency", type=int, default=64, metavar="N", help="requests at a time (default: 64)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="request i without a seed gets N + i")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="results do not depend on the requests computed beside them",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="answer again what failed in earlier runs"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="holds the key of the server that is called (default: $OPENAI_API_KEY)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the input, count its tokens")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object")
    args = parser.parse_args(argv)
    if args.concurrency < 1:
        raise UsageError("--concurrency must be at least 1")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UsageError("--seed must be at least 0 and below 2**63")
    if args.ordered and args.retry_failed:
        raise UsageError("--retry-failed writes its results behind the others; leave --ordered out")
    if args.output.exists() and args.input.exists() and args.output.samefile(args.input):
        raise UsageError("IN and OUT are the same file; the results need a file of their own")
    require_web()

    from openllm.recipes.batch_files import Requests
    from openllm.serve.openai.batch import read_task

    requests = Requests(args.input, read_task)
    return _check(args, requests) if args.dry_run else _run(args, requests)


def _run(args: argparse.Namespace, requests: "Requests") -> int:
    from openllm.recipes.batch_files import Results

    results = Results.open(args.output, requests.marks, retry_failed=args.retry_failed)
    try:
        if args.ordered and list(results.done) != list(requests.marks)[: len(results.done)]:
            raise ConfigError(
                f"{args.output} was begun in another order; leave --ordered out, or choose another "
                "output"
            )
        counts = Counts(len(requests.marks), len(results.done))
        counts.failed = sum(not answered for answered in results.done.values())
        if counts.earlier:
            say(f"{args.output} has {counts.earlier:,} of {counts.requests:,} results already")
        if counts.earlier < counts.requests:
            _answer_all(args, requests, results, counts)
    finally:
        results.close()
    summary = {**asdict(counts), "tokens_per_second": counts.speed}
    if args.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    say(
        f"{counts.requests:,} requests: {counts.requests - counts.failed:,} answered, "
        f"{counts.failed:,} failed; {counts.new_tokens:,} new tokens, {counts.speed:,.1f} tokens/s"
    )
    return 1 if counts.failed else 0


def _answer_all(
    args: argparse.Namespace, requests: "Requests", results: "Results", counts: Counts
) -> None:
    loader = SourceLoader(EngineConfig(exact=args.exact), key_file=args.api_key_file)
    backend = loader.load(default_name(args.model), args.model)

    from openllm.serve.service import FixedModels, Service

    async def run() -> None:
        service = Service(FixedModels({backend.info.name: backend}))
        try:
            with progress("batch", counts.requests, "requests", start=counts.earlier) as meter:
                found = _results(service, requests.tasks(dict(results.done)), args)
                async with aclosing(found):
                    async for line in found:
                        results.append(line)
                        _show(meter, counts, line, began)
        finally:
            counts.seconds = time.monotonic() - began
            await service.close()

    began = time.monotonic()
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_to_go_on(results, counts)) from None
    except OpenLLMError as error:
        raise type(error)(f"{error}\n{_to_go_on(results, counts)}") from error


def _to_go_on(results: "Results", counts: Counts) -> str:
    left = counts.requests - len(results.done)
    return f"{len(results.done):,} results are written, {left:,} are left; repeat the command"


def _show(meter: "Meter", counts: Counts, line: dict[str, Any], began: float) -> None:
    counts.take(line)
    counts.seconds = time.monotonic() - began
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    meter.advance(detail=f"{counts.speed:,.1f} tokens/s{failed}")


async def _results(
    service: "Service", tasks: "Iterator[Task]", args: argparse.Namespace
) -> AsyncGenerator[dict[str, Any], None]:
    """The results as they come, or in the order of the requests."""
    running: set[asyncio.Task[tuple[int, dict[str, Any]]]] = set()
    finished: set[asyncio.Task[tuple[int, dict[str, Any]]]] = set()
    waiting: dict[int, dict[str, Any]] = {}
    order: list[int] = []  # indices that were begun, and are not written
    answer = partial(_answer, service, seed=args.seed)
    ahead = AHEAD * args.concurrency
    more = True
    try:
        while more or running:
            while more and len(running) < args.concurrency and len(order) < ahead:
                task = next(tasks, None)
                if task is None:
                    more = False
                    break
                running.add(asyncio.create_task(answer(task)))
                if args.ordered:
                    order.append(task.index)
            if not running:
                break
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in finished:
                index, line = one.result()
                if args.ordered:
                    waiting[index] = line
                else:
                    yield line
            while order and order[0] in waiting:
                yield waiting.pop(order.pop(0))
    finally:
        for one in running:
            one.cancel()
        # also of those that failed beside the first
        await asyncio.gather(*running, *finished, return_exceptions=True)


async def _answer(service: "Service", task: "Task", *, seed: int | None) -> tuple[int, Any]:
    """The result of a request; what may pass is tried again.

    Raises:
        EngineError: the model is gone, so that all others would fail, too.
    """
    from openllm.serve.openai.batch import answer_task

    for attempt in range(1, TRIES + 1):
        line = await answer_task(service, task, seed)
        if line["response"]["status_code"] not in PASSING:
            break
        if not all(backend.healthy() for backend in service.models.loaded().values()):
            reason = line["response"]["body"]["error"]["message"]
            raise EngineError(f"the batch has stopped: {reason}")
        if attempt < TRIES:
            await asyncio.sleep(2.0**attempt)
    return task.index, line


def _check(args: argparse.Namespace, requests: "Requests") -> int:
    """Check all requests, and count their tokens if the model is here."""
    from openllm.recipes.batch_check import check

    report = check(args.model, requests)
    for custom_id, fault in report.faults[:FEW_SHOWN]:
        say(f"{custom_id}: {fault}")
    facts = {**asdict(report), "faults": len(report.faults)}
    known = {name: value for name, value in facts.items() if value is not None}
    words = {"faults": "with faults", "most_new_tokens": "new tokens at most"}
    shown = ", ".join(
        f"{value:,} {words.get(name, name.replace('_', ' '))}" for name, value in known.items()
    )
    sys.stdout.write(f"{json.dumps(known) if args.json else shown}\n")
    return 1 if report.faults else 0
