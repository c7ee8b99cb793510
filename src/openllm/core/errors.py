# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The errors a user can meet. Each message says what is wrong and how to fix it.

OpenLLMError            exit code 1
├── UsageError          exit code 2: invalid command line
├── ConfigError         exit code 2: invalid recipe or setting
├── DataError           a data source or prepared folder cannot be used
├── TokenizerError      a tokenizer is missing, damaged or the wrong one
├── TemplateError       a chat template is missing, faulty or hostile
├── CheckpointError     a model folder or checkpoint cannot be used
├── EngineError         a request cannot be answered, or the engine has failed
│   └── BusyError       there is no room for it now; later there may be
├── RemoteError         another server refused a request or cannot be reached
│   └── RefusedError    it says that the request is invalid
├── TrainingError       training cannot continue (diverged, out of memory, ...)
├── StorageError        the disk is full or a path cannot be written
├── DownloadError       a download failed permanently
├── UploadError         an upload was refused or failed permanently
└── MissingExtra        an optional library is not installed
"""


class OpenLLMError(Exception):
    """Base class of errors that are shown to the user without a traceback."""

    exit_code = 1


class UsageError(OpenLLMError):
    """The command line is invalid."""

    exit_code = 2


class ConfigError(OpenLLMError):
    """A recipe or a setting is invalid."""

    exit_code = 2


class DataError(OpenLLMError):
    """A data source or a prepared folder cannot be used."""


class TokenizerError(OpenLLMError):
    """A tokenizer is missing, damaged or not the one the data was made with."""


class TemplateError(OpenLLMError):
    """A chat template is missing, faulty or hostile, or refuses the messages."""


class CheckpointError(OpenLLMError):
    """A model folder or a training checkpoint cannot be used."""


class EngineError(OpenLLMError):
    """A request cannot be answered, or the engine has failed."""


class BusyError(EngineError):
    """There is no room for a request now; later there may be.

    Attributes:
        retry_after: seconds after which to try again.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RemoteError(OpenLLMError):
    """Another server refused a request or cannot be reached.

    Attributes:
        status: HTTP status of its answer; none if there was no answer.
        retry_after: seconds after which it said to try again; none if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RefusedError(RemoteError):
    """Another server says that a request is invalid.

    Attributes:
        reason: what it says, without its address; it is for whoever made the request.
        code: for programs, if it gives one.
    """

    def __init__(self, message: str, *, status: int, reason: str, code: str | None = None) -> None:
        super().__init__(message, status=status)
        self.reason = reason
        self.code = code


class TrainingError(OpenLLMError):
    """Training cannot continue."""


class StorageError(OpenLLMError):
    """The disk is full or a path cannot be written."""


class DownloadError(OpenLLMError):
    """A download failed permanently."""


class UploadError(OpenLLMError):
    """An upload was refused or failed permanently."""


class MissingExtra(OpenLLMError):
    """An optional library is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; it comes with the extra '{extra}': "
            f"pip install 'openllm-lab[{extra}]'"
        )
