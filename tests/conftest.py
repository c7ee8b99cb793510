# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings and fixtures that all tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# No test needs the network or a screen; these make a library that tries fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# As on the command line: threads that spin for long are slow beside other work.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A shell that starts the tests in the background makes all its descendants ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same cases in every run, without time limits; to hunt for new ones:
# HYPOTHESIS_PROFILE=explore make check
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped if it is absent."""
    folder = Path(os.environ.get("OPENLLM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"needs the real data sets ({folder}); set OPENLLM_SHARED_DATA to their folder"
        if os.environ.get("OPENLLM_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data folder of 300, 20 and 20 little stories."""
    from tests.tiny import write_prepared

    return write_prepared(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a vocabulary of 640, trained on little stories."""
    from tests.tiny import VOCAB_SIZE, sentences

    from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    model = train_model(sentences(300, 1), TokenizerSettings(vocab_size=VOCAB_SIZE))
    write_tokenizer(folder, model, {})
    return folder
