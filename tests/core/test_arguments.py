# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A misspelled option is answered with the nearest one."""

import pytest

from openllm.core.arguments import Parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--prot", "8"], "unrecognized arguments: --prot 8; did you mean --port?"),
        (["--prot=8"], "unrecognized arguments: --prot=8; did you mean --port?"),
        (["--elephant"], "unrecognized arguments: --elephant\n"),
        (["more"], "unrecognized arguments: more\n"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
    ],
)
def test_misspelled(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="openllm serve")
    parser.add_argument("--port", type=int)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err
