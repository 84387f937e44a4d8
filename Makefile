# make demo   the whole way on scikit-learn's digits
# make test   everything a change must pass: ruff, mypy, pytest
# Both work on a fresh clone; a virtual environment is made in .venv when it is needed. pip's own settings apply
# (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...): for torch without CUDA, for instance.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-distill
TEST_STAMP := $(VENV)/.installed-distill-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint clean

help:
	@sed -n 's/^# //p' Makefile

demo: $(DEMO_STAMP)
	$(BIN)/edgedd demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

lint: $(TEST_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python benchmarks/tables.py --check

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "edgedd needs Python 3.11 or newer: make PYTHON=python3.12, or install one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[distill]'
	@touch $@

$(TEST_STAMP): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[distill,dev]'
	@touch $@ $(DEMO_STAMP)
