# Each target does its own set-up: a virtual environment in .venv and, where they are missing and
# root or sudo is there, the Debian packages that the tests and the demo start.
.DEFAULT_GOAL := help
.PHONY: help setup lint test test-arm test-faults demo clean

PYTHON = .venv/bin/python
STAMP = .venv/.ready

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): scripts/setup.sh pyproject.toml constraints/workstation.txt
	scripts/setup.sh

setup: $(STAMP) ## Install everything (about 2.5 GB, a few minutes the first time)

lint: setup ## Formatting, lint, types and walls
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

test: lint ## All checks and tests (at most 15 minutes with set-up)
	$(PYTHON) -m pytest -m "not arm" --numprocesses 2 --dist loadfile

test-arm: setup ## Replay a bundle on emulated ARM gateways (minutes; about 1 GB in build/arm)
	$(PYTHON) -m pytest tests/arm

test-faults: setup ## Every fault at every step of an update, not only the seeded tenth
	EDGE_TSAD_ALL_FAULTS=1 $(PYTHON) -m pytest tests/bridge/test_faults.py tests/bridge/test_crashes.py

demo: setup ## Train, export, run and alert on real data; results in build/demo
	.venv/bin/edge-tsad demo --out build/demo

clean: ## Remove what the targets above made
	rm -rf .venv build dist
