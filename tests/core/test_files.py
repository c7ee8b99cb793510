# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openllm.core.errors import DataError, StorageError
from openllm.core.files import (
    atomic_file,
    atomic_folder,
    read_json,
    recover_folder,
    sha256_file,
    storage_errors,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(code: str, folder: Path) -> None:
    """Run `code` in a separate process, which must end by SIGKILL."""
    begin = "import os, signal\nfrom openllm.core.files import atomic_file, atomic_folder\n"
    kill = "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", begin + kill + code], cwd=folder, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as handle:
        handle.write("grüße\n")
        assert not path.exists()
    assert path.read_bytes() == "grüße\n".encode()
    with atomic_file(path, "wb") as handle:
        handle.write(b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    assert names(path.parent) == ["file.txt"]


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as handle:
        handle.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")
    killed("with atomic_file('file.txt') as h:\n h.write('new'); h.flush(); kill()", tmp_path)
    assert (tmp_path / "file.txt").read_text() == "old"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with atomic_folder(path) as target:
            (target / "sub").mkdir()
            (target / "sub" / "file").write_text(content)
        assert (path / "sub" / "file").read_text() == content
    assert names(tmp_path) == ["folder"]


def test_what_the_old_folder_held_is_gone(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as target:
        (target / "a").touch()
    with atomic_folder(tmp_path / "folder") as target:
        (target / "b").touch()
    assert names(tmp_path / "folder") == ["b"]


def test_an_exception_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as target:
        (target / "a").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with atomic_folder(path) as target:
        (target / "a").touch()
    with pytest.raises(RuntimeError), atomic_folder(path) as target:
        raise RuntimeError
    assert names(tmp_path) == ["folder"] and names(path) == ["a"]


WRITE = "with atomic_folder('folder') as t:\n (t / 'file').write_text('new')\n"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_at_any_rename_leaves_a_whole_folder(renames: int, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    counting = (
        f"""
real, left = os.replace, [{renames}]
def replace(*args):
    if not left[0]: kill()
    left[0] -= 1
    real(*args)
os.replace = replace
"""
        + WRITE
        + "kill()"
    )
    killed(counting, tmp_path)
    recover_folder(path)
    assert (path / "file").read_text() == ("new" if renames == 2 else "old")
    with atomic_folder(path) as target:
        (target / "file").write_text("newer")
    assert (path / "file").read_text() == "newer"
    assert names(tmp_path) == ["folder"]


def test_a_kill_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as target:
        (target / "file").write_text("old")
    killed(WRITE + " kill()", tmp_path)
    recover_folder(tmp_path / "folder")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    with atomic_folder(tmp_path / "folder") as target:
        assert names(target) == []  # nothing left of the killed attempt


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("first")
        with pytest.raises(StorageError, match="another process is writing"), atomic_folder(target):
            pass
    assert (target / "a").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", str(tmp_path), "/"):
        with pytest.raises(StorageError, match="cannot be replaced"), atomic_folder(name):
            pass
    recover_folder(".")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk")
    for text in ("first", "second"):
        with atomic_folder(link) as folder:
            (folder / "a").write_text(text)
        assert link.is_symlink() and (link / "a").read_text() == text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["disk", "out"]


def test_names_that_are_not_utf8_can_be_reported(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    write_json(tmp_path / "report.json", {"file": name})
    assert read_json(tmp_path / "report.json", DataError, "")["file"] == name


def test_recovery_of_a_whole_folder_changes_nothing(tmp_path: Path) -> None:
    recover_folder(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".folder.old").mkdir()
    recover_folder(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "choose another folder"),
        (errno.EACCES, "choose another folder"),
    ],
)
def test_refusals_of_the_system_say_what_to_do(number: int, words: str) -> None:
    with pytest.raises(StorageError, match=words), storage_errors("somewhere"):
        raise OSError(number, os.strerror(number))


def test_other_errors_of_the_system_are_left_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), storage_errors("somewhere"):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="choose another folder"),
        atomic_file(tmp_path / "file" / "x"),
    ):
        pass


def test_json_carries_its_format(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "grüße ☕", "n": 1.5})
    assert read_json(tmp_path / "a.json", DataError, "mend") == {
        "format_version": 1,
        "text": "grüße ☕",
        "n": 1.5,
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; mend it so"),
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ("[1]", "does not contain a JSON object"),
        ('{"format_version": 2}', "upgrade"),
        ('{"format_version": "x"}', "upgrade"),
    ],
)
def test_broken_json_says_how_to_mend_it(
    content: str | bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words):
        read_json(path, DataError, "mend it so")


def test_json_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_json(tmp_path / "file" / "a.json", DataError, "mend")


def test_checksums_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == expected


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    code = (
        "import sys; from openllm.core.files import locked\n"
        f"with locked({str(lock)!r}, 'waiting'):\n"
        "    print('inside', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen(command, **pipes)
    assert first.stdout.readline() == b"inside\n"
    second = subprocess.Popen(command, **pipes)
    assert second.stderr.readline() == b"waiting\n"
    first.kill()
    first.wait()
    assert second.communicate(timeout=30)[0] == b"inside\n"
