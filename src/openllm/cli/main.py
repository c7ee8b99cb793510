# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The `openllm` command: a table of subcommands, each loaded only when it is called.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted. Results go to standard output,
messages and errors to standard error.
"""

import difflib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from openllm import __version__
from openllm.core.errors import OpenLLMError, UsageError

COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("train and try a small model, end to end", "openllm.recipes.quickstart:main"),
    "data prepare": (
        "clean, deduplicate and split documents",
        "openllm.recipes.prepare:prepare_main",
    ),
    "data inspect": (
        "show what a prepared folder contains",
        "openllm.recipes.prepare:inspect_main",
    ),
    "data tokenize": (
        "turn prepared documents into token shards",
        "openllm.recipes.tokenize:main",
    ),
    "data mix": (
        "find the best mixture of folders to train on",
        "openllm.recipes.mixing.command:main",
    ),
    "tokenizer train": ("train a tokenizer on documents", "openllm.recipes.tokenizer:train_main"),
    "tokenizer inspect": (
        "measure a tokenizer, compare vocabulary sizes",
        "openllm.recipes.tokenizer:inspect_main",
    ),
    "model inspect": (
        "show a model's parameters, FLOPs and memory",
        "openllm.recipes.model:inspect_main",
    ),
    "train": ("train a model from a recipe, or resume a run", "openllm.recipes.pretrain:main"),
    "evaluate": ("measure a model on held-out text", "openllm.recipes.evaluate:main"),
    "generate": ("continue a prompt with a model", "openllm.recipes.generate:main"),
    "chat": ("talk to a model in the terminal", "openllm.recipes.chat.command:main"),
    "batch": ("answer a file of requests", "openllm.recipes.batch:main"),
    "serve": ("serve models with OpenAI's API and a chat page", "openllm.recipes.serve:main"),
    "import": (
        "turn a public model into a model folder",
        "openllm.recipes.import_model:main",
    ),
    "merge": ("put a LoRA adapter into the weights of its base", "openllm.recipes.merge:main"),
    "quantize": (
        "make a smaller model of 8- and 4-bit integers",
        "openllm.recipes.quantize:main",
    ),
    "export": (
        "write a model for other programs, with a certificate",
        "openllm.recipes.export:export_main",
    ),
    "verify": (
        "check an exported model against its certificate",
        "openllm.recipes.export:verify_main",
    ),
    "models ls": ("list the models on this machine", "openllm.recipes.models:ls_main"),
    "models show": (
        "show a model's lineage and files, check their digests",
        "openllm.recipes.models:show_main",
    ),
    "models add": ("register a model folder", "openllm.recipes.models:add_main"),
    "models rm": ("remove a model from this machine", "openllm.recipes.models:rm_main"),
    "models tag": ("add and remove a model's tags", "openllm.recipes.models:tag_main"),
    "models search": ("find models by words", "openllm.recipes.models:search_main"),
    "push": ("upload a model to the Hugging Face Hub", "openllm.recipes.hub:push_main"),
    "pull": ("download a model from the Hugging Face Hub", "openllm.recipes.hub:pull_main"),
    "keys add": ("make an API key for a server", "openllm.recipes.keys:add_main"),
    "keys ls": ("list a server's API keys and their use today", "openllm.recipes.keys:ls_main"),
    "keys revoke": ("end an API key", "openllm.recipes.keys:revoke_main"),
    "keys rotate": ("give an API key a new secret", "openllm.recipes.keys:rotate_main"),
    "recipes list": ("list the recipes that ship with OpenLLM", "openllm.recipes.catalogue:main"),
    "bench": ("measure how fast this machine trains and generates", "openllm.recipes.bench:main"),
    "doctor": ("check this machine and installation", "openllm.cli.doctor:main"),
}
"""Name of a command -> (one-line help, "module:function" taking the remaining arguments)."""

CHAPTERS = {
    "quickstart": "all at once",
    "data prepare": "text and tokenizers",
    "model inspect": "train and evaluate",
    "generate": "use a model",
    "import": "change a model",
    "models ls": "keep and share models",
    "keys add": "keys of a server",
    "recipes list": "about this installation",
}
"""First command of a chapter of `openllm --help` -> its title."""

FOREIGN = (
    "the package 'openllm' (by BentoML) is also installed and uses the same import name and "
    "command; keep only one of them: pip uninstall openllm && "
    "pip install --force-reinstall --no-deps openllm-lab"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    bound_spinning()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that a terminal cannot show, so that no result is lost.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if foreign_distribution():
            sys.stderr.write(f"warning: {FOREIGN}\n")
        code = _dispatch(arguments)
        sys.stdout.flush()  # a closed pipe fails here, not at interpreter shutdown
        return code
    except SystemExit as leaving:  # argparse exits this way
        return _exit_code(leaving)
    except BaseException as error:  # the one place that turns any error into a message
        return _report(error)


def bound_spinning() -> None:
    """Let the threads of a matrix product spin for microseconds only, then sleep.

    libgomp's default is milliseconds: a little faster on an idle machine, several times slower on a
    busy one (docs/LOG.md). It reads this when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"openllm {__version__}\n")
        return 0
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in COMMANDS:
            return _load(COMMANDS[name][1])(arguments[words:])
    noun = arguments[0]
    if any(name.startswith(f"{noun} ") for name in COMMANDS):
        if arguments[1:2] in (["-h"], ["--help"]):
            sys.stdout.write(overview(noun))
            return 0
        if not arguments[1:]:
            raise UsageError(f"'{noun}' needs a subcommand\n\n{overview(noun).rstrip()}")
    raise UsageError(_unknown(arguments))


def _load(target: str) -> Callable[[list[str]], int]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def _unknown(arguments: list[str]) -> str:
    """The message for an unknown command."""
    if arguments[0].startswith("-"):
        return f"unknown option '{arguments[0]}'; see: openllm --help"
    nouns = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    given = " ".join(arguments[:2] if arguments[0] in nouns else arguments[:1])
    if arguments[0] in nouns:
        verbs = [name.split()[1] for name in COMMANDS if name.startswith(f"{arguments[0]} ")]
        if not difflib.get_close_matches(arguments[1], verbs, 1):
            return f"unknown command '{given}'; '{arguments[0]}' has: {', '.join(verbs)}"
    close = [name for name in COMMANDS if name.endswith(f" {given}")]
    close = close or difflib.get_close_matches(" ".join(arguments[:2]), COMMANDS, 1, cutoff=0.75)
    close = close or difflib.get_close_matches(given, [*COMMANDS, *sorted(nouns)], 1)
    hint = " or ".join(f"'openllm {name}'" for name in close)
    hint = f"did you mean {hint}? See" if close else "see"
    return f"unknown command '{given}'; {hint}: openllm --help"


def overview(noun: str | None = None) -> str:
    """The text of `openllm --help`, or of `openllm NOUN --help`."""
    shown = {
        name: help_line
        for name, (help_line, _) in COMMANDS.items()
        if noun is None or name.startswith(f"{noun} ")
    }
    width = max(map(len, shown))
    lines = [f"usage: openllm {noun or 'COMMAND'} {'SUBCOMMAND ' if noun else ''}[arguments]", ""]
    if noun is None:
        lines.append("From raw text to a language model that is trained, evaluated and served.")
    for name, help_line in shown.items():
        if noun is None and name in CHAPTERS:
            lines += ["", f"{CHAPTERS[name]}:"]
        lines.append(f"  {name:<{width}}  {help_line}")
    if noun is None:
        lines += [
            "",
            "  openllm COMMAND --help   show the arguments of a command",
            "  openllm --version        show the version",
            "",
            "To start: openllm quickstart",
        ]
    return "\n".join(lines) + "\n"


def foreign_distribution() -> bool:
    """Whether another product's distribution named `openllm` is installed beside ours."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("openllm")
    except PackageNotFoundError:
        return False
    return True


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"error: {leaving.code}\n")
    return 1


def _report(error: BaseException) -> int:
    """Write the error to standard error; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader is gone (as in `| head`); nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    debug = os.environ.get("OPENLLM_DEBUG") == "1"
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write(f"interrupted{f': {error}' if str(error) else ''}\n")
        return 130
    if isinstance(error, OpenLLMError):
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"error: {_in_words(error, debug)}\n")
    return 1


def _in_words(error: BaseException, debug: bool) -> str:
    """The message for an unexpected error."""
    if _out_of_memory(error):
        return (
            "out of memory; close other programs, or use a smaller model, a smaller batch or "
            "shorter sequences"
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("openllm"):
        return (
            f"the library '{error.name}' is not installed, but OpenLLM needs it; "
            "fix the installation: pip install --upgrade openllm-lab (then run: openllm doctor)"
        )
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    where = "above" if debug else _keep_traceback(error)
    return (
        f"this is a bug in OpenLLM: {what}\nthe traceback is {where}; "
        "please report it together with the output of: openllm doctor"
    )


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch is not imported for this: if it is not loaded, the error is not torch's.
    cuda = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, RuntimeError) and (cuda or "DefaultCPUAllocator" in str(error))


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a file of its own; returns where it is, in words."""
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="openllm-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as handle:
            handle.write(f"openllm {__version__}: {' '.join(sys.argv)}\n\n")
            traceback.print_exception(error, file=handle)
    except OSError:  # no room for a file: the screen is what is left
        traceback.print_exception(error)
        return "above"
    return f"in {handle.name}"
