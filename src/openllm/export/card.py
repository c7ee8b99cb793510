# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model card of an export that its original's card does not describe."""

import re

FRONT = re.compile(r"\A\s*---\n.*?\n---\n", re.DOTALL)
"""The head of a card, which states licence and language to the Hub."""


def export_card(original: str, *, name: str, to: str, usage: str) -> str:
    """A card that says what the folder is and how to run it; the original's follows.

    Args:
        original: the text of the original's card.
        name: of the original.
        to: the format.
        usage: how to run the export.
    """
    front = FRONT.match(original)
    head, body = (front[0].lstrip(), original[front.end() :]) if front else ("", original)
    below = re.sub(r"^(#+ )", r"##\1", body.strip(), flags=re.MULTILINE)
    parts = [f"# {name}, exported to {to}", usage]
    if below:
        parts += ["## The original", "What its own card says:", below]
    return head + "\n\n".join(parts) + "\n"
