"""Names of folders, files and series made from what people write.

Names are lower-case ASCII, so that they are the same on every file system: those that fold case or normalise
Unicode, and those with short limits.  Whatever a name loses of the text (other scripts, case, punctuation, what is
too long) is kept apart by eight digits of a hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MAX_SLUG = 48
MAX_NAME = 80
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE
)  # on Windows, with any suffix


def slugify(text: str, *, max_length: int = MAX_SLUG) -> str:
    """Lower-case letters, digits and hyphens; empty text gives `x`.  Not unique: see `prompt_slug`."""
    slug = re.sub(r"[^a-z0-9]+", "-", _fold(text).lower()).strip("-")[:max_length].strip("-")
    return slug or "x"


def prompt_slugs(prompts: Sequence[str]) -> dict[str, str]:
    """Folder name of each prompt.

    A slug depends on its own prompt only, so that adding a prompt moves no folder.
    """
    return {prompt: prompt_slug(prompt) for prompt in prompts}


def prompt_slug(prompt: str, *, max_length: int = MAX_SLUG) -> str:
    """Slug of a text that no other text has: with a hash unless the slug says all there is."""
    slug = slugify(prompt, max_length=max_length)
    if slug.replace("-", " ") == prompt and not _RESERVED.fullmatch(slug):
        return slug
    return f"{slug}-{_hash(prompt)}"


def series_slugs(prompts: Sequence[str]) -> dict[str, str]:
    """Name of each prompt's series: a plain slug where it holds every letter and no other prompt has it."""
    plain = {prompt: slugify(prompt) for prompt in prompts}
    counts = Counter(plain.values())
    return {
        prompt: slug
        if counts[slug] == 1
        and _keeps_letters(prompt)
        and slug == slugify(prompt, max_length=len(prompt) + 1)
        else prompt_slug(prompt)
        for prompt, slug in plain.items()
    }


def clean_name(text: str) -> str:
    """`text` as a name: letters, digits and `. _ + -`, at most 80, beginning with a letter or digit.

    With a hash where letters or digits are lost, or it is cut; punctuation may go.
    """
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", _fold(text))
    name = re.sub(r"-{2,}", "-", name).strip("-").lstrip("._+-").rstrip(".") or "x"
    is_whole = _keeps_letters(text) and len(name) <= MAX_NAME and not _RESERVED.fullmatch(name)
    if _RESERVED.fullmatch(name):
        name = name.replace(".", "-")
    return name if is_whole else f"{name[: MAX_NAME - 9].strip('-')}-{_hash(text)}"


def spell_path(path: str | os.PathLike[str]) -> str:
    r"""Return a path as printable UTF-8, with `/`: bytes of a name that are not UTF-8 become `\xf3`."""
    return os.fsencode(os.fspath(path)).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _keeps_letters(text: str) -> bool:
    """Whether ASCII loses no letter, mark, digit or sign of a text, only spaces and punctuation."""
    return all(letter.isascii() or unicodedata.category(letter)[0] in "ZP" for letter in text)


def _fold(text: str) -> str:
    """Accents removed, and what is not ASCII after that."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
