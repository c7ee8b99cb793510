# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The files of deploy/ call what exists, with arguments that are understood."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from tools.cli_reference import parser_of

from openllm.cli.main import COMMANDS, _load
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.rules import RULES, rule_of

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
GUIDE = (ROOT / "docs" / "deployment.md").read_text()
UNIT = (DEPLOY / "systemd" / "openllm.service").read_text()
DOCKER = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def understood(words: list[str]) -> None:
    """Whether the parser of the command takes its arguments."""
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
    parser_of(_load(COMMANDS[name][1])).parse_args(words[len(name.split()) :])


def guide_commands() -> list[str]:
    lines = re.findall(r"(?:^|/bin/)openllm (.*)$", GUIDE, re.M)
    assert len(lines) >= 5
    return lines


@pytest.mark.parametrize("line", guide_commands())
def test_commands_of_the_guide_are_understood(line: str) -> None:
    understood(shlex.split(line, comments=True))


def test_the_unit_starts_the_server_and_waits_for_the_drain() -> None:
    (command,) = re.findall(r"^ExecStart=\S+/openllm (.*)$", UNIT, re.M)
    understood(shlex.split(command))
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)
    assert int(seconds) > LimitSettings().drain_s
    assert "KillSignal=SIGTERM" in UNIT and "openllm.socket" in UNIT


def test_the_image_copies_what_exists_and_starts_the_server() -> None:
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKER, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    (command,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKER, re.M)
    service = COMPOSE["services"]["openllm"]
    understood([*json.loads(command)[1:], *service["command"]])
    assert int(service["stop_grace_period"].removesuffix("s")) > LimitSettings().drain_s


def test_the_build_sees_what_the_image_copies_and_no_keys() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKER, re.M)
        for name in line.split()[:-1]
    }
    assert rules[0] == "*" and {f"!{name}" for name in copied} == set(rules[1:-1])
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_container_has_rights_to_what_it_needs_only() -> None:
    (user,) = re.findall(r"^USER (.*)$", DOCKER, re.M)
    assert user.split(":")[0].isdigit() and user.split(":")[0] != "0"  # Kubernetes checks numbers
    service = COMPOSE["services"]["openllm"]
    assert service["user"].startswith("${OPENLLM_USER:-")  # who owns the keys, which are private
    # the kernels are compiled into the home folder's cache, and run from there
    assert service["read_only"] and service["tmpfs"] == [f"{service['environment']['HOME']}:exec"]


def test_mounted_files_are_here() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./") and "secrets" not in source:
                assert (DEPLOY / source).exists(), source


def test_prometheus_asks_for_metrics_with_a_key() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert job["authorization"]["type"] == "Bearer" and "metrics_path" not in job
    rule = rule_of("/metrics")
    assert rule is not None and rule.scope == "metrics"


def test_the_guide_names_every_limit_and_path() -> None:
    for name in LimitSettings.model_fields:
        assert name in GUIDE or name == "keep_alive_s", name
    for rule in RULES:
        if rule.scope is not None:
            assert rule.path.removesuffix("/*") in GUIDE, rule.path
