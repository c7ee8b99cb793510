# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`python -m openllm` is the command `openllm`."""

import sys

from openllm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
