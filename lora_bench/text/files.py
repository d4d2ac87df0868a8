"""Text and JSON as people save them: the encoding is detected or refused, never guessed."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.store import JsonValue

BOMS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
LINE_ENDS = re.compile(r"\r\n|\n|\r")  # texts and JSON strings may hold U+2028 and U+0085


def read_text(path: Path) -> str:
    """Read UTF-8, or UTF-16 and UTF-32 that begin with a byte order mark.

    Raises:
        DatasetError: another encoding; names the first byte that does not fit.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{spell_path(path)}: cannot be read ({error.strerror})") from error
    encoding, label = next(
        ((encoding, label) for mark, encoding, label in BOMS if data.startswith(mark)), ("utf-8-sig", "UTF-8")
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start + (3 if label == "UTF-8" and data.startswith(codecs.BOM_UTF8) else 0)
        raise DatasetError(
            f"{spell_path(path)}: not {label} text (byte 0x{data[start]:02x} at offset {start}: {error.reason}); "
            "save it as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8` if it comes from an older "
            "program on Windows"
        ) from error
    if "\0" in text:
        raise DatasetError(
            f"{spell_path(path)}: holds zero bytes (the first at offset {data.find(0)}), as UTF-16 without a "
            "byte order mark does; save it as UTF-8"
        )
    return text


def split_lines(text: str) -> list[str]:
    """Split at line feeds and carriage returns only, unlike `str.splitlines`; marks in front of lines are dropped."""
    return [line.lstrip("\ufeff") for line in LINE_ENDS.split(text)]


def read_json_text(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or a key occurs twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_refuse_repeats)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse_repeats(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"the key `{key}` occurs twice; keep one")
        found[key] = value
    return found
