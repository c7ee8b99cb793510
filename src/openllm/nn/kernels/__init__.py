# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""CPU kernels of our own, each beside the plain torch that it must equal (docs/adr/0002)."""
