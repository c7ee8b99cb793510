# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export to a folder that generates text in a browser: no server, no network, no build step.

index.html  style.css  app/   the page, opened by a double click or from any static server
facts.js  vocabulary.js       what it shows, and its tokenizer
model/                        `model.onnx` with 8- or 4-bit weights, as scripts
runtime/                      onnxruntime-web and its licence
certificate.js                the verdict of the certificate, once there is one
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openllm.checkpoint.model_dir import read_model_config
from openllm.core.errors import CheckpointError, ConfigError
from openllm.core.files import read_json
from openllm.core.log import say
from openllm.export.companions import copy_companions
from openllm.export.inventory import model_name
from openllm.export.onnx.runtime import OnnxModel
from openllm.export.onnx.writer import GRAPH, Dtype, export_onnx
from openllm.export.web.onnxruntime import (
    VERSION,
    find_runtime,
    read_pieces,
    write_pieces,
    write_runtime,
)
from openllm.export.web.vocabulary import page_vocabulary
from openllm.nn.config import ModelConfig
from openllm.nn.cost import parameters

PAGE = Path(__file__).with_name("page")
APP = ("tokenizer.js", "generate.js", "page.js")
SMALL: tuple[Dtype, ...] = ("int8", "int4")


def export_web(
    source: Path, target: Path, *, max_mb: float, runtime: Path | None = None, name: str = ""
) -> Dtype:
    """Write a page that runs the model, with the best weights that fit; returns their type.

    Args:
        source: a model folder.
        target: an empty folder.
        max_mb: megabytes that the folder may have, without `runtime/`.
        runtime: an unpacked copy of onnxruntime-web; none: it is downloaded once.
        name: of the model, for the page's title; default: that of its run or folder.

    Raises:
        ConfigError: no form of the model is small enough; the message names the smallest size.
        TokenizerError: the page cannot do what the tokenizer does.
        DownloadError: the runtime is neither here nor to be had.
    """
    vocabulary, place = page_vocabulary(source), find_runtime(runtime)
    shutil.copyfile(PAGE / "index.html", target / "index.html")
    shutil.copyfile(PAGE / "style.css", target / "style.css")
    (target / "app").mkdir()
    for script in APP:
        shutil.copyfile(PAGE / script, target / "app" / script)
    _assign(target / "vocabulary.js", "vocabulary", vocabulary)
    show_verdict(target, "none")
    copy_companions(source, target)
    dtype, count, megabytes = _write_weights(source, target, max_mb)
    pieces = write_runtime(place, target)
    cfg = read_model_config(source)
    facts = {
        "name": name or model_name(source),
        "parts": count,
        "runtime": pieces,
        "layers": cfg.num_layers,
        "heads": cfg.attention.kv_heads,
        "head_dim": cfg.attention.head_dim,
        "context": cfg.max_positions,
        "end": _ends(source),
        "shown": _shown(cfg, dtype, megabytes),
    }
    _assign(target / "facts.js", "facts", facts)
    return dtype


def show_verdict(target: Path, verdict: str) -> None:
    """Write what the page says about its certificate."""
    _assign(target / "certificate.js", "certificate", verdict)


def open_web(folder: Path | str, *, threads: int | None = None) -> OnnxModel:
    """The model of a page's folder in the onnxruntime of this machine.

    Raises:
        CheckpointError: the folder is not such a page, or it is damaged.
    """
    try:
        graph = read_pieces(Path(folder), "model/part")
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{folder}/model is damaged ({error}); export it again") from None
    return OnnxModel(folder, threads=threads, graph=graph)


def _write_weights(source: Path, target: Path, max_mb: float) -> tuple[Dtype, int, float]:
    """Write `model/` in the first form that fits; returns it, its pieces and the folder's size."""
    folder, smallest = target / "model", float("inf")
    for dtype in SMALL:
        folder.mkdir()
        with tempfile.TemporaryDirectory(dir=target) as place:
            # WebAssembly cannot round inputs; so the certificate is of what the browser computes
            export_onnx(source, Path(place), dtype=dtype, round_inputs=False)
            count = write_pieces(target, "model/part", (Path(place) / GRAPH).read_bytes())
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 1e6
        if size <= max_mb:
            say(f"{dtype}: {size:.1f} MB of the {max_mb:g} MB allowed")
            return dtype, count, size
        say(f"{dtype}: {size:.1f} MB, more than {max_mb:g} MB")
        smallest = min(smallest, size)
        shutil.rmtree(folder)
    raise ConfigError(
        f"the folder would have {smallest:.1f} MB with {SMALL[-1]}, its smallest form, but "
        f"--max-mb is {max_mb:g}; raise it to {-(-smallest // 1):.0f}, or export a smaller model"
    )


def _ends(source: Path) -> list[int]:
    """Ids that end a text."""
    path = source / "generation_config.json"
    if not path.exists():
        return []
    ends = read_json(path, CheckpointError, "copy the whole model folder").get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _shown(cfg: ModelConfig, dtype: Dtype, megabytes: float) -> dict[str, str]:
    bits = {"int8": "8 bits", "int4": "4 bits, embedding and head 8 bits"}[dtype]
    return {
        "Parameters": f"{parameters(cfg).total / 1e6:.1f} million",
        "Shape": f"{cfg.num_layers} layers, width {cfg.dim}, {cfg.attention.num_heads} heads",
        "Vocabulary": f"{cfg.vocab_size:,} tokens",
        "Context": f"{cfg.max_positions:,} tokens",
        "Weights": bits,
        "Size": f"{megabytes:.1f} MB, and the runtime",
        "Runtime": f"onnxruntime-web {VERSION} (WebAssembly)",
    }


def _assign(path: Path, name: str, value: str | Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # U+2028 and U+2029 end a line in old JavaScript; both are valid in JSON
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    path.write_text(f"OpenLLM.{name}={text};\n", encoding="utf-8")
