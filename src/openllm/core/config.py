# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The base class of all configs, and loading of recipes (YAML files) into configs.

Configs are frozen pydantic models that reject unknown keys; the error names the key's path and the
nearest valid name. A recipe may inherit with `base: NAME`; `key.sub=value` overrides a setting.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from openllm.core.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML that keeps dates as text: no setting is a date, but a folder name may look like one."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Config(BaseModel):
    """Frozen settings; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_kinds(cls, values: Any) -> Any:
        """Fill in the default `kind` of parts that do not name one."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            tag, part = field.discriminator, filled.get(name)
            if isinstance(tag, str) and isinstance(part, Mapping):
                kind = getattr(field.default, tag, None)
                filled[name] = part if kind is None else {tag: kind, **part}
        return filled

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str) -> Self:
        """Validate `values`; `source` names their origin in the error.

        Raises:
            ConfigError: one line per problem, with the path of the key.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = [_explain(problem, values) for problem in error.errors()]
            raise ConfigError(f"{source}: " + "\n  ".join(lines)) from None

    def dump(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


def _explain(problem: Any, values: Mapping[str, Any]) -> str:
    """Describe one validation problem."""
    # Tagged unions add their tag to the location; keep only what the user wrote.
    keys = [str(part) for part in problem["loc"]]
    path: list[str] = []
    node: Any = values
    for key in keys:
        if isinstance(node, Mapping) and key in node:
            node = node[key]
            path.append(key)
        elif isinstance(node, Sequence) and not isinstance(node, str) and key.isdigit():
            node = node[int(key)]
            path.append(key)
        elif key == keys[-1]:
            path.append(key)
    where = ".".join(path) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_nearest(problem)}"
    if problem["type"] == "missing":
        return f"'{where}' is missing; give it a value"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"'{where}': {message[0].lower()}{message[1:]}{shown}"


def _subclasses(cls: type[Config]) -> list[type[Config]]:
    found = list(cls.__subclasses__())
    for sub in cls.__subclasses__():
        found += _subclasses(sub)
    return found


def _nearest(problem: Any) -> str:
    key = str(problem["loc"][-1])
    names = {name for sub in _subclasses(Config) for name in sub.model_fields}
    close = difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "; remove it"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: missing file, invalid YAML, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the path of a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or '!!int x'
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must contain 'key: value' lines")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` merged in recursively; a different `kind` replaces a whole mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        mappings = isinstance(value, Mapping) and isinstance(old, Mapping)
        if mappings and ("kind" not in value or old.get("kind", value["kind"]) == value["kind"]):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` -> `{"a": {"b": 1}, "c": "x"}`; values are read as YAML.

    Unquoted text is taken verbatim: `data=sets/a #2` is the folder `sets/a #2`, although YAML would
    start a comment there.

    Raises:
        ConfigError: an argument without `=` or with an unreadable value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot parse '{pair}'; write settings as key=value")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"cannot parse the value in '{pair}'; put it in quotes") from None
        text = text.strip()
        if isinstance(value, str) and not text.startswith(("'", '"')):
            value = text
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merge(values, value)
    return values


def as_override(key: str, text: str) -> str:
    """The `key=value` that `parse_overrides` reads back as this text, quoted where necessary."""
    try:
        plain = parse_overrides([f"key={text}"]) == {"key": text}
    except ConfigError:
        plain = False
    if not plain:
        text = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()
    return f"{key}={text}"


def load_recipe(name: str, folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Load the values of a recipe: its bases first, then its own, then the overrides.

    Args:
        name: the path of a YAML file, or the name of a recipe in `folder`.
        folder: holds the shipped recipes.
        overrides: `key.sub=value` strings.
    """
    return merge(_with_bases(_find(name, folder), folder, ()), parse_overrides(overrides))


def _find(name: str, folder: Path) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = folder / f"{name}.yaml"
    if not path.exists():
        names = sorted(file.stem for file in folder.glob("*.yaml"))
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"there is no recipe '{name}'; {hint}shipped recipes: {', '.join(names)}; "
            "or give the path of a .yaml file"
        )
    return path


def _with_bases(path: Path, folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: 'base' leads back to this file; break the cycle")
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: 'base' must be the name or path of one recipe")
    beside = path.parent / base
    found = beside if base.endswith((".yaml", ".yml")) else _find(base, folder)
    return merge(_with_bases(found, folder, (*seen, path)), values)
