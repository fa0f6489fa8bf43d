# Two commands: `make demo` shows what TransferKit does, `make test` shows that it does it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench check format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## Make .venv with TransferKit in it

demo: setup ## Compare six ways to adapt a small encoder to film reviews; writes runs/demo/
	$(BIN)/transferkit compare --out runs/demo

test: $(VENV)/.installed-test ## Run the tests
	$(BIN)/pytest -q -n 2

test-slow: $(VENV)/.installed-test ## Run the tests that take minutes, such as the published targets
	$(BIN)/pytest -q -m slow

bench: $(VENV)/.installed-test ## Measure every claim of speed beside its peer on this kind of machine; takes some five hours
	for strategy in lora full bottleneck linear-probe partial; do \
	  $(BIN)/python -m benchmarks.finetune --strategy $$strategy > /dev/null || exit 1; done
	$(BIN)/python -m benchmarks.grid > /dev/null
	for data in "pairs" "reviews" "pairs --int8"; do $(BIN)/python -m benchmarks.inference --data $$data > /dev/null || exit 1; done
	for script in decoding translation_training translation_quality latency cold_start "cold_start --strategy lora" scale; do $(BIN)/python -m benchmarks.$$script > /dev/null || exit 1; done
	$(BIN)/python -m benchmarks.results_table

check: $(VENV)/.installed-test ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test ## Format the code and mend what lint can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("TransferKit needs Python 3.11 or later; name one, as in: make demo PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The stamps make a second call install nothing, and a changed dependency install again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) --editable ".[test]"
	touch $(VENV)/.installed $@
