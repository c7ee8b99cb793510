# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Peak memory of import and export of a checkpoint with 1.5 billion random weights.

    python benchmarks/import_memory.py       writes benchmarks/results/import_memory.json

The checkpoint (Llama, bfloat16, three shards, 3 GB) is made in a temporary folder, which needs room
for three copies. Each command is a process of its own; its peak is what the kernel reports (VmHWM),
which counts the pages of memory maps too. (ru_maxrss would begin at the size of this process.)
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from record import record

from openllm.checkpoint.families.registry import FAMILIES, to_hf_config
from openllm.checkpoint.tensors import PIECE_ELEMENTS, Planned
from openllm.checkpoint.weights import write_weights
from openllm.nn.config import AttentionConfig, ModelConfig, SwiGLUConfig
from openllm.nn.cost import parameters
from openllm.nn.model import Transformer

MODEL = ModelConfig(
    vocab_size=64_000,
    dim=2048,
    num_layers=24,
    max_positions=4096,
    tie_embeddings=False,
    attention=AttentionConfig(num_heads=16, num_kv_heads=8, head_dim=128, qk_norm=False),
    mlp=SwiGLUConfig(hidden_dim=6144),
)
SHARD_BYTES = 1_000_000_000
ALLOWED = "1.5 x largest shard + 0.5 GB"
PEAK = """
import re, resource
from pathlib import Path
used = resource.getrusage(resource.RUSAGE_SELF)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(peak, used.ru_utime + used.ru_stime)
"""
IMPORT = f"""
import sys
from openllm.cli.main import main
code = main(["import", sys.argv[1], "--out", sys.argv[2], "--max-shard", "1GB"])
{PEAK}
sys.exit(code)
"""
EXPORT = f"""
import sys
from pathlib import Path
from openllm.core.files import atomic_folder
from openllm.export.hf.writer import export_hf
with atomic_folder(sys.argv[2]) as target:
    export_hf(Path(sys.argv[1]), target, max_shard_bytes=10**9)
{PEAK}
"""
START = f"import torch, openllm.checkpoint.copying\n{PEAK}"


def random_pieces(count: int) -> Iterator[torch.Tensor]:
    """So many random elements."""
    for start in range(0, count, PIECE_ELEMENTS):
        size = min(PIECE_ELEMENTS, count - start)
        yield torch.empty(size, dtype=torch.bfloat16).normal_(0.0, 0.02)


def build(folder: Path) -> None:
    """Write the checkpoint."""
    folder.mkdir()
    with torch.device("meta"):
        state = Transformer(MODEL).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    planned = [
        Planned(
            link.theirs,
            torch.bfloat16,
            link.shape(shapes),
            random_pieces(state[link.ours[0]].numel()),
        )
        for link in FAMILIES["llama"].links(shapes)
    ]
    write_weights(folder, planned, SHARD_BYTES)
    config = to_hf_config(MODEL, bos=1, eos=2, pad=3, dtype="bfloat16", family="llama")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")  # copied as it is


def measure(code: str, *arguments: Path) -> dict[str, float]:
    """Run a program, and return its peak in GB, its seconds, and those on the processor."""
    began = time.monotonic()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, busy = (float(word) for word in answer.stdout.split()[-2:])
    return {
        "peak_gb": round(peak * 1024 / 1e9, 3),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(busy, 1),
    }


def same(first: Path, second: Path) -> bool:
    """Whether two folders have the same shards, byte for byte."""
    names = sorted(path.name for path in first.glob("*.safetensors"))
    pairs = [(first / name, second / name) for name in names]
    return all(
        subprocess.run(["cmp", "-s", *map(str, pair)], check=False).returncode == 0
        for pair in pairs
    ) and names == sorted(path.name for path in second.glob("*.safetensors"))


def main() -> int:
    """Measure, write the result, and fail if a peak is too high or a weight differs."""
    with tempfile.TemporaryDirectory() as temporary:
        source, ours, theirs = (Path(temporary) / name for name in ("source", "ours", "theirs"))
        build(source)
        largest = max(path.stat().st_size for path in source.glob("*.safetensors")) / 1e9
        shards = len(list(source.glob("*.safetensors")))
        runs: dict[str, Any] = {
            "start": measure(START),
            "import": measure(IMPORT, source, ours),
            "export": measure(EXPORT, ours, theirs),
        }
        identical = same(source, ours) and same(ours, theirs)
    limit = 1.5 * largest + 0.5
    result = {
        "what": "peak resident memory of 'openllm import' and of export to transformers",
        "parameters": parameters(MODEL).total,
        "dtype": "bfloat16",
        "shards": shards,
        "largest_shard_gb": round(largest, 3),
        "runs": runs,
        "allowed": ALLOWED,
        "allowed_gb": round(limit, 3),
        "weights_identical": identical,
    }
    record("import_memory", result, ["torch"])
    print(json.dumps(result, indent=1))
    peak = max(runs[name]["peak_gb"] for name in ("import", "export"))
    return 0 if peak <= limit and identical else 1


if __name__ == "__main__":
    sys.exit(main())
