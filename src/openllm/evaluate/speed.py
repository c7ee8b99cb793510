# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Speed of this machine: hardware limits (best of several tries) and our work on it (medians)."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from openllm.core.machine import free_memory
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.nn.config import ModelConfig
from openllm.nn.cost import matmul_parameters, train_flops
from openllm.nn.kernels import library
from openllm.nn.model import Transformer, build_model
from openllm.text.controls import BOS, CONTROLS, EOS, PAD, UNK
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.words import SPACE, Piece
from openllm.train.config import PretrainConfig
from openllm.train.forecast import matmul_peak, optimizer_flops, training_rate
from openllm.transform.precision import has_fast_bf16

DOCUMENT_TOKENS = 256
"""Length of the documents used to measure training; a row holds several."""

DECODED_TOKENS = 16
"""New tokens per timed request."""

BUFFER_BYTES = 2**30
"""Buffer read to measure memory bandwidth: many times the largest caches."""


@dataclass(frozen=True)
class Machine:
    """Limits of the hardware, and what other programs use of it."""

    device: str
    cores: int
    threads: int
    fp32_flops: float
    bf16_flops: float | None
    """None: no bf16 instructions here."""
    memory_bytes_per_second: float
    """Of the CPU, where text is generated."""
    kernels: bool
    kernels_mend: str | None
    busy_elsewhere: float
    """Cores that other programs kept busy meanwhile."""

    def peak(self, precision: str) -> float:
        """Peak of matrix products in a precision, in FLOP/s."""
        bf16 = self.bf16_flops if precision == "bf16" else None
        return self.fp32_flops if bf16 is None else bf16


@dataclass(frozen=True)
class Training:
    """Training speed of one recipe on this machine."""

    tokens_per_second: float
    step_tokens: int
    step_flops: int
    """Of the model, forward and backward."""
    optimizer_flops: int
    peak_flops: float

    @property
    def step_seconds(self) -> float:
        """Time of one step."""
        return self.step_tokens / self.tokens_per_second

    @property
    def share_of_peak(self) -> float:
        """The model's FLOP/s, relative to the peak of matrix products."""
        return self.step_flops / self.step_seconds / self.peak_flops

    @property
    def optimizer_share_of_peak(self) -> float:
        """The same for the optimizer's matrix products."""
        return self.optimizer_flops / self.step_seconds / self.peak_flops


@dataclass(frozen=True)
class Decoding:
    """Greedy generation for one request; `precision` is that of the weights."""

    tokens_per_second: float
    precision: str
    bytes_per_token: int
    memory_bytes_per_second: float

    @property
    def limit(self) -> float:
        """Tokens per second if reading the weights took all the time."""
        return self.memory_bytes_per_second / self.bytes_per_token

    @property
    def share_of_limit(self) -> float:
        """Fraction of that limit reached."""
        return self.tokens_per_second / self.limit


def measure_machine(device: str, seconds: float) -> Machine:
    """Measure the limits, each for a third of `seconds`; other programs are not observed."""
    part, place = seconds / 3, torch.device(device)
    mend = kernels_mend()
    return Machine(
        device=device,
        cores=len(cores()),
        threads=torch.get_num_threads(),
        fp32_flops=matmul_peak("fp32", place, part),
        bf16_flops=matmul_peak("bf16", place, part) if has_fast_bf16(device) else None,
        memory_bytes_per_second=memory_bandwidth(part),
        kernels=mend is None,
        kernels_mend=mend,
        busy_elsewhere=0.0,
    )


def memory_bandwidth(seconds: float) -> float:
    """Measure the CPU's memory read bandwidth, in bytes per second."""
    size = min(BUFFER_BYTES, free_bytes("cpu") // 8)
    # write it once: untouched zero pages all map to one page, which stays in the cache
    buffer = torch.ones(size // 8, dtype=torch.int64)  # the fewest operations per byte
    best, began = 0.0, time.perf_counter()
    for read in (buffer.sum, buffer.max):  # which one computes less depends on the machine
        read()
        rounds = 0
        while rounds == 0 or time.perf_counter() - began < seconds / 2:
            start = time.perf_counter()
            read()
            best = max(best, buffer.nbytes / (time.perf_counter() - start))
            rounds += 1
        began = time.perf_counter()
    return best


def training_flops(cfg: PretrainConfig) -> tuple[int, int]:
    """FLOPs of a step of a resolved recipe: of the model, and of its optimizer."""
    length = min(DOCUMENT_TOKENS, cfg.batch.seq_len)
    with torch.device("meta"):
        model = Transformer(cfg.model)
    flops = train_flops(cfg.model, [length]) * cfg.batch.tokens // length
    return flops, optimizer_flops(model, cfg.optim)


def measure_training(cfg: PretrainConfig, peak_flops: float, seconds: float) -> Training:
    """Measure full steps of a resolved recipe for `seconds`, after one warm-up step."""
    flops, optimizer = training_flops(cfg)
    length = min(DOCUMENT_TOKENS, cfg.batch.seq_len)
    rate = training_rate(cfg, document_tokens=length, seconds=seconds)
    return Training(rate, cfg.batch.tokens, flops, optimizer, peak_flops)


def decoded_bytes(cfg: ModelConfig, precision: str) -> int:
    """Bytes of weights read per token."""
    return {"fp32": 4, "bf16": 2}[precision] * matmul_parameters(cfg)


def measure_decoding(cfg: ModelConfig, bandwidth: float, seconds: float) -> Decoding:
    """Measure the engine with random weights, one request at a time for `seconds`, warmed up."""
    model, tokenizer = build_model(cfg), stand_in_tokenizer(cfg.vocab_size)
    llm = LLM(model, tokenizer, EngineConfig(device="cpu"))
    params = SamplingParams(max_new_tokens=DECODED_TOKENS, temperature=0, ignore_eos=True)
    llm.generate(["a"], params)
    rates = []
    began = time.perf_counter()
    while not rates or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (answer,) = llm.generate(["a"], params)
        rates.append(len(answer.token_ids) / (time.perf_counter() - start))
    precision = llm.info.precision or "fp32"
    return Decoding(median(rates), precision, decoded_bytes(cfg, precision), bandwidth)


def stand_in_tokenizer(vocab_size: int) -> Tokenizer:
    """Build a tokenizer of that size with made-up words, for an untrained model."""
    proto = ModelProto()
    proto.trainer_spec.model_type = TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    for name, piece in (("unk", UNK), ("bos", BOS), ("eos", EOS), ("pad", PAD)):
        setattr(proto.trainer_spec, f"{name}_id", CONTROLS.index(piece))
        setattr(proto.trainer_spec, f"{name}_piece", piece)
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    for piece in CONTROLS:
        proto.pieces.add(piece=piece, type=Piece.UNKNOWN if piece == UNK else Piece.CONTROL)
    for byte in range(256):
        proto.pieces.add(piece=f"<0x{byte:02X}>", type=Piece.BYTE)
    proto.pieces.add(piece=SPACE)
    for number in range(len(proto.pieces), vocab_size):
        proto.pieces.add(piece=f"word{number}", score=-float(number))
    return SentencePieceTokenizer(proto.SerializeToString(), "the stand-in tokenizer")


def kernels_mend() -> str | None:
    """How to get the CPU kernels on this machine; None if it has them."""
    if library.available():
        return None
    if os.environ.get("OPENLLM_KERNELS") == "0":
        return "unset OPENLLM_KERNELS"
    if platform.system() != "Linux":
        return "they are available on Linux only"
    if library.find_compiler() is None:
        return "install g++ (Debian, Ubuntu: apt install g++)"
    return "the compiler failed; see the warning"


def free_bytes(device: str) -> int:
    """Memory available to a new program on this device."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return free_memory()


def cores() -> list[int]:
    """Indices of the cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


class OtherWork:
    """Tracks, from its creation on, what other programs do on our cores."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._began = time.monotonic(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Average number of cores they kept busy; without /proc/stat, the load at the start."""
        began, busy, own = self._began
        now = _busy_seconds()
        if busy is None or now is None:
            return self._load
        elapsed = max(time.monotonic() - began, 1e-9)
        return max(0.0, (now - busy - (_own_seconds() - own)) / elapsed)


def _own_seconds() -> float:
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    """Busy seconds of our cores since boot, for all programs; None if unavailable."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    ours = {f"cpu{number}" for number in cores()}
    ticks = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *counts = line.split()
        if name in ours:
            user, nice, system, _, _, irq, softirq, steal = map(int, counts[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
