# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Push to and pull from a Hub on this machine that misbehaves like the real one."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from tests.export.models.hub_server import Hub, Repo

import openllm.export.models.hub as module
from openllm.cli.main import main
from openllm.export.inventory import digest_files, list_files, model_fingerprint
from openllm.export.models.safety import choose_downloads
from openllm.export.models.zoo import Zoo

pytestmark = pytest.mark.usefixtures("zoo_root")

REPO = "owner/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    # the library reads its environment once, when it is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield hub
    hub.stop()


def offer(hub: Hub, model: Path, **changes: bytes) -> Repo:
    """A repository with the files of a model."""
    files = {name: path.read_bytes() for name, path in list_files(model).items()}
    hub.repos[REPO] = Repo(files | changes)
    return hub.repos[REPO]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_files(folder).items()}


Output = pytest.CaptureFixture[str]


def test_a_model_of_the_hub_is_imported_at_once(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output
) -> None:
    assert main(["push", str(model), REPO]) == 0
    assert main(["import", REPO, "--out", str(tmp_path / "ours")]) == 0
    lineage = json.loads((tmp_path / "ours" / "openllm.json").read_text())
    assert lineage["parents"][0]["name"] == REPO
    assert lineage["parents"][0]["fingerprint"] == model_fingerprint(model)
    assert lineage["revision"] == hub.repos[REPO].sha
    assert (tmp_path / "ours" / "tokenizer.model").exists()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in left if "kernels" not in path.parts and path.suffix != ".lock"]
    capsys.readouterr()
    assert main(["import", REPO, "--dry-run"]) == 2
    assert f"openllm pull {REPO} --dry-run" in capsys.readouterr().err


def test_push_then_pull_gives_the_same_model(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output
) -> None:
    assert main(["push", str(model), REPO, "--message", "First"]) == 0
    assert capsys.readouterr().out.endswith(f"{hub.url}/{REPO}\n")
    repo = hub.repos[REPO]
    assert repo.private and repo.messages == ["First"] and repo.files == contents(model)
    assert main(["pull", REPO, "--out", str(tmp_path / "copy")]) == 0
    assert contents(tmp_path / "copy") == contents(model)
    assert main(["pull", REPO]) == 0
    (entry,) = Zoo().entries()
    assert entry.name == REPO and not entry.problems and entry.record is not None
    assert entry.record.origin.commit == repo.sha
    assert digest_files(list_files(model), "") == entry.record.files
    cache = tmp_path / "cache" / "hub"
    assert [path.name for path in cache.iterdir()] == [".owner--tiny.lock"], "nothing stays behind"
    hub.log.clear()
    capsys.readouterr()
    assert main(["pull", REPO]) == 0
    assert "is here already" in capsys.readouterr().err
    assert not [path for path in hub.paths("GET") if "resolve" in path]


def test_the_token_goes_to_the_hub_alone(hub: Hub, model: Path) -> None:
    offer(hub, model)
    assert main(["pull", REPO]) == 0
    stores = [h for h in hub.headers if h["path"].startswith("/cdn/")]
    others = [h for h in hub.headers if not h["path"].startswith("/cdn/")]
    assert stores and not any("authorization" in headers for headers in stores)
    assert all(headers["authorization"] == "Bearer hf_right" for headers in others)


@pytest.mark.integration
def test_only_the_endpoint_is_contacted_and_nothing_is_reported(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose every connection is recorded."""
    probe = tmp_path / "probe" / "sitecustomize.py"
    probe.parent.mkdir()
    probe.write_text(
        "import socket\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        f"    open({str(tmp_path / 'calls')!r}, 'a').write(f'{{address[:2]}}\\n')\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    path = os.pathsep.join([str(probe.parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HOME": str(tmp_path), "AI_AGENT": "x"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_DISABLE_TELEMETRY", None)
    for words in (["push", str(model), REPO], ["pull", REPO]):
        command = [sys.executable, "-m", "openllm", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    port = hub.http.server_address[1]
    assert set((tmp_path / "calls").read_text().splitlines()) == {f"('127.0.0.1', {port})"}
    assert not any("harness" in path or "telemetry" in path for _, path in hub.log)
    assert not any("torch" in h.get("user-agent", "") for h in hub.headers)
    assert hub.repos[REPO].files == contents(model)


def test_a_cut_connection_is_resumed_within_the_file(hub: Hub, model: Path) -> None:
    repo = offer(hub, model)
    size = len(repo.files["model.safetensors"])
    hub.plan["/cdn/"] = ["cut", "cut"]
    assert main(["pull", REPO]) == 0
    ranges = [h.get("range") for h in hub.headers if h["path"].startswith("/cdn/")]
    half = size // 2
    assert ranges == [None, f"bytes={half}-", f"bytes={half + (size - half) // 2}-"]
    assert not Zoo().get(REPO).problems


def test_a_later_pull_goes_on_where_the_first_gave_up(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output
) -> None:
    repo = offer(hub, model)
    half = len(repo.files["model.safetensors"]) // 2
    hub.plan["/cdn/"] = ["cut"] + ["503"] * 4
    assert main(["pull", REPO]) == 1
    assert "gave up after 5 attempts" in capsys.readouterr().err
    assert Zoo().entries() == []
    hub.log.clear()
    hub.headers.clear()
    assert main(["pull", REPO]) == 0
    assert [h.get("range") for h in hub.headers if "/cdn/" in h["path"]] == [f"bytes={half}-"]
    small = [path for path in hub.paths("GET") if path.endswith("/config.json")]
    assert not small, "it was there already"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_digest_is_never_kept(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output, name: str
) -> None:
    repo = offer(hub, model)
    if name == "config.json":
        repo.stated[name] = {"blobId": "0" * 40}
    else:
        hub.plan["/cdn/"] = ["wrong"] * 5
    assert main(["pull", REPO, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "digest" in told or "checksum" in told
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob(name))


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a/../../b.txt", "a\\b.json"])
def test_a_hostile_name_stops_everything(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output, name: str
) -> None:
    offer(hub, model, **{name: b"{}"})
    assert main(["pull", REPO, "--out", str(tmp_path / "out")]) == 1
    assert "not safe" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not [path for path in hub.paths("GET") if "resolve" in path]


def test_only_weights_and_text_come(hub: Hub, model: Path, tmp_path: Path, capsys: Output) -> None:
    strange = {"modeling_evil.py": b"1/0", "pytorch_model.bin": b"x", ".gitattributes": b"x"}
    offer(hub, model, **strange, **{"LICENSE": b"MIT", "empty.txt": b""})
    assert main(["pull", REPO, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["skipped"]) == set(strange)
    assert facts["bytes"] == sum(facts["files"].values())
    assert not [path for path in hub.paths("GET") if "resolve" in path]
    assert main(["pull", REPO, "--out", str(tmp_path / "a")]) == 0
    assert contents(tmp_path / "a") == contents(model) | {"LICENSE": b"MIT", "empty.txt": b""}
    assert main(["pull", REPO, "--out", str(tmp_path / "b"), "--allow-pickle"]) == 0
    assert (tmp_path / "b" / "pytorch_model.bin").read_bytes() == b"x"
    assert main(["pull", REPO, "--out", str(tmp_path / "c"), "--include", "*.json"]) == 0
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".json"}
    capsys.readouterr()
    assert main(["pull", REPO, "--include", "*.json"]) == 1
    assert "is not a model" in capsys.readouterr().err
    assert main(["pull", REPO, "--out", str(tmp_path / "a")]) == 2
    assert "other files" in capsys.readouterr().err


def test_names_that_are_not_plain(hub: Hub, model: Path, tmp_path: Path) -> None:
    offer(hub, model, **{"notes/a #1 %20 ü?.txt": b"ok"})
    assert main(["pull", REPO, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "notes" / "a #1 %20 ü?.txt").read_bytes() == b"ok"


def test_a_full_disk_is_told_before_the_first_byte(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    offer(hub, model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000))
    assert main(["pull", REPO]) == 1
    assert "free some space" in capsys.readouterr().err
    assert not [path for path in hub.paths("GET") if "resolve" in path]


def test_refusals_of_pull_say_what_to_do(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def told(*words: str) -> str:
        assert main(["pull", REPO, *words]) == 1
        return capsys.readouterr().err

    assert "there is no repository owner/tiny" in told()
    repo = offer(hub, model)
    assert "no such revision" in told("--revision", "absent")
    repo.gated = True
    assert "is gated: accept its terms" in told()
    repo.gated = False
    hub.plan["/api/models"] = ["403"]
    assert "may not do this" in told()
    hub.plan["/api/models"] = ["418"]
    assert "HTTP 418" in told()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "refuses your token" in told()
    monkeypatch.delenv("HF_TOKEN")
    assert "wants a token" in told() and "hf auth login" in told()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in told()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in told()
    assert main(["pull", "../x"]) == 2


def test_refusals_of_push_say_what_to_do(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def told(*words: str) -> str:
        assert main(["push", str(model), REPO, *words]) == 1
        return capsys.readouterr().err

    hub.plan["/api/repos/create"] = ["403"]
    assert "may not do this" in told()
    hub.repos[REPO] = Repo(private=False)
    assert "exists and is public; add --public" in told()
    hub.repos[REPO].private = True
    assert "exists and is private; omit --public" in told("--public")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "refuses your token" in told()
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no Hub token" in told()
    assert hub.repos[REPO].files == {}
    assert main(["push", str(model), "no-owner"]) == 2


def test_push_goes_on_after_a_failure(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(module, "LARGE", 1000)
    hub.plan["/commit/"] = ["500"]
    assert main(["push", str(model), REPO]) == 1
    assert "HTTP 500" in capsys.readouterr().err and hub.repos[REPO].files == {}
    assert len(hub.paths("PUT")) == 1
    assert main(["push", str(model), REPO, "--revision", "draft", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == f"{hub.url}/{REPO}/tree/draft"
    assert len(hub.paths("PUT")) == 1, "the weights were there already"
    assert hub.repos[REPO].files == contents(model) and "draft" in hub.repos[REPO].branches
    hub.plan["/lfs/"] = ["403"]
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-1] + b"\1")
    assert main(["push", str(model), REPO]) == 1
    assert "may not do this" in capsys.readouterr().err


def test_a_failure_of_the_other_storage_is_told(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)  # this Hub does not have it
    assert main(["push", str(model), REPO]) == 1
    told = capsys.readouterr().err
    assert "cannot be reached" in told and "bug" not in told and "xet-write-token" in told
    assert hub.repos[REPO].files == {}


def test_a_dry_run_of_push_needs_no_hub(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(model), REPO, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = sum(path.stat().st_size for path in model.iterdir())
    assert lines[-1] == f"{total:,}  bytes in {len(list(model.iterdir()))} files"
    assert hub.log == []


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (".env", b"A=1", "hidden"),
        (".git/config", b"", "hidden"),
        ("token", b"x", "secret"),
        ("deploy.pem", b"x", "secret"),
        ("notes.txt", b"my token is hf_" + b"a" * 34, "looks like a secret (hf_aaa...)"),
        ("optimizer.pt", b"x", "pickle"),
        ("state.dat", pickle.dumps({"a": 1}), "pickle"),
    ],
)
def test_what_should_not_be_published_is_not(
    hub: Hub, model: Path, capsys: Output, name: str, data: bytes, told: str
) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(data)
    assert main(["push", str(model), REPO]) == 1
    error = capsys.readouterr().err
    assert name in error and told in error and "a" * 34 not in error
    assert hub.log == []


def test_a_link_out_of_the_folder_is_not_pushed(
    hub: Hub, model: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "private.txt").write_text("x")
    (model / "notes.txt").symlink_to(tmp_path / "private.txt")
    assert main(["push", str(model), REPO]) == 1
    assert "a link that leads out of the folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["push", str(tmp_path / "empty"), REPO]) == 1
    assert "holds no weights" in capsys.readouterr().err


def test_a_model_of_the_zoo_is_pushed_by_name(hub: Hub, model: Path) -> None:
    Zoo().add(list_files(model), "mine")
    assert main(["push", "mine", REPO, "--public"]) == 0
    assert not hub.repos[REPO].private and hub.repos[REPO].files == contents(model)


def test_weights_beside_a_large_graph_are_downloaded() -> None:
    names = ["model.onnx", "model.onnx.data", "notes.data"]
    assert choose_downloads(names)[0] == names[:2]
