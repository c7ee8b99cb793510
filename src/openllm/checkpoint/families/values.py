# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The keys of a `config.json`: each is taken by name, and what nobody takes is an error."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from openllm.core.errors import CheckpointError

LARGEST = 2**31 - 1
"""No size of a model is larger."""

MOST_LAYERS = 10_000

HARMLESS = frozenset(
    {
        "add_cross_attention",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "format_version",
        "gradient_checkpointing",
        "id2label",
        "is_decoder",
        "is_encoder_decoder",
        "is_llama_config",
        "keys_to_ignore_at_inference",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "model_type",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "pad_token_id",
        "prefix",
        "pretraining_tp",
        "problem_type",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "typical_p",
        "unsloth_fixed",
        "unsloth_version",
        "use_bfloat16",
        "use_cache",
    }
)
"""Keys of any architecture that change no logit: records, defaults of generation and training."""


class Values:
    """A JSON object of a config.

    A key whose name starts with an underscore is private to the program that wrote it, and ignored.

    Args:
        values: the object.
        path: where it stands in the config, for messages; such as `rope_scaling.`.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = {key: item for key, item in values.items() if not key.startswith("_")}
        self._left = dict(self._values)
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def take(self, name: str, default: Any = None) -> Any:
        """The value of a key, null included; the default if there is no such key."""
        self._left.pop(name, None)
        return self._values.get(name, default)

    def refuse(self, name: str, needed: str) -> CheckpointError:
        """The error for a value that cannot be used."""
        given = reprlib.repr(self._values.get(name))
        return CheckpointError(f"'{self._path}{name}' is {given}, but {needed}")

    def size(self, name: str, default: int | None = None, most: int = LARGEST) -> int:
        """A positive integer; the default if it is null or missing.

        Raises:
            CheckpointError: it is something else, or missing without a default.
        """
        value = self._given(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.refuse(name, f"must be a positive integer of at most {most:,}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite number; the default if it is null or missing."""
        value = self._given(name, default)
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not usable or not 0 < value < math.inf:
            raise self.refuse(name, "must be a positive number")
        try:
            return float(value)
        except OverflowError:
            raise self.refuse(name, "must be a positive number") from None

    def number_or_none(self, name: str, default: float | None = None) -> float | None:
        """A positive number, or null for none."""
        if self.take(name, default) is None:
            return None
        return self.number(name, default)

    def flag(self, name: str, default: bool) -> bool:
        """True or false; the default if it is null or missing."""
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, "must be true or false")
        return value

    def inner(self, name: str) -> "Values | None":
        """An object within this one; none if it is null, missing or empty."""
        value = self.take(name)
        if value is None or value == {}:
            return None
        if not isinstance(value, Mapping):
            raise self.refuse(name, "must be a JSON object")
        return Values(value, f"{self._path}{name}.")

    def words(self, name: str, allowed: Iterable[str], count: int) -> list[str] | None:
        """A list of `count` of the allowed words; none if it is null or missing."""
        value = self.take(name)
        if value is None:
            return None
        allowed = list(allowed)
        if not isinstance(value, list) or len(value) != count:
            raise self.refuse(name, f"must be a list of {count} names, one for each layer")
        wrong = [item for item in value if item not in allowed]
        if wrong:
            shown = reprlib.repr(wrong[0])
            raise CheckpointError(
                f"'{self._path}{name}' has the entry {shown}; supported are {', '.join(allowed)}"
            )
        return value

    def must(self, name: str, *allowed: Any, default: Any = None) -> None:
        """Refuse a key unless it is null, missing or one of these values."""
        value = self.take(name, default)
        fits = any(type(value) is type(item) and value == item for item in allowed)
        if value is not None and not fits:
            shown = " or ".join(repr(item) for item in allowed) or "null"
            raise self.refuse(name, f"only {shown} is supported")

    def ignore(self, names: Iterable[str]) -> None:
        """Take keys that change nothing."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Refuse the keys that nobody took; null says nothing, so that is ignored.

        Raises:
            CheckpointError: the message names the first ten.
        """
        left = [f"'{self._path}{key}'" for key, item in self._left.items() if item is not None]
        if left:
            more = f" and {len(left) - 10} more" if len(left) > 10 else ""
            names = ", ".join(name[:80] for name in left[:10])
            raise CheckpointError(
                f"the key{'s' if len(left) > 1 else ''} {names}{more} may change the model in a "
                "way that OpenLLM does not know; remove what has no effect from the file"
            )

    def _given(self, name: str, default: Any) -> Any:
        value = self.take(name)
        if value is not None:
            return value
        if default is None:
            raise CheckpointError(
                f"the value '{self._path}{name}' is missing; copy the file from its source again"
            )
        return default
