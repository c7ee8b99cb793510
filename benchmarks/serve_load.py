# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A bounded load test of `openllm serve`, with wrong requests, clients that leave, and a restart.

    python benchmarks/serve_load.py [--model echo] [--requests 10000] [--name serve_load]

Writes benchmarks/results/NAME.json. Without --model, a model of the recipe `tiny`'s size with
random weights is served. In the middle, the server gets SIGTERM and is started again on the same
listening socket, as its systemd unit does. A valid request that is answered with 503 and
`Retry-After`, or whose idle connection is closed under it, is sent once more, as clients of
OpenAI's API do; both counts are reported.
"""

import argparse
import asyncio
import collections
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load.client import Answer, Broken, Client
from load.plan import MARK, Task, make_plan
from load.server import Server, write_random_model
from record import record

SETTLE_S = 1.5


@dataclass
class Tally:
    """What has come of the requests."""

    done: int = 0
    first_try: int = 0
    after_retry: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    bad_5xx: int = 0
    leaks: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    first_s: list[float] = field(default_factory=list)
    in_flight: set[int] = field(default_factory=set)
    in_flight_at_stop: set[int] = field(default_factory=set)
    lost_in_drain: int = 0


class Load:
    """Sends a plan to a server from many clients at once."""

    def __init__(self, server: Server, plan: list[Task], clients: int) -> None:
        self.server, self.plan, self.clients = server, plan, clients
        self.tally = Tally()
        self._open = asyncio.Event()
        self._open.set()
        self._next = iter(enumerate(plan))

    async def run(self, restart_at: int) -> dict[str, Any]:
        """Send all, with a restart; returns facts about memory and the restart."""
        workers = [asyncio.create_task(self._work()) for _ in range(self.clients)]
        count = len(self.plan)
        half = restart_at / count
        facts: dict[str, Any] = {"warm_before_mib": await self._rests(0.10)}
        facts["end_before_mib"] = await self._rests(half - 0.06)
        await self._until(restart_at)
        facts |= await self._restart()
        facts["warm_after_mib"] = await self._rests(half + 0.10)
        facts["end_after_mib"] = await self._rests(0.96)
        await asyncio.gather(*workers)
        return facts

    async def _rests(self, share: float) -> float:
        """The middle of three measurements of memory while nothing is asked of the server.

        One alone may follow a large body, whose memory is given back some requests later.
        """
        found = []
        for more in (0.0, 0.015, 0.03):
            await self._until(int(len(self.plan) * (share + more)))
            self._open.clear()
            while self.tally.in_flight:
                await asyncio.sleep(0.01)
            await asyncio.sleep(SETTLE_S)
            found.append(self.server.rss_mib())
            self._open.set()
        return sorted(found)[1]

    async def _restart(self) -> dict[str, Any]:
        self.tally.in_flight_at_stop = set(self.tally.in_flight)
        code, drain_s = await self.server.stop()
        began = time.perf_counter()
        self.server.start()
        await self._until(self.tally.done + 1)
        return {
            "exit_code": code,
            "drain_s": drain_s,
            "in_flight_at_sigterm": len(self.tally.in_flight_at_stop),
            "answers_again_after_s": time.perf_counter() - began,
        }

    async def _until(self, count: int) -> None:
        while self.tally.done < min(count, len(self.plan)):
            await asyncio.sleep(0.01)

    async def _work(self) -> None:
        client = Client(self.server.port, self.server.user)
        for index, task in self._next:
            await self._open.wait()
            self.tally.in_flight.add(index)
            self.tally.kinds[task.kind] += 1
            if task.kind == "disconnecting":
                await self._leave(task)
            elif not await self._answered(client, task) and index in self.tally.in_flight_at_stop:
                self.tally.lost_in_drain += 1
            self.tally.in_flight.discard(index)
            self.tally.done += 1
        await client.close()

    async def _leave(self, task: Task) -> None:
        client = Client(self.server.port, self.server.user)
        try:
            await client.send(task.method, task.path, task.body, *task.headers, cut=task.cut)
            await asyncio.sleep(task.leave_s)
        except (Broken, OSError):
            pass
        await client.close()

    async def _answered(self, client: Client, task: Task) -> bool:
        """Whether a request has its right answer, at the second try at the latest."""
        for attempt in range(2):
            try:
                answer = await client.ask(task.method, task.path, task.body, *task.headers)
            except (Broken, OSError, TimeoutError) as error:
                await client.close()
                idle = isinstance(error, Broken) and client.reused and not error.begun
                why = "closed while idle" if idle else type(error).__name__
                if task.kind == "valid" and attempt == 0 and idle:
                    self.tally.retried[why] += 1
                    continue
                self.tally.lost[f"{task.kind}: {why}"] += 1
                return False
            self._look(task, answer)
            if task.kind == "valid" and answer.status == 503 and attempt == 0:
                self.tally.retried["503"] += 1
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
                continue
            return self._judge(task, answer, attempt)
        return False

    def _judge(self, task: Task, answer: Answer, attempt: int) -> bool:
        right = answer.status in task.statuses and task.check(answer)
        if not right:
            self.tally.wrong[f"{task.kind}, {task.name}: {answer.status}"] += 1
        elif task.kind == "valid":
            if attempt == 0:
                self.tally.first_try += 1
            self.tally.after_retry += 1
            self.tally.seconds[task.name].append(answer.seconds)
            if task.name == "stream":
                self.tally.first_s.append(answer.first_s)
        return right

    def _look(self, task: Task, answer: Answer) -> None:
        """Count statuses, and look for what must not be in an answer."""
        tally = self.tally
        tally.statuses[f"{task.kind}: {answer.status}"] += 1
        if answer.status >= 500 and not (answer.status == 503 and "retry-after" in answer.headers):
            tally.bad_5xx += 1
        secrets = {"key": self.server.user, "operator's key": self.server.operator}
        hidden = {**secrets, "traceback": "Traceback", "file": 'File "'}
        if answer.status != 200:
            hidden["prompt"] = MARK
        seen = answer.body + repr(answer.headers).encode()
        tally.leaks.update(name for name, word in hidden.items() if word.encode() in seen)


def percentiles(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(values)
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {name: round(1000 * ordered[round(last * share)], 1) for name, share in wanted.items()}


def leaks_in_logs(server: Server) -> dict[str, int]:
    """How often what must not be logged is in the logs."""
    text = server.written()
    words = {"key": server.user, "operator's key": server.operator, "prompt": MARK}
    words |= {"traceback": "Traceback", "any key": "ollm_"}
    return {name: text.count(word) for name, word in words.items()}


def report(load: Load, memory: dict[str, Any], wall_s: float) -> dict[str, Any]:
    """The facts to record."""
    tally, valid = load.tally, load.tally.kinds["valid"]
    change = {
        f"{when} the restart": memory[f"end_{when}_mib"] / memory[f"warm_{when}_mib"] - 1
        for when in ("before", "after")
    }
    return {
        "requests": dict(tally.kinds),
        "clients": load.clients,
        "wall_s": round(wall_s, 1),
        "requests_per_s": round(tally.done / wall_s, 1),
        "valid": {
            "success_percent": round(100 * tally.after_retry / valid, 3),
            "success_percent_at_first_try": round(100 * tally.first_try / valid, 3),
            "retried": dict(tally.retried),
        },
        "lost": dict(tally.lost),
        "wrong_answers": dict(tally.wrong),
        "bad_5xx": tally.bad_5xx,
        "statuses": dict(sorted(tally.statuses.items())),
        "restart": {
            key: round(value, 2) if isinstance(value, float) else value
            for key, value in memory.items()
        }
        | {"lost_of_those_in_flight": tally.lost_in_drain},
        "memory_change_percent": {key: round(100 * x, 2) for key, x in change.items()},
        "leaks_in_answers": dict(tally.leaks),
        "leaks_in_logs": leaks_in_logs(load.server),
        "latency_ms": {name: percentiles(found) for name, found in sorted(tally.seconds.items())},
        "time_to_first_token_ms": percentiles(tally.first_s),
    }


async def measure(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """Run the whole test against a server."""
    server.start()
    load = Load(server, make_plan(args.requests, args.seed), args.clients)
    began = time.perf_counter()
    memory = await load.run(args.requests // 2)
    wall_s = time.perf_counter() - began
    operator = Client(server.port, server.operator)
    metrics = (await operator.ask("GET", "/metrics")).body.decode()
    await operator.close()
    stuck = [line for line in metrics.splitlines() if line.startswith("openllm_engine_running{")]
    code, _ = await server.stop()
    facts = report(load, memory, wall_s)
    return {**facts, "left_running": [float(line.split()[-1]) for line in stuck], "last_exit": code}


def main(argv: list[str]) -> int:
    """Run the test; returns 1 if the server did not hold what is expected of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder, name or 'echo'")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="serve_load", help="of the file with the results")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(write_random_model(Path(folder)))
        server = Server(Path(folder), model)
        try:
            facts = asyncio.run(measure(server, args))
        finally:
            server.kill()
    facts = {"model": args.model or "tiny, random weights", **facts}
    path = record(args.name, facts, ("torch", "uvicorn", "fastapi"))
    print(path.read_text())
    held = facts["valid"]["success_percent"] >= 99.9 and not facts["bad_5xx"]
    held &= not any(facts["leaks_in_logs"].values()) and not facts["leaks_in_answers"]
    held &= not facts["wrong_answers"] and facts["restart"]["lost_of_those_in_flight"] == 0
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
