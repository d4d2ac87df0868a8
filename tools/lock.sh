#!/usr/bin/env bash
# Resolve pyproject.toml afresh for Python 3.11 to 3.13 and write requirements.lock and requirements-docs.lock: exact
# versions with hashes, markers where a version depends on Python, no registry named.
#   tools/lock.sh [--docs] [OPTIONS OF UV]      --docs leaves requirements.lock as it is
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --docs ]; then
  shift
else
  uv lock --python 3.11 "$@"
  # trackers are large, and their tests are skipped without them
  uv export --frozen --all-extras --no-extra trackers --no-emit-project --no-annotate --no-header --format requirements-txt > requirements.lock
fi
# --project /: pyproject's constraints are for the other environment
uv pip compile --project / --group pyproject.toml:docs --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --quiet --output-file requirements-docs.lock "$@"
grep -c '^[a-zA-Z0-9]' requirements.lock requirements-docs.lock
