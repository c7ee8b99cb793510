# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Inside a process of `decode_speed.py`: one contender, which continues a text greedily.

{"do": "build", "task": {...}}          -> {"build_seconds": s, "bytes": of weights a token reads}
{"do": "generate", "tokens": n}         -> {"seconds": s}: reading the prompt and n new tokens
{"do": "bandwidth", "bytes": [n, ...]}  -> {"bytes_per_second": [...]}, from the contender `limit`

Any failure is answered with {"error": "why"}. The process ends with its input.
"""

import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from openllm.core.errors import EngineError
from openllm.core.log import progress
from openllm.core.plugins import require
from openllm.nn.config import ModelConfig
from openllm.nn.kernels.decoder import pack_model
from openllm.nn.kernels.library import find_compiler
from openllm.nn.kernels.packed import Kind, allocate
from openllm.nn.model import Transformer

READ = """
#include <omp.h>
#include <stdint.h>
typedef uint64_t Words __attribute__((vector_size(64)));
extern "C" uint64_t read_all(const Words* data, int64_t count, int threads) {
  uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(^ : sum)
  for (int64_t i = 0; i < count / 8; i++) {
    Words part[8];
    for (int j = 0; j < 8; j++) part[j] = data[8 * i + j];
    for (int j = 1; j < 8; j++) part[0] ^= part[j];
    for (int j = 0; j < 8; j++) sum ^= part[0][j];
  }
  return sum;
}
"""


class Task(NamedTuple):
    """What all contenders do."""

    model: dict[str, Any]
    threads: int
    prompt: int
    context: int

    @property
    def cfg(self) -> ModelConfig:
        """The shape of the model."""
        return ModelConfig.model_validate(self.model)


class Side(Protocol):
    """A contender."""

    bytes: int

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        ...


def weights(cfg: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Random weights, each from its name alone, one at a time."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Transformer(cfg).state_dict().items()}
    for name, shape in shapes.items():
        yield name, weight(name, shape)


def weight(name: str, shape: torch.Size) -> Tensor:
    """Random weights of one name."""
    if len(shape) == 1:
        return torch.ones(shape)
    rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=rng).mul_(0.02)


def prompt(task: Task) -> list[int]:
    """Any ids."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(task.cfg.vocab_size, (task.prompt,), generator=rng).tolist()


class Ours:
    """Our engine, as `LLM.generate` runs it."""

    def __init__(self, task: Task, kind: Kind) -> None:
        from openllm.engine.config import EngineConfig
        from openllm.engine.llm import LLM
        from openllm.engine.request import SamplingParams
        from openllm.evaluate.speed import stand_in_tokenizer

        cfg = task.cfg
        dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        with torch.device("meta"):
            model = Transformer(cfg)
        state = {name: weight.to(dtype) for name, weight in weights(cfg)}
        model.load_state_dict(state, assign=True)
        tokenizer = stand_in_tokenizer(cfg.vocab_size)
        tokens = -(-task.context // 16) * 16
        self.llm = LLM(model, tokenizer, EngineConfig(precision=kind, cache_tokens=tokens))
        self.params = SamplingParams(temperature=0, ignore_eos=True)
        self.prompt = prompt(task)
        self.bytes = self.llm.info.num_bytes
        if not cfg.tie_embeddings:
            self.bytes -= model.embed_tokens.weight.nbytes

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        wish = self.params.model_copy(update={"max_new_tokens": tokens})
        (answer,) = self.llm.generate([self.prompt], wish)
        assert len(answer.token_ids) == tokens


class Bare:
    """Our compiled decoder in a bare loop; at 4 bits the head has 8, as llama.cpp's files do."""

    def __init__(self, task: Task, name: str) -> None:
        cfg, kinds = task.cfg, {"int4": "int8"}
        head = "embed_tokens.weight" if cfg.tie_embeddings else "lm_head.weight"
        kind: Kind = name  # type: ignore[assignment]
        choose: Any = lambda name: kinds.get(kind, kind) if name == head else kind  # noqa: E731
        self.decoder = pack_model(weights(cfg), cfg, choose)
        self.bytes = self.decoder.num_bytes
        if not cfg.tie_embeddings:
            self.bytes -= self.decoder.matrices["embed_tokens.weight"].num_bytes
        blocks = -(-task.context // 16)
        shape = (cfg.num_layers, blocks, cfg.attention.kv_heads, 16, cfg.attention.head_dim)
        dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        self.caches = [allocate(math.prod(shape), dtype).view(shape) for _ in range(2)]
        self.table = torch.arange(blocks, dtype=torch.int32)[None]
        self.prompt = torch.tensor(prompt(task), dtype=torch.int32)

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        new, done = self.prompt, 0
        for _ in range(tokens):
            count = len(new)
            hidden = self.decoder.forward(
                new,
                torch.arange(done, done + count, dtype=torch.int32),
                torch.zeros(count, dtype=torch.int32),
                self.table,
                *self.caches,
                torch.tensor([count - 1], dtype=torch.int32),
            )
            new = self.decoder.logits(hidden).argmax(1).to(torch.int32)
            done += count


class Transformers:
    """`transformers.generate` in bfloat16."""

    def __init__(self, task: Task) -> None:
        from openllm.checkpoint.families.registry import to_hf_config

        library = require("transformers")
        config = to_hf_config(task.cfg, bos=1, eos=2, pad=0)
        built = library.AutoConfig.for_model(**config)
        self.model = library.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16).eval()
        self.ids = torch.tensor([prompt(task)])
        self.bytes = sum(p.nbytes for p in self.model.parameters())

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        with torch.inference_mode():
            out = self.model.generate(
                self.ids,
                attention_mask=torch.ones_like(self.ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
        assert out.shape[1] == self.ids.shape[1] + tokens


class LlamaCpp:
    """llama.cpp through `llama-cpp-python`, on a file without a vocabulary.

    `q8_0-plain`: weights stay as they are in the file, instead of being repacked for the CPU.
    """

    def __init__(self, task: Task, kind: str) -> None:
        from openllm.export.gguf.llama_cpp import repacking

        library = require("llama_cpp")
        dtype, _, plain = kind.partition("-")
        self.folder = tempfile.TemporaryDirectory(prefix="decode_speed-")
        path = Path(self.folder.name) / f"{dtype}.gguf"
        self.bytes = write_random_gguf(path, task.cfg, dtype)
        self.prompt = prompt(task)
        threads = task.threads
        with repacking(library, not plain):
            self.llama = library.Llama(
                str(path),
                n_ctx=task.context,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
        self.read = library.llama_get_logits_ith
        self.vocab_size = task.cfg.vocab_size

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        import numpy as np

        self.llama.reset()
        new = self.prompt
        for _ in range(tokens):
            self.llama.eval(new)
            logits = self.read(self.llama.ctx, -1)
            new = [int(np.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())]


class LitGpt:
    """litgpt's `generate` in bfloat16; runs in a Python of its own."""

    def __init__(self, task: Task) -> None:
        from litgpt import GPT, Config

        cfg = task.cfg
        config = Config(
            block_size=task.context,
            vocab_size=cfg.vocab_size,
            padded_vocab_size=cfg.vocab_size,
            n_layer=cfg.num_layers,
            n_embd=cfg.dim,
            n_head=cfg.attention.num_heads,
            head_size=cfg.attention.head_dim,
            n_query_groups=cfg.attention.kv_heads,
            norm_qk=cfg.attention.qk_norm,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=cfg.mlp.hidden_dim,
        )
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cpu"):
            self.model = GPT(config).eval()
        if cfg.tie_embeddings:
            self.model.lm_head.weight = self.model.transformer.wte.weight
        self.model.max_seq_length = task.context
        self.model.set_kv_cache(batch_size=1, device="cpu", dtype=torch.bfloat16)
        self.ids = torch.tensor(prompt(task))
        self.bytes = sum(p.nbytes for p in self.model.parameters())

    def generate(self, tokens: int) -> None:
        """Read the prompt, then continue it greedily."""
        from litgpt.generate.base import generate

        with torch.inference_mode():
            generate(self.model, self.ids, len(self.ids) + tokens, temperature=0.0, top_k=1)


class Limit:
    """Reads memory as fast as it can."""

    bytes = 0

    def __init__(self, task: Task) -> None:
        compiler = find_compiler()
        if compiler is None:
            raise EngineError("no C++ compiler to build the read loop with")
        self.threads = task.threads
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "read.cpp", Path(folder) / "read.so"
            source.write_text(READ)
            flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
            subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
            self.read = ctypes.CDLL(str(library)).read_all
        self.read.restype = ctypes.c_uint64
        self.memory = torch.empty(0, dtype=torch.uint8)

    def bandwidth(self, sizes: list[int]) -> list[float]:
        """Bytes a second for each size."""
        if len(self.memory) < max(sizes):
            self.memory = allocate(max(sizes), torch.uint8).fill_(1)
        start = ctypes.c_void_p(-(-self.memory.data_ptr() // 64) * 64)
        found = []
        for size in sizes:
            count = ctypes.c_int64(size // 64 - 1)
            self.read(start, count, self.threads)
            repeats = max(2, 2**28 // size)
            began = time.perf_counter()
            for _ in range(repeats):
                self.read(start, count, self.threads)
            found.append(size * repeats / (time.perf_counter() - began))
        return found


def write_random_gguf(path: Path, cfg: ModelConfig, dtype: Any) -> int:
    """Write a file for llama.cpp; return the bytes of weights that a token reads."""
    from openllm.export.gguf.file import FILE_TYPES, Stored, write_gguf
    from openllm.export.gguf.shapes import architecture, hyperparameters
    from openllm.export.gguf.tensors import packed
    from openllm.export.gguf.writer import tensor_dtype

    shape = architecture(cfg)
    with torch.device("meta"):
        state = {name: p.shape for name, p in Transformer(cfg).state_dict().items()}
    head = "token_embd.weight" if cfg.tie_embeddings else "output.weight"
    entries = {entry.name: entry for entry in packed(cfg, shape)}
    stored = []
    for name, entry in entries.items():
        size = tuple(entry.pack(lambda part: torch.empty(state[part], device="meta")).shape)
        stored.append(Stored(name, size, tensor_dtype(name, size, dtype, head)))
    metadata = {
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
        "tokenizer.ggml.model": "no_vocab",
        f"{shape}.vocab_size": cfg.vocab_size,
        **{f"{shape}.{key}": value for key, value in hyperparameters(cfg, shape).items()},
    }
    with progress(f"writing {path.name}", len(stored), "tensors") as meter:
        write_gguf(
            path,
            shape,
            metadata,
            stored,
            lambda name: entries[name].pack(lambda part: weight(part, state[part])).numpy(),
            meter,
        )
    bits = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}
    read = [s for s in stored if cfg.tie_embeddings or s.name != "token_embd.weight"]
    return int(sum(math.prod(s.shape) * bits[s.dtype] / 8 for s in read))


def build(name: str, task: Task) -> Side | Limit:
    """A contender by its name."""
    family, _, kind = name.partition("-")
    match family:
        case "ours":
            return Ours(task, kind)  # type: ignore[arg-type]
        case "decoder":
            return Bare(task, kind)
        case "transformers":
            return Transformers(task)
        case "llama.cpp":
            return LlamaCpp(task, kind)
        case "litgpt":
            return LitGpt(task)
        case _:
            return Limit(task)


def serve(name: str) -> None:
    """Answer commands until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keep library output out of the answers
    side: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            began = time.perf_counter()
            match command["do"]:
                case "build":
                    task = Task(**command["task"])
                    torch.set_num_threads(task.threads)
                    side = build(name, task)
                    answer = {"build_seconds": time.perf_counter() - began, "bytes": side.bytes}
                case "generate":
                    side.generate(command["tokens"])
                    answer = {"seconds": time.perf_counter() - began}
                case "bandwidth":
                    answer = {"bytes_per_second": side.bandwidth(command["bytes"])}
        except Exception as error:
            words = str(error).strip().partition("\n")[0]
            answer = {"error": f"{type(error).__name__}: {words[:200]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
