# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm doctor`: describe this machine and installation, what is missing, and how to fix it.

It imports only the standard library and our most basic modules, so that it still works where a
library is broken.
"""

import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from openllm import __version__
from openllm.cli.main import FOREIGN, foreign_distribution
from openllm.core.arguments import Parser
from openllm.core.errors import MissingExtra
from openllm.core.plugins import DISTRIBUTIONS, EXTRAS

DISTRIBUTION = "openllm-lab"
IMPORT_NAMES = {"protobuf": "google.protobuf", "pyyaml": "yaml"}
"""Core distributions whose import name differs."""
GIB = 1024**3
LEAST_FREE_GIB = 5.0
"""With less free disk, a run of the small preset with its checkpoints may not fit."""


@dataclass(frozen=True)
class Problem:
    """Something missing or broken, and how to fix it."""

    what: str
    mend: str
    core: bool
    """Whether OpenLLM cannot work without it."""


Facts = dict[str, Any]


def main(argv: list[str]) -> int:
    """Print the report; returns 1 if a core part is broken, else 0."""
    parser = Parser(
        prog="openllm doctor",
        description="Check this machine and installation, and say how to fix what is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(argv)
    sections, problems = examine()
    broken = any(problem.core for problem in problems)
    if options.json:
        report = {**sections, "problems": [asdict(problem) for problem in problems]}
        sys.stdout.write(json.dumps({"ok": not broken, **report}, indent=1) + "\n")
    else:
        sys.stdout.write(render(sections, problems))
    return 1 if broken else 0


def examine() -> tuple[dict[str, Facts], list[Problem]]:
    """All facts by section, and all problems."""
    problems: list[Problem] = []
    sections = {
        "versions": _versions(problems),
        "hardware": _hardware(),
        "numbers": _numbers(),
        "compiler": _compiler(problems),
        "extras": _extras(problems),
        "disk": _disk(problems),
    }
    if foreign_distribution():
        problems.append(Problem("another package named 'openllm' is installed", FOREIGN, core=True))
    return sections, problems


def render(sections: dict[str, Facts], problems: list[Problem]) -> str:
    """The report as text."""
    lines: list[str] = []
    for title, facts in sections.items():
        lines += [title, *(f"  {name:<22} {_shown(value)}" for name, value in facts.items()), ""]
    if not problems:
        lines.append("No problems found.")
    for problem in problems:
        kind = "broken " if problem.core else "missing"
        lines += [f"{kind}  {problem.what}", f"         -> {problem.mend}"]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def core_distributions() -> list[str]:
    """Names of the distributions that OpenLLM requires, from its own metadata.

    Raises:
        PackageNotFoundError: OpenLLM runs from a folder without being installed.
    """
    lines = metadata.requires(DISTRIBUTION) or []
    names = [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in lines if "extra ==" not in line]
    return sorted({name.lower().replace("_", "-") for name in names})


def _versions(problems: list[Problem]) -> Facts:
    facts: Facts = {
        "openllm": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    try:
        names = core_distributions()
    except metadata.PackageNotFoundError:
        problems.append(Problem(f"{DISTRIBUTION} is not installed", "pip install -e .", core=True))
        return facts
    for name in names:
        try:
            importlib.import_module(IMPORT_NAMES.get(name, name))
            facts[name] = metadata.version(name)
        except Exception as error:  # a broken library may fail in any way, which is the finding
            facts[name] = "broken"
            problems.append(
                Problem(
                    f"{name} cannot be imported: {type(error).__name__}: {error}",
                    f"pip install --force-reinstall {name}",
                    core=True,
                )
            )
    return facts


def _hardware() -> Facts:
    affinity = getattr(os, "sched_getaffinity", None)
    facts: Facts = {
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        **_memory(),
    }
    torch = _torch()
    if torch is None:
        return facts
    facts["threads"] = torch.get_num_threads()
    facts["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "not set")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    facts["gpu"] = [f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB" for gpu in gpus]
    if torch.backends.mps.is_available():
        facts["gpu"] = ["Apple (mps)"]
    return facts


def _processor() -> str:
    for line in _proc("cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _first_line(["sysctl", "-n", "machdep.cpu.brand_string"])
    return platform.processor() or platform.machine()


def _memory() -> Facts:
    """Total and available memory, where the system reports it."""
    sizes = {line.partition(":")[0]: line.split()[1] for line in _proc("meminfo") if ":" in line}
    if "MemTotal" in sizes:
        total, free = (int(sizes[key]) * 1024 / GIB for key in ("MemTotal", "MemAvailable"))
        return {"memory GiB": round(total, 1), "memory free GiB": round(free, 1)}
    if sys.platform == "darwin":
        return {"memory GiB": int(_first_line(["sysctl", "-n", "hw.memsize"])) / GIB}
    return {}


def _proc(name: str) -> list[str]:
    """Lines of a file under /proc; none if the system has no such file."""
    path = Path("/proc") / name
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _torch() -> Any:
    """Torch, or None if it cannot be imported (`_versions` has reported that)."""
    return sys.modules.get("torch")


def _numbers() -> Facts:
    """Which number formats are fast on this machine."""
    flags = next((set(line.split()) for line in _proc("cpuinfo") if line.startswith("flags")), {})
    facts: Facts = {"bf16 instructions": sorted({"avx512_bf16", "amx_bf16"} & set(flags))}
    torch = _torch()
    if torch is not None:
        speed = {kind: _matmul_gflops(torch, kind) for kind in ("float32", "bfloat16")}
        facts["float32 GFLOP/s"] = round(speed["float32"])
        facts["bfloat16 GFLOP/s"] = round(speed["bfloat16"])
        facts["bfloat16 speed-up"] = round(speed["bfloat16"] / speed["float32"], 2)
    return facts


def _matmul_gflops(torch: Any, kind: str, rounds: int = 5) -> float:
    """Speed of a layer-sized matrix product on the CPU, best of `rounds`."""
    rows, inner, columns = 512, 768, 2048
    x = torch.ones(rows, inner, dtype=getattr(torch, kind))
    weight = torch.ones(columns, inner, dtype=getattr(torch, kind))
    best = float("inf")
    with torch.inference_mode():
        torch.nn.functional.linear(x, weight)
        for _ in range(rounds):
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best = min(best, time.perf_counter() - began)
    return 2 * rows * inner * columns / best / 1e9


def _compiler(problems: list[Problem]) -> Facts:
    """What the CPU kernels need (a C++ compiler), and `torch.compile` (also Python's headers)."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    found = next((path for path in map(shutil.which, names) if path), None)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if found is None:
        problems.append(
            Problem(
                "no C++ compiler found, so models run without CPU kernels and torch.compile",
                "install g++ or clang (Debian, Ubuntu: apt install g++; macOS: "
                "xcode-select --install)",
                core=False,
            )
        )
    if not headers:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        problems.append(
            Problem(
                "Python's C headers are missing, so models run without torch.compile",
                f"install them (Debian, Ubuntu: apt install python{version}-dev)",
                core=False,
            )
        )
    version_line = _first_line([found, "--version"]) if found else None
    return {
        "C++ compiler": version_line,
        "Python headers": headers,
        "CPU kernels": _has_kernels(),
    }


def _has_kernels() -> bool:
    if _torch() is None:
        return False
    from openllm.nn.kernels.library import available

    return available()


def _first_line(command: list[str]) -> str:
    """The first line a program prints, or how it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} failed: {error}"
    return done.stdout.strip().partition("\n")[0]


def _extras(problems: list[Problem]) -> Facts:
    facts: Facts = {}
    for module, extra in sorted(EXTRAS.items()):
        present = importlib.util.find_spec(module) is not None
        name = DISTRIBUTIONS.get(module, module)
        facts[module] = f"{metadata.version(name)} ({extra})" if present else f"no ({extra})"
        if not present:
            what, _, mend = str(MissingExtra(module, extra)).rpartition(": ")
            problems.append(Problem(what, mend, core=False))
    return facts


def _disk(problems: list[Problem]) -> Facts:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    if free < LEAST_FREE_GIB:
        problems.append(
            Problem(
                f"only {free:.1f} GiB of disk space is free here",
                f"free some space, or use --out on another disk (aim for {LEAST_FREE_GIB:.0f} GiB)",
                core=False,
            )
        )
    return {"free here GiB": round(free, 1)}
