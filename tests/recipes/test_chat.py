# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm chat`, through pipes and in a terminal."""

import codecs
import contextlib
import io
import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from rich.console import Console
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import write_model
from openllm.cli.main import main
from openllm.core.errors import ConfigError, DataError, UsageError
from openllm.engine.backends.echo import echo_backend
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.recipes.chat import keyboard
from openllm.recipes.chat.screen import Writer, cuts, safe
from openllm.recipes.chat.session import Session
from openllm.recipes.chat.slash import is_command, run_command

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
THINKING = TEMPLATE + "{% if add_generation_prompt %}<think>{% endif %}"
PARAMS = SamplingParams(max_new_tokens=8, temperature=0.9, seed=5)
WISHES = ("--max-tokens", "8", "--temperature", "0.9", "--seed", "5", "--engine", "exact=true")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("chat") / "talker"
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, spread=0.5).state_dict()
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    return folder


@pytest.fixture
def talker(model: Path) -> Iterator[Path]:
    (model / "chat_template.jinja").write_text(TEMPLATE)
    yield model
    (model / "chat_template.jinja").unlink()


def pipe(monkeypatch: pytest.MonkeyPatch, text: str | bytes, *arguments: str | Path) -> int:
    raw = text if isinstance(text, bytes) else text.encode()
    given = SimpleNamespace(buffer=io.BytesIO(raw), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", given)
    return main(["chat", *map(str, arguments)])


def test_a_pipe_gets_the_answer_and_nothing_else(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = LLM.load(talker)
    turns = [{"role": "system", "content": "Tom"}, {"role": "user", "content": "Anna"}]
    expected = llm.chat([turns], PARAMS)[0]
    assert pipe(monkeypatch, "Anna\n", talker, "--system", "Tom", *WISHES) == 0
    assert capsys.readouterr().out == f"{expected.text}\n"
    assert pipe(monkeypatch, "Anna", talker, "--system", "Tom", *WISHES, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["content"]) == ("talker", expected.text)
    assert facts["usage"]["completion_tokens"] == len(expected.token_ids)
    assert facts["finish_reason"] == expected.finish_reason


def test_a_model_without_a_template_continues_texts(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipe(monkeypatch, "Anna", model) == 1
    assert f"openllm chat {model} --complete" in capsys.readouterr().err.replace("\n", " ")
    assert pipe(monkeypatch, "Anna", model, "--complete", *WISHES) == 0
    expected = LLM.load(model).generate(["Anna"], PARAMS)[0].text
    assert capsys.readouterr().out == f"{expected}\n"


def test_reasoning_is_kept_apart(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "chat_template.jinja").write_text(THINKING)
    try:
        assert pipe(monkeypatch, "Anna", model, *WISHES, "--json") == 0
    finally:
        (model / "chat_template.jinja").unlink()
    facts = json.loads(capsys.readouterr().out)
    assert facts["content"] == "" and facts["reasoning"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("text", "arguments", "code", "said"),
    [
        (b" \n", ("echo",), 2, "standard input is empty"),
        (b"\xff", ("echo",), 2, "not valid UTF-8"),
        (b"x", ("nowhere",), 1, "does not exist"),
        (b"x", ("echo", "--temperature", "9"), 2, "'temperature'"),
        (b"x", ("echo", "--set", "colour=red"), 2, "no setting 'colour'"),
        (b"x" * 5000, ("echo",), 1, "shorten the prompt"),
        (b"x", ("http://127.0.0.1:9",), 1, "127.0.0.1:9"),
        (b"x", ("echo", "--load", "missing.json"), 1, "missing.json"),
    ],
)
def test_what_is_wrong_is_said(
    text: bytes,
    arguments: Sequence[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pipe(monkeypatch, text, *arguments) == code
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == ""


def test_a_conversation_is_kept_and_loaded(tmp_path: Path) -> None:
    session = Session(system="Be brief.")
    session.set("temperature", 0.2)
    session.set("stop", ["###"])
    session.ask("one")
    session.answered("eins")
    session.ask("two")()  # taken back
    session.save(tmp_path / "chat.json", "echo")
    other = Session()
    other.load(tmp_path / "chat.json")
    assert other == session
    assert [turn.role for turn in other.body().messages] == ["system", "user", "assistant"]
    assert other.undo() == "one" and other.undo() is None and other.messages == []


@pytest.mark.parametrize(
    "change",
    [
        {"messages": 3},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"settings": {"colour": 1}},
        {"settings": {"temperature": "hot"}},
        {"system": 4},
        {"text": None},
    ],
)
def test_a_damaged_conversation_changes_nothing(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    session = Session(system="Be brief.")
    session.save(path, "echo")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = Session(system="mine", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(DataError, match="is not a conversation"):
        before.load(path)
    assert before == Session(system="mine", messages=[{"role": "user", "content": "x"}])


def test_settings_are_checked() -> None:
    session = Session()
    for name, value, error in (
        ("temperature", "hot", ConfigError),
        ("top_p", 2, ConfigError),
        ("stream", True, UsageError),
        ("n", 2, UsageError),
    ):
        with pytest.raises(error):
            session.set(name, value)
    session.set("reasoning_effort", "low")
    session.set("reasoning_effort", None)
    assert session.settings == {}
    with pytest.raises(UsageError):
        Session(complete=True).set("reasoning_effort", "low")


class Recorder:
    """A chat that only notes what it is told."""

    def __init__(self) -> None:
        self.session, self.said, self.asked = Session(), "", ""
        self.note = lambda text: setattr(self, "said", text)
        self.respond = lambda question: setattr(self, "asked", question)


def test_commands_change_the_conversation() -> None:
    chat = Recorder()
    for line in ("/set top_k 5", "/system  Be brief. ", '/stop-sequences "a b" c', "/undo"):
        run_command(chat, line)
    assert chat.session.system == "Be brief."
    assert chat.session.settings == {"top_k": 5, "stop": ["a b", "c"]}
    assert chat.said == "there is nothing to undo"
    for line in ("/set top_k none", "/system none", "/stop-sequences none"):
        run_command(chat, line)
    assert chat.session == Session()
    chat.session.ask("one")
    chat.session.answered("eins")
    run_command(chat, "/retry")
    assert chat.asked == "one" and chat.session.messages == []
    for line in ("/retry", "/save", "/load", "/stop-sequences 'a"):
        with pytest.raises(UsageError):
            run_command(chat, line)
    with pytest.raises(UsageError, match="did you mean /model"):
        run_command(chat, "/modle x")
    assert not is_command("/ 2 is half") and not is_command("/help\nme") and is_command("/x")
    assert is_command("/help ") and not is_command("/usr/bin/env: what is it?")


def test_a_question_that_failed_can_be_asked_again() -> None:
    chat = Recorder()
    chat.session.ask("one")
    chat.session.answered("eins")
    chat.session.ask("two")()
    chat.session.unanswered = "two"
    run_command(chat, "/retry")
    assert chat.asked == "two" and len(chat.session.messages) == 2
    run_command(chat, "/undo")  # makes room for it
    assert chat.session.messages == [] and chat.session.unanswered == "two"
    chat.session.ask("three")
    assert chat.session.unanswered is None


def test_typed_texts_of_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed, text in (
        (["a"], "a"),
        (["a\\", "b\\", "c"], "a\nb\nc"),
        (['"""', "a", "", "b", '"""'], "a\n\nb"),
        (['"""a', 'b"""'], "a\nb"),
        (['"""a"""'], "a"),
    ):
        lines = iter(typed)
        monkeypatch.setattr("builtins.input", lambda prompt, lines=lines: next(lines))
        assert keyboard.read_text("> ") == text
        assert next(lines, None) is None


ANSWER = """Some **bold** text
with two lines.

# Title

1. one

   still one
2. two

- a
  - b

- c

```python
def f():

    return 1
```

| a | b |
|---|---|
| 1 | 2 |

> quoted

The end [link](https://example.org/x).
"""


def shown(text: str, sizes: Iterator[int], **options: Any) -> str:
    """What the terminal shows in the end of a text that comes in pieces."""
    console = Console(file=io.StringIO(), width=60, height=20, highlight=False, **options)
    with Writer(console) as writer:
        at = 0
        while at < len(text):
            size = next(sizes)
            writer.write(text[at : at + size])
            at += size
    return console.file.getvalue()


def test_a_text_looks_the_same_however_it_comes() -> None:
    whole = shown(ANSWER, iter([len(ANSWER)]))
    for seed in range(20):
        draw = random.Random(seed)
        assert shown(ANSWER, iter(draw.choices(range(1, 10), k=len(ANSWER)))) == whole
    lines = [line.rstrip() for line in whole.splitlines()]
    assert "Some bold text" in lines and "with two lines." in lines
    assert "https://example.org/x" in whole and "\n\n\n" not in whole.replace(" ", "")
    # what is certain of a part stays certain
    ends = cuts(ANSWER)
    for size in range(len(ANSWER)):
        assert set(cuts(ANSWER[:size])) <= set(ends)
    assert not any(ANSWER[:end].count("```") % 2 for end in ends) and len(ends) == 5


def test_a_model_cannot_steer_the_terminal() -> None:
    attack = "a\x1b[2J\x1b]0;title\x07b\x9b31m\rc\x08\x7f"
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", safe(attack)) is None
    out = shown(attack, iter([3, 3, 99]), force_terminal=True)
    assert "\x1b[2J" not in out and "\x1b]0" not in out and "\x07" not in out and "\x9b" not in out
    console = Console(file=io.StringIO(), force_terminal=True)
    with Writer(console) as writer:
        writer.think(attack)
    assert "\x1b[2J" not in console.file.getvalue()


class Terminal:
    """The program in a pseudo-terminal."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._master, self._slave = pty.openpty()
        self.seen = self._raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        # who leads a session and opens a terminal gets its Ctrl-C
        name = os.ttyname(self._slave)
        opens = f'exec "$@" <{name} >{name} 2>&1'
        command = [sys.executable, "-m", "openllm", "chat", *arguments]
        self.process = subprocess.Popen(
            ["sh", "-c", opens, "sh", *command],
            start_new_session=True,
            env=os.environ | {"XDG_STATE_HOME": str(home), "TERM": "xterm", "COLUMNS": "80"},
        )

    def wait(self, text: str, seconds: float = 60) -> str:
        """Read until a text is seen; returns all up to it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0 and select.select([self._master], [], [], left)[0], self.seen[-2000:]
            self._raw += self._decoder.decode(os.read(self._master, 65536))
            begun = re.search(r"\x1b(\[[0-9;?]*)?$", self._raw)
            end_of_whole = begun.start() if begun else len(self._raw)
            self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b=|\x1b>", "", self._raw[:end_of_whole])
            self._raw = self._raw[end_of_whole:]
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> int:
        os.close(self._slave)
        with contextlib.suppress(OSError):
            while os.read(self._master, 65536):
                pass
        os.close(self._master)
        return self.process.wait(20)


@pytest.mark.integration
def test_a_chat_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from chat_server import chat_app, serving

    app, bodies = chat_app(delay=0.05)
    wishes = ("--seed", "3", "--max-tokens", "20")
    with serving(app) as url, Terminal(tmp_path, f"{url}#showcase", *wishes) as terminal:
        terminal.wait("> ")
        terminal.type("What is it?\r")
        terminal.wait("First request")
        terminal.type("\x03")  # stops the answer, and not the program
        terminal.wait("stopped")
        terminal.wait("> ")
        terminal.type("/model " + url + "#echo\r")
        terminal.wait("model: echo (remote)")
        terminal.type("/system Be kind.\r")
        terminal.wait("system prompt: Be kind.")
        terminal.type("two\\\r")
        terminal.wait("… ")
        terminal.type("lines\r")
        terminal.wait("tokens/s")
        terminal.type("/retry\r")
        terminal.wait("tokens/s")
        terminal.wait("> ")
        terminal.type("\x03")
        terminal.wait("/exit ends the chat")
        terminal.type("\x1b[A\x1b[A\r")  # the line before /retry
        terminal.wait("tokens/s")
        terminal.type(f"/save {tmp_path}/chat.json\r")
        terminal.wait("saved as")
        terminal.wait("> ")  # before it, a Ctrl-D would be lost
        terminal.type("\x04")
        assert terminal.close() == 0
    kept = json.loads((tmp_path / "chat.json").read_text())["messages"]
    roles = [turn["role"] for turn in kept]
    assert roles == ["user", "assistant"] * 3
    # the stopped answer is a part of the conversation
    assert kept[1]["content"].startswith("A prefix cache keeps")
    assert len(kept[1]["content"]) < 500 and "First request" in kept[1]["content"]
    assert kept[2]["content"] == "two\nlines" and kept[4]["content"] == "lines"
    assert bodies[1]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert bodies[1]["messages"] == bodies[2]["messages"] and bodies[1]["seed"] == 3
    history = tmp_path / "openllm" / "chat_history"
    assert history.stat().st_mode & 0o077 == 0 and "What is it?" in history.read_text()


@pytest.mark.integration
def test_a_chat_whose_server_fails_and_does_not_count(tmp_path: Path) -> None:
    from tests.serve.live import FaultyEngine, backend_of, echo_app, live

    broken = backend_of(FaultyEngine(3), "broken")
    app = echo_app({"echo": echo_backend(max_positions=80), "broken": broken})
    with live(app) as url, Terminal(tmp_path, f"{url}/v1#echo", "--no-history") as terminal:
        terminal.wait("> ")
        terminal.type("one\r")
        terminal.wait("tokens/s")
        terminal.type("/tokens\r")
        terminal.wait("8 tokens of 80 when it was answered last")
        terminal.type("x" * 75 + "\r")
        terminal.wait("make room with /undo or /clear, then /retry")
        terminal.type("/clear\r")
        terminal.wait("a new conversation")
        terminal.type(f"/model {url}/v1#broken\r")
        terminal.wait("model: broken (remote)")
        terminal.type("two\r")
        terminal.wait("error: ")
        terminal.type(f"/model {url}/v1#echo\r")
        terminal.wait("model: echo (remote)")
        terminal.type("/retry\r")
        terminal.wait("4 tokens · ")
        terminal.wait("> ")
        terminal.type("\x04")
        assert terminal.close() == 0


@pytest.mark.integration
def test_a_text_in_a_terminal(tmp_path: Path) -> None:
    flags = ("--complete", "--no-history", "--max-tokens", "3")
    with Terminal(tmp_path, "echo", *flags) as terminal:
        terminal.wait("> ")
        terminal.type("abc\r")
        terminal.wait("3 tokens")
        terminal.type("\r")  # goes on
        terminal.wait("3 tokens")
        terminal.type("/tokens\r")
        assert "9 tokens of 4,096" in terminal.wait("4,096")
        terminal.type("/exit\r")
        assert terminal.close() == 0
    assert not (tmp_path / "openllm").exists()
