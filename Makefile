# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

# The two commands to begin with are `make quickstart` and `make test`; `make help` lists all.
# Everything is installed into .venv; pyproject.toml or constraints.txt newer than the stamp files
# there means installing again.

SHELL := /bin/sh
PYTHON_CHOICES := python3.13 python3.12 python3.11 python3 python
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/installed-core
DEV := $(VENV)/installed-dev
BENCH := $(VENV)/installed-bench
PYTEST := $(RUN)/python -m pytest $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help quickstart test check static format bench docs clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1#\2/p' Makefile | awk -F'#' '{printf "%-18s %s\n", $$1, $$2}'

quickstart: $(CORE) ## install, then train and try a small model
	$(RUN)/openllm quickstart

test: check ## everything that CI checks: `make check`, then the longer tests
	$(PYTEST) -m "integration and not slow"

check: static ## the static half and the fast tests; before each commit
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not integration" -n auto --maxprocesses 8

static: $(DEV) ## format, lint, types, rows, licence lines, dependency licences
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/pyrefly check --summary=none
	$(RUN)/lint-imports --no-logo --no-cache
	$(RUN)/python tools/check_spdx.py
	$(RUN)/python tools/check_licences.py

format: $(DEV) ## format the code and mend what the linter can mend
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

docs: $(DEV) ## write docs/cli.md and docs/api.md anew
	$(RUN)/python tools/cli_reference.py
	$(RUN)/python tools/api_reference.py

bench: $(BENCH) ## run every script in benchmarks/, which may take hours
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(RUN)/python "$$script"; done

clean: ## remove caches and build outputs; .venv and runs/ stay
	rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BENCH): $(CORE)
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[data,bench]'
	@touch $@

$(DEV): $(CORE)
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[data,export,hub,serve,dev]'
	@touch $@

$(CORE): pyproject.toml constraints.txt | $(RUN)/python
	@echo "installing OpenLLM into $(VENV) (torch is large; this takes a few minutes once)"
	$(PIP) install --quiet -c constraints.txt setuptools torch
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e .
	@touch $@

# A name on the path may be a shim of another version, or lack the parts that make a .venv.
$(RUN)/python:
	@for name in $(PYTHON_CHOICES); do \
	  if $$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$($$name --version)"; \
	    $$name -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "OpenLLM needs Python 3.11 or newer with the modules venv and ensurepip." >&2; \
	echo "None of these commands is one: $(PYTHON_CHOICES)" >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install" >&2; \
	echo "python; or from python.org) and repeat, or name yours: make PYTHON_CHOICES=/path/to/python" >&2; \
	exit 1
