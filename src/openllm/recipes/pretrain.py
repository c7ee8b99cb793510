# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm train`: a prepared data folder and a tokenizer in, a run folder with a model out."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openllm.core.arguments import Parser
from openllm.core.errors import ConfigError
from openllm.core.files import recover_folder, write_json
from openllm.core.log import progress, say, warn
from openllm.core.runs import Run, source_commit
from openllm.data.document import read_index
from openllm.export.inventory import model_fingerprint
from openllm.export.models.zoo import find_model
from openllm.recipes.build import (
    build_loader,
    build_trainer,
    check_teachers,
    describe_machine,
    load_config,
    memory_errors,
    prepare_process,
    resolve,
)
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.data.loader import TokenLoader
    from openllm.data.shards import Shards
    from openllm.train.forecast import Forecast
    from openllm.train.loop import Trainer


def main(argv: list[str]) -> int:
    """Command-line entry point."""
    parser = Parser(
        prog="openllm train",
        description="Train a model from scratch. Repeating the command resumes the run.",
        epilog="example: openllm train small data=data/squad tokenizer=data/tokenizer "
        "duration='4_000_000 tokens' --out runs/squad",
    )
    parser.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("settings", nargs="*", help="key=value, such as optim.lr=0.002")
    parser.add_argument("--out", required=True, help="run folder")
    parser.add_argument("--fresh", action="store_true", help="discard what the run folder holds")
    parser.add_argument("--dry-run", action="store_true", help="show the forecast and stop")
    args = parser.parse_intermixed_args(argv)
    cfg = _find_models(load_config(args.recipe, args.settings))
    train(cfg, Path(args.out), fresh=args.fresh, dry_run=args.dry_run)
    return 0


def _find_models(cfg: PretrainConfig) -> PretrainConfig:
    """The recipe with folders for the names of models; paths that exist stay as they are."""

    def found(text: str) -> str:
        return text if Path(text).exists() else str(find_model(text) or text)

    changes: dict[str, Any] = {}
    if cfg.tokenizer is not None:
        changes["tokenizer"] = found(cfg.tokenizer)
    if cfg.distill is not None:
        teachers = [found(teacher) for teacher in cfg.distill.teachers]
        changes["distill"] = cfg.distill.model_copy(update={"teachers": teachers})
    return cfg.model_copy(update=changes)


def train(cfg: PretrainConfig, out: Path, *, fresh: bool = False, dry_run: bool = False) -> None:
    """Run a recipe, or resume its run folder.

    Raises:
        ConfigError: a missing or invalid setting.
        TrainingError: the run diverged or ran out of memory.
        KeyboardInterrupt: it was interrupted; the run folder can be resumed.
    """
    from openllm.checkpoint.families.registry import OWN, architecture
    from openllm.data.shards import Shards
    from openllm.recipes.tokenize import tokenize
    from openllm.text.load import load_tokenizer
    from openllm.train.forecast import forecast

    data, vocabulary = _folders(cfg)
    index = read_index(data)
    tokenizer = load_tokenizer(vocabulary)
    shards = tokenize(data, vocabulary)
    text = Shards.open(shards, "train", tokenizer.fingerprint)
    cfg = resolve(cfg, tokenizer.vocab_size, epoch_tokens=len(text.tokens))
    if architecture(cfg.model) == OWN:
        warn(
            "no transformers architecture matches this model; only OpenLLM will be able to load "
            "its folder"
        )
    prepare_process(cfg)
    loader = build_loader(cfg, text)
    held_out = Shards.open(shards, "validation", tokenizer.fingerprint)
    inputs = {"data": index["fingerprint"], "tokenizer": tokenizer.fingerprint}
    inputs |= check_teachers(cfg, tokenizer.fingerprint)
    with memory_errors(cfg):
        if dry_run:
            trainer = build_trainer(cfg, loader)
            outlook = forecast(cfg, trainer, index["corpus"], len(held_out.tokens))
            for line in outlook.lines():
                say(line)
            return
        run = Run.open(out, cfg.dump(), fresh=fresh)
        try:
            run.check_inputs(inputs)
            _train(run, cfg, loader, held_out, index)
        finally:
            run.close()


def _folders(cfg: PretrainConfig) -> tuple[Path, Path]:
    if cfg.data is None:
        raise ConfigError(
            "'data' is missing; prepare a folder with 'openllm data prepare SOURCE --out DIR' and "
            "set data=DIR"
        )
    if cfg.tokenizer is None:
        raise ConfigError(
            f"'tokenizer' is missing; train one with 'openllm tokenizer train {cfg.data} --out "
            "DIR' and set tokenizer=DIR"
        )
    return Path(cfg.data), Path(cfg.tokenizer)


def _train(
    run: Run,
    cfg: PretrainConfig,
    loader: "TokenLoader",
    held_out: "Shards",
    index: Mapping[str, Any],
) -> None:
    """Train inside an open run folder."""
    from openllm.checkpoint.train_state import load_newest
    from openllm.data.loader import bits_per_byte_per_nat
    from openllm.train.forecast import forecast
    from openllm.train.report import write_report

    recover_folder(run.model)
    state, problems = load_newest(run.checkpoints)
    for problem in problems:
        warn(f"{problem}; going back to an older checkpoint")
    finished = state is not None and state.values["finished"]
    report = run.folder / "report.md"
    if finished and report.exists():
        say(f"{run.folder}: this run is already finished; its model is in {run.model}")
        return
    report.unlink(missing_ok=True)  # its existence says that the run is complete
    trainer = build_trainer(cfg, loader)
    _check_machine(run, cfg, 0 if state is None else state.values["step"])
    outlook = forecast(cfg, trainer, index["corpus"], len(held_out.tokens))
    bits = bits_per_byte_per_nat(loader.shards)
    told = run.folder / "forecast.json"
    if state is None or not told.exists():  # otherwise keep the forecast made before the first step
        write_json(told, {**outlook.dump(), "bits_per_byte_per_nat": bits})
    for line in outlook.lines(done=0 if state is None else state.values["step"]):
        say(line)
    start = 0 if state is None else state.values["tokens"]
    with progress("training", outlook.tokens, "tokens", start=start) as meter:
        trainer.hooks = _hooks(run, cfg, trainer, held_out, index, outlook, meter, bits)
        if state is None:
            run.rewind_metrics(0)
        else:
            trainer.load_state(state)
            run.rewind_metrics(state.values["metrics_offset"])
            run.log_event("resume", trainer.step, f"resumed at step {trainer.step}")
            say(f"resuming at step {trainer.step} of {trainer.total_steps}")
        del state  # its files stay mapped as long as it exists
        if not finished:
            trainer.fit()
    write_report(run.folder, f"Run {run.folder.name}", _facts(cfg, index, outlook))
    if trainer.stop_reason in ("SIGINT", "SIGTERM") and trainer.step < trainer.total_steps:
        say(f"stopped at step {trainer.step}; repeat the command to resume")
        raise KeyboardInterrupt
    say(f"done: model in {run.model}, report in {report}")


def _check_machine(run: Run, cfg: PretrainConfig, step: int) -> None:
    """Record the environment, or report how it and the settings differ from the run's start."""
    for difference in [*run.changes, *run.check_env(describe_machine(cfg))]:
        message = (
            f"this run was started differently ({difference}); results will agree closely, not bit "
            "for bit"
        )
        run.log_event("machine", step, message)
        warn(message)


def _hooks(
    run: Run,
    cfg: PretrainConfig,
    trainer: "Trainer",
    held_out: "Shards",
    index: Mapping[str, Any],
    outlook: "Forecast",
    meter: Any,
    bits: float,
) -> list[Any]:
    """The training hooks, in order; the checkpoint comes last."""
    from openllm.data.loader import sample_documents
    from openllm.nn.cost import train_flops
    from openllm.train import hooks

    twentieth = max(1, trainer.total_steps // 20)
    # seed 0: the same documents for runs of all seeds, so that their curves are comparable
    documents, text_bytes = sample_documents(held_out, cfg.validation.tokens, seed=0)
    validate = hooks.Validate(
        run,
        documents,
        text_bytes,
        every=cfg.validation.every or twentieth,
        context=cfg.batch.seq_len,
        batch_tokens=cfg.batch.micro_rows * cfg.batch.seq_len,
        patience=cfg.validation.patience,
        keep=partial(_keep_best, run, cfg, index, _parents(cfg)),
    )
    flops = train_flops(cfg.model, [cfg.batch.seq_len]) / cfg.batch.seq_len
    return [
        hooks.Metrics(run),
        validate,
        hooks.Watch(run, outlook.band, validate, bits, comparable=cfg.distill is None),
        hooks.Progress(meter, flops, outlook.matmul_flops),
        hooks.Checkpoint(run, every=cfg.checkpoint.every or twentieth, keep=cfg.checkpoint.keep),
    ]


def _parents(cfg: PretrainConfig) -> list[dict[str, str]]:
    """Name and fingerprint of each teacher, which are this model's parents."""
    teachers = cfg.distill.teachers if cfg.distill else []
    return [{"name": _short(t), "fingerprint": model_fingerprint(t)} for t in teachers]


def _short(folder: str) -> str:
    """A name only: a model folder reveals nothing of the machine it was made on."""
    return "/".join(Path(folder).parts[-2:])


def _keep_best(
    run: Run,
    cfg: PretrainConfig,
    index: Mapping[str, Any],
    parents: Sequence[Mapping[str, str]],
    trainer: "Trainer",
    loss: float,
) -> None:
    """Write the weights with the best validation loss so far as the run's model folder."""
    from openllm.checkpoint.card import model_card
    from openllm.checkpoint.model_dir import write_model

    assert cfg.tokenizer is not None and cfg.data is not None
    recipe = {**cfg.dump(), "data": Path(cfg.data).name, "tokenizer": Path(cfg.tokenizer).name}
    if cfg.distill is not None:
        recipe["distill"] |= {"teachers": [parent["name"] for parent in parents]}
    lineage = {
        "made_by": "pretrain",
        "commit": source_commit(),
        "parents": parents,
        "recipe": recipe,
        "data": {
            "name": Path(cfg.data).name,
            "corpus": index["corpus"],
            "fingerprint": index["fingerprint"],
            "sources": index["sources"],
        },
        "steps": trainer.step,
        "total_steps": trainer.total_steps,
        "tokens_seen": trainer.tokens,
        "validation_loss": loss,
    }
    state, matrices = trainer.best_guess(), {}
    if trainer.rounds and trainer.rounding is not None and cfg.quantize is not None:
        matrices = trainer.rounding.matrices(state)
        lineage["quantization"] = {"method": "training", **cfg.quantize.dump()}
    write_model(
        run.model,
        cfg.model,
        state,
        matrices=matrices,
        tokenizer=cfg.tokenizer,
        lineage=lineage,
        card=model_card(cfg.model, lineage),
    )


def _facts(
    cfg: PretrainConfig, index: Mapping[str, Any], outlook: "Forecast"
) -> list[tuple[str, str]]:
    """The facts at the head of a report."""
    from openllm.nn.cost import parameters

    return [
        ("parameters", f"{parameters(cfg.model).total:,}"),
        ("vocabulary size", f"{cfg.model.vocab_size:,}"),
        (
            "data",
            f"{cfg.data} ({index['corpus']}, {index['splits']['train']['documents']:,} documents)",
        ),
        ("precision", cfg.precision),
        ("forecast", outlook.lines()[0].removeprefix("forecast: ")),
        ("expected", outlook.lines()[1].removeprefix("forecast: ")),
    ]
