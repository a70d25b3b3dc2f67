# Every target works on a fresh checkout; `make` lists them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
INVENTORY ?= inventories/home.py
DEPLOY ?= deploys/site.py
SERVERS ?= 3
AGENTS ?= 2
LAB := inventories/lab.py

# Some build machines forbid Python to keep what it compiles: each run would compile all anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup plan apply drift status doctor versions secrets images hooks kubeconfig demo lab lab-down \
	test test-fast test-lab lint bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.ready  ## make the Python environment in .venv

$(VENV)/.ready: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || \
		{ echo "python3-venv is needed: apt-get install python3-venv"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

plan: setup  ## what would change on INVENTORY
	@$(BIN)/python -m commands.plan $(INVENTORY) $(DEPLOY)

apply: setup  ## change it
	@$(BIN)/python -m commands.apply $(INVENTORY) $(DEPLOY)

drift: setup  ## say whether anything differs (python -m commands.drift exits 0, 2 or 1)
	@$(BIN)/python -m commands.drift $(INVENTORY) $(DEPLOY)

status: setup  ## nodes, versions, certificates, migrations
	@$(BIN)/python -m commands.status $(INVENTORY)

doctor: setup  ## what is wrong with the hosts, and what to do (OPTIONS="--html doctor.html")
	@$(BIN)/python -m commands.doctor $(INVENTORY) $(OPTIONS)

versions: setup  ## charts: pinned, installed, fitting, retired
	@$(BIN)/python -m commands.versions $(INVENTORY)

secrets: setup hooks  ## make the age key and fill in missing secrets of INVENTORY
	@$(BIN)/python -m commands.secrets $(INVENTORY)

images: setup  ## write to build/images what first boots of HOSTS need (ERASE=host)
	@$(BIN)/python -m commands.images $(INVENTORY) $(HOSTS) $(addprefix --erase ,$(ERASE))

hooks: setup  ## refuse commits with plaintext secrets
	@hooks=$$(git config core.hooksPath); \
	if ! git rev-parse --git-dir > /dev/null 2>&1; then :; \
	elif [ -z "$$hooks" ]; then git config core.hooksPath githooks; \
	elif [ "$$hooks" != githooks ]; then \
		echo "your Git hooks are in $$hooks: call githooks/pre-commit from there"; fi

kubeconfig: setup  ## enter INVENTORY into your ~/.kube/config
	@$(BIN)/pyinfra $(INVENTORY) deploys/kubeconfig.py -y

demo: lab  ## build a highly available K3s cluster on Docker hosts
	@$(BIN)/pyinfra $(LAB) deploys/site.py -y
	@echo; echo "A second run:"; echo
	@$(BIN)/pyinfra $(LAB) deploys/site.py -y
	@$(BIN)/python -m commands.status $(LAB)

lab: setup  ## start SERVERS and AGENTS as Docker hosts
	@$(BIN)/python -m tests.lab up --servers $(SERVERS) --agents $(AGENTS)

lab-down: setup  ## remove the lab's hosts and network (clean: all of it)
	@$(BIN)/python -m tests.lab down

test: setup  ## all tests
	@$(BIN)/python -m tests.lab.prepare $(MAKE) --no-print-directory lint test-fast test-lab

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test-fast: setup  ## tests without hosts: units, plans, contracts
	@$(BIN)/python -m tests.fast

test-lab: setup  ## tests on Docker hosts, and with a virtual machine
	@$(BIN)/python -m tests.lab.run_all

bench: lab  ## measure; figures go to build/bench.json
	@$(BIN)/python -m tests.bench

clean: setup  ## remove the lab, its images and builds
	@$(BIN)/python -m tests.lab down --all
	@rm -rf build
