# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from openllm import __version__
from openllm.cli import main as cli
from openllm.core.errors import ConfigError, DataError, MissingExtra

Run = Callable[..., int]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Registers a function as the command `noun verb`."""

    def install(function: Callable[[list[str]], int]) -> None:
        module = ModuleType("openllm_test_verb")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "openllm_test_verb", module)
        monkeypatch.setitem(cli.COMMANDS, "noun verb", ("a test", "openllm_test_verb:main"))

    return install


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_answers_to_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    assert f"usage: openllm {name}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_refuses_an_unknown_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*name.split(), "--no-such-option"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_noun_help_lists_only_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tokenizer", "--help"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer train" in out and "data prepare" not in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"openllm {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'openllm train'?"),
        (["data", "prepar", "x"], "did you mean 'openllm data prepare'?"),
        (["prepare", "x"], "did you mean 'openllm data prepare'?"),
        (["tokeniser", "train"], "did you mean 'openllm tokenizer train'?"),
        (["keys", "new", "x"], "unknown command 'keys new'; 'keys' has: add, ls, revoke, rotate"),
        (["xyzzy"], "unknown command 'xyzzy'; see: openllm --help"),
        (["data"], "'data' needs a subcommand"),
        (["--frobnicate"], "unknown option '--frobnicate'"),
        ([""], "unknown command ''"),
    ],
)
def test_wrong_use_says_what_is_near(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and said in captured.err


def test_arguments_and_exit_code_pass_through(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    verb(main)
    assert cli.main(["noun", "verb", "a", "--b", "c"]) == 7
    assert seen == [["a", "--b", "c"]]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("it is broken; mend it"), 1, "error: it is broken; mend it\n"),
        (ConfigError("no such key"), 2, "error: no such key\n"),
        (MissingExtra("pyarrow", "data"), 1, "openllm-lab[data]"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("saved at step 3"), 130, "interrupted: saved at step 3\n"),
        (MemoryError(), 1, "error: out of memory; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "error: out of memory; "),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), 1, "error: x.txt: no such"),
        (OSError(28, "No space left on device"), 1, "error: no space left on device"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "'torch' is not"),
        (SystemExit(3), 3, ""),
        (SystemExit("a reason"), 1, "error: a reason\n"),
    ],
)
def test_errors_become_one_message_and_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    verb: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(raising(error))
    assert cli.main(["noun", "verb"]) == code
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err
    assert captured.out == ""


def test_torch_out_of_memory_is_known_without_importing_torch(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    verb(raising(kind("CUDA out of memory")))
    assert cli.main(["noun", "verb"]) == 1
    assert "error: out of memory; " in capsys.readouterr().err


def test_a_fault_keeps_its_traceback_in_a_file(
    verb: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("OPENLLM_DEBUG", raising=False)
    verb(raising(KeyError("lost")))
    assert cli.main(["noun", "verb"]) == 1
    said = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said and "Traceback" not in said
    assert "Traceback" in kept.read_text() and "KeyError: 'lost'" in kept.read_text()


def test_a_fault_shows_its_traceback_where_no_file_can_be_written(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/none")
    monkeypatch.delenv("OPENLLM_DEBUG", raising=False)
    verb(raising(KeyError("lost")))
    assert cli.main(["noun", "verb"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_the_traceback(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLLM_DEBUG", "1")
    verb(raising(DataError("broken")))
    assert cli.main(["noun", "verb"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("error: broken\n")


def test_argparse_errors_exit_2(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> int:
        argparse.ArgumentParser(prog="openllm noun verb").parse_args(argv)
        return 0

    verb(main)
    assert cli.main(["noun", "verb", "--wrong"]) == 2


def test_a_foreign_openllm_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not cli.foreign_distribution()
    info = tmp_path / "openllm-0.6.30.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openllm\nVersion: 0.6.30\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["--version"]) == 0
    assert "pip uninstall openllm" in capsys.readouterr().err


def run_module(*arguments: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **keywords)  # type: ignore[call-overload]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from openllm.cli.main import main; main(['--help']); main(['data']);"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'yaml', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = run_module("-c", code)
    assert done.returncode == 0, done.stderr


def test_python_dash_m() -> None:
    done = run_module("-m", "openllm", "--version")
    assert (done.returncode, done.stdout) == (0, f"openllm {__version__}\n")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    code = (
        "import sys; from openllm.cli import main as cli; import types;"
        "module = types.ModuleType('verb'); sys.modules['verb'] = module\n"
        "def many(argv):\n"
        "    for _ in range(100_000): sys.stdout.write('line\\n')\n"
        "    return 0\n"
        "module.main = many; cli.COMMANDS['many'] = ('', 'verb:main'); sys.exit(cli.main(['many']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1 and said == ""


def test_text_that_the_terminal_cannot_show_is_no_fault() -> None:
    code = (
        "import sys, types; from openllm.cli import main as cli\n"
        "module = types.ModuleType('verb'); sys.modules['verb'] = module\n"
        "module.main = lambda argv: sys.stdout.write('caf\\xe9 \\ud800') and 0\n"
        "cli.COMMANDS['say'] = ('', 'verb:main'); sys.exit(cli.main(['say']))"
    )
    done = run_module("-c", code, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "caf\\xe9 \\ud800"), done.stderr


def test_targets_are_functions() -> None:
    for _, target in cli.COMMANDS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), target
