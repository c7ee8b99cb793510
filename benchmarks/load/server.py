# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The server under load: `openllm serve` in a process of its own, on a socket that outlives it."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from openllm.checkpoint.model_dir import write_model
from openllm.nn.config import AttentionConfig, ModelConfig, SwiGLUConfig
from openllm.nn.model import build_model
from openllm.serve.keys import KeyFile
from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


class Server:
    """Starts, measures and stops it."""

    def __init__(self, folder: Path, model: str, *settings: str) -> None:
        self.folder, self.model, self.settings = folder, model, settings
        keys = KeyFile(folder / "keys.json")
        self.user = keys.add("load")[1]
        self.operator = keys.add("operator", scopes=("admin", "metrics"))[1]
        self.access_log = folder / "access.log"
        self.log = folder / "server.log"
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.socket.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it as systemd would, with the socket as descriptor 3."""
        command = [sys.executable, "-m", "openllm", "serve", self.model]
        command += ["--api-key-file", str(self.folder / "keys.json")]
        command += ["--access-log", str(self.access_log)]
        command += [word for setting in self.settings for word in ("--set", setting)]
        hand_over = f'exec env LISTEN_FDS=1 LISTEN_PID=$$ "$@" 3<&{self.socket.fileno()}'
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", hand_over, "bash", *command],
                pass_fds=[self.socket.fileno()],
                stdout=log,
                stderr=log,
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # as in deploy/
            )

    async def stop(self) -> tuple[int, float]:
        """SIGTERM; returns the exit code, and how long the drain took."""
        assert self.process is not None
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self.process.wait, 120)
        return code, time.perf_counter() - began

    def rss_mib(self) -> float:
        """Memory of the process."""
        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def kill(self) -> None:
        """End it if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.socket.close()

    def written(self) -> str:
        """All that it has logged."""
        return self.access_log.read_text() + self.log.read_text()


def write_random_model(folder: Path) -> Path:
    """A model of the size of the recipe `tiny`, with random weights."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(500)
    ]
    pieces = [" ".join(rng.choices(words, k=12)) for _ in range(2000)]
    settings = TokenizerSettings(vocab_size=2048)
    write_tokenizer(folder / "tokenizer", train_model(pieces, settings), {})
    cfg = ModelConfig(
        vocab_size=2048,
        dim=256,
        num_layers=4,
        max_positions=1024,
        attention=AttentionConfig(num_heads=4, head_dim=64),
        mlp=SwiGLUConfig(hidden_dim=768),
    )
    with torch.no_grad():
        state = build_model(cfg, seed=0).state_dict()
    model = folder / "tiny"
    facts = {"made_by": "benchmarks/serve_load.py"}
    write_model(model, cfg, state, tokenizer=folder / "tokenizer", lineage=facts, card="# tiny\n")
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (model / "chat_template.jinja").write_text(TEMPLATE)
    return model
