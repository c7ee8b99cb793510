# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Command lines: argparse, with the nearest option named where one is misspelled."""

import argparse
import difflib
from typing import NoReturn

UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """Reads the arguments of one command."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and a message."""
        if message.startswith(UNKNOWN):
            words = message.removeprefix(UNKNOWN).split()
            unknown = next((word for word in words if word.startswith("--")), "")
            options = list(self._option_string_actions)
            for close in difflib.get_close_matches(
                unknown.partition("=")[0], options, 1, cutoff=0.75
            ):
                message += f"; did you mean {close}?"
        super().error(message)
