# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Peak memory of a process that trains: `python -m tests.train.peak PRESET VOCABULARY STEPS ...`.

Prints the forecast and the measured peak, in bytes.
"""

import json
import re
import sys
from pathlib import Path

from tests.tiny import random_shards

from openllm.data.loader import TokenLoader
from openllm.recipes.build import build_trainer, load_config, prepare_process, resolve
from openllm.train.forecast import forecast
from openllm.train.scoring import score_documents


def main(preset: str, vocab_size: int, steps: int, settings: list[str]) -> dict[str, int]:
    """Forecast, some training steps, a validation."""
    cfg = resolve(load_config(preset, ["threads=1", *settings]), vocab_size)
    prepare_process(cfg)
    batch = cfg.batch
    shards = random_shards([50 + 37 * i % 400 for i in range(300)], vocab_size)
    loader = TokenLoader(
        shards,
        seq_len=batch.seq_len,
        micro_rows=batch.micro_rows,
        seed=0,
    )
    trainer = build_trainer(cfg, loader)
    foretold = forecast(cfg, trainer, "user", 0).peak_bytes
    for _ in range(steps):
        trainer.train_step()
    score_documents(
        trainer.model,
        [shards.document(i) for i in range(40)],
        context=batch.seq_len,
        batch_tokens=batch.micro_rows * batch.seq_len,
        precision=trainer.precision,
    )
    status = Path("/proc/self/status").read_text()
    measured = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    return {"foretold": foretold, "measured": measured}


if __name__ == "__main__":
    name, vocabulary, number, *rest = sys.argv[1:]
    sys.stdout.write(json.dumps(main(name, int(vocabulary), int(number), rest)) + "\n")
