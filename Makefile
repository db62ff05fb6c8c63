# Two commands do everything on a fresh machine: `make train` and `make test`. CONTRIBUTING.md has the rest.
# All paths are relative, so that the folder's own path may hold blanks.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: train test test-all lint types tests all-tests test-versions tools docs docs-serve format clean
.NOTPARALLEL:  # an installation must not change under a command that runs

train: corpus/train.idx
	$(BIN)/frontrunner train quickstart

test: lint types tests
test-all: lint types all-tests

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.test
	$(BIN)/mypy

# Three workers: one begins with the engine's ranks, one with whole runs, and one with Slurm, which mostly waits.
# tests/conftest.py says which tests stay together. `make test` leaves out those that are marked as long.
WORKERS ?= 3
PYTEST := $(BIN)/pytest --numprocesses=$(WORKERS) --dist=loadscope
tests: .venv/.test tools
	$(PYTEST) -m "not long"

all-tests: .venv/.test tools
	$(PYTEST)

# Every Python on the path, and the oldest and newest megatron-core. It takes long, and is no part of `make test-all`.
test-versions: .venv/.test
	$(BIN)/python tests/versions.py

# Some tests start ranks with OpenMPI, some a Slurm of four nodes; ip and tc make the network of the emulated
# cluster; Chromium shows reports. Where they are missing and cannot be installed, the tests that need them are
# skipped.
tools:
	@{ command -v mpirun && command -v ip && command -v tc && command -v sbatch && command -v munge && \
	  command -v chromium; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes openmpi-bin iproute2 slurm-wlm munge chromium \
	  </dev/null >/dev/null; } || \
	  echo "mpirun, ip, tc, Slurm or chromium is missing and was not installed: their tests are skipped"

# The site, in docs/site/index.html: built without the network; a link that leads nowhere is an error.
docs: docs/pages/reference
	cd docs && ../$(BIN)/zensical build --strict --config-file zensical.toml

docs-serve: docs/pages/reference
	cd docs && ../$(BIN)/zensical serve --config-file zensical.toml

# Always made again, because it follows from the code.
.PHONY: docs/pages/reference
docs/pages/reference: .venv/.docs
	cd docs && ../$(BIN)/python -m generator pages/reference

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-versions build dist corpus docs/site docs/.cache docs/pages/reference .mypy_cache .ruff_cache \
	  .pytest_cache .hypothesis *.egg-info

# Python's own standard library: text that every machine has, and that nobody here wrote. It is prepared
# again only when it is missing; `rm -r corpus` asks for that.
corpus/train.idx: | .venv/.train
	$(BIN)/frontrunner data prepare --input python-stdlib --output corpus/train --tokenizer train:2048

# torch is asked for by its exact version, because pip would otherwise prefer a newer CUDA build of some
# gigabytes; setuptools comes first, so that the build of this package uses the pinned one.
.venv/.train: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) setuptools $(TORCH)
	$(INSTALL) --no-build-isolation --editable '.[train]'
	touch $@

.venv/.test: .venv/.train
	$(INSTALL) --no-build-isolation --editable '.[train,tensorboard,analysis,sweep,docs,test]'
	touch $@

# The core and the site's generator: no torch.
.venv/.docs: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[docs]'
	touch $@
