# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The exported page in a real browser: does it say what onnxruntime says, and how fast?

    python benchmarks/browser.py MODEL --max-mb 30

MODEL is a trained model folder. The page is exported, opened from the disk in a headless Chromium
without network, and made to continue a text. Results go to benchmarks/results/browser.json, what it
looks like to browser.png beside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from chromium import Chromium
from record import RESULTS, record

from openllm.core.log import say
from openllm.export.web.writer import export_web, open_web
from openllm.text.load import load_tokenizer

READY = "document.getElementById('generate')?.disabled === false"
FINISHED = "document.getElementById('stop').disabled"
GREEDY = """(async () => {
  const ids = [];
  let began = 0;
  for await (const id of OpenLLM.model.generate(PROMPT, WISH)) {
    if (ids.push(id) === 1) began = performance.now();
  }
  return { ids, seconds: (performance.now() - began) / 1000 };
})()"""


def greedy(browser: Chromium, prompt: list[int], new_tokens: int) -> tuple[list[int], float]:
    """The most likely continuation of a prompt, and tokens per second after the first."""
    wish = {"count": new_tokens, "temperature": 0, "pastEnd": True}
    script = GREEDY.replace("PROMPT", json.dumps(prompt)).replace("WISH", json.dumps(wish))
    found = browser.run(script, timeout=600)
    return found["ids"], (new_tokens - 1) / found["seconds"]


def outside(browser: Chromium) -> list[str]:
    """Addresses asked for that are not in the page's folder or made by the page itself."""
    own = ("file:", "data:", "blob:")
    return [address for address in browser.requests if not address.startswith(own)]


def measure(page: Path, text: str, new_tokens: int, rounds: int, picture: Path) -> dict[str, Any]:
    """Open a page, compare its text with onnxruntime's, time it, take its picture."""
    tokenizer = load_tokenizer(page)
    prompt = [tokenizer.bos_id, *tokenizer.encode(text)]
    with Chromium() as browser:
        began = time.perf_counter()
        browser.open(page / "index.html")
        browser.wait(READY)
        ready = time.perf_counter() - began
        same_prompt = browser.run(f"OpenLLM.tokenizer.encode({json.dumps(text)})") == prompt
        runs = [greedy(browser, prompt, new_tokens) for _ in range(rounds)]
        browser.run(f"document.getElementById('prompt').value = {json.dumps(text)}")
        browser.run("document.getElementById('form').requestSubmit()")
        browser.wait(FINISHED)
        browser.screenshot(picture)
        wanted = open_web(page).greedy([prompt], new_tokens)[0]
        return {
            "browser": browser.run("navigator.userAgent"),
            "seconds_to_ready": ready,
            "new_tokens": new_tokens,
            "tokens_per_second": statistics.median(speed for _, speed in runs),
            "tokens_per_second_of_each_round": [speed for _, speed in runs],
            "prompt_ids_equal": same_prompt,
            "greedy_ids_equal": all(ids == wanted for ids, _ in runs),
            "requests_to_the_network": len(outside(browser)),
            "console_messages": browser.messages,
        }


def main() -> None:
    """Export, open, measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--max-mb", type=float, default=30.0)
    parser.add_argument("--prompt", default="The history of the city began in")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        page = Path(place)
        export_web(args.model, page, max_mb=args.max_mb)
        shown = json.loads((page / "facts.js").read_text().partition("=")[2].rstrip(";\n"))
        found = measure(page, args.prompt, args.tokens, args.rounds, RESULTS / "browser.png")
    facts = {"model": shown["name"], "page": shown["shown"], "prompt": args.prompt, **found}
    record("browser", facts, ("torch", "onnx", "onnxruntime"))
    say(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
