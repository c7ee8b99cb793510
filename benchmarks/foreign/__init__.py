# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Programs of others that call our server, unchanged; run by `clients.py` in their own environment.

langchain_client.py   chat, stream, tools, structured output, completions, embeddings by LangChain
litellm_client.py     the same by LiteLLM
harness.py            tasks for lm-evaluation-harness, and the comparison of its results
"""
