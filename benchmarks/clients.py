# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Clients that we did not write, unchanged, against `openllm serve`.

    python benchmarks/clients.py MODEL --python PYTHON

MODEL is a model folder that transformers loads as well. PYTHON is the interpreter of an environment
with lm-eval, transformers, langchain-openai and litellm. Nothing is fetched from a network.

- lm-evaluation-harness by `local-completions`, beside the same tasks run on the same folder by
  transformers: every log-likelihood and every greedy text is compared.
- LangChain and LiteLLM: chat, streams, tools, JSON, completions, embeddings, errors.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from foreign.harness import compare, run_harness, write_tasks
from record import ROOT, record
from serving import serving

SCRIPTS = ROOT / "benchmarks" / "foreign"
OFFLINE = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ASK_VERSIONS = (
    "import json; from importlib.metadata import version; "
    "print(json.dumps({n: version(n) for n in ('lm_eval', 'transformers', 'langchain-openai', "
    "'litellm', 'openai')}))"
)


def client_checks(python: str, name: str, url: str) -> dict[str, bool]:
    """What a client's script found."""
    done = subprocess.run(
        [python, str(SCRIPTS / f"{name}_client.py"), url], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def harness_checks(python: str, folder: Path, url: str) -> dict[str, Any]:
    """The harness on our server, and on transformers."""
    positions = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    ours = (
        f"model={folder.name},base_url={url}/v1/completions,num_concurrent=8,max_retries=1,"
        f"tokenizer_backend=huggingface,tokenizer={folder},max_length={positions},"
        "add_bos_token=True"  # as transformers does by itself
    )
    with tempfile.TemporaryDirectory() as made:
        tasks = Path(made) / "tasks"
        tasks.mkdir()
        write_tasks(tasks)
        server = run_harness(python, tasks, Path(made) / "ours", "local-completions", ours)
        theirs = f"pretrained={folder},dtype=float32"
        peer = run_harness(python, tasks, Path(made) / "hf", "hf", theirs)
    return compare(server, peer)


def main() -> None:
    """Run and record everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--python", required=True)
    args = parser.parse_args()
    os.environ.update(OFFLINE)
    folder = args.model.resolve()
    versions = json.loads(subprocess.check_output([args.python, "-c", ASK_VERSIONS], text=True))
    names = ["--name", folder.name, "--name", "echo"]
    with serving(str(folder), "echo", *names, "--engine", "precision=fp32") as url:
        facts = {
            "clients": versions,
            "langchain": client_checks(args.python, "langchain", url),
            "litellm": client_checks(args.python, "litellm", url),
            "lm_eval": harness_checks(args.python, folder, url),
        }
    path = record("clients", facts, packages=("torch", "fastapi", "uvicorn"))
    print(json.dumps(facts, indent=1), f"\nwritten to {path}")
    failed = [f"{n}: {k}" for n in ("langchain", "litellm") for k, v in facts[n].items() if not v]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
