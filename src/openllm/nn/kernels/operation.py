# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From torch to the kernels: supported tensors, kernel calls, operator registration."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from openllm.nn.kernels.library import available, library

SIZES = {torch.float32: "f", torch.bfloat16: "b"}
"""Letter of each dtype in kernel names."""


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels support these tensors: on a CPU, all of one supported dtype.

    Never while `torch.export` traces: other runtimes do not have them.
    """
    first = tensors[0]
    return (
        not torch.compiler.is_exporting()
        and all(t.device.type == "cpu" and t.dtype == first.dtype for t in tensors)
        and first.dtype in SIZES
        and available()
    )


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel on contiguous tensors; its last argument is the thread count."""
    kernels = library()
    assert kernels is not None
    converted = [_argument(value) for value in arguments]
    getattr(kernels, name)(*converted, ctypes.c_int(torch.get_num_threads()))


def _argument(value: Tensor | int | float | None) -> object:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return value if value is None else ctypes.c_int64(value)


_OPERATIONS = torch.library.Library("openllm", "FRAGMENT")


def operation(
    *,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    mutates: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a torch operator, `torch.ops.openllm.NAME`.

    Like `torch.library.custom_op`, whose first call would load the compiler: a second or two.

    Args:
        fake: returns the outputs without data.
        setup_context: saves what `backward` needs.
        backward: gradients of the arguments.
        mutates: names of arguments modified in place.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.strip("_")
        schema = torch.library.infer_schema(function, mutates_args=mutates)
        _OPERATIONS.define(f"{name}{schema}")
        _OPERATIONS.impl(name, function, "CPU")
        qualified = f"openllm::{name}"
        torch.library.register_fake(qualified, fake, lib=_OPERATIONS)
        if backward is not None:
            torch.library.register_autograd(
                qualified, backward, setup_context=setup_context, lib=_OPERATIONS
            )
        return getattr(torch.ops.openllm, name).default

    return register
