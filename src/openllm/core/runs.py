# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The run folder: everything known about one training run.

recipe.yaml      the resolved recipe that the run started with
inputs.json      fingerprints of its data and tokenizer
env.json         versions and hardware; what bit-exact resumption depends on
metrics.jsonl    one line per training step or validation
events.jsonl     warnings, checkpoints, resumptions
checkpoints/     step-NNNNNN/, complete or absent
plots/*.png, report.md
model/           best weights so far, as a model folder
"""

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from openllm.core.config import read_yaml
from openllm.core.errors import CheckpointError, ConfigError, StorageError
from openllm.core.files import atomic_file, read_json, storage_errors, write_json

RECIPE = "recipe.yaml"
MACHINE_KEYS = ("threads", "batch.micro_rows", "activation_checkpointing")
"""Settings that a resumed run may change, because they fit a recipe to a machine; `Run.changes`."""


class Run:
    """An open run folder; only one process may hold it.

    Attributes:
        changes: the `MACHINE_KEYS` that differ from `recipe.yaml`, in words.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics_path = folder / "metrics.jsonl"
        self.events_path = folder / "events.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.model = folder / "model"
        self.plots = folder / "plots"
        self.changes: list[str] = []
        self._lock: IO[str] | None = None
        self._metrics: IO[bytes] | None = None

    @classmethod
    def open(cls, folder: Path | str, recipe: dict[str, Any], *, fresh: bool = False) -> "Run":
        """Create the folder, or resume an earlier run of the same recipe.

        Raises:
            ConfigError: the folder holds a run of another recipe, or other files.
            StorageError: another process is training here, or the folder cannot be written.
        """
        run = cls(Path(folder))
        with storage_errors(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            run._refuse_other_files()
            run._take_lock()
        try:
            run._check(recipe, fresh)
        except BaseException:  # whatever the error, the lock must not outlive it
            run.close()
            raise
        return run

    @classmethod
    def discard(cls, folder: Path | str) -> None:
        """Remove a run folder if it exists.

        Raises:
            ConfigError: the folder holds other files.
            StorageError: another process is training here, or the folder cannot be removed.
        """
        run = cls(Path(folder))
        if not run.folder.exists():
            return
        with storage_errors(run.folder):
            run._refuse_other_files()
            run._take_lock()
            try:
                run._empty()
                shutil.rmtree(run.folder)
            finally:
                run.close()

    def _take_lock(self) -> None:
        self._lock = open(self.folder / ".lock", "w")  # noqa: SIM115  # held until close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StorageError(
                f"{self.folder}: another process is training here; wait for it to finish, or "
                "choose another --out"
            ) from None

    def _refuse_other_files(self) -> None:
        # hidden files are ours: the lock, and what a kill left half-written
        others = [name for name in os.listdir(self.folder) if not name.startswith(".")]
        if others and RECIPE not in others:
            raise ConfigError(
                f"{self.folder} contains other files ({', '.join(sorted(others)[:3])}) and is "
                "not a run folder; choose a new or empty folder"
            )

    def _check(self, recipe: dict[str, Any], fresh: bool) -> None:
        path = self.folder / RECIPE
        if path.exists() and fresh:
            self._empty()
        begins = not any(self.checkpoints.glob("step-*"))
        if path.exists():
            changed = {key: pair for key, *pair in _differences(read_yaml(path), recipe)}
            refused = [
                f"{key} was {old}, is now {new}"
                for key, (old, new) in sorted(changed.items())
                if key not in MACHINE_KEYS
            ]
            if refused:
                raise ConfigError(
                    f"{self.folder} contains a run with different settings "
                    f"({'; '.join(refused[:5])}); use its settings to resume it, pass --fresh to "
                    "discard it, or choose another --out"
                )
            if not begins:
                self.changes = [f"{key} was {a}, is now {b}" for key, (a, b) in changed.items()]
        if begins:  # from now on with these settings and this machine, whatever was noted before
            (self.folder / "env.json").unlink(missing_ok=True)
            with atomic_file(path) as handle:
                yaml.safe_dump(recipe, handle, sort_keys=False, allow_unicode=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a killed or failed process left half-written."""
        for leftover in self.folder.glob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        if self.events_path.exists():
            whole = self.events_path.read_bytes().rfind(b"\n") + 1
            os.truncate(self.events_path, whole)

    def _empty(self) -> None:
        # the recipe goes last: while it exists, the folder is still recognised as a run
        for name in sorted(os.listdir(self.folder), key=lambda name: name == RECIPE):
            entry = self.folder / name
            if name == ".lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def rewind_metrics(self, offset: int) -> None:
        """Drop what was written after the checkpoint that training resumes from."""
        if self._metrics is not None:
            self._metrics.close()
        with storage_errors(self.metrics_path):
            self._metrics = open(self.metrics_path, "ab")  # noqa: SIM115  # until close()
            size = self._metrics.tell()
            if size < offset:
                raise CheckpointError(
                    f"{self.metrics_path} is shorter ({size} bytes) than at the checkpoint "
                    f"({offset} bytes): it was modified outside OpenLLM; start over with --fresh"
                )
            self._metrics.truncate(offset)
            self._metrics.seek(offset)

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to the metrics; non-finite numbers become null."""
        assert self._metrics is not None, "rewind_metrics() comes first"
        line = json.dumps(_plain(record), allow_nan=False)
        with storage_errors(self.metrics_path):
            self._metrics.write((line + "\n").encode())
            self._metrics.flush()

    def metrics_offset(self) -> int:
        """Sync the metrics to disk; returns their size in bytes."""
        assert self._metrics is not None, "rewind_metrics() comes first"
        with storage_errors(self.metrics_path):
            os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    def log_event(self, kind: str, step: int, message: str) -> None:
        """Append one line to the events."""
        line = {"time": round(time.time(), 3), "kind": kind, "step": step, "message": message}
        with storage_errors(self.events_path), open(self.events_path, "a") as handle:
            handle.write(json.dumps(line) + "\n")

    def check_inputs(self, fingerprints: Mapping[str, str]) -> None:
        """Write `inputs.json` on the first call; later refuse inputs that differ.

        Raises:
            ConfigError: a fingerprint differs; the message says whose.
        """
        path = self.folder / "inputs.json"
        if not path.exists():
            write_json(path, dict(fingerprints))
            return
        old = read_json(path, CheckpointError, "start anew with --fresh")
        changed = [
            f"{name} fingerprint was {str(old.get(name))[:12]}, is now {new[:12]}"
            for name, new in fingerprints.items()
            if old.get(name) != new
        ]
        if changed:
            raise ConfigError(
                f"{self.folder} contains a run with different inputs ({'; '.join(changed)}); "
                "restore them to resume it, pass --fresh to discard it, or choose another --out"
            )

    def check_env(self, env: dict[str, Any]) -> list[str]:
        """Write `env.json` on the first call; later return what differs from it."""
        path = self.folder / "env.json"
        if not path.exists():
            write_json(path, env)
            return []
        old = read_json(path, CheckpointError, "start anew with --fresh")
        return [
            f"{key} was {old.get(key)}, is now {env.get(key)}"
            for key in ("torch", "instruction_set", "kernels", "compile", "world_size")
            if old.get(key) != env.get(key)
        ]

    def close(self) -> None:
        """Close the files and release the lock."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _plain(value: Any) -> Any:
    """The value with non-finite numbers replaced by None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, old and new value of each setting that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def read_metrics(folder: Path | str) -> list[dict[str, Any]]:
    """All complete lines of a run's metrics."""
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        raise CheckpointError(f"{folder} is not a run folder (metrics.jsonl is missing)")
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def environment(
    *, instruction_set: str, threads: int, device: str, kernels: str, compiled: bool
) -> dict[str, Any]:
    """What a run's numbers depend on besides its recipe."""
    return {
        "openllm": importlib.metadata.version("openllm-lab"),
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "instruction_set": instruction_set,
        "kernels": kernels,
        "threads": threads,
        "device": device,
        "compile": compiled,
        "world_size": 1,
    }


def source_commit() -> str | None:
    """The git commit of the source tree this package runs from; None for an installed wheel.

    `-dirty` is appended if tracked files differ from it; benchmark results, which a benchmark
    itself changes, do not count.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"]
    try:
        commit, changes = (
            subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
            for command in ([*git, "rev-parse", "HEAD"], changed)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}-dirty" if commit and changes else commit or None


def cpu_name() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
