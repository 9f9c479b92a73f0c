# make up     the whole line on this machine, with the demonstration plant, at http://127.0.0.1:8480
# make test   installs what the tests need and runs them
# make lint   ruff, mypy, import-linter
# make test-long   what takes minutes: the log against its model, alerting killed at every step, soak, chaos
# make soak   the edge under random faults for SOAK_MINUTES (30), with its figures; SOAK_SEED draws the same faults again
# make chaos  the whole line under CHAOS_KILLS (200) random kills and cuts, and whether anything was lost or doubled;
#             CHAOS_SEED draws the same faults again, CHAOS_ARGS=--embedded takes the embedded log and PostgreSQL
# make bench  the benchmarks; results go into docs/benchmarks.md by hand

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UP_ARGS ?=
TEST_ARGS ?=
SOAK_MINUTES ?= 30
SOAK_SEED ?=
CHAOS_KILLS ?= 200
CHAOS_SEED ?=
CHAOS_ARGS ?=
# one a core; each has its own brokers and databases
TEST_WORKERS ?= 2

.PHONY: up test test-long soak chaos lint bench parts schemas clean

up: $(VENV)/.installed
	@exec $(BIN)/vigil up $(UP_ARGS)

test: $(VENV)/.installed-dev parts lint
	$(BIN)/python -m pytest -m "not long" -n $(TEST_WORKERS) --dist loadfile $(TEST_ARGS)

test-long: $(VENV)/.installed-dev parts
	$(BIN)/python -m pytest -m long --timeout 3600 $(TEST_ARGS)

soak: $(VENV)/.installed-dev parts
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

chaos: $(VENV)/.installed-dev parts
	$(BIN)/python -m tests.chaos --kills $(CHAOS_KILLS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# Real parts of the tests that pip does not have: mosquitto, a JRE, Maven, Node, Chromium, libmodbus. As root on Debian or Ubuntu
# only; elsewhere the tests say at their end what was missing.
parts:
	@sh tests/install-parts.sh

schemas: $(VENV)/.installed-dev
	$(BIN)/python -m telemetry.schemas docs/schemas

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Vigil needs Python 3.11 or newer: apt install python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Vigil needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V`. Give another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[line]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist
