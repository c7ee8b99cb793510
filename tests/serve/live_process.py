# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A live server of a slow echo, a process: `python -m tests.serve.live_process SETTINGS`."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main(text: str) -> int:
    from tests.serve.asgi import slow_backend

    from openllm.serve.app import create_app
    from openllm.serve.config import ServeSettings
    from openllm.serve.listen import listen, run_server
    from openllm.serve.operations.install import install_operations
    from openllm.serve.service import FixedModels, Service

    values = json.loads(text)
    backend, engine = slow_backend(values.pop("step_s", 0.0))
    die = values.pop("die", False)
    settings = ServeSettings.parse({"port": 0, **values}, "live")
    service = Service(FixedModels({"echo": backend}))
    app = create_app(service, settings)
    operations = install_operations(app, service, settings)
    sock = listen(settings.host, settings.port)

    def started() -> None:
        if die:
            engine.step = lambda: [][0]  # type: ignore[method-assign]
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()

    try:
        run_server(app, sock, operations.lifecycle, settings.limits, started=started)
    finally:
        operations.close()
    return 0


class Live:
    """The process, and connections to it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data: bytes, *, quiet_s: float | None = None) -> bytes:
        """Send bytes; returns what comes back until the server closes, or says nothing for long."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock, quiet_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def read_all(sock: socket.socket, quiet_s: float | None = None) -> bytes:
    """Until the other side closes; a reset counts as its end, as does silence after an answer."""
    found = b""
    try:
        while part := sock.recv(65536):
            found += part
            sock.settimeout(quiet_s or sock.gettimeout())
    except ConnectionError:
        pass
    except TimeoutError:
        if quiet_s is None:
            raise
    return found


def with_socket(command: list[str], sock: socket.socket) -> list[str]:
    """A command that finds a listening socket where systemd would put it."""
    hand_over = f'exec env LISTEN_FDS=1 LISTEN_PID=$$ "$@" 3<&{sock.fileno()}'
    return ["/bin/bash", "-c", hand_over, "bash", *command]


@contextmanager
def live(log: Path, *, sock: socket.socket | None = None, **settings: Any) -> Iterator[Live]:
    """A running server, whose output is in `log`; on `sock`, if there is one already."""
    command, inherited = (
        [sys.executable, "-m", "tests.serve.live_process", json.dumps(settings)],
        [],
    )
    if sock is not None:
        command, inherited = with_socket(command, sock), [sock.fileno()]
    with open(log, "w") as err:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True, pass_fds=inherited
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip().isdigit(), log.read_text()
        yield Live(process, int(line))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    from openllm.core.errors import OpenLLMError

    try:
        sys.exit(main(sys.argv[1]))
    except OpenLLMError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
