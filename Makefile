# What people type. All set-up happens here and is done again only when what it was made from has changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
# Passed on to pytest: make test ARGS="-k destroy"
ARGS ?=

BIN := .venv/bin
PROTOS := $(wildcard proto/nightos/sysproc/v1/*.proto)
NATIVE := sysproc/isolation/native
PACKAGING := pyproject.toml hatch_build.py clients/python/pyproject.toml clients/python/hatch_build.py \
             clients/python/src/sysproc_client/version.py

.PHONY: help setup stubs native demo demo-tree test test-vm lint man bench bench-compare bench-page clean clean-vm

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed stubs native  ## everything that is needed to run from this clone (apt packages as root)

.venv/.installed: $(PACKAGING) scripts/install-packages
	scripts/install-packages build
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip --disable-pip-version-check --quiet install -e clients/python -e '.[dev]'
	touch $@ .venv/.stubs

stubs: .venv/.stubs  ## the generated packages below nightos, from proto/
.venv/.stubs: $(PROTOS) | .venv/.installed
	cd clients/python && ../../$(BIN)/hatchling build --target wheel --hooks-only
	touch $@

native: $(NATIVE)/sysproc-native  ## the static C program
$(NATIVE)/sysproc-native: $(wildcard $(NATIVE)/*.c $(NATIVE)/*.h $(NATIVE)/*.py) | .venv/.installed
	$(BIN)/hatchling build --target wheel --hooks-only
	touch $@

demo: setup  ## create, use and destroy real containers (root)
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

demo-tree: setup  ## a program inside a container makes, limits and uses containers of its own (root)
	scripts/install-packages test
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/tree.sh

.PHONY: docs cast
docs: setup .venv/.docs  ## the documentation as a site, in build/site
	$(BIN)/python -m docs.site build/site

cast: setup .venv/.docs  ## record examples/demo.sh anew: docs/demo.cast and docs/demo.svg (root)
	scripts/make-cast docs

.venv/.docs: .venv/.installed
	$(BIN)/pip --disable-pip-version-check --quiet install -e '.[docs]'
	touch $@

test: setup .venv/.docs  ## every test that can run here; kernel, e2e and vm tests need root
	scripts/install-packages test || true
	scripts/install-packages vm || true
	$(BIN)/python -m tests -- $(ARGS)

test-vm: setup  ## all that, and the Debian package, on Debian 12's own kernel, under qemu (root, for the image)
	scripts/install-packages vm
	scripts/install-packages deb
	$(BIN)/python -m tests vm -- --vm=full $(ARGS)

lint: setup  ## types, style, layers, proto, house rules
	$(BIN)/python -m tests lint -- $(ARGS)

man: setup  ## the man pages, in build/man
	$(BIN)/python scripts/make-man-pages build/man

.PHONY: wheels deb
wheels: setup  ## wheels and source distributions of client and server, in dist
	$(BIN)/hatchling build --directory "$(CURDIR)/dist"
	cd clients/python && ../../$(BIN)/hatchling build --directory "$(CURDIR)/dist"

deb: wheels  ## a Debian package of the service and the command, for this Debian's python3, in dist
	scripts/install-packages deb
	scripts/make-deb dist

bench: setup  ## measure against the peers that are installed (root); all times go to build/bench.json
	mkdir -p build
	$(BIN)/python -m benchmarks --json build/bench.json $(ARGS)

bench-compare: setup  ## what changed between two kept runs: make bench-compare BEFORE=a.json AFTER=b.json
	$(BIN)/python -m benchmarks.compare $(BEFORE) $(AFTER) $(ARGS)

bench-page: setup  ## docs/BENCHMARKS.md and its picture, of the last `make bench`
	cp build/bench.json docs/benchmarks.json
	$(BIN)/python -m benchmarks.page docs/benchmarks.json docs

clean:  ## remove everything that was made in this clone
	rm -rf .venv .cache build .mypy_cache .ruff_cache .pytest_cache .hypothesis dist clients/python/dist
	rm -rf clients/python/src/nightos $(NATIVE)/sysproc-native
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-vm:  ## remove the cached images of the virtual machines and the Debian root
	rm -rf "$${SYSPROC_VM_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/sysproc/vm}"
