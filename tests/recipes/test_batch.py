# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm batch`: every request is answered once, whatever happens on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import SHAPES, random_model

import openllm.recipes.batch
from openllm.checkpoint.model_dir import write_model
from openllm.cli.main import main
from openllm.engine.backends.echo import EchoEngine
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("batch") / "model"
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, spread=0.5).state_dict()
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def chat(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [{"role": "user", "content": text}], **more}


def write(path: Path, requests: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    lines = [
        {"custom_id": f"id-{index}", "method": "POST", "url": url, "body": body}
        for index, (url, body) in enumerate(requests)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> dict[str, Any]:
    """Custom id -> response, without what differs each time; fails if an id is there twice."""
    found: dict[str, Any] = {}
    for raw in path.read_bytes().splitlines(keepends=True):
        assert raw.endswith(b"\n")
        line = json.loads(raw)
        assert set(line) == {"id", "custom_id", "response", "error"} and line["error"] is None
        assert line["custom_id"] not in found
        body = line["response"]["body"]
        for name in ("id", "created"):
            body.pop(name, None)
        found[line["custom_id"]] = line["response"]
    return found


def run(*arguments: str | Path) -> int:
    return main(["batch", *map(str, arguments)])


def texts(results: dict[str, Any]) -> list[str]:
    return [one["body"]["choices"][0]["message"]["content"] for one in results.values()]


def test_each_endpoint_answers_as_the_engine_does(model: Path, tmp_path: Path) -> None:
    wish = {"max_tokens": 6, "seed": 3, "temperature": 0.8}
    source = write(
        tmp_path / "in.jsonl",
        [
            chat("Anna", **wish),
            (TEXT, {"prompt": "Anna", **wish}),
            (EMBED, {"input": "Anna"}),
            (RESPONSES, {"input": "Anna", "max_output_tokens": 6, "seed": 3, "temperature": 0.8}),
        ],
    )
    assert run(source, tmp_path / "out.jsonl", "--model", model, "--exact") == 0
    found = read(tmp_path / "out.jsonl")
    llm = LLM.load(model)
    params = SamplingParams(max_new_tokens=6, seed=3, temperature=0.8)
    answer = llm.chat([[{"role": "user", "content": "Anna"}]], params)[0]
    assert found["id-0"]["body"]["choices"][0]["message"]["content"] == answer.text
    assert found["id-0"]["body"]["usage"]["completion_tokens"] == len(answer.token_ids)
    text = llm.generate(["Anna"], params)[0].text
    assert found["id-1"]["body"]["choices"][0]["text"] == text
    vector = found["id-2"]["body"]["data"][0]["embedding"]
    assert vector == pytest.approx(llm.embed(["Anna"])[0], abs=1e-6)
    (message,) = found["id-3"]["body"]["output"]
    assert message["content"][0]["text"] == answer.text
    assert {one["status_code"] for one in found.values()} == {200}


def test_what_is_wrong_with_a_request_is_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(
        tmp_path / "in.jsonl",
        [
            chat("hello", max_tokens=3),
            chat("hello", stream=True),
            (TEXT, {"prompt": "x", "temperature": -1}),
            (EMBED, {}),
            chat("too long " * 1000),
        ],
    )
    assert run(source, tmp_path / "out.jsonl", "--model", "echo", "--json") == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["answered"], summary["failed"], summary["new_tokens"]) == (1, 4, 3)
    found = read(tmp_path / "out.jsonl")
    assert [found[f"id-{i}"]["status_code"] for i in range(5)] == [200, 400, 400, 400, 400]
    params = [found[f"id-{i}"]["body"]["error"]["param"] for i in range(1, 5)]
    assert params == ["stream", "temperature", "input", "messages"]


def test_a_request_without_a_seed_gets_one(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [chat("Anna", max_tokens=8)] * 3)
    for name, seed in (("one", 1), ("same", 1), ("other", 9)):
        run(source, tmp_path / name, "--model", model, "--seed", str(seed))
    one, same, other = (texts(read(tmp_path / name)) for name in ("one", "same", "other"))
    assert sorted(one) == sorted(same) != sorted(other)
    assert len(set(one)) > 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no requests"),
        (["{"], "line 1: the line is not valid JSON"),
        (["[]"], "line 1: the line: input should be an object"),
        (['{"custom_id": ""}'], "line 1: "),
        (['{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {}}'], "'method'"),
        (['{"custom_id": "a", "method": "POST", "url": "/v1/files", "body": {}}'], "'url'"),
        (["ok", "", "ok"], 'line 3: line 1 has the id "a" too'),
        (["x"] * 9, "and 4 more"),
    ],
)
def test_a_file_that_is_no_batch_is_refused_before_anything_is_done(
    lines: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"custom_id": "a", "method": "POST", "url": EMBED, "body": {"input": "x"}}
    text = "\n".join(json.dumps(good) if line == "ok" else line for line in lines)
    (tmp_path / "in.jsonl").write_text(text)
    assert run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", "echo") == 1
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_order_of_the_input_can_be_kept(tmp_path: Path) -> None:
    lengths = random.Random(1).choices(range(1, 60), k=80)
    source = write(tmp_path / "in.jsonl", [chat("a" * length) for length in lengths])
    flags = ("--model", "echo", "--concurrency", "7")
    assert run(source, tmp_path / "any", *flags) == run(
        source, tmp_path / "ord", *flags, "--ordered"
    )
    assert list(read(tmp_path / "ord")) == [f"id-{index}" for index in range(80)]
    assert list(read(tmp_path / "any")) != list(read(tmp_path / "ord"))
    assert read(tmp_path / "any") == read(tmp_path / "ord")
    # what was begun without it cannot go on with it
    kept = (tmp_path / "any").read_bytes().splitlines(keepends=True)[3:9]
    (tmp_path / "any").write_bytes(b"".join(kept))
    assert run(source, tmp_path / "any", *flags, "--ordered") == 2


def test_a_torn_line_is_done_again_and_a_whole_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.jsonl", [chat(f"hello {i}") for i in range(9)])
    out = tmp_path / "out.jsonl"
    assert run(source, out, "--model", "echo", "--ordered") == 0
    whole = read(out)
    lines = out.read_bytes().splitlines(keepends=True)
    asked = []
    add = EchoEngine.add
    monkeypatch.setattr(EchoEngine, "add", lambda *args: (asked.append(args), add(*args))[1])
    for left in ([*lines[:4], lines[4][:40]], [*lines[:8], lines[8][:-1]], lines, [lines[0][:1]]):
        out.write_bytes(b"".join(left))
        asked.clear()
        assert run(source, out, "--model", "echo") == 0
        assert read(out) == whole
        assert len(asked) == 9 - sum(line.endswith(b"\n") for line in left)


def test_results_of_another_input_are_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [chat("one"), chat("two")])
    out = tmp_path / "out.jsonl"
    assert run(source, out, "--model", "echo") == 0
    before = out.read_bytes()
    write(source, [chat("one"), chat("changed")])
    assert run(source, out, "--model", "echo") == 1
    assert "changed since" in capsys.readouterr().err
    write(source, [chat("one")])
    assert run(source, out, "--model", "echo") == 1
    assert "which has it not" in capsys.readouterr().err
    assert out.read_bytes() == before
    out.write_text("a diary\n")
    assert run(source, out, "--model", "echo") == 1
    assert out.read_text() == "a diary\n"
    assert run(source, source, "--model", "echo") == 2
    assert run(source, tmp_path, "--model", "echo") == 1


def test_the_input_must_stay_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read twice: at first to check it, then to answer it."""
    whole = [chat("one"), chat("two"), chat("three")]
    for changed in ([], whole[:2], [chat("one"), chat("other"), chat("three")], [*whole, chat("")]):
        source, out = write(tmp_path / "in.jsonl", whole), tmp_path / "out.jsonl"
        loaded = openllm.recipes.batch.SourceLoader.load

        def load(
            *args: Any, changed: Any = changed, source: Path = source, load: Any = loaded
        ) -> Any:
            write(source, changed)
            return load(*args)

        with monkeypatch.context() as patch:
            patch.setattr("openllm.recipes.batch.SourceLoader.load", load)
            assert run(source, out, "--model", "echo") == 1
        assert "was changed meanwhile" in capsys.readouterr().err
        write(source, whole)
        assert run(source, out, "--model", "echo") == 0
        assert len(read(out)) == 3
        out.unlink()


def test_a_pipe_cannot_be_read_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run(tmp_path / "pipe", tmp_path / "out.jsonl", "--model", "echo") == 1
    assert "is not a file, which can be read again" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_what_failed_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.jsonl", [chat("hello"), chat("long " * 20)])
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(
            "openllm.engine.backends.echo.echo_backend.__kwdefaults__", {"max_positions": 50}
        )
        assert run(source, out, "--model", "echo") == 1
        assert run(source, out, "--model", "echo") == 1
    assert read(out)["id-1"]["status_code"] == 400
    # the results would be in another order
    assert run(source, out, "--model", "echo", "--retry-failed", "--ordered") == 2
    assert len(read(out)) == 2
    assert run(source, out, "--model", "echo", "--retry-failed") == 0
    assert read(out)["id-1"]["status_code"] == 200


def test_a_model_that_is_gone_ends_the_batch_and_not_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [chat(f"hello {i}") for i in range(20)])
    out = tmp_path / "out.jsonl"
    steps = iter(range(40))
    step = EchoEngine.step

    def failing(self: EchoEngine) -> Any:
        if next(steps, None) is None:
            raise RuntimeError("the model is gone")
        return step(self)

    monkeypatch.setattr("openllm.recipes.batch.asyncio.sleep", no_sleep)
    with monkeypatch.context() as patch:
        patch.setattr(EchoEngine, "step", failing)
        assert run(source, out, "--model", "echo", "--concurrency", "4") == 1
    said = capsys.readouterr().err
    assert "the batch has stopped" in said and "repeat the command" in said
    assert "Traceback" not in said
    assert 0 < len(read(out)) < 20
    assert run(source, out, "--model", "echo") == 0
    assert len(read(out)) == 20


async def no_sleep(seconds: float) -> None:
    pass


def test_a_dry_run_counts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        chat("Anna found", max_tokens=5, n=2),
        (TEXT, {"prompt": ["Anna", "Tom"]}),
        (TEXT, {"prompt": "Anna", "max_tokens": 0, "echo": True}),
        (EMBED, {"input": "Anna found"}),
        chat("Anna " * 500),
        (EMBED, {"input": 3}),
    ]
    source = write(tmp_path / "in.jsonl", requests)
    assert run(source, tmp_path / "out", "--model", model, "--dry-run", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    llm = LLM.load(model)
    ids = llm.encode_chat([{"role": "user", "content": "Anna found"}])
    prefix = len(llm.tokenizer.prefix)
    count = {
        text: prefix + len(llm.tokenizer.encode(text)) for text in ("Anna", "Tom", "Anna found")
    }
    expected = len(ids) + 2 * count["Anna"] + count["Tom"] + count["Anna found"]
    assert facts == {
        "requests": 6,
        "faults": 2,
        "prompt_tokens": expected,
        "most_new_tokens": 2 * 5 + 2 * 16,
    }
    assert not (tmp_path / "out").exists()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "openllm", "batch", *map(str, arguments)]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.integration
def test_killed_at_any_moment_nothing_is_lost_or_repeated(model: Path, tmp_path: Path) -> None:
    draw = random.Random(7)
    requests = [
        chat(f"Anna {i}", max_tokens=draw.randint(1, 12), seed=i, temperature=0.9)
        for i in range(300)
    ]
    source = write(tmp_path / "in.jsonl", requests)
    flags = ("--model", model, "--exact", "--concurrency", "8")
    assert run(source, tmp_path / "whole.jsonl", *flags) == 0
    whole = size(tmp_path / "whole.jsonl")
    out = tmp_path / "out.jsonl"
    for share in (0.0, 0.2, 0.5, 0.9):
        process = subprocess.Popen(command(source, out, *flags), stderr=subprocess.PIPE)
        while size(out) < share * whole and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGINT if share == 0.5 else signal.SIGKILL)
        said = process.communicate()[1].decode()
        if share == 0.5:
            assert process.returncode == 130 and "repeat the command" in said
        else:
            assert process.returncode == -signal.SIGKILL
    assert 0 < len(out.read_bytes().splitlines()) < 300
    assert run(source, out, *flags) == 0
    assert read(out) == read(tmp_path / "whole.jsonl")


@pytest.mark.integration
def test_a_full_disk_tears_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [chat("hello " * 20) for _ in range(200)])
    out = tmp_path / "out.jsonl"
    little_room = ["sh", "-c", 'ulimit -f 20; exec "$@"', "sh"]  # 10 or 20 kB
    full = subprocess.run(
        little_room + command(source, out, "--model", "echo"),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert full.returncode == 1 and "larger than the file system" in full.stderr
    assert 0 < len(read(out)) < 200 and out.read_bytes().endswith(b"\n")
    assert run(source, out, "--model", "echo") == 0
    assert len(read(out)) == 200


@pytest.mark.integration
def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [chat("hello " * 500) for _ in range(400)])
    out = tmp_path / "out.jsonl"
    first = subprocess.Popen(command(source, out, "--model", "echo"), stderr=subprocess.DEVNULL)
    while not size(out) and first.poll() is None:
        time.sleep(0.01)
    second = subprocess.run(
        command(source, out, "--model", "echo"), capture_output=True, text=True, check=False
    )
    first.kill()
    first.wait()
    assert second.returncode == 1 and "another process" in second.stderr
