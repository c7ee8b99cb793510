# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Who trains in `train_speed.py`: each contender in a process of its own.

job.py        what all of them are to do, and their names; without torch
pool.py       the processes, seen from the parent; without torch
worker.py     the inside of such a process
models.py     ours and the peers, each as something that makes training steps
documents.py  batches: random tokens, packed rows, padded documents, an unbroken stream
limit.py      the matrix products of a step, timed alone
"""
