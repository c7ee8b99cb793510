# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs an application on a port until it is told to stop.

The first SIGTERM or Ctrl-C begins a drain: the port is closed, what has been accepted is answered.
A second one ends the process at once.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from openllm.core.errors import ConfigError, EngineError
from openllm.core.log import say, warn
from openllm.core.plugins import require
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.connection import CROWD, connection_class
from openllm.serve.operations.exchange import place
from openllm.serve.operations.lifecycle import Lifecycle

WATCH_S = 1.0
"""Seconds between two looks at the health of the models."""

OTHER_FILES = 256
"""Open files beside connections from clients: models, logs, connections to other servers."""

MAX_TOLD = 100
"""Different faults of the event loop that are told, each once."""

FIRST_DESCRIPTOR = 3
"""Where systemd puts the sockets that it hands over."""

PATIENCE_S = 10.0
"""Seconds that models may be unhealthy before the server gives up."""


def handed_over(environment: Mapping[str, str] = os.environ) -> int | None:
    """The descriptor of a listening socket that systemd opened for this process, if it did.

    It stays open while the server is started again, so that no client is turned away.
    """
    ours = environment.get("LISTEN_PID") == str(os.getpid())
    return FIRST_DESCRIPTOR if ours and environment.get("LISTEN_FDS") == "1" else None


def listen(host: str, port: int, *, backlog: int = 1024) -> socket.socket:
    """A listening socket; requests that come before the server is ready wait in it.

    Args:
        host: address; one with colons is of IPv6.
        port: 0: any that is free.
        backlog: connections that may wait to be accepted.

    Raises:
        ConfigError: the address is not of this machine, or the port is taken.
        MissingExtra: the server's library is not installed.
    """
    require("uvicorn")  # better missed now than when the models are loaded
    if (descriptor := handed_over()) is not None:
        return socket.socket(fileno=descriptor)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from None
    found.listen(backlog)
    return found


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Host and port that a socket listens on; one in the file system is of this machine alone."""
    if sock.family == socket.AF_UNIX:
        return "localhost", 0
    host, port = sock.getsockname()[:2]
    return host, port


def allow_files(connections: int) -> None:
    """Let the process open as many files as so many connections and all else need.

    Where the system allows fewer, clients can use them all up, and nobody is answered then.
    """
    wanted = connections + CROWD + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        warn(
            f"only {allowed} files may be open, too few for {connections} connections; raise it "
            f"with ulimit -n {wanted}, or lower --set limits.max_connections"
        )


def run_server(
    app: Any,
    sock: socket.socket,
    lifecycle: Lifecycle,
    limits: LimitSettings,
    *,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal comes, then drain.

    Args:
        app: an ASGI application.
        sock: that it listens on.
        lifecycle: is told when the end begins.
        limits: of time and number.
        started: called when requests are taken.

    Raises:
        EngineError: the models have failed for good; a supervisor should start the server again.
    """
    uvicorn = require("uvicorn")
    allow_files(limits.max_connections)
    protocol = require("uvicorn.protocols.http.h11_impl").H11Protocol
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).disabled = True  # their lines hold paths, queries and tracebacks
    config = uvicorn.Config(
        app,
        http=connection_class(protocol, limits),
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=limits.max_header_bytes,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.drain_s,
    )
    server = _server_class(uvicorn, lifecycle, limits, started)(config)
    asyncio.run(server.serve(sockets=[sock]))
    if server.failed:
        raise EngineError("the models have failed; start the server again")


class Faults:
    """Tells what nobody caught, without the traceback and the values that asyncio would print.

    Each once: what clients can cause, such as a lack of files, would fill the disk.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """See `loop.set_exception_handler`."""
        error = context.get("exception")
        why = "" if error is None else f" ({place(error)})"
        text = f"{context['message']}{why}"
        if text not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(text)
            warn(text)


def _server_class(
    uvicorn: Any, lifecycle: Lifecycle, limits: LimitSettings, started: Callable[[], None]
) -> type[Any]:
    class DrainingServer(uvicorn.Server):
        """Answers what it has accepted before it ends; ends with exit code 0 then."""

        failed = False

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if lifecycle.stopping:
                os._exit(128 + sig)
            name = signal.Signals(sig).name
            say(f"{name}: answering what has been accepted, for at most {limits.drain_s:g} s")
            lifecycle.stopping = True
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, limits.lame_duck_s, self._stop)

        def _stop(self) -> None:
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().set_exception_handler(Faults().tell)
            await super().startup(sockets)
            self._watching = asyncio.create_task(self._watch())
            started()

        async def _watch(self) -> None:
            bad_s = 0.0
            while not lifecycle.stopping:
                await asyncio.sleep(WATCH_S)
                bad_s = 0.0 if lifecycle.healthy() else bad_s + WATCH_S
                if bad_s >= PATIENCE_S:
                    warn("the models have failed: stopping")
                    self.failed = lifecycle.stopping = self.should_exit = True

    return DrainingServer
