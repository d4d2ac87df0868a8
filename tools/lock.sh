#!/usr/bin/env bash
# Resolve pyproject.toml afresh for Python 3.11 to 3.13 and write requirements.lock, requirements-cuda12.lock (torch for
# an older CUDA and what comes with it, installed over the first) and requirements-docs.lock: exact versions with hashes,
# markers where a version depends on Python, no registry named.
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
compile() { uv pip compile --project / --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet "$@"; }
# these four fit each other, and the last xformers for this torch is a post-release
printf '%s\n' torch==2.9.1 torchaudio==2.9.1 torchvision==0.24.1 xformers==0.0.33.post2 | compile "$@" - |
  awk '/^[a-zA-Z0-9]/ {keep = /^(torch|triton|xformers|nvidia-)/} keep' > requirements-cuda12.lock
compile --group pyproject.toml:docs --output-file requirements-docs.lock "$@"
grep -c '^[a-zA-Z0-9]' requirements*.lock
