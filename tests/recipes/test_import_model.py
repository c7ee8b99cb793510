# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.families.registry import to_hf_config
from openllm.checkpoint.model_dir import (
    load_model,
    read_lineage,
    read_model_config,
    write_model,
)
from openllm.checkpoint.source import open_source
from openllm.checkpoint.tensors import Planned
from openllm.checkpoint.weights import write_weights
from openllm.cli.main import main
from openllm.core.errors import CheckpointError
from openllm.evaluate.training_text import read_lineage as read_training
from openllm.export.hf.writer import export_hf
from openllm.nn.config import GeGLUConfig

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A model folder of transformers in two shards, with things that must not be copied."""
    root = tmp_path_factory.mktemp("import")
    cfg = SHAPES["llama"]
    write_model(
        root / "whole", cfg, random_model(cfg).state_dict(), tokenizer=tokenizer_folder, lineage={},
        card="---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n",
    )  # fmt: skip
    state = load_file(root / "whole" / "model.safetensors")
    (root / "whole" / "model.safetensors").unlink()
    planned = [Planned(n, t.dtype, tuple(t.shape), [t]) for n, t in state.items()]
    write_weights(root / "whole", planned, 300_000)
    (root / "whole" / "openllm.json").unlink()
    (root / "whole" / "modeling_llama.py").write_text("raise SystemExit")
    (root / "whole" / "chat_template.jinja").write_text("{{ messages }}")
    (root / "whole" / "optimizer.pt").write_bytes(b"0")
    return root / "whole"


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "source")
    return tmp_path / "source"


def test_a_folder_of_transformers_becomes_one_of_ours(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["import", str(source), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {"README.md", "openllm.json", "generation_config.json", "tokenizer.model"} <= names
    assert not names & {"modeling_llama.py", "optimizer.pt", "model.safetensors.index.json"}
    before, after = load_model(source).state_dict(), load_model(out).state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    lineage = read_lineage(out)
    assert lineage["parents"][0]["name"] == "source" and lineage["licence"] == "apache-2.0"
    assert len(lineage["files"]["config.json"]) == 64
    assert len([name for name in lineage["files"] if name.endswith(".safetensors")]) > 1
    assert read_training(out) is None
    card = (out / "README.md").read_text()
    assert "licence of the original: apache-2.0" in card and "architecture llama" in card
    assert main(["import", str(source), "--out", str(out)]) == 0  # may be replaced


def test_a_hub_cache_names_the_model_and_its_revision(source: Path, tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--owner--tiny-llama" / "snapshots" / revision
    cache.parent.mkdir(parents=True)
    source.rename(cache)
    assert main(["import", str(cache), "--out", str(tmp_path / "out")]) == 0
    lineage = read_lineage(tmp_path / "out")
    assert (lineage["parents"][0]["name"], lineage["revision"]) == ("owner/tiny-llama", revision)


@pytest.mark.parametrize(("wish", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_are_converted_on_request(
    wish: str, dtype: torch.dtype, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["import", str(source), "--out", str(out), "--dtype", wish]) == 0
    values = json.loads((out / "config.json").read_text())
    assert values["dtype"] == values["torch_dtype"] == str(dtype).removeprefix("torch.")
    before, after = open_source(source), open_source(out)
    assert after.dtype() == dtype
    for one, two in zip(before.links, after.links, strict=True):
        assert before.read(one).to(dtype).equal(after.read(two))


def test_ids_of_control_tokens_are_kept(source: Path, tmp_path: Path) -> None:
    edit(source, eos_token_id=[2, 7], bos_token_id=None)
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 0
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values["eos_token_id"] == [2, 7] and values["bos_token_id"] is None


def test_a_model_for_openllm_alone_is_copied_but_not_exported(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    cfg = SHAPES["llama"].model_copy(update={"mlp": GeGLUConfig(hidden_dim=48)})
    weights = random_model(cfg).state_dict()
    source, out = tmp_path / "source", tmp_path / "out"
    write_model(source, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="# a test")
    assert main(["import", str(source), "--out", str(out)]) == 0
    again = load_model(out)
    assert again.cfg == cfg
    assert all(tensor.equal(weights[name]) for name, tensor in again.state_dict().items())
    with pytest.raises(CheckpointError, match="only OpenLLM can load it"):
        export_hf(out, tmp_path)


def test_a_dry_run_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(source), "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["family"] == "llama" and facts["dtype"] == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_pickled_weights_need_a_word(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load_model(source).state_dict()
    state = {f"model.{name}".replace("model.lm_head", "lm_head"): t for name, t in expected.items()}
    for path in source.glob("model*.safetensors*"):
        path.unlink()
    torch.save(state, source / "pytorch_model.bin")
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert main(["import", str(source), "--out", str(tmp_path / "out"), "--allow-pickle"]) == 0
    after = load_model(tmp_path / "out").state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in expected.items())


def test_ctrl_c_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openllm.core.log import Meter

    def interrupt(meter: Meter, amount: float = 1, detail: str = "") -> None:
        if meter.label.startswith("copying"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "advance", interrupt)
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# -- broken folders -----------------------------------------------------------------------------


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    values = json.loads(path.read_text())
    change(values["weight_map"])
    path.write_text(json.dumps(values))


def state(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """All weights in one file, changed."""
    tensors: dict[str, torch.Tensor] = {}
    for path in shards(folder):
        tensors |= load_file(path)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The header of the first shard, changed; the data stays."""
    path = shards(folder)[0]
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    values = json.loads(raw[8 : 8 + length])
    change(values)
    text = json.dumps(values).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def first(values: dict[str, Any]) -> dict[str, Any]:
    return next(facts for name, facts in values.items() if name != "__metadata__")


def repeat_a_name(folder: Path) -> None:
    path = shards(folder)[0]
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text = raw[8 : 8 + length].rstrip()
    text = text[:-1] + b',"model.norm.weight":1,"model.norm.weight":1}'
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def poison(value: float) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][5, 6] = value

    return lambda folder: state(folder, change)


def first_name(names: dict[str, Any]) -> str:
    return next(iter(names))


NORM, HEAD = "model.norm.weight", "lm_head.weight"
BROKEN: dict[str, tuple[Change, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
    "config that is not JSON": (
        lambda f: (f / "config.json").write_text("{'a': 1}"),
        "not valid JSON",
    ),
    "config in UTF-16": (
        lambda f: (f / "config.json").write_bytes("{}".encode("utf-16")),
        "not valid JSON",
    ),
    "no weights": (
        lambda f: [path.unlink() for path in f.glob("model*")],
        "model.safetensors does not exist",
    ),
    "missing shard": (lambda f: shards(f)[1].unlink(), "00002-of-00003.safetensors does not exist"),
    "truncated shard": (
        lambda f: shards(f)[0].write_bytes(shards(f)[0].read_bytes()[:-100]),
        "it is truncated",
    ),
    "shard with more at its end": (
        lambda f: shards(f)[0].write_bytes(shards(f)[0].read_bytes() + b"PK"),
        "followed by other bytes",
    ),
    "empty shard": (lambda f: shards(f)[0].write_bytes(b""), "in a file of 0"),
    "header longer than the file": (
        lambda f: shards(f)[0].write_bytes((10**12).to_bytes(8, "little") + b"{}"),
        "header cannot be 1,000,000,000,000 bytes",
    ),
    "header that is not JSON": (
        lambda f: shards(f)[0].write_bytes((4).to_bytes(8, "little") + b"{{{{"),
        "is damaged (Expecting property name",
    ),
    "a pointer of git": (
        lambda f: shards(f)[0].write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is damaged",
    ),
    "tensors that overlap": (
        lambda f: header(f, lambda h: first(h).update(data_offsets=[4, 4 + _size(first(h))])),
        "leaves a gap",
    ),
    "offsets beyond the file": (
        lambda f: header(f, lambda h: first(h).update(data_offsets=[0, 10**15])),
        "bytes, but its shape needs",
    ),
    "negative sizes": (
        lambda f: header(f, lambda h: first(h).update(shape=[-1, -1])),
        "impossible shape",
    ),
    "unknown dtype": (
        lambda f: header(f, lambda h: first(h).update(dtype="F4")),
        "unknown dtype 'F4'",
    ),
    "facts that are missing": (lambda f: header(f, lambda h: first(h).clear()), "are incomplete"),
    "a name twice": (repeat_a_name, "'model.norm.weight' stands there twice"),
    "a tensor in two shards": (
        lambda f: save_file(
            load_file(shards(f)[0]) | {NORM: torch.ones(64)}, shards(f)[0]
        ),
        "both have 'model.norm.weight'",
    ),
    "index that is not JSON": (
        lambda f: (f / "model.safetensors.index.json").write_text("[1,"),
        "not a list of weights",
    ),
    "index of nothing": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {}}'),
        "not a list of weights",
    ),
    "index that names the wrong shard": (
        lambda f: index(f, lambda m: m.update({NORM: shards(f)[0].name})),
        "has 'model.norm.weight', but it does not",
    ),
    "index that names what is not there": (
        lambda f: index(f, lambda m: m.update(ghost=shards(f)[0].name)),
        "has 'ghost', but it does not",
    ),
    "a shard in another folder": (
        lambda f: index(f, lambda m: m.update({NORM: "../../etc/passwd.safetensors"})),
        "names the file '../../etc/passwd.safetensors'",
    ),
    "an absolute shard": (
        lambda f: index(f, lambda m: m.update({NORM: "/etc/passwd"})),
        "names the file '/etc/passwd'",
    ),
    "a hidden shard": (
        lambda f: index(f, lambda m: m.update({NORM: "..safetensors"})),
        "names the file '..safetensors'",
    ),
    "a shard that is a number": (
        lambda f: index(f, lambda m: m.update({NORM: 7})),
        "names the file 7",
    ),
    "missing tensors": (
        lambda f: state(f, lambda t: [t.pop(n) for n in list(t) if "q_proj" in n]),
        "missing: model.layers.0.self_attn.q_proj.weight, model.layers.1.self_attn.q_proj.weight",
    ),
    "many missing tensors": (
        lambda f: state(f, lambda t: [t.pop(n) for n in list(t) if "layers" in n]),
        "and 8 more",
    ),
    "extra tensors": (
        lambda f: state(f, lambda t: t.update({"model.layers.0.adapter": torch.ones(3)})),
        "not expected: model.layers.0.adapter",
    ),
    "missing, extra and misshapen": (
        lambda f: state(
            f,
            lambda t: (t.pop(NORM), t.update({"new": torch.ones(1), HEAD: torch.ones(3)})),
        ),
        "missing: model.norm.weight; not expected: new; of another shape: lm_head.weight is 3, "
        "not 640 x 64",
    ),
    "quantised tensors": (
        lambda f: state(f, lambda t: t.update({NORM: torch.ones(64, dtype=torch.int8)})),
        "quantised or not numbers, which is not supported: model.norm.weight is I8",
    ),
    "NaN": (poison(float("nan")), "'model.layers.1.mlp.up_proj.weight' holds NaN or infinity"),
    "infinity": (poison(float("inf")), "'model.layers.1.mlp.up_proj.weight' holds NaN"),
    "a head that is not the embedding": (
        lambda f: edit(f, tie_word_embeddings=True),
        "lm_head.weight differs from model.embed_tokens.weight",
    ),
    "no tokenizer": (
        lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer.model")],
        "has no tokenizer",
    ),
    "broken generation defaults": (
        lambda f: (f / "generation_config.json").write_text("{"),
        "generation_config.json is not valid JSON",
    ),
    "pickles alone": (
        lambda f: [
            [path.unlink() for path in f.glob("model*")],
            torch.save({}, f / "pytorch_model.bin"),
        ],
        "--allow-pickle",
    ),
    "layers that are not there": (
        lambda f: edit(f, num_hidden_layers=9999),
        "tensors cannot make 9999 layers",
    ),
}  # fmt: skip


def _size(facts: dict[str, Any]) -> int:
    return facts["data_offsets"][1] - facts["data_offsets"][0]


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_one_clear_error(
    what: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = BROKEN[what]
    damage(source)
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert words in said, said
    assert said.count("error: ") == 1 and "bug in OpenLLM" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["source"], "something was left behind"


HOSTILE: dict[str, tuple[str | dict[str, Any], str]] = {
    "a list": ("[]", "does not contain a JSON object"),
    "deep nesting": ("[" * 100_000, "not valid JSON"),
    "endless digits": ('{"hidden_size": ' + "9" * 10_000 + "}", "not valid JSON"),
    "a huge integer": ({"hidden_size": 10**40}, "'hidden_size' is 1000"),
    "a huge vocabulary": ({"vocab_size": 2**31 - 1}, "of another shape"),
    "a product beyond 64 bits": (
        {"hidden_size": 2**30, "intermediate_size": 2**31 - 1, "vocab_size": 2**31 - 1},
        "do not match its config.json",
    ),
    "a billion layers": ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000"),
    "a negative size": ({"num_attention_heads": -4}, "'num_attention_heads' is -4"),
    "a size of true": ({"num_key_value_heads": True}, "'num_key_value_heads' is True"),
    "a fraction": ({"intermediate_size": 1.5}, "'intermediate_size' is 1.5"),
    "a number beyond floats": ({"rms_norm_eps": 10**400}, "'rms_norm_eps' is 1000"),
    "infinity": ({"rope_theta": float("inf")}, "'rope_theta' is inf"),
    "NaN": ({"initializer_range": float("nan")}, "'initializer_range' is nan"),
    "a model type of a list": ({"model_type": ["llama"]}, "unsupported architecture ['llama']"),
    "an unknown architecture": ({"model_type": "mamba2"}, "unsupported architecture 'mamba2'"),
    "a model of several parts": (
        {"model_type": "gemma3", "text_config": {}},
        "('text_config'); give a checkpoint of the language model alone",
    ),
    "an unknown key": ({"alibi": True}, "the key 'alibi' may change the model"),
    "many unknown keys": ({f"x{n}": n for n in range(30)}, "and 20 more"),
    "an unknown key that is long": ({"k" * 10_000: 1}, "may change the model"),
    "quantised weights": ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
    "biases that we lack": ({"mlp_bias": True}, "'mlp_bias' is True"),
    "another activation": ({"hidden_act": "relu"}, "'hidden_act' is 'relu'"),
    "scaling of another kind": (
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "'rope_scaling.rope_type' is 'dynamic'",
    ),
    "scaling by an object": (
        {"rope_scaling": {"type": {"linear": 1}, "factor": 2.0}},
        "'rope_scaling.type' is {'linear': 1}",
    ),
    "scaling of nothing": (
        {"rope_scaling": {"type": "linear"}},
        "'rope_scaling.factor' is missing",
    ),
    "scaling by an unknown key": (
        {"rope_scaling": {"type": "linear", "factor": 2.0, "ntk": 1}},
        "'rope_scaling.ntk'",
    ),
    "two thetas": ({"rope_theta": 123.0}, "'rope_theta' is 123 in one place and 500000"),
    "two scalings": (
        {
            "rope_scaling": {"type": "linear", "factor": 2.0},
            "rope_parameters": {"rope_type": "linear", "factor": 4.0},
        },
        "contradict each other",
    ),
    "partly rotated heads": ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is 0.5"),
    "code beside it": ({"auto_map": {"AutoModel": "evil--x.Y"}, "a": 1}, "the key 'a'"),
}
"""Changes of a config, or its whole text."""


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_config_is_one_clear_error(
    what: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = HOSTILE[what]
    if isinstance(change, str):
        (source / "config.json").write_text(change)
    else:
        edit(source, **change)
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert words in said, said
    assert len(said) < 2000 and "bug in OpenLLM" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


REFUSED = {
    "gemma2": [
        ({"use_bidirectional_attention": True}, "'use_bidirectional_attention' is True"),
        ({"hidden_activation": "gelu"}, "'hidden_activation' is 'gelu'"),
        ({"layer_types": ["sliding_attention"]}, "'layer_types' is"),
        ({"layer_types": ["chunked_attention"] * 2}, "'layer_types' has the entry 'chunked"),
        ({"sliding_window": 0}, "'sliding_window' is 0"),
    ],
    "gemma3_text": [
        ({"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is 50.0"),
        ({"rope_parameters": {"rope_type": "default"}}, "'rope_parameters' is"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "'rope_parameters.rope_type' is 'linear'",
        ),
    ],
    "smollm3": [
        ({"no_rope_layers": [1]}, "'no_rope_layers' is [1]"),
        ({"no_rope_layers": [2, 1]}, "'no_rope_layers' is [2, 1]"),
    ],
    "qwen3": [
        (
            {"layer_types": ["sliding_attention", "full_attention"]},
            "'use_sliding_window' is false",
        ),
        ({"max_window_layers": -1}, "'max_window_layers' is -1"),
        ({"sliding_window": "wide"}, "'sliding_window' is 'wide'"),
    ],
}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [(name, change, words) for name, cases in REFUSED.items() for change, words in cases],
)
def test_what_a_family_cannot_mean_is_refused(
    name: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    values = to_hf_config(SHAPES[name], bos=1, eos=2, pad=3)
    if "rope_parameters" in change:
        del values["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["owner/name"], "HF_HUB_OFFLINE is set"),
        (["nowhere"], "nowhere is not a folder"),
        (["SOURCE", "--max-shard", "many"], "--max-shard many"),
        (["SOURCE", "--max-shard", "3"], "at least 1MB"),
        (["SOURCE", "--out", "SOURCE"], "contains other files"),
        (["SOURCE", "--out", "SOURCE/new"], "lie in each other"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], words: str, source: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = [item.replace("SOURCE", str(source)) for item in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    assert main(["import", *arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
