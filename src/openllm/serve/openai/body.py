# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The JSON body of a request: read strictly, then checked against a schema."""

import json
import math
import re
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from openllm.serve.errors import ApiError

MAX_DEPTH = 64
"""Deepest nesting of a request; JSON schemas of tools are the deepest part of real ones."""

MAX_SHOWN = 64
"""Longest part of a field's name in an error."""

REFUSED = {
    "audio": "answers are text only",
    "background": "the answer comes at once",
    "conversation": "nothing is stored; send the whole conversation as 'input'",
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
    "previous_response_id": "nothing is stored; send the whole conversation as 'input'",
    "suffix": "text cannot be filled in before a suffix",
}
"""Fields of OpenAI's API that are not offered -> what to know."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Body(BaseModel):
    """A request. Values are never converted, so the schema says exactly what is accepted."""

    model_config: ClassVar = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Check plain values, as JSON gives them.

        Raises:
            ApiError: 400, with the field that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            raise _explain(max(problems, key=_closeness), values) from None


Parsed = TypeVar("Parsed", bound=Body)


async def read(request: Request, schema: type[Parsed]) -> Parsed:
    """The body of a request.

    Raises:
        ApiError: 415, it is not declared as JSON; 400, it is not, or it breaks the schema.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can post anything else to this server without being asked (no CORS).
    if kind != "application/json" and not (kind[:12] == "application/" and kind[-5:] == "+json"):
        raise ApiError(
            "send the header 'Content-Type: application/json' and a JSON body",
            status=415,
            code="unsupported_media_type",
        )
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise ApiError("the client left before the end of its request") from None
    return schema.parse(parse_json(raw))


def parse_json(raw: bytes) -> Any:
    """Plain values of strict JSON.

    Raises:
        ApiError: it is not UTF-8, not JSON, or has values that no text or number can hold.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        _refuse(f"the body is not valid UTF-8 at byte {error.start}")
    try:
        values = json.loads(text, parse_constant=_no_constant, parse_float=_number)
    except json.JSONDecodeError as error:
        _refuse(f"the body is not valid JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        _refuse(f"the body is nested deeper than {MAX_DEPTH} levels")
    except ValueError as error:  # ours, or an integer of thousands of digits
        ours = isinstance(error, _BadNumber)
        _refuse(str(error) if ours else "the body has an integer with too many digits")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and too_deep(values):
        _refuse(f"the body is nested deeper than {MAX_DEPTH} levels")
    if _SURROGATE.search(raw):
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            _refuse("the body has half of a surrogate pair, which is not a character")
    return values


class _BadNumber(ValueError):
    pass


def _no_constant(name: str) -> NoReturn:
    raise _BadNumber(f"the body is not valid JSON: {name} is not a number")


def _number(text: str) -> float | int:
    """A number with a point or exponent; 2.0 is an integer in JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise _BadNumber("the body has a number that is too large")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def too_deep(value: Any) -> bool:
    """Whether a value is nested deeper than requests may be."""
    return _depth(value, MAX_DEPTH) < 0


def _depth(value: Any, left: int) -> int:
    """Levels that are left below a value, negative if it is too deep."""
    if isinstance(value, dict):
        return min((_depth(part, left - 1) for part in value.values()), default=left - 1)
    if isinstance(value, list):
        return min((_depth(part, left - 1) for part in value), default=left - 1)
    return left


def _refuse(message: str) -> NoReturn:
    raise ApiError(message, code="invalid_json")


def _closeness(problem: Any) -> tuple[bool, int]:
    """How near the values came to the schema of a union that this problem is of."""
    return not problem["type"].endswith("_type"), len(problem["loc"])


def _path(problem: Any, values: Any) -> str:
    """The field that is wrong: only what the client wrote, not the names of schemas in a union."""
    found: list[str] = []
    *inner, last = problem["loc"] or ("",)
    for key in inner:
        if isinstance(values, dict) and key in values:
            values = values[key]
            found.append(str(key)[:MAX_SHOWN])
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
            found.append(str(key))
    inside = isinstance(values, dict) and (last in values or problem["type"] == "missing")
    inside = inside or (isinstance(values, list) and isinstance(last, int))
    return ".".join([*found, str(last)[:MAX_SHOWN]] if inside else found)


def _explain(problem: Any, values: Any) -> ApiError:
    """The error for one validation problem; it never repeats values, which may be private."""
    path, kind = _path(problem, values), problem["type"]
    if kind == "missing":
        return ApiError(f"the field '{path}' is missing", param=path, code="missing_field")
    hint = REFUSED.get(path)
    if hint is not None:
        return ApiError(f"'{path}' is not offered: {hint}", param=path, code="unsupported_field")
    if kind == "none_required":
        return ApiError(
            f"'{path}' is not offered; leave it out", param=path, code="unsupported_field"
        )
    if kind == "extra_forbidden":
        return ApiError(f"unknown field '{path}'; remove it", param=path, code="unknown_field")
    if kind == "union_tag_not_found":
        path = f"{path}.{problem['ctx']['discriminator'][1:-1]}"
        return ApiError(f"the field '{path}' is missing", param=path, code="missing_field")
    if kind == "union_tag_invalid":
        tag, known = problem["ctx"]["discriminator"], problem["ctx"]["expected_tags"]
        return ApiError(f"'{path}': {tag} must be one of {known}", param=path)
    message = problem["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type"):
        message = "input should be an object"
    where = f"'{path}': " if path else "the body: "
    return ApiError(f"{where}{message[0].lower()}{message[1:]}", param=path or None)
