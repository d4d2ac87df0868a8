#!/usr/bin/env bash
# Resolve pyproject.toml afresh for Python 3.11 to 3.13 and write requirements.lock: exact versions with hashes,
# markers where a version depends on Python, no registry named.
set -euo pipefail
cd "$(dirname "$0")/.."
uv lock --python 3.11 "$@"
uv export --frozen --all-extras --no-emit-project --no-annotate --no-header --format requirements-txt > requirements.lock
grep -c '^[a-zA-Z0-9]' requirements.lock
