# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Many chats at once: tokens per second and times to the first token, beside peers.

    python benchmarks/serve_speed.py                       ours and what is installed here
    python benchmarks/serve_speed.py --vllm-python PYTHON  also vllm, from its own environment

Each server gets the same streaming requests over loopback: 16, then 64 at once, which share a
system prompt of 64 tokens, and get 128 new tokens each, greedily. The model is `small` with random
weights whose end token never comes. Servers take turns, so that a slow minute of the machine hits
all of them; the median of the rounds counts. `transformers` has no such server: it generates whole
batches in its own process, without a prefix cache. Results go to
benchmarks/results/serve_speed.json; serve_speed_avx512.json is of a machine without AMX,
serve_speed_avx2.json of one without AVX-512.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import SHARED, record

from openllm.checkpoint.model_dir import write_model
from openllm.core.errors import OpenLLMError
from openllm.core.log import say
from openllm.export.gguf.llama_cpp import has_tiles
from openllm.nn.config import ModelConfig
from openllm.nn.model import build_model
from openllm.text.load import load_tokenizer

NAME = "serve_speed"
NEW_TOKENS, SYSTEM_TOKENS, USER_TOKENS = 128, 64, 32
STREAMS = (1, 16, 64)
CONTEXT = 256
PEER_DTYPE = "bfloat16" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "float32"
"""Of PyTorch's peers: what is fastest for them; processors without bfloat16 emulate it."""
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


class Server(NamedTuple):
    """How to start a server, and what its requests need besides.

    `extra` goes into each request's body.
    """

    command: list[str]
    extra: dict[str, Any]
    model: str = "model"


class Stream(NamedTuple):
    """Times of one answer's events, in seconds since the first request was sent."""

    sent: float
    events: list[float]
    tokens: int


def make_model(folder: Path) -> None:
    """`small` with random weights, and a vocabulary learnt from real text."""
    texts = folder / "texts"
    texts.mkdir()
    shutil.copy(SHARED / "pretrain_en" / "openstax_textbooks.jsonl.gz", texts)
    openllm("data", "prepare", str(texts), "--out", str(folder / "data"))
    openllm("tokenizer", "train", str(folder / "data"), "--out", str(folder / "tokenizer"))
    tokenizer = load_tokenizer(folder / "tokenizer")
    cfg = ModelConfig(vocab_size=tokenizer.vocab_size)
    model = build_model(cfg)
    with torch.no_grad():
        # a logit of 0 is never the greatest of thousands
        model.head.weight[[*tokenizer.end_ids, *tokenizer.banned_ids]] = 0
    write_model(
        folder / "model",
        cfg,
        model.state_dict(),
        tokenizer=folder / "tokenizer",
        lineage={},
        card="# Random weights\n",
    )
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)


def openllm(*words: str) -> None:
    """Run one of our commands."""
    subprocess.run([sys.executable, "-m", "openllm", *words], check=True, stdout=subprocess.DEVNULL)


def prompts(folder: Path, count: int, seed: int) -> list[str]:
    """Texts of real words: all begin with the same system prompt."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    words = [f" {tokenizer.decode([index]).strip()}" for index in range(2000, 6000)]
    words = [word for word in words if word.strip().isalpha()]

    def text(number: int, length: int) -> str:
        rng = torch.Generator().manual_seed(number)
        picks = torch.randint(len(words), (length,), generator=rng)
        found = "".join(words[int(pick)] for pick in picks)
        return tokenizer.decode(tokenizer.encode(found)[:length])

    system = text(seed, SYSTEM_TOKENS)
    return [system + text(1000 * seed + number + 1, USER_TOKENS) for number in range(count)]


def servers(folder: Path, args: argparse.Namespace) -> dict[str, Server]:
    """All servers to measure."""
    model = str(folder / "model")
    ours = [sys.executable, "-m", "openllm", "serve", model, "--name", "model", "--port", "PORT"]
    ours += ["--access-log", "off", "--set", "limits.max_running=256"]
    found = {}
    for kind in ("bf16", "int8", "int4"):
        found[f"openllm-{kind}"] = Server([*ours, "--engine", f"precision={kind}"], {})
    plain = [*ours, "--engine", "precision=bf16", "--engine", "prefix_cache=false"]
    found["openllm-bf16-no-prefix-cache"] = Server(plain, {})
    for kind in llama_kinds() if args.llama_python else ():
        gguf = folder / kind
        if not gguf.exists():
            openllm("export", model, "--to", "gguf", "--dtype", kind, "--out", str(gguf))
        (file,) = gguf.glob("*.gguf")
        command = [args.llama_python, "-m", "llama_cpp.server", "--model", str(file)]
        command += ["--port", "PORT", "--n_ctx", "2048", "--n_threads", str(args.threads)]
        command += ["--interrupt_requests", "false", "--model_alias", "model"]
        found[f"llama_cpp.server-{kind}"] = Server(command, {})
    if args.vllm_python:
        command = [args.vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        command += ["--port", "PORT", "--dtype", PEER_DTYPE, "--served-model-name", "model"]
        command += ["--max-model-len", str(CONTEXT), "--enforce-eager"]
        found["vllm-cpu"] = Server(command, {"ignore_eos": True})
    return found


def llama_kinds() -> tuple[str, ...]:
    """Types of weights that llama.cpp serves here: its 8 bits crash on AMX as it reads a prompt."""
    return ("f16",) if has_tiles() else ("f16", "q8_0")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def running(server: Server, log: Path) -> Iterator[int]:
    """Start a server, wait until it answers, and stop it; its port."""
    port = free_port()
    command = [word.replace("PORT", str(port)) for word in server.command]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command, stdout=handle, stderr=handle, env=environment, start_new_session=True
        )
        try:
            wait_for(port, process, log)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    """Until the server lists its models."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


async def ask(port: int, body: dict[str, Any], began: float) -> Stream:
    """One streaming request over a plain socket: no client library takes time from the servers."""
    data = json.dumps(body).encode()
    sent = time.perf_counter() - began
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data
    )
    events, tokens = [], 0
    try:
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                if line.startswith(b"HTTP/1.1") and b" 200 " not in line:
                    raise RuntimeError((line + await reader.read(2000)).decode())
                continue
            events.append(time.perf_counter() - began)
            if b'"usage"' in line:
                tokens = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", tokens)
    finally:
        writer.close()
    if not events:
        raise RuntimeError("the server closed the connection without an answer")
    return Stream(sent, events, tokens)


async def burst(port: int, server: Server, texts: Sequence[str]) -> tuple[float, list[Stream]]:
    """All requests at once; returns the seconds until the last answer's end."""
    began = time.perf_counter()
    base = {"model": server.model, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True}
    base |= {"stream_options": {"include_usage": True}, **server.extra}
    streams = await asyncio.gather(*(ask(port, {**base, "prompt": t}, began) for t in texts))
    return time.perf_counter() - began, list(streams)


def measure(port: int, server: Server, texts: Sequence[str]) -> dict[str, float]:
    """Tokens per second, and times to the first token and between tokens in milliseconds."""
    seconds, streams = asyncio.run(burst(port, server, texts))
    tokens = sum(s.tokens or NEW_TOKENS for s in streams)
    first = sorted(1000 * (s.events[0] - s.sent) for s in streams)
    gaps = sorted(
        1000 * (s.events[-1] - s.events[0]) / max(1, (s.tokens or NEW_TOKENS) - 1) for s in streams
    )
    ends = sorted(1000 * (s.events[-1] - s.sent) for s in streams)
    last = -(-99 * len(streams) // 100) - 1
    return {
        "tokens_per_second": tokens / seconds,
        "first_token_ms": statistics.median(first),
        "first_token_p99_ms": first[last],
        "token_ms": statistics.median(gaps),
        "answer_p99_ms": ends[last],
        "tokens": tokens,
    }


class Transformers:
    """Batches of one length, padded on the left, in this process."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            folder / "model", dtype=getattr(torch, PEER_DTYPE)
        ).eval()
        self.tokenizer = load_tokenizer(folder / "model")

    @torch.inference_mode()
    def measure(self, texts: Sequence[str]) -> dict[str, float]:
        """Tokens per second; there is no streaming."""
        rows = [[*self.tokenizer.prefix, *self.tokenizer.encode(text)] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        began = time.perf_counter()
        out = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        return {"tokens_per_second": (out.shape[1] - longest) * len(rows) / seconds}


def rounds_of(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, list[Any]]]:
    """Measure everything, in turns."""
    wanted = {n: s for n, s in servers(folder, args).items() if n in (args.only or [n])}
    peer = None
    if not args.only or "transformers" in args.only:
        torch.set_num_threads(args.threads)
        peer = Transformers(folder)
    results: dict[str, dict[str, list[Any]]] = {}
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        for name, server in wanted.items():
            try:
                with running(server, folder / f"{name}.log") as port:
                    measured = partial(measure, port, server)
                    turn(name, measured, results, number, folder, args)
            except RuntimeError as error:
                say(f"{name}: {error}")
        if peer is not None:
            turn("transformers", peer.measure, results, number, folder, args)
    return results


def turn(
    name: str,
    one: Callable[[Sequence[str]], dict[str, float]],
    results: dict[str, dict[str, list[Any]]],
    number: int,
    folder: Path,
    args: argparse.Namespace,
) -> None:
    """All bursts of one contender in one round, after a small one to warm up."""
    one(prompts(folder, 2, 7))
    found = results.setdefault(name, {str(count): [] for count in args.streams})
    for count in args.streams:
        burst = one(prompts(folder, count, number + 11))
        found[str(count)].append(burst)
        say(f"  {name}, {count} streams: {burst['tokens_per_second']:.0f} tokens/s")


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each measure."""
    return {key: round(statistics.median(r[key] for r in rounds), 2) for key in rounds[0]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser(description="many streams at once, beside peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-python", help="Python of an environment with llama_cpp.server")
    parser.add_argument("--vllm-python", help="Python of an environment with vllm")
    parser.add_argument("--only", nargs="+", help="contenders")
    parser.add_argument("--model", type=Path, help="folder of an earlier run to use again")
    parser.add_argument("--result", default=NAME, help="name of its file; one for each machine")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        folder = args.model or Path(made)
        if not (folder / "model").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_model(folder)
        results = rounds_of(folder, args)
    table = {
        name: {count: medians(bursts) for count, bursts in found.items()}
        for name, found in results.items()
    }
    ratios = {}
    for count in map(str, args.streams):
        rates = {n: t[count]["tokens_per_second"] for n, t in table.items() if count in t}
        peers = {n: r for n, r in rates.items() if not n.startswith("openllm")}
        if peers:
            best = max(peers, key=peers.__getitem__)
            ours = {n: round(r / peers[best], 2) for n, r in rates.items() if n not in peers}
            ratios[count] = {"best_peer": best, **ours}
    facts: dict[str, Any] = {
        "model": "small",
        "peers_dtype": PEER_DTYPE,
        "new_tokens": NEW_TOKENS,
        "prompt_tokens": SYSTEM_TOKENS + USER_TOKENS,
    }
    facts |= {"rounds": args.rounds, "median": table, "to_best_peer": ratios}
    path = record(args.result, facts)
    print(json.dumps({"median": table, "to_best_peer": ratios}, indent=1))
    say(f"written to {path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OpenLLMError as error:
        sys.exit(f"error: {error}")
