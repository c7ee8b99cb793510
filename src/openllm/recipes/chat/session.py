# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A conversation: its turns and settings, and the file that it is kept in."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.core.errors import ConfigError, DataError, UsageError
from openllm.core.files import read_json, write_json
from openllm.serve.errors import ApiError
from openllm.serve.openai.body import Body
from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.completion_schemas import CompletionRequest
from openllm.serve.openai.schemas import Sampling

MEND = "give a file that was written by /save"

NOT_SET = ("stream", "stream_options", "user")
TEXT_SETTINGS = {"max_tokens", *Sampling.model_fields} - set(NOT_SET)
CHAT_SETTINGS = TEXT_SETTINGS | {"chat_template_kwargs", "reasoning_effort"}
"""Names of what `/set` can change."""


@dataclass
class Session:
    """A conversation, or a text that is being continued.

    Attributes:
        complete: whether it is a text.
        system: what the model is told first.
        settings: fields of the requests.
        messages: the turns of a conversation.
        text: what is continued.
        unanswered: the last question, if asking it failed.
    """

    complete: bool = False
    system: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    text: str = ""
    unanswered: str | None = field(default=None, compare=False)

    def body(self) -> ChatRequest | CompletionRequest:
        """The request for what comes next.

        Raises:
            ConfigError: the settings exclude each other, or there is nothing to answer.
        """
        if self.complete:
            wish = {"max_tokens": 200, **self.settings}
            return _parse(CompletionRequest, {"prompt": self.text, **wish})
        turns = [{"role": "system", "content": self.system}] if self.system else []
        return _parse(ChatRequest, {"messages": turns + self.messages, **self.settings})

    def set(self, name: str, value: Any) -> None:
        """Change a setting; none: as the model has it.

        Raises:
            UsageError: there is no such setting.
            ConfigError: it cannot have this value.
        """
        known = TEXT_SETTINGS if self.complete else CHAT_SETTINGS
        if name not in known:
            names = ", ".join(sorted(known))
            raise UsageError(f"there is no setting '{name}'; there are: {names}")
        if value is None:
            self.settings.pop(name, None)
            return
        if self.complete:
            _parse(CompletionRequest, {"prompt": "x", name: value})
        else:
            _parse(ChatRequest, {"messages": [{"role": "user", "content": "x"}], name: value})
        self.settings[name] = value

    def ask(self, question: str) -> Callable[[], None]:
        """Add what the user says; returns what takes it back."""
        self.unanswered = None
        if self.complete:
            before = self.text
            self.text = question or self.text
            return lambda: setattr(self, "text", before)
        self.messages.append({"role": "user", "content": question})
        return lambda: self.messages.pop()

    def answered(self, content: str) -> None:
        """Add what the model said."""
        if self.complete:
            self.text += content
        else:
            self.messages.append({"role": "assistant", "content": content})

    def undo(self) -> str | None:
        """Forget the last question and what follows it; returns it, or none if there is none."""
        asked = [at for at, turn in enumerate(self.messages) if turn["role"] == "user"]
        if not asked:
            return None
        question = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        return question

    def clear(self) -> None:
        """Begin anew with the same settings."""
        self.unanswered = None
        self.messages.clear()
        self.text = ""

    def save(self, path: Path, model: str) -> None:
        """Write it to a file.

        Raises:
            StorageError: it cannot be written.
        """
        facts = {"model": model, "system": self.system, "settings": self.settings}
        write_json(path, {"kind": "chat", **facts, "messages": self.messages, "text": self.text})

    def load(self, path: Path) -> None:
        """Go on with the conversation in a file.

        Raises:
            DataError: it is missing or damaged.
        """
        found = read_json(path, DataError, MEND)
        made = Session(self.complete)
        try:
            made.system = found["system"]
            made.text = found["text"]
            for name, value in found["settings"].items():
                made.set(name, value)
            made.messages = [
                {"role": turn["role"], "content": turn["content"]} for turn in found["messages"]
            ]
            if not isinstance(made.text, str) or not isinstance(made.system, str | None):
                raise TypeError("a text is none")
            if made.messages:
                _parse(ChatRequest, {"messages": made.messages})
        except (KeyError, TypeError, AttributeError, UsageError, ConfigError) as error:
            raise DataError(f"{path} is not a conversation ({error}); {MEND}") from None
        self.system, self.settings = made.system, made.settings
        self.messages, self.text = made.messages, made.text
        self.unanswered = None


def read_value(text: str) -> Any:
    """A value as it is typed: JSON, or a text."""
    if text in ("none", "None", ""):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parse(schema: type[Body], values: Mapping[str, Any]) -> Any:
    try:
        return schema.parse(dict(values))
    except ApiError as error:
        raise ConfigError(error.message) from None
