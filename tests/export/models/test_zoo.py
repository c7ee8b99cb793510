# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The zoo of models: what is registered, found, damaged, and safe from two processes and kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.checkpoint.model_dir import load_model
from openllm.cli.main import main
from openllm.core.errors import CheckpointError, UsageError
from openllm.core.files import read_json, sha256_file, write_json
from openllm.export import inventory
from openllm.export.inventory import (
    Facts,
    list_files,
    model_facts,
    model_fingerprint,
    name_problem,
    read_header,
)
from openllm.export.models.zoo import Zoo, resolve_model, valid_name

pytestmark = pytest.mark.usefixtures("zoo_root")

Output = pytest.CaptureFixture[str]


def add(model: Path, name: str, *words: str) -> None:
    assert main(["models", "add", str(model), "--name", name, *words]) == 0


def child_of(model: Path, target: Path, parents: list[object]) -> Path:
    """A copy of a model with other weights, made from `parents`."""
    shutil.copytree(model, target)
    lineage = read_json(target / "openllm.json", CheckpointError, "")
    lineage["parents"] = parents
    write_json(target / "openllm.json", lineage)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "made": target.name}))
    return target


def test_facts_are_read_without_torch(model: Path) -> None:
    facts = model_facts(list_files(model))
    count = sum(parameter.numel() for parameter in load_model(model).parameters())
    assert facts == Facts(
        architecture="Qwen3ForCausalLM",
        family="qwen3",
        parameters=count,
        dtype="fp32",
        licence="mit",
    )
    code = "import sys, openllm.recipes.models, openllm.recipes.hub, openllm.export.models.hub\n"
    code += "sys.exit(int(bool({'torch', 'huggingface_hub'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_add_and_list(model: Path, zoo_root: Path, capsys: Output) -> None:
    assert main(["models", "ls"]) == 0
    assert "no models in" in capsys.readouterr().err
    assert main(["models", "add", str(model), "--tag", "small"]) == 0
    assert "added run" in capsys.readouterr().err, "RUN/model has the name of the run"
    add(model, "me/best")
    assert main(["models", "ls"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["name", "family", "parameters", "dtype"]
    assert first.split()[:2] == ["me/best", "qwen3"] and second.split()[-2:] == ["mit", "small"]
    assert main(["models", "ls", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts[1]["fingerprint"] == model_fingerprint(model)
    assert facts[1]["size"] == sum(path.stat().st_size for path in model.iterdir())
    assert read_json(zoo_root / "run" / "entry.json", CheckpointError, "")["format_version"] == 1


def test_large_files_are_linked_and_small_ones_copied(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "notes.txt").write_bytes(b"x" * (1 << 20))
    add(model, "linked")
    assert (Zoo().get("linked").model / "notes.txt").samefile(model / "notes.txt")
    (model / "README.md").write_text("another card")
    assert "Little stories" in (Zoo().get("linked").model / "README.md").read_text()

    def refuse(*paths: object) -> None:
        raise OSError(18, "another disk")

    monkeypatch.setattr(inventory.os, "link", refuse)
    add(model, "copied")
    copy = Zoo().get("copied").model / "notes.txt"
    assert copy.read_bytes() == (model / "notes.txt").read_bytes()
    assert not copy.samefile(model / "notes.txt")


def test_links_to_files_are_followed(model: Path, tmp_path: Path) -> None:
    """As in the cache of other tools, where a snapshot links to blobs."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in model.iterdir():
        (snapshot / path.name).symlink_to(path)
    add(snapshot, "snap")
    kept = Zoo().get("snap").model
    assert not any(path.is_symlink() for path in kept.iterdir())
    assert model_fingerprint(kept) == model_fingerprint(model)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b/c", ".x", "a/.b", "a--b", "", "a b", "x\n", "é"]
)
def test_names_that_lead_elsewhere_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="cannot be the name"):
        Zoo().add(list_files(model), name)
    assert set(tmp_path.rglob("*")) == before
    assert Zoo().find(name) is None


@given(st.text(max_size=20))
def test_a_valid_name_stays_below_the_zoo(name: str) -> None:
    if valid_name(name):
        place = Zoo(Path("/zoo"))._place(name)
        assert place.parent == Path("/zoo") and not place.name.startswith(".")
        assert place.name.replace("--", "/", 1) == name


@given(st.text(alphabet="ab./\\:\0 ", max_size=12))
def test_a_safe_file_name_stays_below_its_folder(name: str) -> None:
    if name_problem(name) is None:
        resolved = Path(os.path.normpath(Path("/folder") / name))
        assert resolved.is_relative_to("/folder") and resolved != Path("/folder")


def test_a_taken_name_needs_replace(model: Path, capsys: Output) -> None:
    add(model, "a", "--tag", "old")
    assert main(["models", "add", str(model), "--name", "a"]) == 1
    assert "exists already" in capsys.readouterr().err
    (model / "extra.txt").write_text("x")
    add(model, "a", "--replace")
    entry = Zoo().get("a")
    assert entry.record is not None
    assert "extra.txt" in entry.record.files and entry.record.tags == []


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def name_a_shard_that_is_not_there(model: Path) -> None:
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (truncate, "is damaged"),
        (name_a_shard_that_is_not_there, "lacks a shard"),
        (lambda model: (model / "model.safetensors").unlink(), "holds no weights"),
        (lambda model: (model / "config.json").unlink(), "holds no config.json"),
        (lambda model: (model / "config.json").write_text("[" * 100_000), "not valid JSON"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\xff" * 99), "is damaged"),
        (lambda model: (model / "link").symlink_to(model.parent), "a link to a folder"),
        (lambda model: (model / "link").symlink_to("absent"), "leads nowhere"),
        (lambda model: os.mkfifo(model / "pipe"), "not a file"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_what_is_not_a_model_is_refused_whole(
    model: Path, zoo_root: Path, capsys: Output, harm, told: str
) -> None:
    harm(model)
    assert main(["models", "add", str(model)]) == 1
    assert told in capsys.readouterr().err
    assert Zoo().entries() == []
    assert not list(zoo_root.glob("*"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    path = Path(os.environ["OPENLLM_MODELS"]).parent / "x.safetensors"
    for prefix in (b"", len(data).to_bytes(8, "little")):
        path.write_bytes(prefix + data)
        try:
            read_header(path)
        except CheckpointError:
            continue


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**4000, 10**4000], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
)
def test_impossible_tensors_are_damage(tmp_path: Path, tensor: object) -> None:
    header = json.dumps({"a": tensor}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_header(path)


def test_show_has_lineage_and_files(model: Path, capsys: Output) -> None:
    write_json(model / "certificate.json", {"verdict": "passed"})
    add(model, "mine")
    capsys.readouterr()
    assert main(["models", "show", "mine"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "architecture Qwen3ForCausalLM (qwen3)",
        "licence mit",
        "certificate passed",
        "made by pretrain commit abc123",
        f"data digest {'f' * 64}",
        "source tiny: licence CC0-1.0",
        "recipe model.dim=48 seed=0",
        sha256_file(model / "model.safetensors"),
    ):
        assert words in shown


def test_check_names_what_is_damaged_missing_and_extra(model: Path, capsys: Output) -> None:
    add(model, "mine")
    assert main(["models", "show", "mine", "--check"]) == 0
    assert "all files are as they were registered" in capsys.readouterr().out
    kept = Zoo().get("mine").model
    data = bytearray((kept / "tokenizer.json").read_bytes())
    data[100] ^= 1  # the size stays the same
    (kept / "tokenizer.json").unlink()
    (kept / "tokenizer.json").write_bytes(data)
    assert Zoo().get("mine").problems == []
    (kept / "README.md").unlink()
    (kept / "new.txt").write_text("x")
    assert main(["models", "show", "mine", "--check"]) == 1
    out = capsys.readouterr().out
    assert "damaged: tokenizer.json" in out
    assert "missing: README.md" in out and "extra: new.txt" in out
    assert main(["models", "show", "mine", "--check", "--json"]) == 1
    check = json.loads(capsys.readouterr().out)["check"]
    assert check == {
        "damaged": ["tokenizer.json"],
        "missing": ["README.md"],
        "extra": ["new.txt"],
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, "[]", '{"name": "bad"}', '{"format_version": 99}', "1" * 5000, "\xff"],
)
def test_a_damaged_entry_is_listed_and_breaks_nothing(
    model: Path, zoo_root: Path, capsys: Output, text: str
) -> None:
    add(model, "good")
    add(model, "bad")
    (zoo_root / "bad" / "entry.json").write_bytes(text.encode("latin-1"))
    (zoo_root / "stray.txt").write_text("not an entry")
    capsys.readouterr()
    assert main(["models", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("bad ") and "DAMAGED" in lines[1] and lines[2].startswith("good ")
    assert main(["models", "show", "bad"]) == 0
    assert main(["models", "show", "bad", "--check"]) == 1
    assert main(["models", "tag", "bad", "+x"]) == 1
    assert main(["models", "search", "stories"]) == 0
    assert main(["models", "rm", "bad", "--yes"]) == 0
    assert [entry.name for entry in Zoo().entries()] == ["good"]


def test_a_missing_file_shows_in_the_list(model: Path, capsys: Output) -> None:
    add(model, "mine")
    (Zoo().get("mine").model / "config.json").unlink()
    assert main(["models", "ls"]) == 0
    assert "DAMAGED: config.json is missing" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"is damaged: config\.json is missing"):
        resolve_model("mine")


def test_text_of_others_cannot_rewrite_the_terminal(model: Path, capsys: Output) -> None:
    lineage = read_json(model / "openllm.json", CheckpointError, "")
    write_json(model / "openllm.json", {**lineage, "made_by": "\x1b[2Jevil", "recipe": 5})
    add(model, "mine")
    assert main(["models", "show", "mine"]) == 0
    out = capsys.readouterr().out
    assert "evil" in out and "\x1b" not in out


def test_the_tree_of_parents(model: Path, tmp_path: Path, capsys: Output) -> None:
    add(model, "base")
    mark = model_fingerprint(model)
    parent = {"name": "runs/base", "fingerprint": mark}
    teacher = {"name": "teacher", "fingerprint": "e" * 64}
    tuned = child_of(model, tmp_path / "tuned", [parent, teacher, "an old name"])
    add(tuned, "tuned")
    both = {"name": "tuned", "fingerprint": model_fingerprint(tuned)}
    add(child_of(model, tmp_path / "merged", [both, parent]), "merged")
    capsys.readouterr()
    assert main(["models", "show", "merged", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ancestors"] == [
        {"depth": 0, "model": "tuned"},
        {"depth": 1, "model": "runs/base: base"},
        {"depth": 1, "model": f"teacher, not in the zoo ({'e' * 16})"},
        {"depth": 1, "model": "an old name, not in the zoo"},
        {"depth": 0, "model": "runs/base: base"},
    ]
    assert main(["models", "show", "base"]) == 0
    assert "child: merged" in capsys.readouterr().out
    assert main(["models", "rm", "base", "--yes"]) == 0
    told = capsys.readouterr().err
    assert "name it as a parent: merged, tuned" in told
    loop = child_of(model, tmp_path / "loop", [])
    own = {"name": "me", "fingerprint": model_fingerprint(loop)}
    write_json(loop / "openllm.json", {"parents": [own]})
    add(loop, "loop")
    assert Zoo().ancestors(Zoo().get("loop")) == [(0, "me, which claims to come from itself")]


def test_rm_asks_and_says_what_it_freed(
    model: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(model, "mine")
    assert main(["models", "rm", "mine"]) == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert main(["models", "rm", "mine"]) == 2
    assert "nothing was removed" in capsys.readouterr().err
    size = Zoo().get("mine").size
    assert main(["models", "rm", "mine", "--yes"]) == 0
    assert f"{size / 1e3:,.1f} kB freed" in capsys.readouterr().err
    assert Zoo().entries() == [] and (model / "model.safetensors").exists()
    assert main(["models", "rm", "mine", "--yes"]) == 1
    assert "there is no model 'mine'" in capsys.readouterr().err


def test_tags_and_search(model: Path, capsys: Output) -> None:
    add(model, "a/story", "--tag", "x")
    add(model, "b")
    assert main(["models", "tag", "a/story", "+best", "-x", "+h.1"]) == 0
    assert "a/story: best, h.1" in capsys.readouterr().err
    assert main(["models", "tag", "a/story", "-h.1"]) == 0
    for words, names in (
        (["BEST"], ["a/story"]),
        (["little", "qwen3"], ["a/story", "b"]),
        (["little", "absent"], []),
        (["abc123"], ["a/story", "b"]),
    ):
        assert [entry.name for entry in Zoo().search(words)] == names
    for words in (["a/story"], ["a/story", "best"], ["a/story", "+a b"], ["a/story", "-none"]):
        assert main(["models", "tag", *words]) == 2
    assert main(["models", "show", "a/stor"]) == 1
    assert "did you mean 'a/story'?" in capsys.readouterr().err


@pytest.mark.integration
def test_commands_take_a_name_where_there_is_no_folder(
    model: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add(model, "me/mine")
    assert resolve_model("me/mine") == Zoo().get("me/mine").model
    assert resolve_model(str(model)) == model
    words = ["--prompt", "Anna", "--max-new-tokens", "3", "--temperature", "0"]
    assert main(["generate", str(model), *words]) == 0
    expected = capsys.readouterr().out
    assert main(["generate", "me/mine", *words]) == 0
    assert capsys.readouterr().out == expected
    assert main(["model", "inspect", "me/mine"]) == 0
    assert main(["tokenizer", "inspect", "me/mine"]) == 0
    Path("me/mine").mkdir(parents=True)
    assert resolve_model("me/mine") == Path("me/mine"), "a folder comes first"
    with pytest.raises(CheckpointError, match="no model has that name"):
        resolve_model("absent")


ADD = "import sys; from openllm.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.integration
def test_two_processes_at_once_are_safe(model: Path) -> None:
    words = [["models", "add", str(model), "--name", "same"]] * 4
    running = [subprocess.Popen([sys.executable, "-c", ADD, *w], stderr=-1) for w in words]
    codes = sorted(process.wait() for process in running)
    assert codes == [0, 1, 1, 1], [process.stderr for process in running]
    tags = [["models", "tag", "same", f"+t{number}"] for number in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", ADD, *w], stderr=-1) for w in tags]
    assert [process.wait() for process in running] == [0] * 4
    entry = Zoo().get("same")
    assert entry.record is not None and entry.record.tags == ["t0", "t1", "t2", "t3"]
    assert not any(Zoo().check(entry).values())


def test_a_killed_command_leaves_nothing(model: Path, zoo_root: Path) -> None:
    slow = (
        "import time, openllm.export.inventory as inventory\n"
        "real = inventory._digest\n"
        "def digest(*args):\n"
        "    print('busy', flush=True); time.sleep(60)\n"
        "inventory._digest = digest\n" + ADD
    )
    words = ["models", "add", str(model), "--name", "mine"]
    process = subprocess.Popen([sys.executable, "-c", slow, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"busy\n"
    assert (zoo_root / ".mine.tmp").is_dir()
    assert Zoo().entries() == [] and (zoo_root / ".mine.tmp").is_dir(), "it still runs"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Zoo().entries() == []
    assert [path.name for path in zoo_root.iterdir()] == [".locks"]


def test_a_kill_between_two_renames_loses_nothing(model: Path, zoo_root: Path) -> None:
    add(model, "mine")
    (zoo_root / "mine").rename(zoo_root / ".mine.old")
    assert [entry.name for entry in Zoo().entries()] == ["mine"]
    (zoo_root / "mine").rename(zoo_root / ".mine.gone")
    assert Zoo().find("mine") is None
    assert [path.name for path in zoo_root.iterdir()] == [".locks"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_zoo_that_may_only_be_read(model: Path, zoo_root: Path) -> None:
    add(model, "mine")
    (zoo_root / ".locks").chmod(0o500)
    zoo_root.chmod(0o500)
    try:
        assert [entry.name for entry in Zoo().entries()] == ["mine"]
        assert resolve_model("mine").is_dir()
    finally:
        zoo_root.chmod(0o700)
        (zoo_root / ".locks").chmod(0o700)
