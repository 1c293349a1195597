# The commands of this project. `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# pip knows the index that a machine is configured with; uv takes a tenth of its time (INSTALLER=uv).
INSTALLER ?= pip

.PHONY: demo test test-long lint lock install install-dev docs bench clean

install: $(VENV)/.installed  ## what the product needs, and the demo
install-dev: $(VENV)/.installed-dev  ## what its development needs besides

$(VENV)/.installed: requirements.lock requirements-uv.lock pyproject.toml
	$(call install_locked,requirements.lock)
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock requirements-uv.lock pyproject.toml
	$(call install_locked,requirements-dev.lock)
	touch $(VENV)/.installed $@

define install_locked
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 demo"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(filter uv,$(INSTALLER)),$(UV_INSTALL) $(1),$(PIP_INSTALL) --no-deps --require-hashes -r $(1))
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
endef
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_INSTALL := $(PIP_INSTALL) --no-deps --require-hashes -r requirements-uv.lock && \
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r

demo: install  ## the whole chain over the sandbox, then the Dagster UI (ARGS=--no-ui to end instead)
	$(BIN)/flux demo $(ARGS)

# Compiled modules are kept: the tests start hundreds of processes. Temporary folders are in memory where it has room, so
# that nothing waits for a disk.
TMPDIR ?= $(shell df -k --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 8000000 { print "/dev/shm" }')
test test-long: export PYTHONDONTWRITEBYTECODE =
test test-long: export TMPDIR := $(TMPDIR)
test: install-dev  ## every test but the long ones (ARGS="-k name" to choose)
	$(PYTEST) -m "not long" $(ARGS)

test-long: install-dev  ## those that kill processes, run servers for minutes or cover long ranges
	$(PYTEST) -m long $(ARGS) $$(grep -rlE "mark[.]long" --include="test_*.py" flux_pipelines_tests)

PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: install-dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

lock:  ## resolve the lock files anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	echo uv | $(COMPILE) - -o requirements-uv.lock
	$(COMPILE) pyproject.toml --extra dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml --extra build --extra sandbox --constraint requirements-dev.lock -o requirements.lock
	$(COMPILE) deploy/forecaster/requirements.in --constraint requirements.lock -o deploy/forecaster/requirements.lock

docs: install-dev  ## write docs/data-dictionary.md from the table contracts, and CONTRIBUTING's table of the house
	$(BIN)/python -m flux_pipelines.domain.dictionary > docs/data-dictionary.md
	$(BIN)/python -m flux_pipelines_tests.house

bench: install-dev  ## benchmarks beside peers; prints ratios (see benchmarks/README.md)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .flux
