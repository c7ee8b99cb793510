# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from openllm.core.config import (
    Config,
    as_override,
    load_recipe,
    merge,
    parse_overrides,
    read_yaml,
)
from openllm.core.errors import ConfigError
from openllm.recipes.build import CONFIGS, load_config


class Cat(Config):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, ge=1)


class Dog(Config):
    kind: Literal["dog"] = "dog"
    tricks: tuple[str, ...] = ()


class Home(Config):
    street: str
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    rooms: int = 3


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Home.parse(values, "recipe home")
    return str(caught.value)


def test_configs_are_frozen_and_dump_as_they_were_parsed() -> None:
    home = Home.parse({"street": "Elm", "pet": {"kind": "dog", "tricks": ["sit"]}}, "test")
    with pytest.raises(ValidationError):
        home.rooms = 4
    assert Home.parse(home.dump(), "test") == home


def test_unknown_keys_name_the_path_and_the_nearest_name() -> None:
    assert message({"street": "Elm", "room": 2}) == (
        "recipe home: unknown key 'room'; did you mean 'rooms'?"
    )
    assert "'pet.livs'; did you mean 'lives'?" in message(
        {"street": "Elm", "pet": {"kind": "cat", "livs": 2}}
    )
    assert message({"street": "Elm", "qqqqqq": 2}).endswith("unknown key 'qqqqqq'; remove it")


def test_missing_and_wrong_values_name_the_path() -> None:
    assert "'street' is missing" in message({})
    told = message({"street": "Elm", "rooms": "many"})
    assert "'rooms'" in told and "got 'many'" in told
    told = message({"street": "Elm", "pet": {"kind": "cat", "lives": 0}})
    assert "'pet.lives'" in told and "greater than or equal to 1" in told and "got 0" in told
    told = message({"street": "Elm", "pet": {"kind": "cow"}})
    assert "'pet'" in told and "'cat', 'dog'" in told
    assert "'rooms'" in message({"street": "Elm", "rooms": None})
    assert "got None" in message({"street": "Elm", "rooms": None})


def test_a_part_without_its_kind_is_of_the_default_kind() -> None:
    assert Home.parse({"street": "Elm", "pet": {"lives": 7}}, "test").pet == Cat(lives=7)
    assert "'pet.livs'; did you mean 'lives'?" in message({"street": "Elm", "pet": {"livs": 7}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "nan", "inf"])
def test_numbers_that_are_not_finite_are_refused(value: float | str) -> None:
    class Scale(Config):
        grams: float = 1.0

    with pytest.raises(ConfigError, match=r"'grams': input should be a finite number \(got"):
        Scale.parse({"grams": value}, "test")


def test_all_problems_are_told_at_once() -> None:
    told = message({"rooms": "many", "colour": "red"})
    assert "street" in told and "rooms" in told and "colour" in told


def test_merge_goes_key_by_key_but_a_new_kind_replaces_all() -> None:
    base = {"a": {"kind": "x", "n": 1, "m": 2}, "b": 1}
    assert merge(base, {"a": {"n": 5}}) == {"a": {"kind": "x", "n": 5, "m": 2}, "b": 1}
    assert merge(base, {"a": {"kind": "x", "n": 5}})["a"] == {"kind": "x", "n": 5, "m": 2}
    assert merge(base, {"a": {"kind": "y"}})["a"] == {"kind": "y"}
    assert merge({"a": {"n": 1}}, {"a": {"kind": "x"}})["a"] == {"kind": "x", "n": 1}
    assert base["a"] == {"kind": "x", "n": 1, "m": 2}


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


@given(trees, trees)
def test_merged_overrides_win(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base and merge({}, over) == over


def test_overrides_are_read_as_yaml() -> None:
    assert parse_overrides(
        ["a.b=1", "a.c=x", "d=[1, 2]", "e=null", "f=2 epochs", "g={h: 1.5}", "i=a=b", "j="]
    ) == {
        "a": {"b": 1, "c": "x"},
        "d": [1, 2],
        "e": None,
        "f": "2 epochs",
        "g": {"h": 1.5},
        "i": "a=b",
        "j": None,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sets/a #2", "sets/a #2"),
        (" sets/a ", "sets/a"),
        ("2026-11-22", "2026-11-22"),
        ("2024-02-30", "2024-02-30"),
        ("2024-02-30 10:00:00", "2024-02-30 10:00:00"),
        ('"sets/a #2"  # a comment', "sets/a #2"),
        ("'7'", "7"),
        ("it's", "it's"),
        ("7", 7),
        ("{day: 2024-02-30}", {"day": "2024-02-30"}),
    ],
)
def test_text_is_taken_as_it_stands(text: str, value: Any) -> None:
    assert parse_overrides([f"data={text}"]) == {"data": value}


@given(st.text(st.characters()))
@example("#2")
@example("[x]/data")
@example("\udcff 😀\x07")
@example('it\'s: "so"\n')
@example("1e3")
def test_any_text_can_be_written_as_an_override(text: str) -> None:
    assert parse_overrides([as_override("a.b", text)]) == {"a": {"b": text}}


def test_an_override_is_quoted_only_where_it_must_be() -> None:
    assert as_override("data", "sets/a #2") == "data=sets/a #2"
    assert as_override("data", "#2") == 'data="#2"'


def test_the_order_of_overrides_does_not_lose_settings() -> None:
    pairs = ["optim.lr=0.002", "optim.kind=adamw"]
    for order in (pairs, pairs[::-1]):
        optim = load_config("tiny", order).optim
        assert (optim.kind, optim.lr) == ("adamw", 0.002)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("lr", "key=value"),
        ("=3", "key=value"),
        ("a=[1", "quotes"),
        ("a=!!int x", "quotes"),
        ("a=!!timestamp 2024-02-30", "quotes"),
    ],
)
def test_broken_overrides_say_how_to_write_them(pair: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_overrides([pair])


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_recipes_inherit_and_overrides_come_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        first="x: 1\nmodel: {kind: m, dim: 8, depth: 2}\n",
        second="base: first\nmodel: {dim: 16}\n",
        third="base: second.yaml\nx: 3\n",
    )
    values = load_recipe("third", tmp_path, ["model.depth=9"])
    assert values == {"x": 3, "model": {"kind": "m", "dim": 16, "depth": 9}}
    outside = tmp_path / "own"
    outside.mkdir()
    write(outside, mine="base: first\nx: 7\n")
    assert load_recipe(str(outside / "mine.yaml"), tmp_path)["x"] == 7


@pytest.mark.parametrize(
    ("files", "name", "words"),
    [
        ({"a": "base: b\n", "b": "base: a\n"}, "a", "break the cycle"),
        ({"a": "base: a\n"}, "a", "break the cycle"),
        ({"a": "base: [b]\n"}, "a", "'base' must be the name"),
        ({"a": "base: missing\n"}, "a", "no recipe 'missing'"),
        ({"a": "base: missing.yaml\n"}, "a", "does not exist"),
        ({"a": "x: [1\n"}, "a", "not valid YAML"),
        ({"a": "x: !!timestamp 2024-02-30\n"}, "a", "not valid YAML"),
        ({"a": "- 1\n"}, "a", "key: value"),
        ({"a": ""}, "a", "key: value"),
        ({"small": "x: 1\n"}, "smal", "did you mean 'small'"),
        ({"small": "x: 1\n"}, "qqq", "shipped recipes: small"),
        ({}, "folder.yaml", "does not exist"),
    ],
)
def test_broken_recipes_say_what_is_wrong(
    files: dict[str, str], name: str, words: str, tmp_path: Path
) -> None:
    write(tmp_path, **files)
    with pytest.raises(ConfigError, match=words):
        load_recipe(name, tmp_path)


def test_dates_in_a_recipe_are_text(tmp_path: Path) -> None:
    write(tmp_path, a="data: 2026-11-22\nother: 2024-02-30\n")
    values = {"data": "2026-11-22", "other": "2024-02-30"}
    assert read_yaml(tmp_path / "a.yaml") == values


def test_a_folder_and_foreign_bytes_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_shipped_recipes_are_valid(name: str) -> None:
    cfg = load_config(name)
    assert cfg == type(cfg).parse(cfg.dump(), name)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("batch.tokens=1000", r"batch.tokens=1000 is not a multiple of batch.seq_len=\d+; try"),
        ("batch.start=1000", r"batch.start=1000 is not a multiple of batch.seq_len=\d+; try"),
        ("batch.start=81920", "batch.start=81920 is greater than batch.tokens=2048"),
        ("model.max_positions=64", "greater than model.max_positions=64"),
        ("model.attention.num_kv_heads=3", "multiple of num_kv_heads=3"),
        ("model.attention.head_dim=7", "must be even"),
        ("optim.kind=sgd", "'adamw', 'muon'"),
        ("optim.learning_rate=1", "unknown key 'optim.learning_rate'"),
        ("seed=-1", "'seed'"),
        ("seed=99999999999999999999", "'seed'"),
        ("ema=1.0", "'ema'"),
        ("clip_norm=.nan", "'clip_norm': input should be a finite number"),
        ("optim.lr=.inf", "'optim.lr': input should be a finite number"),
    ],
)
def test_wrong_settings_of_a_run_are_told(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("tiny", [setting])


@pytest.mark.parametrize("setting", ["model.position.theta=500000", "model.norm.eps=1e-5"])
def test_parts_that_a_recipe_does_not_name_can_be_set(setting: str) -> None:
    cfg = load_config("tiny", [setting])
    assert (cfg.model.position.kind, cfg.model.norm.kind) == ("rope", "rms")
    assert cfg.model != load_config("tiny").model


def test_configs_load_without_torch() -> None:
    code = (
        "import sys; import openllm.train.config, openllm.nn.config, openllm.engine.request, "
        "openllm.recipes.pretrain, openllm.recipes.model, openllm.recipes.generate; "
        "openllm.recipes.build.load_config('small'); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules and 2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
