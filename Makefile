# Everything from a fresh checkout with only Python 3.11 or newer: each target sets up what it needs.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help install demo test faults histories soak lint types check bench clean lock schema shots

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */\1	/' | awk -F '\t' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(VENV)/.dev ## set up .venv with everything, for development

demo: $(VENV)/.run ## watch the program do its whole job with invented people
	@$(BIN)/dripwell demo $(DEMO)

test: $(VENV)/.dev ## run every test
	@$(BIN)/python -m pytest -n $(or $(JOBS),auto) --dist worksteal $(TESTS)

faults: $(VENV)/.dev ## break everything at every point: the whole matrix and a short soak, under 20 minutes
	@$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile -m "matrix or not matrix" $(or $(TESTS),tests/faults tests/integration/test_machine.py)

soak: $(VENV)/.dev ## MINUTES=10 [SEED=7] [PEOPLE=7500]: kill, cut and mislead it at random, then judge
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(PEOPLE),--people $(PEOPLE))

histories: $(VENV)/.dev ## [COUNT=10000] [SEED=7]: invented people who ask, leave, come back and are erased, then judge
	@$(BIN)/python -m tests.faults.histories --count $(or $(COUNT),10000) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.dev ## style, import rule, and the campaigns themselves
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/dripwell schema --check && $(BIN)/dripwell lint

types: $(VENV)/.dev ## strict types
	@$(BIN)/mypy

check: lint types test ## all of the above

bench: $(VENV)/.dev ## [BENCH=--quick]: measure every figure, write benchmarks/RESULTS.md (two hours; --quick: minutes, writes nothing)
	@$(BIN)/python benchmarks/run.py $(BENCH)

shots: $(VENV)/.dev ## draw the pictures of docs/images again
	@$(BIN)/python docs/images/draw.py

schema: $(VENV)/.run ## write config/schema/ from the models
	@$(BIN)/dripwell schema

lock: ## pin every dependency again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --upgrade --extra embedded --extra build pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --upgrade --extra embedded --extra build --extra dev -c requirements.lock \
	  pyproject.toml -o requirements-dev.lock

clean: ## remove what was set up and built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV) (once, under a minute) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "adding the tools for tests …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
