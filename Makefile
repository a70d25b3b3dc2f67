# Every target works on a fresh checkout; `make` lists them.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INVENTORY ?= inventories/home.py

.DEFAULT_GOAL := help
.PHONY: help setup

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## the Python environment in .venv

$(VENV)/.ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	@touch $@
