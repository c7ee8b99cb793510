# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parity table: every public family, three small configs each, against `transformers`."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.families import CASES, FAMILIES, build, load_quietly, some_tokens
from tests.tiny import make_batch
from torch import Tensor

from openllm.checkpoint.families.base import canonical
from openllm.checkpoint.families.registry import architecture, from_hf_config, to_hf_config
from openllm.checkpoint.model_dir import load_model
from openllm.checkpoint.source import open_source
from openllm.checkpoint.tensors import Planned
from openllm.checkpoint.weights import write_weights
from openllm.export.hf.writer import export_hf
from openllm.nn.cache import KVCache
from openllm.nn.context import AttentionContext
from openllm.nn.heads import logits
from openllm.nn.kernels.decoder import pack_model, supports
from openllm.nn.model import Transformer

REPOSITORY = Path(__file__).resolve().parents[2]
ALLOWED = 1e-4
"""Largest difference of two logits in float32, as a share of the largest logit."""

LONGROPE_ADVICE = "has set a `rope_parameters['original_max_position_embeddings']` field"
"""Said by transformers 5 of all Phi-3 files that version 4 can read."""


def names(case: tuple[str, int]) -> str:
    return f"{case[0]}-{case[1]}"


@pytest.fixture(scope="module", params=CASES, ids=names)
def case(request: pytest.FixtureRequest) -> tuple[str, int]:
    return request.param


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Folders as `save_pretrained` writes them."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(name: str, number: int) -> Path:
        path = root / f"{name}-{number}"
        build(name, number).save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="module")
def theirs(case: tuple[str, int], folder_of: Callable[[str, int], Path]) -> tuple[Any, Path]:
    """A model of transformers, and its folder."""
    folder = folder_of(*case)
    return load_quietly(folder)[0], folder


@torch.no_grad()
def our_logits(model: Transformer, tokens: Tensor, **rest: Any) -> Tensor:
    return logits(model(tokens, **rest).x, model.head)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest logit."""
    assert theirs.std() > 0.1, "the logits are too small to compare"
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.integration
def test_theirs_in_ours(theirs: tuple[Any, Path]) -> None:
    peer, folder = theirs
    model = load_model(folder)
    tokens = some_tokens()
    with torch.no_grad():
        expected = peer(tokens).logits
    assert difference(our_logits(model, tokens), expected) <= ALLOWED
    # left padding: theirs sees it and must ignore it; ours reads the same text without it
    padded = torch.cat((torch.zeros(2, 5, dtype=torch.long), tokens), 1)
    mask = torch.cat((torch.zeros(2, 5, dtype=torch.long), torch.ones_like(tokens)), 1)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        after = peer(padded, attention_mask=mask, position_ids=places).logits[:, 5:]
    assert difference(our_logits(model, tokens), after) <= ALLOWED


@pytest.mark.integration
def test_cached_and_packed_reading(theirs: tuple[Any, Path]) -> None:
    peer, folder = theirs
    model = load_model(folder)
    tokens = some_tokens(1, 30)  # below where LongRoPE changes its factors
    with torch.no_grad():
        expected = peer(tokens).logits
        store = KVCache(model.cfg, batch=1, capacity=30)
        parts = [model(piece, cache=store).x for piece in tokens.split([11, 1, 1, 17], 1)]
        assert difference(logits(torch.cat(parts, 1), model.head), expected) <= ALLOWED
        pieces = [tokens[0, :13].tolist(), tokens[0, :4].tolist(), tokens[0, :30].tolist()]
        batch = make_batch(pieces, 47)
        packed = our_logits(
            model,
            torch.from_numpy(batch.tokens),
            positions=torch.from_numpy(batch.positions),
            attn=AttentionContext(batch.cu_seqlens),
        )
    assert difference(packed[:, 17:47], expected) <= ALLOWED
    assert difference(packed[:, :13], expected[:, :13]) <= ALLOWED


@pytest.mark.integration
def test_compiled_decoder(theirs: tuple[Any, Path]) -> None:
    peer, folder = theirs
    model = load_model(folder)
    reason = supports(model.cfg)
    if reason is not None:
        assert "LongRoPE" in reason and "phi3" in peer.config.model_type
        return
    decoder = pack_model(model, model.cfg, "fp32")
    tokens, shape = some_tokens(1, 60)[0], model.cfg.attention
    with torch.no_grad():
        expected = peer(tokens[None]).logits[0]
    caches = torch.zeros(2, model.cfg.num_layers, 4, shape.kv_heads, 16, shape.head_dim)
    states, table = [], torch.tensor([[2, 0, 3, 1]])
    for part in torch.arange(60).split([37, 1, 1, 21]):
        wanted = torch.arange(len(part))
        states.append(
            decoder.forward(tokens[part], part, 0 * part, table, caches[0], caches[1], wanted)
        )
    assert difference(decoder.logits(torch.cat(states)), expected) <= ALLOWED


@pytest.mark.integration
def test_bfloat16(theirs: tuple[Any, Path]) -> None:
    _, folder = theirs
    peer = load_quietly(folder, dtype=torch.bfloat16)[0]
    tokens = some_tokens()
    with torch.no_grad():
        expected = peer(tokens).logits.float()
    ours = our_logits(load_model(folder, dtype=torch.bfloat16), tokens)
    # eight bits of mantissa, and sums in another order
    assert (ours - expected).abs().mean() <= 0.02 * expected.abs().max()
    assert difference(ours, expected) <= 0.15


@pytest.mark.integration
def test_ours_in_theirs_and_back(theirs: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = theirs
    first, second = tmp_path / "first", tmp_path / "second"
    for source, target in ((folder, first), (first, second)):
        target.mkdir()
        export_hf(source, target, max_shard_bytes=30_000)
    peer, said = load_quietly(first)
    assert [line for line in said if LONGROPE_ADVICE not in line] == []
    tokens = some_tokens()
    ours = load_model(first)
    with torch.no_grad():
        assert difference(our_logits(ours, tokens), peer(tokens).logits) <= ALLOWED
    assert ours.cfg == load_model(folder).cfg
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in second.iterdir())
    assert sum(name.endswith(".safetensors") for name in files) > 1
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    before, after = (open_source(path).weights for path in (folder, second))
    for name in before.tensors:
        assert before.read(name).equal(after.read(name)), name


def test_a_new_model_of_this_shape_is_written_for_transformers(
    theirs: tuple[Any, Path], tmp_path: Path
) -> None:
    """The family that we choose may be another, of which this one is a special case."""
    peer, folder = theirs
    source = open_source(folder)
    config = to_hf_config(source.cfg, bos=1, eos=2, pad=3)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert config["model_type"] == architecture(source.cfg) != "openllm"
    assert canonical(from_hf_config(config, "test")) == canonical(source.cfg)
    if config["model_type"] != source.family.model_type:
        from openllm.checkpoint.families.registry import FAMILIES, to_hf_state

        state = to_hf_state(FAMILIES[config["model_type"]], load_model(folder).state_dict())
        planned = [
            Planned(name, tensor.dtype, tuple(tensor.shape), [tensor])
            for name, tensor in state.items()
        ]
        write_weights(tmp_path, planned, 10**9)
        again, said = load_quietly(tmp_path)
        assert said == []
        tokens = some_tokens()
        with torch.no_grad():
            assert difference(again(tokens).logits, peer(tokens).logits) <= ALLOWED


@pytest.mark.slow
def test_the_last_4_5x_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what we write, and we read what it writes."""
    place = os.environ.get("OPENLLM_TRANSFORMERS_457")
    if place is None:
        pytest.skip("set OPENLLM_TRANSFORMERS_457 to an installation; see benchmarks/parity.py")
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from benchmarks import parity

    found = parity.table(Path(place))
    assert found["transformers"][1].startswith("4.")
    assert parity.passes(found)
    assert [row["warnings_old"] for row in found["rows"]] == [[]] * len(CASES)


def test_longrope_beyond_its_first_context(folder_of: Callable[[str, int], Path]) -> None:
    folder = folder_of("phi3", 1)
    peer, model = load_quietly(folder)[0], load_model(folder)
    for length in (31, 32, 33, 70):
        tokens = some_tokens(1, length)
        with torch.no_grad():
            expected = peer(tokens).logits
        assert difference(our_logits(model, tokens), expected) <= ALLOWED


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_older_files_of_the_same_model(
    name: str, folder_of: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """Version 4 wrote theta and scaling at the root, and `torch_dtype`."""
    folder = folder_of(name, 1)
    shutil.copytree(folder, tmp_path / "old")
    values = json.loads((folder / "config.json").read_text())
    values["torch_dtype"] = values.pop("dtype")
    rope = values.pop("rope_parameters", None)
    if rope and "full_attention" in rope:
        values["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        values["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            values["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        rope["type"] = rope.pop("rope_type")
        values["rope_scaling"] = None if rope["type"] == "default" else rope
    if values.get("layer_types") and name.startswith("gemma"):
        del values["layer_types"]
        values["sliding_window_pattern"] = 2 if name == "gemma2" else 6
    (tmp_path / "old" / "config.json").write_text(json.dumps(values))
    assert open_source(tmp_path / "old").cfg == open_source(folder).cfg
