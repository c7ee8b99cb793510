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
├── RemoteError         another server refused a request or cannot be reached
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


class RemoteError(OpenLLMError):
    """Another server refused a request or cannot be reached."""


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
