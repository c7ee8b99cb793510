# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import io

import pytest

from openllm.core import log
from openllm.core.log import Meter, format_duration, progress, say, warn


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59.6, "1m00s"), (75, "1m15s"), (3599, "59m59s"), (7260, "2h01m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_news_go_to_standard_error_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]not markup[/bold] " + "x" * 200)
    warn("careful [red]")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[bold]not markup[/bold] " + "x" * 200 + "\nwarning: careful [red]\n"


@pytest.mark.parametrize("error", [BrokenPipeError(32, "x"), OSError(28, "x"), OSError(5, "x")])
def test_nobody_reads_or_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError
) -> None:
    """The work goes on: rich alone would end the process and close standard output."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Gone())
        say("hello")
        warn("careful")
    say("again")
    assert capsys.readouterr().err.endswith("again\n")


def test_the_state_tells_done_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    meter = Meter("training", 1000, "tokens", start=200)
    assert meter.state() == "200/1,000 tokens, 0.0 tokens/s"
    now[0] += 10
    meter.advance(300, "loss 3.1")
    assert meter.state() == "500/1,000 tokens, 30.0 tokens/s, ETA 17s, loss 3.1"
    assert Meter("reading", None, "MB").state() == "0 MB, 0.0 MB/s"


def test_without_a_terminal_a_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    with progress("training", 60, "steps") as meter:
        for _ in range(60):
            now[0] += 0.5
            meter.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("training: 20/60 steps, 2.0 steps/s, ETA 20s")
