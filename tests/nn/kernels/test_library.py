# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How the kernels are built, cached, and done without."""

import ctypes
import platform
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.tolerances import assert_close

from openllm.nn.config import ModelConfig
from openllm.nn.kernels import library as kernels
from openllm.nn.model import build_model


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is loaded or built yet; the state is restored afterwards."""
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path / "cache"))
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


def compiler(folder: Path, script: str) -> str:
    """A compiler that is a shell script."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def hidden() -> torch.Tensor:
    model = build_model(ModelConfig(vocab_size=50, dim=32, num_layers=1, max_positions=16))
    with torch.no_grad():
        return model(torch.arange(32).reshape(2, 16)).x


needs_compiler = pytest.mark.skipif(kernels.find_compiler() is None, reason="no compiler")


@pytest.mark.integration
@needs_compiler
def test_built_once_then_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(kernels.library(), ctypes.CDLL)
    assert "building the CPU kernels" in capsys.readouterr().err
    files = list((tmp_path / "cache" / "kernels").iterdir())
    assert [file.suffix for file in files] == [".so"]
    assert kernels.fingerprint() == files[0].stem
    kernels.library.cache_clear()
    monkeypatch.setattr(kernels.subprocess, "run", _only_versions(kernels.subprocess.run))
    assert kernels.library() is not None
    assert capsys.readouterr().err == ""


def _only_versions(run: object) -> object:
    def checked(command: list[str], **options: object) -> object:
        assert command[1:] == ["--version"], "it was compiled again"
        return run(command, **options)

    return checked


def test_a_damaged_library_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the machine may have cut it short."""
    whole, cut = tmp_path / "whole.so", tmp_path / "cut.so"
    cut.write_bytes(b"\x7fELF")
    monkeypatch.setattr(kernels, "built", lambda _: cut if cut.exists() else whole)
    loaded: list[str] = []

    def load(path: str) -> str:
        loaded.append(path)
        if path == str(cut):
            raise OSError("file too short")
        return path

    monkeypatch.setattr(kernels.ctypes, "CDLL", load)
    monkeypatch.setattr(kernels, "find_compiler", lambda: "c++")
    assert kernels.library() == str(whole)
    assert loaded == [str(cut), str(whole)] and not cut.exists()


@needs_compiler
@pytest.mark.integration
def test_other_flags_are_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    first = kernels.built(str(kernels.find_compiler()))
    monkeypatch.setattr(kernels, "FLAGS", [*kernels.FLAGS, "-DOTHER"])
    assert kernels.built(str(kernels.find_compiler())) != first


@pytest.mark.integration
def test_without_a_compiler_plain_torch_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_kernels = hidden()
    capsys.readouterr()
    kernels.library.cache_clear()
    monkeypatch.setattr(kernels, "find_compiler", lambda: None)
    assert_close(hidden(), with_kernels)
    hidden()
    assert capsys.readouterr().err.count("apt install g++") == 1
    assert kernels.fingerprint() == "none"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo oh dear >&2; exit 1", "oh dear"),
        ("test $1 = --version || echo no library > /dev/null", "No such file"),
        ('test $1 = --version || for a; do :; done; test $1 = --version || echo x > "$a"', "file"),
    ],
    ids=["fails", "makes nothing", "makes nonsense"],
)
def test_a_broken_compiler_is_told_and_done_without(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    said: str,
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    assert hidden().isfinite().all()
    error = capsys.readouterr().err
    assert said in error and "plain PyTorch" in error
    assert kernels.library() is None


def test_they_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENLLM_KERNELS", "0")
    assert kernels.library() is None
    assert hidden().isfinite().all()
    assert capsys.readouterr().err == ""


@pytest.mark.integration
def test_threads_are_torchs() -> None:
    """A second OpenMP runtime would bring a second team of threads."""
    runtime = kernels.openmp_runtime()
    if kernels.library() is None or runtime is None:
        pytest.skip("no kernels on this machine, or torch without OpenMP")
    assert Path(torch.__file__).parents[1] in runtime.parents
    before = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    hidden()
    after = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert not [path for path in after - before if "omp" in Path(path).name]


@pytest.mark.integration
def test_a_forward_pass_does_not_load_the_compiler() -> None:
    """It takes a second or two, a delay for everyone who generates a line of text."""
    script = (
        "import sys, torch; from openllm.nn.config import ModelConfig as C; "
        "from openllm.nn.model import build_model; "
        "build_model(C(vocab_size=50, num_layers=1))(torch.zeros(1, 4, dtype=torch.long)); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0


@needs_compiler
@pytest.mark.integration
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.parametrize("cpu", ["haswell", "skylake-avx512", "sapphirerapids"])
def test_every_processor_has_sources_that_compile(cpu: str) -> None:
    """They differ by instruction set, and the machine at hand compiles one variant only."""
    folder = Path(kernels.__file__).parent
    sources = [str(folder / name) for name in kernels.SOURCES]
    flags = [flag for flag in kernels.FLAGS if flag != "-march=native"]
    command = [str(kernels.find_compiler()), *flags, f"-march={cpu}", "-fsyntax-only", *sources]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
