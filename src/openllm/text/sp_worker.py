# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The SentencePiece training process: `python -m openllm.text.sp_worker OPTIONS`.

Training needs its own process because it is one long C++ call, which ignores Ctrl-C and may abort.
OPTIONS is a JSON object for the trainer. Training texts come on standard input, each preceded by
its length in four bytes; the model goes to standard output, an error message to standard error.
"""

import io
import json
import signal
import struct
import sys
from collections.abc import Iterator
from typing import IO

import sentencepiece

FAILED = 3
"""Exit code if SentencePiece refuses; standard error then holds its message."""
_LENGTH = struct.Struct("<I")


def send(piece: str, stream: IO[bytes]) -> None:
    """Write one training text in the format that `receive` reads."""
    data = piece.encode("utf-8", "replace")
    stream.write(_LENGTH.pack(len(data)) + data)


def receive(stream: IO[bytes]) -> Iterator[bytes]:
    """Read training texts to the end of the stream."""
    while header := stream.read(_LENGTH.size):
        yield stream.read(_LENGTH.unpack(header)[0])


def main() -> int:
    """Train and write the model."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=receive(sys.stdin.buffer),
            model_writer=model,
            minloglevel=2,
            **json.loads(sys.argv[1]),
        )
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    sys.stdout.buffer.write(model.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
