# The commands of this project. `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# pip knows the index that a machine is configured with; uv takes a tenth of its time (INSTALLER=uv).
INSTALLER ?= pip

.PHONY: demo test lint lock install docs bench clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 demo"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(INSTALLER),uv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --compile-bytecode -r requirements.lock
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install  ## the whole chain over the sandbox, then the Dagster UI (ARGS=--no-ui to end instead)
	$(BIN)/flux demo $(ARGS)

# Compiled modules are kept: the tests start hundreds of processes.
test: export PYTHONDONTWRITEBYTECODE =
test: install  ## every test (ARGS="-k name" to choose)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock:  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	echo uv | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet -o requirements-uv.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet -o requirements.lock
	$(BIN)/uv pip compile deploy/forecaster/requirements.in --constraint requirements.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet -o deploy/forecaster/requirements.lock

docs: install  ## write docs/data-dictionary.md from the table contracts
	$(BIN)/python -m flux_pipelines.domain.dictionary > docs/data-dictionary.md

bench: install  ## benchmarks beside peers; prints ratios (see benchmarks/README.md)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .flux
