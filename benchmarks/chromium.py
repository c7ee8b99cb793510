# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A headless Chromium, driven through a pipe by the DevTools protocol."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    # no network but servers on this machine: every name is unknown, and there is no proxy
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
)


def find_chromium() -> str | None:
    """The program, if it is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Chromium:
    """A browser with one page; a context manager.

    Attributes:
        requests: addresses that the page has asked for.
        messages: what it wrote to its console, and its uncaught errors.
    """

    def __init__(self, *, width: int = 900, height: int = 1000, dark: bool = False) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours, self._commands = os.pipe()
        self._answers, theirs = os.pipe()
        # Chromium reads from 3 and writes to 4
        reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours, theirs))

        def place() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        program = find_chromium()
        assert program is not None, "Chromium is not installed"
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=place,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in (ours, theirs, reads, writes):
            os.close(fd)
        self._buffer, self._number, self._session = b"", 0, ""
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")
        self.look(width, height, dark=dark)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)
        os.close(self._answers)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._profile.cleanup()

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window, and which colours the user likes."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path | str) -> None:
        """Load a page from the disk, or from an address."""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self._ask("Page.navigate", url=url)

    def allow(self, origin: str, *permissions: str) -> None:
        """Grant what a user would be asked for, such as clipboardReadWrite."""
        self._ask("Browser.grantPermissions", origin=origin, permissions=list(permissions))

    def type(self, text: str) -> None:
        """Type into what has the focus, as a keyboard or an input method does."""
        self._ask("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, by its DOM name, such as Enter."""
        code = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "Tab": 9}[key]
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        text = {"text": "\r"} if key == "Enter" else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **facts)

    def run(self, script: str, *, timeout: float = 300) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self._ask(
            "Runtime.evaluate",
            timeout,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, condition: str, *, timeout: float = 120) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + timeout
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}: {self.messages}")
            time.sleep(0.1)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file of the disk in a field for files."""
        root = self._ask("DOM.getDocument")["root"]["nodeId"]
        node = self._ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._ask("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve())])

    def download_to(self, folder: Path) -> None:
        """Where files are saved that the page offers."""
        where = str(folder.resolve())
        self._ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=where)

    def widgets(self) -> list[tuple[str, str]]:
        """Role and name, as a screen reader hears them, of all that can be used."""
        used = {"button", "textbox", "combobox", "spinbutton", "link", "checkbox"}
        nodes = self._ask("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored")]
        pairs = [(node["role"]["value"], node["name"]["value"]) for node in shown if "name" in node]
        return [pair for pair in pairs if pair[0] in used]

    def screenshot(self, path: Path) -> None:
        """Save a PNG of what is seen."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._next(end - time.monotonic())
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _next(self, timeout: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if timeout <= 0 or not select.select([self._answers], [], [], timeout)[0]:
                raise TimeoutError(f"no answer from Chromium: {self.messages}")
            block = os.read(self._answers, 1 << 20)
            if not block:
                raise RuntimeError("Chromium has ended")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        facts = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"][:300])
            case "Runtime.consoleAPICalled":
                self.messages.append(str([arg.get("value") for arg in facts["args"]]))
            case "Runtime.exceptionThrown":
                self.messages.append(str(facts["exceptionDetails"])[:1000])
            case "Log.entryAdded":
                self.messages.append(facts["entry"]["text"])
