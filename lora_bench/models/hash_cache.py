"""A cache of the hashes of large files and models, in the user's cache folder.

`$XDG_CACHE_HOME/lora_bench/hashes.json`, or below `~/.cache`.  A hash that is missing, or cannot be written, is
computed again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from lora_bench.errors import StoreError
from lora_bench.store import hash_json, write_json

MAX_ENTRIES = 500


def cache_file() -> Path:
    """Return the path of the cache."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (never raises)
    return Path(root) / "lora_bench" / "hashes.json"


def recall(facts: object) -> str | None:
    """Return the value stored under `facts`; None if there is none."""
    return _read().get(hash_json(facts, length=32))


def remember(facts: object, value: str) -> None:
    """Store a value; drop the oldest of too many."""
    known = _read() | {hash_json(facts, length=32): value}
    try:
        write_json(cache_file(), dict(list(known.items())[-MAX_ENTRIES:]))
    except (OSError, StoreError):
        return


def _read() -> dict[str, str]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
