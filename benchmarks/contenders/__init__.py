# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The contenders of `train_speed.py`, each in a separate process.

job.py        their common task, and their names; without torch
pool.py       the processes, seen from the parent; without torch
worker.py     the inside of such a process
models.py     ours and the peers, with a common training step
documents.py  batches: random tokens, packed rows, padded documents, an unbroken stream
limit.py      the matrix products of a step, timed alone
"""
