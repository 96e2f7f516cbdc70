# Two commands are enough on a fresh machine with Python 3.11 or 3.12 and make: `make demo` and `make test`.
# The environment is made once, in .venv, from the hashes in requirements.lock; a second run finds it ready.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Every pinned package has a wheel for these; with others pip would compile Redis for minutes, or fail without a compiler.
PYTHONS := python3.11 python3.12
PYTHON ?= $(or $(firstword $(foreach name,$(PYTHONS),$(shell command -v $(name)))),python3)
PEOPLE ?= 4000
EXIT ?=
DATA_DIR ?=
PYTEST_ARGS ?=
AUDIT_ARGS ?=
HOGS ?= 2
MINUTES ?= 60
SOAK_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TARGETS := serving pipelines
PACKAGES := infra feature_repo registry pipelines serving
# What holds for a person's shell must not leak into the tests. Hundreds of processes are started, so each must find the
# bytecode that the first has left.
CLEAN_ENV := env -u DAGSTER_HOME -u PYTHONPATH -u PYTHONDONTWRITEBYTECODE -u MAKEFLAGS -u MAKELEVEL

.PHONY: help demo up down test test-long test-busy images topology soak check types shape audit lock clean install format snapshot clients

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## People in, models trained and promoted, recommendations out; stays up (EXIT=1: ends; PEOPLE=4000)
	@$(BIN)/duet $(if $(DATA_DIR),--data-dir $(DATA_DIR)) demo --people $(PEOPLE) $(if $(filter-out 0,$(EXIT)),--exit)

up: $(STAMP) ## Start the whole platform on this machine and stay in the foreground
	@$(BIN)/duet up

down: $(STAMP) ## Stop the platform
	@$(BIN)/duet down

test: $(STAMP) ## Run the tests against real servers (PYTEST_ARGS='-k name' to choose)
	$(CLEAN_ENV) $(BIN)/python -m pytest -m 'not long' -n logical --dist loadfile --no-loadscope-reorder --durations 20 $(PYTEST_ARGS)

test-long: $(STAMP) ## Run the long variants that `make test` leaves out (PYTEST_ARGS='-k name' to choose)
	$(CLEAN_ENV) $(BIN)/python -m pytest -m long --durations 20 $(PYTEST_ARGS)

test-busy: $(STAMP) ## Run the tests twice while two other processes want the CPU (HOGS=2): no result may depend on it
	@trap 'kill $$(jobs -p)' EXIT; for _ in $$(seq $(HOGS)); do yes > /dev/null & done; \
		for _ in 1 2; do $(MAKE) test; done

images: $(STAMP) ## Build both images, run them, check what they hold and print their sizes (BASE_IMAGE=, CPU_NAME=)
	bash infra/docker/build.sh
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/images

topology: $(STAMP) ## Run infra/compose's services from Debian's packages and kill them in turn (root; about 15 min)
	$(CLEAN_ENV) $(BIN)/python -m pytest tests/topology

soak: $(STAMP) ## Let the same services work for an hour and see whether anything grows without end (root; MINUTES=60)
	@$(CLEAN_ENV) $(BIN)/python -m tests.topology.soak --minutes $(MINUTES) $(SOAK_ARGS)

check: $(STAMP) ## Lint, format, types, import contracts, lock, licences, secrets, bill of materials
	@$(MAKE) --jobs 2 --output-sync=target types shape

types: $(STAMP)
	$(BIN)/mypy

shape: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/hadolint infra/docker/Dockerfile
	$(CLEAN_ENV) $(BIN)/python -m pytest -q tests/architecture/test_lock.py
	$(BIN)/python .ci/supply_chain.py

audit: $(STAMP) ## Ask for known weaknesses of the locked packages; needs the network (AUDIT_ARGS='-s osv')
	$(BIN)/python .ci/supply_chain.py audit $(AUDIT_ARGS)

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# The locks of the images are parts of the whole: what stands in the output file already is what uv prefers.
COMPILE = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header
lock: $(STAMP) ## Resolve pyproject.toml again, with hashes: requirements.lock, and infra/docker/*.lock for the images
	$(COMPILE) --group dev --all-extras --upgrade --output-file requirements.lock
	for target in $(TARGETS); do cp requirements.lock infra/docker/$$target.lock; done
	$(COMPILE) --output-file infra/docker/serving.lock
	$(COMPILE) --extra pipelines --extra s3 --output-file infra/docker/pipelines.lock

clients: $(STAMP) ## Build what apps call the HTTP API with, into build/clients: a wheel, and an npm package where node is
	@$(BIN)/python -m serving.clients.build build/clients

snapshot: $(STAMP) ## Take what was added to the HTTP API into the snapshot of v1; refused where a client would break
	@$(BIN)/python -m serving.clients.snapshot

install: $(STAMP) ## Create the environment in .venv

# The stamp comes last: an interrupted installation is done again.
$(STAMP): requirements.lock pyproject.toml .ci/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "error: $(PYTHON) is not Python 3.11 or 3.12, for which all packages have wheels;" \
			"install one of them and run make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/uv || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r .ci/bootstrap.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock .ci/bootstrap.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m serving.warm_up
	@touch $@

clean: ## Delete the environment and caches; data under .duet stays
	rm -rf $(VENV) build ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests -type d -name __pycache__ -prune -exec rm -rf {} +
