# Needs only make and a Python from 3.11 on with venv. `make help` lists what
# there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

# A python3.12 on the PATH may be a stub that only says it isn't there, and a
# Debian python3 may be without venv: each candidate is asked. The versions that Nova
# supports come first.
PYTHON ?= $(shell for candidate in \
	python3.11 python3.12 python3.13 python3 python3.14 python3.15; do \
	"$$candidate" -c 'import ensurepip, sys, venv; \
	sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$candidate"; break; }; done)

VENV := .venv
CORE_VENV := .venv-core
BIN := $(VENV)/bin/python
CORE_BIN := $(CORE_VENV)/bin/python
STACK_VENV := .venv-stack
STACK_BIN := $(STACK_VENV)/bin/python
STAMP := $(VENV)/.done
CORE_STAMP := $(CORE_VENV)/.done
STACK_STAMP := $(STACK_VENV)/.done
EXTRAS := test,browser,demo,simulate,monitor,experiment,docs,lint

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PYTHONUNBUFFERED := 1

# pbr takes the version from git. In an unpacked archive there is none.
ifeq ($(wildcard .git PKG-INFO),)
export PBR_VERSION ?= 0.0.1
endif

# Tests run side by side, in as many processes as there are CPUs;
# ARGS='-n 0' has them in one, as a debugger needs it.
PYTEST := -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup

# With their commas these can't be written in a call.
SLOW := about a minute, once
QUICK := a few seconds, once

# $(call venv,FOLDER,WHAT pip installs,HOW LONG IT TAKES)
define venv
if [ -z "$(PYTHON)" ]; then
	echo "No Python from 3.11 on with the venv module was found." >&2
	echo "Debian, Ubuntu: apt-get install python3-venv" >&2
	exit 1
fi
echo "Setting up $(1) with $$($(PYTHON) --version) ($(3))…"
if ! { "$(1)/bin/python" -c 'import pip' >/dev/null 2>&1 \
		|| "$(PYTHON)" -m venv --clear "$(1)"; } >$(1).log 2>&1 \
	|| ! "$(1)/bin/python" -m pip install -c constraints.txt $(2) \
		>>$(1).log 2>&1; then
	tail -n 25 $(1).log >&2
	echo "Setting up $(1) failed; all of the output is in $(1).log" >&2
	exit 1
fi
rm -f $(1).log
touch $(1)/.done
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): pyproject.toml setup.cfg setup.py constraints.txt
	@$(call venv,$(VENV),-e '.[$(EXTRAS)]',$(SLOW))

$(CORE_STAMP): constraints.txt
	@$(call venv,$(CORE_VENV),pytest pytest-cov pytest-xdist hypothesis,$(QUICK))

$(STACK_STAMP): tests/stack/requirements.txt constraints.txt
	@$(call venv,$(STACK_VENV),-r tests/stack/requirements.txt,$(SLOW))

.PHONY: venv
venv: $(STAMP) ## set up .venv, with Nova and all tools

.PHONY: demo
demo: $(STAMP) ## boot guests in a real Nova; ARGS=FILE takes a scenario
	@$(BIN) -m tools.demo $(ARGS)

.PHONY: test
test: test-core test-nova ## all tests
	@$(MAKE) --no-print-directory test-ours

# Their own environment proves that core needs no Nova.
.PHONY: test-core
test-core: $(CORE_STAMP) ## unit tests of core, without Nova
	@echo "== Unit tests of core, in an environment without Nova"
	$(CORE_BIN) $(PYTEST) -p no:cacheprovider -q tests/unit/core \
		--cov=nova_numa_hugepages/core --cov-branch --cov-fail-under=95

.PHONY: test-nova
test-nova: $(STAMP) ## Nova's own tests, with our fit and driver; ARGS=--nightly for all
	@echo "== Nova's own tests, with our fit and driver"
	$(BIN) -m tests.nova_own $(ARGS)

.PHONY: test-ours
test-ours: $(STAMP) ## unit and functional tests, but for those of core
	@echo "== Unit and functional tests"
	$(BIN) $(PYTEST) --durations=5 --ignore=tests/unit/core tests/unit \
		tests/functional $(ARGS)

# They need root, and Debian or Ubuntu, for real page pools, libvirt and QEMU.
.PHONY: test-host
test-host: $(STAMP) ## tests on real kernels, here and on a virtual host with four nodes
	@$(BIN) -m tests.host.rig
	$(BIN) -m pytest -v --durations=5 -m 'not nightly' tests/host $(ARGS)

.PHONY: test-nightly
test-nightly: $(STAMP) ## those that take longer: Nova there, live migration, 1 GiB pages, devices, more examples
	@$(BIN) -m tests.host.rig nightly
	$(BIN) -m tests.nova_own --nightly
	HYPOTHESIS_PROFILE=nightly $(BIN) $(PYTEST) --durations=5 -m hypothesis \
		tests/unit
	$(BIN) -m pytest -v --durations=5 -m nightly tests/host $(ARGS)

# They need what test-host needs, and 12 GiB of memory.
.PHONY: test-stack
test-stack: $(STACK_STAMP) ## tests on a whole cloud, with virtual compute hosts
	@$(STACK_BIN) -m tests.stack install
	$(STACK_BIN) -m pytest -v -p no:cacheprovider tests/stack $(ARGS)

.PHONY: test-stack-smoke
test-stack-smoke: $(STACK_STAMP) ## some of these, in a third of the time
	@$(STACK_BIN) -m tests.stack install
	$(STACK_BIN) -m pytest -v -p no:cacheprovider -m smoke tests/stack $(ARGS)

.PHONY: test-tempest
test-tempest: $(STACK_STAMP) ## tempest on that cloud; ARGS takes a regular expression
	@$(STACK_BIN) -m tests.stack.tempest_run $(ARGS)

.PHONY: stack-up
stack-up: $(STACK_STAMP) ## bring that cloud up and leave it there
	@$(STACK_BIN) -m tests.stack up

.PHONY: stack-status
stack-status: $(STACK_STAMP) ## what of it is up, and how to use it
	@$(STACK_BIN) -m tests.stack status || true

.PHONY: stack-down
stack-down: $(STACK_STAMP) ## end it
	@$(STACK_BIN) -m tests.stack down

.PHONY: bench
bench: $(STAMP) ## compare with stock Nova; ARGS=--write puts the tables into the documents
	@$(BIN) -m benchmarks $(ARGS)

.PHONY: bench-spawn
bench-spawn: $(STACK_STAMP) ## time of a spawn on that cloud, ours and stock Nova's
	@$(STACK_BIN) -m benchmarks.spawning

.PHONY: bench-elastic
bench-elastic: $(STAMP) ## what lending and pages made ready bring, replayed
	@$(BIN) -m benchmarks.elastic

.PHONY: bench-monitor
bench-monitor: $(STAMP) ## what the monitor costs with 60 guests; needs root
	@$(BIN) -m benchmarks.watching

.PHONY: lint
lint: $(STAMP) ## ruff, hacking, imports and mypy
	@$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m flake8
	$(BIN) -m tools.circles
	$(BIN) -m mypy

.PHONY: format
format: $(STAMP) ## rewrite the sources as ruff formats them
	@$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

.PHONY: docs
docs: $(STAMP) ## the documentation, in doc/build/html
	@$(BIN) -m sphinx -q -a -E -W --keep-going -d doc/build/doctrees \
		-b html doc/source doc/build/html
	echo "The documentation is in doc/build/html/index.html"

.PHONY: man
man: $(STAMP) ## the manual pages of the commands, in doc/build/man
	@$(BIN) -m sphinx -q -a -E -W --keep-going -d doc/build/doctrees-man \
		-b man doc/source doc/build/man
	echo "See them with: man -l doc/build/man/nova-numa-hugepages-host.1"

.PHONY: releasenotes
releasenotes: $(STAMP) ## check the release notes and build them
	@$(VENV)/bin/reno -q lint
	$(BIN) -m sphinx -q -a -E -W --keep-going -d releasenotes/build/doctrees \
		-b html releasenotes/source releasenotes/build/html
	echo "The release notes are in releasenotes/build/html/index.html"

.PHONY: genconfig
genconfig: $(STAMP) ## write the sample configuration file and the table of metrics
	@$(BIN) -m oslo_config.generator --config-file \
		etc/nova-numa-hugepages/nova-numa-hugepages-config-generator.conf
	$(BIN) -m tools.metrics >doc/source/reference/metrics.inc

.PHONY: clean
clean: ## remove everything that was made here
	@rm -rf $(VENV) $(CORE_VENV) $(STACK_VENV) $(VENV).log \
		$(CORE_VENV).log $(STACK_VENV).log build dist \
		*.egg-info AUTHORS ChangeLog .coverage .coverage.* cover .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache .stestr .tox doc/build \
		releasenotes/build releasenotes/notes/reno.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
