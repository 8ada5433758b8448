# Everything starts here. `make help` lists the targets.
# The first that runs and is new enough: pyenv leaves commands on PATH that only say "command not found".
RIGHT  := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c '$(RIGHT)' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# One thread a test process: two processes with two threads each on two cores are three times slower.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format bench docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

setup: $(READY)  ## make .venv and install Tsugiki into it, with the pinned versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(RIGHT)' || { echo "Python 3.11 or 3.12 is needed; found: $$(python3 --version 2>&1)."; \
	  echo "Hint: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)  ## run recipes/demo-ja.yaml: crawl to adapted model to report, about five minutes
	$(BIN)/tsugiki run recipes/demo-ja.yaml

test: $(READY)  ## run the tests, but for those marked slow
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(READY)  ## run the slow ones: layouts of many processes, kills, whole runs
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

check: $(READY)  ## lint, format, types, import contracts, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/make_docs.py --check

format: $(READY)  ## mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure us against the peers; prints ratios
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(READY)  ## write docs/reference from the code
	$(BIN)/python scripts/make_docs.py

clean:  ## remove the environment, the runs and the caches
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
