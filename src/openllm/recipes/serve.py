# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm serve`: models behind OpenAI's API."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openllm.core.arguments import Parser
from openllm.core.config import merge, parse_overrides
from openllm.core.errors import OpenLLMError, UsageError
from openllm.core.log import say
from openllm.engine.backends.pool import ModelPool
from openllm.engine.config import EngineConfig
from openllm.recipes.backend import SOURCES, SourceLoader, default_name
from openllm.serve.config import ServeSettings
from openllm.serve.web import require_web

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

NAME = re.compile(r"[A-Za-z0-9][\w./@:-]*")


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    args = _parse(argv)
    settings = ServeSettings.parse(_values(args), "serve settings")
    names = args.name or [default_name(source) for source in args.model]
    if len(names) != len(args.model):
        raise UsageError("give --name once for each model, in the same order, or not at all")
    if bad := [name for name in names if NAME.fullmatch(name) is None]:
        raise UsageError(f"'{bad[0]}' cannot be a model's name; give another with --name")
    cfg = EngineConfig.parse(parse_overrides(args.engine), "engine settings")
    budget = None if args.memory is None else _bytes(args.memory)
    adapters = _adapters(args.adapter, names)
    loader = SourceLoader(
        cfg,
        adapters,
        budget_bytes=budget,
        key_file=args.remote_key_file,
        tokenizer=args.gguf_tokenizer,
    )
    pool = ModelPool(loader, budget)
    for name, source in zip(names, args.model, strict=True):
        pool.add(name, source)
    run(
        pool,
        settings,
        aliases=_aliases(args.alias, names),
        adapters={model: [name for name, _ in pairs] for model, pairs in adapters.items()},
        lazy=args.memory is not None,
    )
    return 0


def run(
    pool: ModelPool,
    settings: ServeSettings,
    *,
    aliases: Mapping[str, str],
    adapters: Mapping[str, Sequence[str]],
    lazy: bool = False,
) -> None:
    """Serve models until the process is told to stop.

    Args:
        pool: the models.
        settings: of the server.
        aliases: other names of models.
        adapters: name of a model -> names of its adapters.
        lazy: load a model when it is used first; else all before the first request is answered.

    Raises:
        ConfigError: the address is taken, or the keys cannot be read.
        EngineError: the models have failed for good.
        OpenLLMError: a model cannot be loaded.
    """
    require_web()
    from openllm.serve.app import create_app
    from openllm.serve.listen import address_of, handed_over, listen, run_server
    from openllm.serve.operations.install import install_operations
    from openllm.serve.service import Service

    failures: list[OpenLLMError] = []

    async def load() -> None:
        try:
            for name in pool.names()[: 0 if lazy else None]:
                await pool.load(name)
        except OpenLLMError as error:
            failures.append(error)
            raise

    sock = listen(settings.host, settings.port)
    host, port = address_of(sock)
    if handed_over() is not None:  # the address is not ours to choose, but ours to protect
        settings = settings.model_copy(update={"host": host})
    service = Service(pool, aliases, adapters)
    app = create_app(service, settings, startup=load)
    operations = install_operations(app, service, settings)

    def started() -> None:
        say(_greeting(settings, port, pool.names()))

    try:
        run_server(app, sock, operations.lifecycle, settings.limits, started=started)
    except SystemExit:  # how uvicorn says that the start failed
        if failures:
            raise failures[0] from None
        raise
    finally:
        operations.close()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="openllm serve",
        description="Serve models to any client of OpenAI's API.",
        epilog="example: openllm serve runs/quickstart/tiny/model --port 8080",
    )
    parser.add_argument("model", nargs="+", help=SOURCES)
    parser.add_argument(
        "--host", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: 8000); 0: any free one"
    )
    parser.add_argument(
        "--name", action="append", default=[], help="what requests call the model; once for each"
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="ALIAS=MODEL",
        help="another name of a model",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="[MODEL:]NAME=FOLDER",
        help="a LoRA adapter, served as MODEL:NAME",
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="most memory for models, such as 8G; loads them when used"
    )
    parser.add_argument(
        "--remote-key-file",
        type=Path,
        metavar="FILE",
        help="the key that other servers ask of this one (default: $OPENAI_API_KEY)",
    )
    parser.add_argument(
        "--gguf-tokenizer",
        type=Path,
        metavar="FOLDER",
        help="the tokenizer of .gguf files (default: the one that each file holds)",
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="the keys that may call, from 'openllm keys add' (default: $OPENLLM_KEYS; "
        "without a file, no key is asked for)",
    )
    parser.add_argument(
        "--open-to-all", action="store_true", help="let other machines call without a key"
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="whose pages may call from a browser, such as https://example.org",
    )
    parser.add_argument(
        "--access-log",
        metavar="FILE",
        help="a line for each request; -: standard error (default); off: none",
    )
    parser.add_argument(
        "--log-prompts", action="store_true", help="write prompts into the access log"
    )
    parser.add_argument("--otlp-endpoint", metavar="URL", help="where OpenTelemetry traces go")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the engine, such as precision=int8; see docs/engine.md",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of the server, such as limits.max_running=8; see docs/deployment.md",
    )
    return parser.parse_args(argv)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the arguments give."""
    given: dict[str, Any] = {
        "host": args.host,
        "port": args.port,
        "auth": {
            "key_file": args.api_key_file or os.environ.get("OPENLLM_KEYS"),
            "open_to_all": args.open_to_all or None,
            "cors_origins": args.cors_origin or None,
        },
        "observe": {
            "access_log": args.access_log,
            "log_prompts": args.log_prompts or None,
            "otlp_endpoint": args.otlp_endpoint,
        },
    }
    return merge(_without_none(given), parse_overrides(args.set))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    parts = {k: _without_none(v) if isinstance(v, dict) else v for k, v in values.items()}
    return {key: value for key, value in parts.items() if value is not None}


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` arguments."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"cannot read {option} '{text}'; write NAME=VALUE")
        found[name] = value
    return found


def _aliases(texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Other name -> name of a model."""
    found = _pairs(texts, "--alias")
    for alias, name in found.items():
        if name not in names:
            raise UsageError(f"--alias {alias}={name}: no model '{name}' is served")
        if alias in names:
            raise UsageError(f"--alias {alias}={name}: '{alias}' is a model; choose another name")
    return found


def _adapters(texts: Sequence[str], names: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Name of a model -> names and folders of its adapters."""
    found: dict[str, list[tuple[str, str]]] = {}
    for label, folder in _pairs(texts, "--adapter").items():
        model, colon, name = label.rpartition(":")
        if not colon and len(names) != 1:
            raise UsageError(f"--adapter {label}: name its model, as MODEL:{label}={folder}")
        if colon and model not in names:
            raise UsageError(f"--adapter {label}: no model '{model}' is served")
        found.setdefault(model or names[0], []).append((name, folder))
    return found


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if found is None:
        raise UsageError(f"cannot read --memory '{text}'; write 8G or 500M")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _greeting(settings: ServeSettings, port: int, names: Sequence[str]) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    key = ' -H "Authorization: Bearer $KEY"' if settings.auth.key_file is not None else ""
    body = f'{{"model": "{names[0]}", "prompt": "Once upon a time", "max_tokens": 64}}'
    return (
        f"serving {', '.join(names)} at {url}/v1\ntry it: curl {url}/v1/completions{key} "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
