# Every target does everything on a fresh machine: it makes .venv, installs, runs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROFILE ?= quick
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2

.PHONY: install reproduce notebooks docs test test-slow lint format clean help

help:
	@echo "make install     .venv with everything"
	@echo "make reproduce   Table 1, Figure 3 and memory from embedded data (PROFILE=quick|full)"
	@echo "make notebooks   execute the notebooks in place"
	@echo "make docs        the documentation as pages in site/"
	@echo "make test        the quick test suite, with branch coverage"
	@echo "make test-slow   the long proofs"
	@echo "make lint        ruff, mypy, import-linter"

# torch first: the pinned version has a CPU build, a range would take the newest CUDA one.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

install: $(READY)

reproduce: $(READY)
	$(BIN)/timesformer reproduce main --profile $(PROFILE)

notebooks: $(READY)
	$(BIN)/python -m timesformer_experiments.cli.notebooks

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(READY)
	$(PYTEST) -m "not slow" -n $(JOBS) --dist worksteal --cov --cov-report=term

test-slow: $(READY)
	$(PYTEST) -m slow -n $(JOBS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
