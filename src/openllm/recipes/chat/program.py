# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The terminal chat: reads, asks, shows."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict

from rich.console import Console

from openllm.core.errors import OpenLLMError, RemoteError, TemplateError
from openllm.engine.backend import Backend
from openllm.recipes.backend import SourceLoader, default_name
from openllm.recipes.chat import keyboard
from openllm.recipes.chat.answer import Answer
from openllm.recipes.chat.screen import Writer, safe
from openllm.recipes.chat.session import Session
from openllm.recipes.chat.slash import COMMANDS, Leave, is_command, run_command
from openllm.serve.errors import ApiError, as_api_error

PROMPT = "\001\033[1m\002>\001\033[0m\002 "
"""Readline must know which characters take no room."""

TOO_LONG = "context_length_exceeded"

SUFFIXES = {"length": "cut off at max_tokens", None: "stopped"}


class Program:
    """A model, a conversation, a terminal."""

    def __init__(self, session: Session, loader: SourceLoader) -> None:
        self.session = session
        self._loader = loader
        self._console = Console(highlight=False)
        self._backend: Backend | None = None
        self._used: int | None = None  # tokens of the last question and its answer
        self._runner = asyncio.Runner()

    @contextmanager
    def opened(self, source: str) -> Iterator[None]:
        """With a model, which is closed at the end.

        Raises:
            OpenLLMError: it cannot be loaded, or is not made for chat.
        """
        self._backend = self._open(source)
        try:
            yield
        finally:
            self._runner.run(self.backend.close())
            self._runner.close()

    @property
    def backend(self) -> Backend:
        """The model."""
        assert self._backend is not None, "used outside of opened()"
        return self._backend

    def answer_once(self, question: str, *, as_json: bool) -> int:
        """Write the answer to a question, and nothing else, to standard output."""
        self.session.ask(question)
        answer = Answer()

        async def ask() -> None:
            async with aclosing(answer.stream(self.backend, self.session.body())) as news:
                async for _, content in news:
                    if not as_json:
                        sys.stdout.write(content)
                        sys.stdout.flush()

        try:
            self._runner.run(ask())
        except ApiError as error:
            raise _in_words(error) from None
        if as_json:
            facts = {"model": self.backend.info.name, **asdict(answer)}
            speed = {"tokens_per_second": answer.speed}
            sys.stdout.write(json.dumps({**facts, **speed}, ensure_ascii=False))
        if as_json or not answer.content.endswith("\n"):
            sys.stdout.write("\n")
        return 0

    def run(self, *, keep_history: bool) -> None:
        """Talk until the user leaves."""
        what = "/help lists the commands"
        if self.session.complete:
            what += "; an empty line continues the text"
        self.note(f"{self.model_name()}\n{what}")
        history = keyboard.history_file() if keep_history else None
        with keyboard.editing(history, list(COMMANDS)):
            while True:
                try:
                    self._turn(keyboard.read_text(PROMPT))
                except KeyboardInterrupt:
                    self._console.print()
                    self.note("Ctrl-D or /exit ends the chat")
                except (EOFError, Leave):
                    self._console.print()
                    return

    def note(self, text: str) -> None:
        """Tell the user something."""
        self._console.print(safe(text), style="dim", markup=False)

    def model_name(self) -> str:
        """What the model is."""
        info = self.backend.info
        parts = [info.kind, info.precision, _millions(info.parameters)]
        shown = ", ".join(part for part in parts if part)
        return f"{info.name} ({shown})"

    def change_model(self, source: str) -> None:
        """Load another model; the present one stays if it cannot be loaded."""
        other = self._open(source)
        before, self._backend = self.backend, other
        self._runner.run(before.close())

    def count_tokens(self) -> str:
        """How long the conversation is, in words."""
        most = self.backend.info.max_positions
        room = f" of {most:,}" if most is not None else ""
        if not self.session.messages and not self.session.text:
            return "no tokens yet"
        try:
            return f"{self._count():,} tokens{room}"
        except RemoteError:  # few servers count what they are not asked to answer
            if self._used is None:
                raise
            return f"{self._used:,} tokens{room} when it was answered last"

    def _count(self) -> int:
        if self.session.complete:
            return len(self._runner.run(self.backend.encode(self.session.text)))
        turns = [{"role": "system", "content": self.session.system}] * bool(self.session.system)
        turns += self.session.messages
        return len(self._runner.run(self.backend.encode_chat(turns)))

    def respond(self, question: str) -> None:
        """Ask the model and show its answer; Ctrl-C stops it, and what has come is kept."""
        take_back = self.session.ask(question)
        answer = Answer()
        try:
            with keyboard.unseen(), Writer(self._console, plain=self.session.complete) as writer:
                self._runner.run(self._show(answer, writer))
        except KeyboardInterrupt:
            pass
        except (ApiError, OpenLLMError) as error:
            take_back()
            self.session.unanswered = question
            found = _in_words(error)
            if getattr(error, "code", None) == TOO_LONG and not self.session.complete:
                found = OpenLLMError(f"{found}, or make room with /undo or /clear, then /retry")
            raise found from None
        self._used = answer.usage.get("total_tokens") or self._used
        if answer.content or self.session.complete:
            self.session.answered(answer.content)
        else:
            take_back()
        self.note(_facts(answer))
        self._console.print()

    async def _show(self, answer: Answer, writer: Writer) -> None:
        async with aclosing(answer.stream(self.backend, self.session.body())) as news:
            async for reasoning, content in news:
                writer.think(reasoning)
                writer.write(content)

    def _turn(self, text: str) -> None:
        try:
            if is_command(text):
                run_command(self, text)
            elif text.strip() or (self.session.complete and self.session.text):
                self.respond(text)
        except OpenLLMError as error:
            self._console.print(f"error: {safe(str(error))}", style="red", markup=False)

    def _open(self, source: str) -> Backend:
        backend = self._loader.load(default_name(source), source)
        local = backend.tokenizer is not None
        if local and backend.template is None and not self.session.complete:
            asyncio.run(backend.close())
            raise TemplateError(
                f"the model {source} has no chat template, so it is not made for chat; have it "
                f"continue texts instead: openllm chat {source} --complete"
            )
        return backend


def _in_words(error: Exception) -> OpenLLMError:
    """An error of a request as one for the user of this program, who may know all."""
    return error if isinstance(error, OpenLLMError) else OpenLLMError(as_api_error(error).message)


def _facts(answer: Answer) -> str:
    """How it went, in one line."""
    count = answer.usage.get("completion_tokens", 0)
    parts = [f"{count:,} token{'' if count == 1 else 's'}"] if count else []
    if answer.speed is not None:
        parts.append(f"{answer.speed:,.1f} tokens/s")
    if answer.first_s is not None:
        parts.append(f"first token {answer.first_s * 1000:,.0f} ms")
    if answer.finish_reason in SUFFIXES:
        parts.append(SUFFIXES[answer.finish_reason])
    return " · ".join(parts)


def _millions(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:,.1f} million parameters"
