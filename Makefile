# Everything a person or CI does with this repository. Each verb sets up what it needs first.
.PHONY: run test test-long test-protobuf coverage check fix docs bench bench-quick setup lock
VENV := .venv/bin
# How many test processes run at the same time: more than cores, because most tests wait for servers and clocks.
WORKERS ?= 4
# Tests run in random order. The first lines of a run print its seed: `make test SEED=…` repeats that order.
SEED ?=
# A test beyond its timeout ends its worker, and the run with it: a new worker would begin the same module again.
PARALLEL = --numprocesses $(WORKERS) --max-worker-restart 0 --durations 25 $(if $(SEED),--randomly-seed=$(SEED))

run: setup              ## serve the demo on the embedded engine
	$(VENV)/beaconfire serve --config demo.toml

test: services check    ## everything: lint, types, and every layer of tests
	$(VENV)/python -m pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder

test-long: test-protobuf ## tests that take rounds, with many more of them than `make test`: for a night
	SIMULATION_SEEDS=100000 BEACONFIRE_FUZZ_ROUNDS=100000 CHURN_CHANNELS=1000000 $(VENV)/python -m pytest \
	  $(PARALLEL) --dist load --timeout 3600 \
	  tests/simulation tests/fuzz tests/acceptance/test_million_channels.py

# The oldest version of the range in pyproject.toml, one of each later major version, and the newest of all. Each is
# installed into a folder that precedes the environment on the path.
PROTOBUF_VERSIONS ?= 5.29.0 6.33.5 7.36.2
test-protobuf: setup    ## tests of the codecs with each version of protobuf that applications may bring
	@for version in $(PROTOBUF_VERSIONS); do scripts/test_protobuf $$version || exit 1; done

# With few seeds: the simulation reaches nearly every branch with the first hundred.
coverage: setup         ## fails unless tests run every branch of the pure rules, which pyproject.toml lists
	SIMULATION_SEEDS=1000 $(VENV)/python -m pytest $(PARALLEL) --dist loadfile --cov --cov-report=term \
	  tests/unit tests/conformance/codecs tests/simulation

check: setup            ## formatting, lint, types
	$(VENV)/ruff format --check
	$(VENV)/ruff check
	$(VENV)/mypy

fix: setup              ## format, and mend what lint can mend
	$(VENV)/ruff format
	$(VENV)/ruff check --fix

docs: setup             ## regenerate the reference pages from the tables
	$(VENV)/python -m scripts.docs

bench: services         ## the whole benchmark beside its peers, which it installs: 40 minutes on an idle machine
	$(VENV)/python -m bench

bench-quick: services   ## fewer peers and scenarios, in three minutes
	$(VENV)/python -m bench --quick

lock: setup             ## refresh requirements/*.lock from pyproject.toml
	scripts/lock

setup:                  ## Python environment, locked
	@scripts/setup

.PHONY: services
services: setup         ## what the tests talk to: Chromium and the npm clients
	@scripts/services
