# Two commands do everything on a fresh machine with Python 3.11, 3.12 or 3.13:
#   make demo   sets up .venv, then runs specs/quickstart.yaml (offline, CPU) and prints where the report is (runs/reports)
#   make test   sets up .venv, then runs the default test suite
# Python is that of .venv if there is one, else the newest on the PATH; `make PYTHON=/path/to/python3.12 VENV=.venv-3.12 test`
# names another one.
VENV ?= .venv
BIN := $(VENV)/bin
VERSION_OF = $(shell $(1) -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SUPPORTED := 3.13 3.12 3.11
ifndef PYTHON
PYTHON := $(firstword $(foreach name,$(BIN)/python $(SUPPORTED:%=python%) python3,$(if $(filter $(SUPPORTED),$(call VERSION_OF,$(name))),$(name))))
endif
VERSION := $(call VERSION_OF,$(PYTHON))
INSTALLED := $(VENV)/.installed-$(VERSION)
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED = 0
# all extras are in the locked set: their tests fail, and are not skipped, where one cannot be imported
export LORA_BENCH_ALL_EXTRAS = 1

.PHONY: help demo test check lint format types imports slow browser docs bench cuda12 build clean

help:  ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /  make \1	/p' Makefile

demo: $(INSTALLED)  ## run the quickstart: offline, on the CPU
	$(BIN)/lora-bench run specs/quickstart.yaml --reports-dir runs/reports

test: $(INSTALLED)  ## run the default tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

check: lint types imports test  ## lint, types, import contract and tests; CI also builds the documentation

lint: $(INSTALLED)  ## ruff, without changes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)  ## format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED)  ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(INSTALLED)  ## the import contract
	$(BIN)/lint-imports

slow: $(INSTALLED)  ## run the slow tests
	$(BIN)/python -m pytest -m slow

browser: $(INSTALLED)  ## check the report and the listening page in Chromium, with axe-core from npm
	tools/get_axe.sh
	$(BIN)/python -m pytest -m browser

# uv, itself pinned by hash, installs the exact set past the dead pins of audiocraft (--no-deps).  Without --project /
# it would apply pyproject's constraints, which are for tools/lock.sh.
UV_INSTALL = $(BIN)/uv pip install --project / --quiet --python $(BIN)/python --no-deps --build-constraints build-constraints.txt
$(INSTALLED): requirements.lock requirements-uv.lock build-constraints.txt pyproject.toml
	tools/make_venv.sh "$(PYTHON)" "$(VERSION)" "$(VENV)"
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	$(UV_INSTALL) --require-hashes --compile-bytecode -r requirements.lock
	$(UV_INSTALL) -e .
	touch $@

cuda12: $(INSTALLED)  ## put a torch for CUDA 12 in place of that for CUDA 13, for NVIDIA drivers 525 to 579
	$(BIN)/uv pip freeze --python $(BIN)/python | sed -n 's/^\(nvidia-[a-z0-9-]*\|cuda-[a-z]*\)==.*/\1/p' \
		| xargs -r $(BIN)/uv pip uninstall --quiet --python $(BIN)/python
	$(UV_INSTALL) --require-hashes -r requirements-cuda12.lock

DOCS := .venv-docs
DOCS_INSTALLED := $(DOCS)/.installed-$(VERSION)
docs: $(DOCS_INSTALLED)  ## build the documentation into site/, in an environment of its own
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo site/index.html

$(DOCS_INSTALLED): requirements-docs.lock
	tools/make_venv.sh "$(PYTHON)" "$(VERSION)" "$(DOCS)"
	$(DOCS)/bin/python -m pip install --quiet --require-hashes -r requirements-docs.lock
	touch $@

bench: $(INSTALLED)  ## print the ratios of the benchmarks in one table, in a short form
	$(BIN)/python benchmarks/ratios.py

build: $(INSTALLED)  ## build the wheel and the source archive into dist/
	$(BIN)/uv build

clean:  ## remove the environment, runs and caches
	rm -rf $(VENV) $(DOCS) site runs .pytest_cache .ruff_cache
