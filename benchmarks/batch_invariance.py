# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Whether what a request gets depends on how it is computed, and what it costs that it does not.

    python benchmarks/batch_invariance.py [RUNNER ...]      all of RUNNERS, or those named

200 openings of held-out stories, half of them behind a common text, go on by the quickstart's
model, greedy and sampled with seeds. Each alone is the reference. Compared with it, by token ids:
in random batches, in small parts, with sequences that have to make place (computed again, or put
aside), with the prefix cache, streamed by a backend where all arrive at once, and with speculation.
Then the cost: tokens for each second of processor time, on one thread, in one process, by turns.

Writes benchmarks/results/batch_invariance.json; named runners replace what it says of them. The
model is a finished quickstart in runs/quickstart-short, else it is made there in a minute.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import RESULTS, record

from openllm.core.errors import DataError
from openllm.core.files import read_json
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import Request, SamplingParams
from openllm.recipes import quickstart
from openllm.text.load import load_tokenizer

FOLDER = Path("runs/quickstart-short")
PROMPTS, NEW, SEED = 200, 24, 0
RUNNERS: dict[str, dict[str, Any]] = {
    "compiled fp32": {"precision": "fp32"},
    "compiled bf16": {"precision": "bf16"},
    "compiled int8": {"precision": "int8"},
    "compiled int4": {"precision": "int4"},
    "torch exact fp32": {"precision": "fp32", "kernels": False, "exact": True},
    "torch exact bf16": {"precision": "bf16", "kernels": False, "exact": True},
    "torch plain fp32": {"precision": "fp32", "kernels": False},
    "torch plain bf16": {"precision": "bf16", "kernels": False},
}
BASE: dict[str, Any] = {"cache_tokens": 32_768, "prefix_cache": False}
SMALL = {"cache_tokens": 640}
WAYS: dict[str, dict[str, Any]] = {
    "random batches": {},
    "parts of 64 tokens": {"max_batch_tokens": 64},
    "displaced, computed again": SMALL,
    "displaced, put aside": {**SMALL, "preemption": "swap"},
    "prefix cache": {"prefix_cache": True},
    "prefix cache, displaced": {**SMALL, "prefix_cache": True, "preemption": "swap"},
    "streamed, all at once": {"prefix_cache": True},
    "speculation": {"speculation": {"tokens": 4}},
}
RULES = {
    "greedy": SamplingParams(temperature=0, max_new_tokens=NEW, ignore_eos=True),
    "sampled": SamplingParams(top_p=0.95, max_new_tokens=NEW, ignore_eos=True),
}
COST_ROUNDS = 3
COSTS = {
    "torch exact fp32": "torch plain fp32",
    "torch exact bf16": "torch plain bf16",
    "compiled fp32": "torch plain fp32",
    "compiled bf16": "torch plain bf16",
}
"""What is exact, and what it is compared with."""

Texts = list[list[int]]
Found = dict[str, list[int]]
"""New tokens by request."""


def openings(folder: Path) -> Texts:
    """Ids of the prompts: 6 to 60 tokens of a story, half of them after another story's 96."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    lines = (folder / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    stories = [tokenizer.encode(json.loads(line)["text"]) for line in lines]
    draw = random.Random(SEED)
    common = max(stories, key=len)[:96]
    texts = []
    for number in range(PROMPTS):
        story = stories[number % len(stories)][: draw.randint(6, 60)]
        texts.append([*tokenizer.prefix, *(common if number % 2 else []), *story])
    return texts


def requests(texts: Texts) -> list[Request]:
    """Each text by each rule."""
    return [
        Request(f"{rule} {number}", text, params.model_copy(update={"seed": number}))
        for rule, params in RULES.items()
        for number, text in enumerate(texts)
    ]


def engine(folder: Path, runner: str, settings: dict[str, Any]) -> LLM:
    """A fresh engine."""
    cfg = EngineConfig.model_validate(BASE | RUNNERS[runner] | settings)
    return LLM.load(folder / quickstart.RECIPE / "model", cfg)


def answer(llm: LLM, asked: list[Request]) -> Found:
    """New tokens of some requests, together."""
    answers = llm.generate([one.prompt for one in asked], [one.params for one in asked])
    return {one.id: found.token_ids for one, found in zip(asked, answers, strict=True)}


def batches(llm: LLM, asked: list[Request]) -> Found:
    """In random order, as many at a time as chance will have it."""
    draw, order, found = random.Random(SEED + 1), list(asked), Found()
    draw.shuffle(order)
    while order:
        size = draw.randint(1, 240)
        found |= answer(llm, order[:size])
        order = order[size:]
    return found


def streams(llm: LLM, asked: list[Request]) -> Found:
    """All at once, as a server has them."""
    backend = llm.backend()

    async def one(request: Request) -> list[int]:
        return [token async for update in backend.run(request) for token in update.token_ids]

    async def main() -> Found:
        try:
            found = await asyncio.gather(*map(one, asked))
        finally:
            await backend.close()
        return {request.id: tokens for request, tokens in zip(asked, found, strict=True)}

    return asyncio.run(main())


def compare(folder: Path, runner: str, texts: Texts) -> dict[str, Any]:
    """How many texts are the reference's, by way and rule."""
    asked, found = requests(texts), {}
    llm, alone = engine(folder, runner, {}), Found()
    for request in asked:
        alone |= answer(llm, [request])
    for way, settings in WAYS.items():
        llm = engine(folder, runner, settings)
        answers = (streams if "streamed" in way else batches)(llm, asked)
        same = Counter(name.split()[0] for name in alone if alone[name] == answers[name])
        stats = llm.stats()
        shown = ("preemptions", "cached_tokens", "drafted_tokens", "accepted_tokens")
        facts = {name: value for name in shown if (value := getattr(stats, name))}
        found[way] = {"identical": dict(same), **facts}
        print(f"{runner}, {way}: {dict(same)} of {len(texts)}", flush=True)
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Processor time then means the same for all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rates(folder: Path, texts: Texts) -> dict[str, dict[str, float]]:
    """New tokens for each second of processor time: many at once, and one after another."""
    names = list(dict.fromkeys([*COSTS, *COSTS.values()]))
    llms = {name: engine(folder, name, {}) for name in names}
    jobs: dict[str, Callable[[LLM], object]] = {
        "64 at once": lambda llm: llm.generate(texts[:64], RULES["greedy"]),
        "alone": lambda llm: [llm.generate([text], RULES["greedy"]) for text in texts[:8]],
    }
    spent: dict[str, dict[str, list[float]]] = {name: {job: [] for job in jobs} for name in names}
    with one_thread():
        for turn in range(COST_ROUNDS + 1):
            for name, llm in llms.items():
                for job, run in jobs.items():
                    began = time.process_time()
                    run(llm)
                    if turn:  # the first one warms up
                        spent[name][job].append(time.process_time() - began)
    sizes = {"64 at once": 64 * NEW, "alone": 8 * NEW}
    return {
        name: {job: round(sizes[job] / median(times), 1) for job, times in jobs_.items()}
        for name, jobs_ in spent.items()
    }


def main() -> None:
    """Compare, measure, write."""
    named = sys.argv[1:]
    if not (FOLDER / "summary.json").exists():
        quickstart.main(["--minutes", "1", "--out", str(FOLDER)])
    summary = read_json(FOLDER / "summary.json", DataError, "delete the folder and repeat")
    texts = openings(FOLDER)
    results = {runner: compare(FOLDER, runner, texts) for runner in named or RUNNERS}
    facts = {
        "model": {name: summary[name] for name in ("parameters", "tokens", "heldout_bpb")},
        "prompts": len(texts),
        "prompt_tokens": sum(map(len, texts)),
        "new_tokens": NEW,
        "identical": results,
    }
    if named:
        old = json.loads((RESULTS / "batch_invariance.json").read_text(encoding="utf-8"))
        facts["identical"] = old["identical"] | results
        facts |= {name: old[name] for name in ("tokens_per_processor_second", "speed_ratios")}
    else:
        speeds = rates(FOLDER, texts)
        facts["tokens_per_processor_second"] = speeds
        facts["speed_ratios"] = {
            f"{name} / {base}": {
                job: round(speeds[name][job] / speeds[base][job], 2) for job in speeds[name]
            }
            for name, base in COSTS.items()
        }
    print(json.dumps(facts["speed_ratios"], indent=1), record("batch_invariance", facts), sep="\n")


if __name__ == "__main__":
    main()
