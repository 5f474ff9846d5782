# Every target works in an empty environment. A newer or other Python: make PYTHON=/path/to/python3 TARGET
# (after `make clean` where .venv exists already).
SHELL = /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
ARGS ?=

PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input

SEED ?= 1
JOURNAL ?= sqlite
MINUTES ?= 3
FAULTS = $(BIN)/python -m tests.fault.run --journal $(JOURNAL) --seed $(SEED) --minutes $(MINUTES) $(ARGS)

.PHONY: help venv demo test faults faults-long fuzz fuzz-commands audit sbom lint format docs bench bench-peers lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## Make .venv with everything, from the hash-pinned lock

demo: $(VENV)/.runtime ## Run the textbook program of multiprocessing queues on a manager and a worker on this host
	@$(BIN)/svc demo

# After a crash, pytest-xdist would start another process, and hang if files stay together.
test: $(VENV)/.dev ## Run the suite, without the few tests that take minutes (ARGS="-k journal -x" to choose)
	@$(BIN)/python -m pytest -m "not long" -n 3 --dist loadfile --max-worker-restart 0 $(ARGS)

test-long: $(VENV)/.dev ## Run the tests that take minutes and that `make test` leaves out
	@$(BIN)/python -m pytest -m long $(ARGS)

faults: $(VENV)/.dev ## Break a whole service on purpose for 3 minutes and check its promises (JOURNAL=jetstream|memory SEED=1 ARGS="--table FILE")
	@$(FAULTS)

faults-long: MINUTES = 30
faults-long: $(VENV)/.dev ## The same for longer (MINUTES=30 JOURNAL=jetstream SEED=1)
	@$(FAULTS)

fuzz: MINUTES = 10
fuzz: $(VENV)/.runtime ## Fuzz what the network reaches (MINUTES=10 SEED=1; installs atheris into .bench)
	@$(BIN)/python -m tests.fuzz.run --seed $(SEED) --minutes $(MINUTES) $(ARGS)

fuzz-commands: SECONDS = 60
fuzz-commands: $(VENV)/.runtime ## Fuzz the queue with typed commands alone (SECONDS=60 SEED=1)
	@$(BIN)/python -m tests.fuzz.commands --seed $(SEED) --seconds $(SECONDS) $(ARGS)

audit: $(VENV)/.runtime ## Ask a vulnerability database about the pinned packages (installs pip-audit into .bench)
	@$(BIN)/python -m tools.audit $(ARGS)

sbom: $(VENV)/.runtime ## Write what svc is made of to build/svc.cdx.json (CycloneDX)
	@$(BIN)/python -m tools.sbom

lint: $(VENV)/.dev ## Check style, format, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev ## Write the generated parts of docs/ from the code
	@$(BIN)/python -m tools.options
	@$(BIN)/python -m tools.commands > docs/commands.md
	@$(BIN)/python -m svc.telemetry.catalogue > docs/metrics.md
	@$(BIN)/python -m svc.telemetry.events > docs/events.md

bench: $(VENV)/.runtime ## Measure jobs/s and latency beside the standard library's pools (figures and a plot go to .bench)
	@mkdir -p .bench
	@$(BIN)/python -m benchmarks --output .bench/bench.json --plot .bench/bench.png $(ARGS)

bench-peers: $(VENV)/.runtime ## Measure it beside Celery, RQ, Dramatiq, Huey, TaskIQ, Dask, Ray and HyperQueue (installs them into .bench)
	@$(BIN)/python -m benchmarks.peers $(ARGS)

# uv writes one file for every supported Python and machine, which pip alone cannot.
lock: ## Write the lock files anew from pyproject.toml (ARGS=--upgrade for newest versions)
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	$(PYTHON) -m venv "$$dir"; \
	"$$dir/bin/python" -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION); \
	compile() { \
	  "$$dir/bin/uv" pip compile --quiet --system-certs --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS) \
	    "$$@"; \
	}; \
	own='pyproject.toml --all-extras --group build'; \
	compile $$own -c tools/locks/constraints.txt -o requirements.lock; \
	compile $$own -c requirements.lock --group test --group lint -o requirements-dev.lock; \
	compile pyproject.toml --all-extras -c requirements.lock tests/fuzz/locks/fuzz.in -o tests/fuzz/locks/fuzz.lock; \
	for tool in benchmarks/peers/locks/*.in tools/locks/*.in; do compile "$$tool" -o "$${tool%.in}.lock"; done; \
	if grep -n '://' requirements.lock requirements-dev.lock benchmarks/peers/locks/*.lock tests/fuzz/locks/*.lock \
	    tools/locks/*.lock; then \
	  echo 'make lock: a lock file names a download address (above)' >&2; exit 1; \
	fi

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) .bench .fuzz build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "svc needs Python 3.11 or newer: no '$(PYTHON)' here; install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "svc needs Python 3.11 or newer: '$(PYTHON)' is older; install a newer one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make environments: install its venv and ensurepip (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "making $(VENV) (first time only)" >&2
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made requirements.lock pyproject.toml
	@echo "installing requirements.lock, which takes a minute or so" >&2
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# The development lock holds the whole runtime lock, so one install serves both stamps.
$(VENV)/.dev: $(VENV)/.made requirements-dev.lock pyproject.toml
	@echo "installing requirements-dev.lock, which takes a minute or two" >&2
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $(VENV)/.runtime $@
