# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The chat page in a real browser: does each thing on it do what it says?

    python benchmarks/chat_page.py

Opens the page in a headless Chromium that reaches nothing but a server on this machine
(`chat_server.py`), types, clicks, and looks. Results go to benchmarks/results/chat_page.json, what
it looks like to chat_page_wide.png and chat_page_narrow.png beside it.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chat_server import HOSTILE, SHOWCASE, chat_app, serving
from chromium import Chromium
from fastapi import FastAPI
from record import RESULTS, record

from openllm.core.log import say
from openllm.engine.backends.echo import echo_backend
from openllm.serve.app import create_app
from openllm.serve.config import ServeSettings
from openllm.serve.page import page_files
from openllm.serve.service import FixedModels, Service

LAST = "document.querySelector('.answer:last-child {part}')"
IDLE = "!document.body.classList.contains('busy')"
LONG = "abcdefghij " * 80


class Page:
    """The chat page, as a user sees it."""

    def __init__(self, browser: Chromium, url: str, bodies: list[dict[str, Any]]) -> None:
        self.browser, self.url, self.bodies = browser, url, bodies
        browser.allow(url, "clipboardReadWrite", "clipboardSanitizedWrite")

    def fresh(self, model: str = "echo") -> None:
        """As in a browser that was never here."""
        self.load()
        self.browser.run("(localStorage.clear(), sessionStorage.clear())")
        self.load()
        self.set("model", model)
        self.bodies.clear()

    def load(self) -> None:
        """Open the page and wait until it knows the models."""
        self.browser.run("window.old = true")
        self.browser.open(self.url + "/")
        self.browser.wait("!window.old && document.querySelectorAll('#model option').length > 0")

    def set(self, name: str, value: str) -> None:
        """Change a setting."""
        field = f"document.getElementById({json.dumps(name)})"
        self.browser.run(f"({field}.value = {json.dumps(value)}, 0)")
        self.browser.run(f"{field}.dispatchEvent(new Event('change'))")

    def ask(self, text: str, *, wait: bool = True) -> None:
        """Type a question and press Enter; wait for the whole answer."""
        self.browser.run("document.getElementById('question').focus()")
        self.browser.type(text)
        self.browser.press("Enter")
        if wait:
            self.browser.wait(IDLE)

    def click(self, selector: str) -> None:
        """Click the first such element."""
        self.browser.run(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str) -> str:
        """What the first such element says."""
        return self.browser.run(f"document.querySelector({json.dumps(selector)})?.textContent")

    def answer(self, part: str = ".text") -> str:
        """What the last answer says."""
        return self.text(f"#messages > li:last-child {part}")

    def count(self, selector: str) -> int:
        """Number of such elements."""
        return self.browser.run(f"document.querySelectorAll({json.dumps(selector)}).length")


def stream(page: Page) -> None:
    """A question with two lines is answered piece by piece; times and speed are shown."""
    page.fresh()
    page.browser.type("two")
    page.browser.press("Enter", shift=True)
    page.ask("lines " + LONG, wait=False)
    page.browser.wait("document.querySelector('.answer .text')?.textContent.length > 20")
    early = len(page.answer())
    page.browser.wait(IDLE)
    assert 20 < early < len(page.answer())
    assert page.bodies[0]["messages"] == [{"role": "user", "content": "two\nlines " + LONG}]
    assert page.answer().startswith("twolines")  # the line break is an element
    facts = page.answer(".facts")
    assert "first token" in facts and f"{len(LONG) + 11} tokens" in facts and "tokens/s" in facts


def stop(page: Page) -> None:
    """Escape and the button stop an answer; what was written stays."""
    page.fresh()
    for way in (lambda: page.browser.press("Escape"), lambda: page.click("#stop")):
        page.ask(LONG, wait=False)
        page.browser.wait("document.querySelectorAll('.answer.running .text *').length > 0")
        way()
        page.browser.wait(IDLE, timeout=5)
        assert page.answer(".problem") == "Stopped."
        assert 0 < len(page.answer()) < len(LONG)
        assert page.browser.run("!document.getElementById('send').hidden")
    # the next question carries what there is
    page.set("max_tokens", "5")
    page.ask("and?")
    assert [turn["role"] for turn in page.bodies[-1]["messages"]] == ["user", "assistant"] * 2 + [
        "user"
    ]
    assert page.answer(".problem") == "Cut off: the limit of tokens is reached."


def regenerate(page: Page) -> None:
    """An answer is made anew from the same conversation, or from an edited question."""
    page.fresh()
    page.ask("first")
    page.ask("second")
    page.click(".answer:last-child [aria-label='Regenerate the answer']")
    page.browser.wait(IDLE)
    assert page.bodies[2]["messages"] == page.bodies[1]["messages"]
    assert page.count(".answer") == 2
    page.browser.press("ArrowUp")  # edits the last question
    page.browser.wait("document.activeElement.closest('.edit')")
    page.browser.run("document.activeElement.value = 'changed'")
    page.browser.press("Enter")
    page.browser.wait(f"{IDLE} && document.querySelectorAll('.edit').length === 0")
    assert page.bodies[3]["messages"][-1]["content"] == "changed"
    page.click(".question [aria-label='Edit the question']")
    page.browser.run("document.activeElement.value = 'from the start'")
    page.browser.press("Enter")
    page.browser.wait(f"{IDLE} && document.querySelectorAll('.edit').length === 0")
    assert page.bodies[4]["messages"] == [{"role": "user", "content": "from the start"}]
    assert page.count("#messages > li") == 2


def copying(page: Page) -> None:
    """Answers and blocks of code are copied as they were written."""
    page.fresh("showcase")
    page.ask("show")
    page.click("[aria-label='Copy the answer']")
    page.browser.wait("document.querySelector('.answer .tools .copy').textContent === 'Copied'")
    assert page.browser.run("navigator.clipboard.readText()") == SHOWCASE
    page.click("[aria-label='Copy code']")
    page.browser.wait("document.querySelector('.code .copy').textContent === 'Copied'")
    code = SHOWCASE.partition("```python\n")[2].partition("\n```")[0]
    assert page.browser.run("navigator.clipboard.readText()") == code


def markdown(page: Page) -> None:
    """Headings, lists, bold, tables, quotes and code become elements."""
    page.fresh("showcase")
    page.ask("show")
    made = ("strong", "em", "h4", "ol > li", "table th.right", "pre code", "blockquote", "p code")
    assert [name for name in made if not page.count(f".text {name}")] == []
    assert page.count(".text ol > li") == 3 and page.count(".text tbody tr") == 2
    # what was shown while it grew is what is shown of the whole text
    grown = page.browser.run("document.querySelector('.answer .text').innerHTML")
    page.load()
    assert page.browser.run("document.querySelector('.answer .text').innerHTML") == grown


def hostile(page: Page) -> None:
    """Whatever a model, a title, an error or a file says: it stays text."""
    page.fresh("hostile")
    page.browser.requests.clear()
    page.ask('<img src=x onerror="window.hacked=20">')
    assert page.count(".text h3, .text table, .text pre, .text ul, .text blockquote") >= 5
    page.set("model", "echo")
    page.ask("<script>window.hacked=21</script> **<b onclick=1>** [x](javascript:window.hacked=22)")
    page.load()
    time.sleep(0.3)
    assert page.browser.run("window.hacked === undefined")
    bad = "script, img, iframe, svg, style, form, input, math, video, object, b"
    assert (
        page.browser.run(f"document.getElementById('messages').querySelectorAll('{bad}').length")
        == 0
    )
    attributes = page.browser.run(
        "[...document.querySelectorAll('#messages *, #conversations *')]"
        ".flatMap((node) => node.getAttributeNames())"
    )
    known = {"class", "href", "title", "target", "rel", "type", "aria-label", "tabindex", "hidden"}
    assert set(attributes) <= known | {"role", "aria-current"}
    links = page.browser.run("[...document.querySelectorAll('#messages a')].map((a) => a.href)")
    assert set(links) == {
        "http://evil.example/steal?x=1",  # an image became a link that nobody has to follow
        "https://good.example/",
        "https://good.example/a?b=c&d",
    }
    assert "<script>window.hacked = 1</script>" in page.text(".answer .text")
    assert all(address.startswith(page.url) for address in page.browser.requests)
    blocked = "(() => { try { document.body.innerHTML = '<b>'; } catch { return true; } })()"
    assert page.browser.run(blocked), "the policy must refuse HTML from scripts"


def reasoning(page: Page) -> None:
    """Thoughts are folded away, rendered, and not sent back."""
    page.fresh("thinker")
    page.ask("what?")
    assert page.answer() == "It is 42."
    assert page.answer("summary").startswith("Thought for")
    assert not page.browser.run("document.querySelector('details').open")
    assert page.count(".thoughts strong") == 1
    page.ask("sure?")
    assert page.bodies[1]["messages"][1] == {"role": "assistant", "content": "It is **42**."}


def errors(page: Page) -> None:
    """A busy server is asked again when it says; other errors are told, and can be mended."""
    page.fresh("busy")
    page.ask("hello", wait=False)
    page.browser.wait("/Trying again in \\d s/.test(document.getElementById('notice').textContent)")
    page.browser.wait(IDLE, timeout=10)
    assert page.answer() == "hello" and len(page.bodies) == 2
    assert page.browser.run("document.getElementById('notice').hidden")
    page.fresh("broken")
    page.ask("hello")
    assert page.answer(".error") == "The engine failed"
    page.set("model", "torn")
    page.ask("more")
    assert "broke off" in page.answer(".error") and page.answer() == "hel"
    assert page.bodies[-1]["messages"] == [{"role": "user", "content": "hello\n\nmore"}]
    page.set("model", "locked")
    page.ask("hello")
    assert page.answer(".error").startswith("This server needs an API key")
    assert page.browser.run("document.activeElement.id") == "key"
    assert page.browser.run("!document.getElementById('settings').hidden")
    page.set("key", "wrong")
    page.browser.wait("document.getElementById('notice').textContent.startsWith('Incorrect')")
    page.set("key", "right")
    page.browser.wait("document.getElementById('notice').hidden")
    page.click(".answer:last-child [aria-label='Regenerate the answer']")
    page.browser.wait(IDLE)
    assert page.answer(".facts") != "" and not page.browser.run("localStorage['openllm.key']")
    assert "right" not in page.browser.run("JSON.stringify(localStorage)")


def settings(page: Page) -> None:
    """What is set is sent, and what is empty or impossible is not."""
    page.fresh()
    page.set("system", "Be brief.")
    page.set("temperature", "0.3")
    page.set("top_p", "0.9")
    page.set("seed", "7")
    page.ask("hi")
    body = page.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.3, 0.9, 7)
    assert "max_tokens" not in body and body["stream_options"] == {"include_usage": True}
    page.click("#new")
    page.set("temperature", "9")
    page.set("seed", "")
    page.ask("hi")
    assert "temperature" not in page.bodies[1] and "seed" not in page.bodies[1]
    assert page.bodies[1]["top_p"] == 0.9


def history(page: Page, folder: Path) -> None:
    """Conversations survive a reload; they are renamed, deleted, brought back, carried away."""
    page.fresh()
    page.ask("one")
    page.click("#new")
    page.ask("two")
    page.load()
    titles = "[...document.querySelectorAll('#conversations .open')].map((b) => b.textContent)"
    assert page.browser.run(titles) == ["two", "one"]
    assert page.text(".bubble") == "two"
    page.click("[aria-label='Rename two']")
    page.browser.run("(document.activeElement.value = 'second', 0)")
    page.browser.press("Enter")
    assert page.browser.run(titles) == ["second", "one"]
    page.click("[aria-label='Delete second']")
    assert page.browser.run(titles) == ["one"] and page.text(".bubble") == "one"
    page.click("#toast button")
    assert page.browser.run(titles) == ["second", "one"] and page.text(".bubble") == "two"
    page.browser.download_to(folder)
    page.click("#export")
    file = _downloaded(folder)
    value = json.loads(file.read_text())
    assert [chat["title"] for chat in value["conversations"]] == ["second", "one"]
    page.fresh()
    page.browser.choose("#file", file)
    page.browser.wait(f"{titles}.length === 2")
    assert page.browser.run(titles) == ["second", "one"]
    # a file that does not hold conversations changes nothing
    for bad in ("x", "{}", '{"format": "openllm-conversations", "format_version": 9}'):
        (folder / "bad.json").write_text(bad)
        page.browser.run("(document.getElementById('toast').textContent = '', 0)")
        page.browser.choose("#file", folder / "bad.json")
        page.browser.wait("document.getElementById('toast').textContent.startsWith('This file')")
    assert page.browser.run(titles) == ["second", "one"]


def _downloaded(folder: Path) -> Path:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for file in folder.glob("conversations-*.json"):
            if file.stat().st_size:
                return file
        time.sleep(0.1)
    raise TimeoutError("nothing was downloaded")


def access(page: Page) -> None:
    """Everything has a name for a screen reader, and nothing is wider than a small telephone."""
    page.fresh("showcase")
    page.ask("show")
    page.click("#open-settings")
    unnamed = [role for role, name in page.browser.widgets() if not name]
    assert unnamed == []
    page.browser.look(320, 600)
    page.browser.run("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert page.browser.run("document.scrollingElement.scrollWidth") <= 320
    page.click("#open-sidebar")
    assert page.browser.run("document.getElementById('sidebar').contains(document.activeElement)")
    page.browser.press("Escape")
    assert page.browser.run("document.activeElement.id") == "open-sidebar"
    page.browser.look(1280, 860)


def real_server() -> FastAPI:
    """The application that `openllm serve echo` runs."""
    return create_app(Service(FixedModels({"echo": echo_backend()})), ServeSettings())


def talk_to_server(browser: Chromium) -> None:
    """The page that the server itself serves talks to it."""
    with serving(real_server()) as url:
        page = Page(browser, url, [])
        page.fresh()
        page.ask("hello **world**")
        assert page.answer() == "hello world"
        assert "16 tokens" in page.answer(".facts") and "tokens/s" in page.answer(".facts")
        page.ask("x" * 5000)
        assert "context" in page.answer(".error")


CHECKS: dict[str, Callable[..., None]] = {
    check.__name__: check
    for check in (
        stream,
        stop,
        regenerate,
        copying,
        markdown,
        hostile,
        reasoning,
        errors,
        settings,
        history,
        access,
    )
}


def run_check(name: str, page: Page, folder: Path) -> None:
    """Run one check; the page must have asked for nothing elsewhere and logged no error."""
    page.browser.requests.clear()
    page.browser.messages.clear()
    CHECKS[name](page, folder) if name == "history" else CHECKS[name](page)
    outside = [one for one in page.browser.requests if not one.startswith((page.url, "blob:"))]
    assert outside == []
    expected = ("status of 4", "status of 5", "Password field", "TrustedHTML")
    said = [text for text in page.browser.messages if not any(part in text for part in expected)]
    assert said == []


def pictures(page: Page) -> None:
    """What it looks like."""
    page.fresh("showcase")
    page.ask("What does a prefix cache do? Show me numbers and code.")
    page.browser.run("(document.getElementById('scroll').scrollTop = 0, 0)")
    page.browser.look(1280, 860)
    time.sleep(0.3)
    page.browser.screenshot(RESULTS / "chat_page_wide.png")
    page.browser.look(390, 844, dark=True)
    time.sleep(0.3)
    page.browser.screenshot(RESULTS / "chat_page_narrow.png")


def main() -> None:
    """Check, photograph, record."""
    app, bodies = chat_app()
    passed: dict[str, str] = {}
    with serving(app) as url, Chromium(width=1280, height=860) as browser:
        page = Page(browser, url, bodies)
        for name in CHECKS:
            with tempfile.TemporaryDirectory() as folder:
                run_check(name, page, Path(folder))
            passed[name] = " ".join((CHECKS[name].__doc__ or "").split())
            say(f"{name}: passed")
        talk_to_server(browser)
        passed["server"] = " ".join((talk_to_server.__doc__ or "").split())
        pictures(page)
        facts = {
            "browser": browser.run("navigator.userAgent"),
            "bytes": sum(map(len, page_files().values())),
            "hostile_text_bytes": len(HOSTILE),
            "passed": passed,
        }
    record("chat_page", facts, ("fastapi", "uvicorn"))


if __name__ == "__main__":
    main()
