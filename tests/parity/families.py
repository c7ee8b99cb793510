# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Small configs of every public family, and what is compared. Needs no OpenLLM to be imported.

So that a process with another version of `transformers` can use it too (`peer_main`).
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

VOCAB_SIZE = 640
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


def _heads(heads: int, groups: int, dim: int, **rest: Any) -> dict[str, Any]:
    shape = {"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": dim}
    return {**SIZES, **shape, "hidden_size": 48, "intermediate_size": 80, **rest}


def _scaled(kind: str, theta: float = 10_000.0, **rest: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **rest}}


LLAMA3 = _scaled(
    "llama3",
    500_000.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = _scaled("yarn", 1e6, factor=4.0, original_max_position_embeddings=32)
LINEAR = _scaled("linear", factor=2.0)
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 32,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 2.0, 4.0],
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
GEMMA = {"hidden_activation": "gelu_pytorch_tanh"}


def _gpt2(width: int, layers: int, heads: int, positions: int, **rest: Any) -> dict[str, Any]:
    shape = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": positions}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    return {"vocab_size": VOCAB_SIZE, **shape, **ids, **rest}


FAMILIES: dict[str, list[dict[str, Any]]] = {
    "gpt2": [
        _gpt2(48, 3, 3, 128),
        _gpt2(64, 2, 4, 96, n_inner=72, tie_word_embeddings=False),
        _gpt2(30, 2, 1, 80, layer_norm_epsilon=1e-3, activation_function="gelu_pytorch_tanh"),
    ],
    "llama": [
        _heads(4, 1, 12, **LLAMA3),
        _heads(6, 3, 20, attention_bias=True, tie_word_embeddings=True, **YARN),
        _heads(3, 3, 16, rms_norm_eps=1e-3, **LINEAR),
    ],
    "mistral": [
        _heads(4, 2, 12, sliding_window=7),
        _heads(5, 1, 8, sliding_window=None, tie_word_embeddings=True, **YARN),
        _heads(2, 2, 32, sliding_window=1),
    ],
    "qwen2": [
        _heads(4, 2, 12, use_sliding_window=False, tie_word_embeddings=True),
        _heads(6, 2, 8, use_sliding_window=True, sliding_window=5, max_window_layers=1),
        _heads(3, 1, 24, use_sliding_window=True, sliding_window=9, **YARN)
        | {"layer_types": [LOCAL, GLOBAL, LOCAL]},
    ],
    "qwen3": [
        _heads(4, 2, 20, tie_word_embeddings=True, **_scaled("default", 1e6)),
        _heads(3, 1, 16, attention_bias=True, **YARN),
        _heads(8, 4, 10, use_sliding_window=True, sliding_window=6, max_window_layers=2),
    ],
    "smollm3": [
        _heads(4, 1, 12, no_rope_layers=[1, 0, 1]),
        _heads(6, 2, 14, no_rope_layer_interval=2, tie_word_embeddings=False, **LLAMA3),
        _heads(3, 3, 16, no_rope_layers=[0, 1, 0], attention_bias=True)
        | {"use_sliding_window": True, "sliding_window": 8},
    ],
    "olmo2": [
        _heads(4, 4, 12, **_scaled("default", 500_000.0)),
        _heads(6, 2, 10, attention_bias=True, tie_word_embeddings=True),
        _heads(3, 1, 16, rms_norm_eps=1e-4, **LINEAR),
    ],
    "gemma2": [
        _heads(4, 2, 16, sliding_window=6, query_pre_attn_scalar=24, **GEMMA),
        _heads(2, 1, 32, sliding_window=9, query_pre_attn_scalar=32, attention_bias=True, **GEMMA)
        | {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0},
        _heads(3, 3, 10, sliding_window=3, query_pre_attn_scalar=7, **GEMMA)
        | {"layer_types": [GLOBAL, LOCAL, LOCAL], "attn_logit_softcapping": None}
        | {"tie_word_embeddings": False},
    ],
    "gemma3_text": [
        _heads(4, 1, 16, sliding_window=6, query_pre_attn_scalar=16, **GEMMA)
        | {"layer_types": [LOCAL, GLOBAL, LOCAL]},
        _heads(2, 2, 24, sliding_window=5, query_pre_attn_scalar=40, **GEMMA)
        | {"num_hidden_layers": 7, "final_logit_softcapping": 9.0}
        | {
            "rope_parameters": {
                GLOBAL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                LOCAL: {"rope_type": "default", "rope_theta": 5e3},
            }
        },
        _heads(6, 3, 10, sliding_window=4, query_pre_attn_scalar=11, **GEMMA)
        | {"layer_types": [GLOBAL, GLOBAL, LOCAL], "tie_word_embeddings": False},
    ],
    "phi3": [
        _heads(4, 2, 12, sliding_window=7, **_scaled("default")),
        _heads(4, 4, 12, original_max_position_embeddings=32)
        | {"rope_parameters": {**LONG, "partial_rotary_factor": 0.5}},
        _heads(6, 1, 8, tie_word_embeddings=True)
        | {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.75}},
    ],
}
"""Three configs of each family, in the words of transformers 5."""

CASES = [(name, number) for name in FAMILIES for number in range(3)]


def build(name: str, number: int) -> Any:
    """A model of transformers with weights of which none is zero or one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(name, **json.loads(json.dumps(FAMILIES[name][number])))
    torch.manual_seed(number)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def some_tokens(rows: int = 2, length: int = 40) -> Any:
    """Ids of a few texts, longer than every window and than the context before scaling."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, VOCAB_SIZE, (rows, length), generator=generator)


class Said(logging.Handler):
    """Collects what a library logs at the level of warnings or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def load_quietly(folder: Path, **rest: Any) -> tuple[Any, list[str]]:
    """A folder as transformers loads it, and what it warned of."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as log

    log.warning_once.cache_clear()  # or it would say each thing to the first test alone
    said, logger = Said(), logging.getLogger("transformers")
    logger.addHandler(said)
    try:
        with warnings.catch_warnings(record=True) as others:
            warnings.simplefilter("always")
            model = AutoModelForCausalLM.from_pretrained(
                folder, attn_implementation="eager", **rest
            )
    finally:
        logger.removeHandler(said)
    return model.eval(), [*said.lines, *(str(item.message) for item in others)]


def peer_main() -> None:
    """Load each folder named on standard input; write its logits and a copy into it."""
    import torch
    import transformers

    answers = {}
    for line in sys.stdin:
        folder = Path(line.strip())
        model, said = load_quietly(folder)
        with torch.no_grad():
            torch.save(model(some_tokens()).logits.float(), folder / "logits.pt")
        model.save_pretrained(folder / "again")
        answers[folder.name] = said
    sys.stdout.write(json.dumps({"version": transformers.__version__, "warnings": answers}))


if __name__ == "__main__":
    peer_main()
