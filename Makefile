# All commands of this repository, for developers and CI. Each command first installs what it needs.
.PHONY: run test test-long test-engine test-protobuf coverage check fix docs bench bench-quick setup lock
VENV := .venv/bin
# Test processes that run at the same time: more than cores, because most tests wait for servers and timers.
WORKERS ?= 4
# Tests run in random order. The first lines of a run print its seed: `make test SEED=…` repeats that order.
SEED ?=
# A test that exceeds its timeout ends its worker and the run: a new worker would start the same module again.
PARALLEL = --numprocesses $(WORKERS) --max-worker-restart 0 --durations 25 $(if $(SEED),--randomly-seed=$(SEED))

run: setup              ## serve the demo on the embedded engine
	$(VENV)/beaconfire serve --config demo.toml

test: services check    ## lint, types, and all tests
	$(VENV)/python -m pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder

test-long: test-protobuf ## the simulation, fuzz and engine tests with many more rounds than `make test`: takes a night
	SIMULATION_SEEDS=20000 BEACONFIRE_FUZZ_ROUNDS=100000 CHURN_CHANNELS=1000000 KILLS=200 $(VENV)/python -m pytest \
	  $(PARALLEL) --dist load --timeout 3600 \
	  tests/simulation tests/fuzz tests/acceptance/test_million_channels.py tests/acceptance/disk/test_kill.py
	$(MAKE) test-engine

test-engine: setup      ## 1,000 clients on an engine that is slow, fails, hangs and loses its link: prints what happened
	HOSTILE_CLIENTS=1000 HOSTILE_SECONDS=60 HOSTILE_HANG_SECONDS=10 HOSTILE_CHANNELS=20000 \
	  $(VENV)/python -m pytest -s -p no:randomly --timeout 3600 tests/acceptance/hostile_engine

# The oldest version of the range in pyproject.toml, one of the next major version, and the newest. Each is installed into
# a folder that precedes the environment on the path.
PROTOBUF_VERSIONS ?= 5.29.0 6.33.5 7.36.2
test-protobuf: setup    ## tests of the codecs, with the oldest and newest supported versions of protobuf
	@for version in $(PROTOBUF_VERSIONS); do scripts/test_protobuf $$version || exit 1; done

# 1,000 seeds suffice here: more of them reach no further branch.
coverage: setup         ## branch coverage of the modules that pyproject.toml lists; fails below 100 %
	SIMULATION_SEEDS=1000 $(VENV)/python -m pytest $(PARALLEL) --dist loadfile --cov --cov-report=term \
	  tests/unit tests/conformance/codecs tests/simulation

check: setup            ## formatting, lint, types
	$(VENV)/ruff format --check
	$(VENV)/ruff check
	$(VENV)/mypy

fix: setup              ## format, and fix what ruff can fix
	$(VENV)/ruff format
	$(VENV)/ruff check --fix

docs: setup             ## regenerate the reference pages from the tables
	$(VENV)/python -m scripts.docs

bench: services         ## the whole benchmark, with other servers, which it installs: 40 minutes on an idle machine
	$(VENV)/python -m bench

bench-quick: services   ## fewer servers and scenarios, in three minutes
	$(VENV)/python -m bench --quick

lock: setup             ## refresh requirements/*.lock from pyproject.toml
	scripts/lock

setup:                  ## Python environment, locked
	@scripts/setup

.PHONY: services
services: setup         ## programs that the tests use: Chromium, client libraries, proxies
	@scripts/services
