# `make` lists the targets. Everything runs in .venv, which is set up once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
.DEFAULT_GOAL := help
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs --durations=10
.PHONY: help setup demo test test-slow test-all notebooks mutants docs lint format bench wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.done: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.done ## make .venv and install the package with its development tools

demo: setup ## from nothing to a trained, scored network: synthesize, train, evaluate, report
	$(BIN)/qefpn train experiment=demo data.root=$(DEMO)/data hydra.run.dir=$(DEMO)/run

test: setup ## the tests that take seconds
	$(PYTEST) -n 2 --dist worksteal -m 'not slow'

test-slow: setup ## the tests that take longer
	$(PYTEST) -n 2 --dist worksteal -m slow --ignore tests/slurm
	$(PYTEST) tests/slurm # alone: its jobs need the cores

test-all: setup ## all tests, the slow ones too
	$(PYTEST) -n 2 --dist worksteal --ignore tests/slurm
	$(PYTEST) tests/slurm

notebooks: setup ## run the notebooks and check what comes out
	$(PYTEST) tests/project/test_notebooks.py

mutants: setup ## put small faults into the core and count those that its tests notice (SUITES="sampler schedule")
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python -m tests.mutation.run $(SUITES)

docs: setup ## the documentation as a site, docs/_build/index.html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going docs docs/_build

lint: setup ## ruff, mypy and the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## let ruff format and fix the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup ## the benchmarks, as ratios measured side by side
	@for script in implicit metrics unet; do echo "== benchmarks/$$script.py"; $(BIN)/python benchmarks/$$script.py; done

wheel: setup ## build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what was built, the demo and .venv
	rm -rf $(VENV) build dist docs/_build docs/generated $(DEMO) src/*.egg-info .mypy_cache .ruff_cache .import_linter_cache
