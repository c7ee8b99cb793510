# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The compiled kernels: built on this machine at first use, then cached.

Without a C++ compiler everything runs on plain torch, after one notice. `OPENLLM_KERNELS=0`
selects plain torch.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from openllm.core.download import cache_folder
from openllm.core.log import say, warn

SOURCES = ("rows.cpp", "attention.cpp", "orthogonalize.cpp", "sampling.cpp", "decoder.cpp")
HEADERS = (
    *("simd.h", "product.h", "philox.h", "vectors.h", "elementwise.h", "team.h"),
    *("packed.h", "packed_amx.h", "packed_int.h", "packed_amx_int.h"),
    *("decoder.h", "paged.h", "step.h"),
)
COMPILERS = ("c++", "g++", "clang++")
# Sums may be reordered, so that loops vectorise; NaN and infinity keep their meaning.
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-w", "-fopenmp"),
    *("-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    *("-fassociative-math", "-freciprocal-math"),
]
EXACT = {
    "decoder.cpp": ("-fno-associative-math", "-fno-reciprocal-math", "-ffp-contract=off"),
}
"""Flags of sources in which the order of every sum is written out."""


@cache
def library() -> ctypes.CDLL | None:
    """Return the kernels, or None if unavailable."""
    if os.environ.get("OPENLLM_KERNELS") == "0" or platform.system() != "Linux":
        return None
    compiler = find_compiler()
    if compiler is None:
        say(
            "no C++ compiler found, so models run on plain PyTorch, which is slower; to fix "
            "this, install g++ (Debian, Ubuntu: apt install g++)"
        )
        return None
    try:
        return _load(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        warn(
            f"the CPU kernels could not be built ({reason.strip().splitlines()[-1]}); models "
            "run on plain PyTorch, which is slower"
        )
        return None


def _load(compiler: str) -> ctypes.CDLL:
    """The kernels, built again if what is cached is damaged.

    Raises:
        OSError: as `built`, or what was built cannot be loaded.
        subprocess.SubprocessError: the compiler failed.
    """
    path = built(compiler)
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # cut short, by a crash of the machine
        path.unlink(missing_ok=True)
    return ctypes.CDLL(str(built(compiler)))


def find_compiler() -> str | None:
    """Path of the C++ compiler: `CXX`, else the first usual name found."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next((path for path in map(shutil.which, names) if path), None)


def built(compiler: str) -> Path:
    """Return the shared library, compiled unless cached.

    Raises:
        OSError: the cache cannot be written, or the compiler cannot be run.
        subprocess.SubprocessError: the compiler failed.
    """
    runtime = openmp_runtime()
    flags = [*FLAGS, "-mprefer-vector-width=512"] if platform.machine() == "x86_64" else FLAGS
    # use torch's threads: a second OpenMP runtime in the process would compete with them
    libraries = [] if runtime is None else ["-Wl,--as-needed", str(runtime)]
    target = cache_folder() / "kernels" / f"{_key([*flags, *libraries], compiler)}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    say("building the CPU kernels (once, takes a few seconds)")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor() as pool:
        sources = {Path(folder) / f"{name}.o": Path(__file__).parent / name for name in SOURCES}
        commands = [
            [compiler, *flags, *EXACT.get(source.name, ()), "-c", str(source), "-o", str(made)]
            for made, source in sources.items()
        ]
        list(pool.map(_run, commands))
        out = Path(folder) / target.name
        _run([compiler, "-shared", "-fopenmp", *map(str, sources), *libraries, "-o", str(out)])
        out.replace(target)
    return target


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)


def _key(settings: list[str], compiler: str) -> str:
    """Digest of everything the compiled code depends on."""
    here = Path(__file__).parent
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout
    parts = [*((here / name).read_bytes() for name in (*SOURCES, *HEADERS)), version]
    parts += [f"{EXACT} {' '.join(settings)}".encode(), _instructions().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _instructions() -> str:
    """CPU features of this machine: machines may share a cache."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:.*$", text, re.MULTILINE)
    return f"{platform.machine()} {found.group() if found else ''}"


def openmp_runtime() -> Path | None:
    """The OpenMP library that torch has loaded; other packages may have loaded theirs."""
    loaded = {
        Path(line.split(maxsplit=5)[-1])
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    }
    found = [path for path in loaded if path.name.startswith(("libgomp", "libomp", "libiomp5"))]
    packages = Path(torch.__file__).parents[1]
    beside_torch = [packages / "torch", packages / "torch.libs"]
    return min(found, key=lambda p: not any(map(p.is_relative_to, beside_torch)), default=None)


def fingerprint() -> str:
    """Name of the compiled code: other code gives other last bits."""
    kernels = library()
    return "none" if kernels is None else Path(kernels._name).stem


def available() -> bool:
    """Whether kernels are available."""
    return library() is not None


def has_dot_product() -> bool:
    """Whether there are matrix-product kernels: they need a CPU with bfloat16 products."""
    kernels = library()
    return kernels is not None and kernels.has_attention() == 1


for _function in (available, has_dot_product):
    # like torch.compiler.assume_constant_result(), which would load the compiler
    _function._dynamo_marked_constant = True  # type: ignore[attr-defined]
