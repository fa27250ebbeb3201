# `make` lists what there is. Every target needs what CONTRIBUTING installs; PYTHON names another
# interpreter.
PYTHON ?= python
SPHINX = $(PYTHON) -m sphinx -W --keep-going -n
# The oldest versions that pyproject.toml admits, for test-min.
MIN_VENV ?= .venv-min
# With a NumPy that the Triton of then knows.
MIN_VERSIONS = torch==2.6.0 torchvision==0.21.0 numpy==2.1.3

.DEFAULT_GOAL := help
.PHONY: help install check lint format types test test-slow test-fast test-min docs doctest dist bench gpu bench-faces studies ci clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Install the package for work on it
	$(PYTHON) -m pip install -e ".[examples]" --group dev

check: lint types ## Lint and check types

lint: ## Check style and spelling
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	codespell

format: ## Mend what can be mended by itself
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types: ## Check the types
	$(PYTHON) -m mypy

test: ## Run the tests but the slowest, with coverage, on all cores
	$(PYTHON) -m pytest -n auto --cov

test-slow: ## Run the slowest tests
	$(PYTHON) -m pytest -n auto --dist worksteal -m slow

test-fast: ## Run the tests but those that compile, start processes or take long
	$(PYTHON) -m pytest -n auto -m "not slow and not compile and not distributed"

test-min: ## Run all tests on the oldest supported torch, in an environment of its own
	$(PYTHON) -m venv $(MIN_VENV)
	$(MIN_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(MIN_VENV)/bin/python -m pip install --quiet -e ".[examples]" --group test $(MIN_VERSIONS)
	$(MIN_VENV)/bin/python -m pytest -n auto

docs: ## Build the documentation into docs/_build/html
	$(SPHINX) -b html docs docs/_build/html

doctest: ## Run the examples in the documentation
	$(SPHINX) -b doctest docs docs/_build/doctest

dist: ## Build and check the sdist and the wheel
	rm -rf dist
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*
	check-wheel-contents dist/*.whl

# So that they run where nothing has been installed.
bench gpu bench-faces studies: export PYTHONPATH := $(CURDIR):$(CURDIR)/examples:$(CURDIR)/tests:$(PYTHONPATH)

bench: ## Measure the head and its losses, what they add to a backbone, and the training
	$(PYTHON) -m benchmarks operators
	$(PYTHON) -m benchmarks whole-step
	$(PYTHON) -m benchmarks throughput

gpu: ## Check and measure everything on a GPU, in nine minutes (OUT=folder, ONLY=tests,operators,...)
	$(PYTHON) -m benchmarks gpu $(if $(OUT),--out $(OUT)) $(if $(ONLY),--only $(ONLY))

bench-faces: ## Train FDRL and its baseline on real faces (FERPLUS=folder of FER+; hours on a CPU)
	$(PYTHON) -m benchmarks real-faces --data $(or $(FERPLUS),$(error FERPLUS=folder is missing))

studies: ## Answer every question about FDRL on real faces (FERPLUS=folder of FER+; a day on a CPU)
	$(PYTHON) -m benchmarks.studies all --data $(or $(FERPLUS),$(error FERPLUS=folder is missing))

ci: ## Run what CI runs, in a fresh environment
	bash .ci/run

clean: ## Remove what was built
	rm -rf build dist docs/_build docs/_generated docs/tutorials .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
