# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The commands of a terminal chat: lines that begin with a slash."""

import difflib
import re
import shlex
from pathlib import Path
from typing import Protocol

from openllm.core.errors import UsageError
from openllm.recipes.chat.screen import columns
from openllm.recipes.chat.session import Session, read_value


class Chat(Protocol):
    """What commands act on."""

    session: Session

    def note(self, text: str) -> None:
        """Tell the user something."""
        ...

    def model_name(self) -> str:
        """What the model is."""
        ...

    def change_model(self, source: str) -> None:
        """Load another model; the present one stays if it cannot be loaded."""
        ...

    def count_tokens(self) -> str:
        """How long the conversation is, in words."""
        ...

    def respond(self, question: str) -> None:
        """Ask the model."""
        ...


class Leave(Exception):
    """The user wants to end the program."""


def _help(chat: Chat, text: str) -> None:
    shown = {f"{name} {usage}".strip(): line for name, (_, usage, line) in COMMANDS.items()}
    keys = {
        "line\\": "goes on in the next line",
        '"""': "begins and ends a text of several lines",
        "Ctrl-C": "stops the answer",
        "Ctrl-D": "ends the chat",
    }
    chat.note("\n".join([*columns(shown), "", *columns(keys)]))


def _system(chat: Chat, text: str) -> None:
    if text:
        chat.session.system = None if text == "none" else text
    chat.note(f"system prompt: {chat.session.system or 'none'}")


def _model(chat: Chat, text: str) -> None:
    if text:
        chat.change_model(text)
    chat.note(f"model: {chat.model_name()}")


def _save(chat: Chat, text: str) -> None:
    path = _path(text)
    chat.session.save(path, chat.model_name())
    chat.note(f"saved as {path}")


def _load(chat: Chat, text: str) -> None:
    path = _path(text)
    chat.session.load(path)
    chat.note(f"loaded {len(chat.session.messages)} messages from {path}")


def _path(text: str) -> Path:
    if not text:
        raise UsageError("name a file, such as chat.json")
    return Path(text).expanduser()


def _retry(chat: Chat, text: str) -> None:
    if chat.session.complete:
        raise UsageError("a text cannot be retried; use /clear and type it again")
    question = chat.session.unanswered
    if question is None:
        question = chat.session.undo()
    if question is None:
        raise UsageError("there is no question yet")
    chat.respond(question)


def _undo(chat: Chat, text: str) -> None:
    question = chat.session.undo()
    chat.note("there is nothing to undo" if question is None else f"forgotten: {question}")


def _clear(chat: Chat, text: str) -> None:
    chat.session.clear()
    chat.note("a new conversation")


def _set(chat: Chat, text: str) -> None:
    name, _, value = text.partition(" ")
    if value:
        chat.session.set(name, read_value(value.strip()))
    shown = chat.session.settings
    chat.note("\n".join(columns({key: str(one) for key, one in shown.items()} or {"none": ""})))


def _stop(chat: Chat, text: str) -> None:
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read this ({error}); quote each text") from None
    if text:
        chat.session.set("stop", None if found == ["none"] else found)
    chat.note(f"stop before: {chat.session.settings.get('stop') or 'nothing'}")


def _tokens(chat: Chat, text: str) -> None:
    chat.note(chat.count_tokens())


def _exit(chat: Chat, text: str) -> None:
    raise Leave


COMMANDS = {
    "/help": (_help, "", "show this"),
    "/system": (_system, "[TEXT|none]", "what the model is told first"),
    "/model": (_model, "[MODEL]", "show or change the model; the conversation stays"),
    "/set": (_set, "[NAME VALUE|none]", "show or change settings, such as temperature 0.7"),
    "/stop-sequences": (_stop, "[TEXT ...|none]", "texts before which an answer stops"),
    "/tokens": (_tokens, "", "how long the conversation is"),
    "/retry": (_retry, "", "ask the last question again"),
    "/undo": (_undo, "", "forget the last question and its answer"),
    "/clear": (_clear, "", "begin a new conversation"),
    "/save": (_save, "FILE", "keep the conversation in a file"),
    "/load": (_load, "FILE", "go on with the conversation in a file"),
    "/exit": (_exit, "", "end the chat"),
}
"""Name -> function, arguments, what it does."""


def is_command(line: str) -> bool:
    """Whether a line is meant for us, and not for the model, as one that begins with a path."""
    return re.match(r"/[a-zA-Z-]+(\s|$)", line) is not None and "\n" not in line


def run_command(chat: Chat, line: str) -> None:
    """Run a command.

    Raises:
        UsageError: there is no such command, or its arguments are wrong.
        OpenLLMError: it failed.
        Leave: the program should end.
    """
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else "see /help"
        raise UsageError(f"there is no command {name}; {hint}")
    COMMANDS[name][0](chat, rest.strip())
