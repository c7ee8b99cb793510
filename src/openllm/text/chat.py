# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Chat templates: messages to the text, and to the token ids, that a model was trained on."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from openllm.core.errors import TemplateError
from openllm.text.hf_folder import read_facts, read_object
from openllm.text.quoting import Quoter, Spellings
from openllm.text.sandbox import MAX_TEMPLATE, Sandbox
from openllm.text.tokenizer import Tokenizer

DEFAULT = "default"
_CONFIG = "tokenizer_config.json"
_FILE = "chat_template.jinja"
_MORE = "additional_chat_templates"

Message = Mapping[str, Any]
"""A turn: `role`, `content` and whatever else the template reads."""


class ChatTemplate:
    """A Jinja template, rendered in a sandbox (`sandbox.py`).

    Attributes:
        source: its text.
        special: role, such as "bos_token" -> spelling; the template can use them by these names.
    """

    def __init__(
        self,
        source: str,
        special: Mapping[str, str] | None = None,
        name: str = "the chat template",
    ) -> None:
        """Compile a template; `name` stands for it in errors.

        Raises:
            TemplateError: it is not a template, or too long.
        """
        self.source, self.special, self._name = source, dict(special or {}), name
        self._template = _sandbox().compile_source(source, name)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation, control tokens by their names.

        Args:
            messages: the turns.
            add_generation_prompt: end with the beginning of the assistant's turn.
            tools: descriptions of functions, as JSON values.
            documents: texts to answer from, as JSON values.
            variables: other names that the template knows, such as `enable_thinking`.

        Raises:
            TemplateError: the template fails, refuses the messages, or does too much.
        """
        values = {
            **self.special,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **variables,
        }
        return _sandbox().render_all(self._template, values, self._name)


def load_chat_template(folder: Path | str, name: str = DEFAULT) -> ChatTemplate:
    """Load a chat template of a model folder.

    `chat_template.jinja` and `additional_chat_templates/NAME.jinja` go before those of
    `tokenizer_config.json`.

    Raises:
        TemplateError: the folder has no such template, or it is not a template.
        TokenizerError: a JSON file of the folder is broken.
    """
    found = find_chat_template(folder, name)
    if found is None:
        names = ", ".join(sorted({*_files(Path(folder)), *_configured(Path(folder))}))
        raise TemplateError(
            f"{folder} has no chat template '{name}'"
            + (f"; it has {names}" if names else ", so its model is not made for chat; omit --chat")
        )
    return found


def find_chat_template(folder: Path | str, name: str = DEFAULT) -> ChatTemplate | None:
    """Like `load_chat_template`, but none if the folder has no such template."""
    folder = Path(folder)
    found, files = _configured(folder), _files(folder)
    if name in files:
        return ChatTemplate(_read(files[name]), read_facts(folder).special, str(files[name]))
    if name not in found:
        return None
    where = f"the chat template '{name}' of {folder / _CONFIG}"
    return ChatTemplate(found[name], read_facts(folder).special, where)


def _files(folder: Path) -> dict[str, Path]:
    """Name -> file of those templates that have one."""
    files = {path.stem: path for path in sorted((folder / _MORE).glob("*.jinja"))}
    if (folder / _FILE).exists():
        files[DEFAULT] = folder / _FILE
    return files


def _configured(folder: Path) -> dict[str, str]:
    """Name -> template of `tokenizer_config.json`."""
    value = read_object(folder / _CONFIG).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        value = {entry.get("name"): entry.get("template") for entry in value}
    if not isinstance(value, dict) or not all(
        isinstance(text, str) for pair in value.items() for text in pair
    ):
        raise TemplateError(
            f"{folder / _CONFIG}: 'chat_template' must be a text, or a list of objects with 'name' "
            "and 'template'; copy the model folder again"
        )
    return value


def _read(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return handle.read(MAX_TEMPLATE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"{path} cannot be read ({error}); copy the model folder again"
        ) from None


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    **variables: Any,
) -> list[int]:
    """The token ids of a conversation.

    Control ids come only from the template. Where a message, or any other value, spells a control
    token, it stays ordinary text; the template does not see that spelling, so one that cuts
    `<think>` out of old answers needs it in `reasoning_content`, apart from `content`.

    Args:
        tokenizer: the model's.
        template: the model's.
        messages: the turns.
        add_generation_prompt: end with the beginning of the assistant's turn.
        variables: as for `ChatTemplate.render`.

    Raises:
        TemplateError: the template fails, refuses the messages, or does too much.
    """
    spellings = _spellings(tokenizer)
    quoter = Quoter(spellings)
    text = template.render(
        quoter.quote(list(messages)),
        add_generation_prompt=add_generation_prompt,
        **{name: quoter.quote(value) for name, value in variables.items()},
    )
    return tokenizer.encode_parts(
        [part if isinstance(part, int) else quoter.unquote(part) for part in spellings.split(text)]
    )


@lru_cache(maxsize=8)
def _spellings(tokenizer: Tokenizer) -> Spellings:
    return Spellings(tokenizer.controls)


@cache
def _sandbox() -> Sandbox:
    return Sandbox()
