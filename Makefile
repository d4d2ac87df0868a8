# Two commands do everything on a fresh machine with Python 3.11:
#   make demo   sets up .venv, then runs specs/quickstart.yaml (offline, CPU) and prints where the report is
#   make test   sets up .venv, then runs the default test suite
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test check lint types imports slow clean

demo: .venv/.installed
	$(BIN)/lora-bench run specs/quickstart.yaml

test: .venv/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint types imports test

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: .venv/.installed
	$(BIN)/lint-imports

slow: .venv/.installed
	$(BIN)/python -m pytest -m slow

# uv, itself pinned by hash, installs the exact set past the dead pins of audiocraft (--no-deps).
.venv/.installed: requirements.lock requirements-uv.lock build-constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "lora_bench needs Python 3.11; name one with: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode --build-constraints build-constraints.txt -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --build-constraints build-constraints.txt -e .
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache
