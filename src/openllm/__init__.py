# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""OpenLLM: from raw text to a trained, evaluated, talking language model."""

__version__ = "0.1.0"
