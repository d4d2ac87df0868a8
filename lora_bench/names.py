"""Names of folders made from what people write."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

MAX_SLUG = 48


def slugify(text: str, *, max_length: int = MAX_SLUG) -> str:
    """Lower-case letters, digits and hyphens; empty text gives `x`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:max_length].strip("-")
    return slug or "x"


def prompt_slugs(prompts: Sequence[str]) -> dict[str, str]:
    """Folder name of each prompt.

    A slug depends on its own prompt only, so that adding a prompt moves no folder; what slugging loses
    (long, non-Latin or similar prompts) is told apart by a hash.
    """
    return {prompt: prompt_slug(prompt) for prompt in prompts}


def prompt_slug(prompt: str) -> str:
    """Slug of one prompt, with a hash unless the slug says all there is."""
    slug = slugify(prompt)
    if slug.replace("-", " ") == prompt:
        return slug
    return f"{slug}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"
