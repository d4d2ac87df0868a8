#!/usr/bin/env bash
# Resolve pyproject.toml anew and write requirements.lock: exact versions with hashes, no registry named.
# Entries that a marker rules out everywhere (packages that an override drops) are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
uv lock --python 3.11 "$@"
uv export --frozen --all-extras --no-emit-project --no-annotate --no-header --format requirements-txt |
  awk '/^[a-zA-Z0-9]/ { keep = ($0 !~ /sys_platform == .(never|win32|darwin|emscripten)./) } keep' > requirements.lock
grep -c '^[a-zA-Z0-9]' requirements.lock
