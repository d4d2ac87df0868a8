"""The clips of each prompt in a folder of another system's audio.

A file belongs to a prompt if a table (`prompts.csv`, `metadata.jsonl`) in the folder says so.  Without a table, it does
if a folder above it, or its own name without a number at the end, is the prompt's slug:

    ace_step_clips/warm-lofi/000.wav
    ace_step_clips/warm-lofi_000.wav
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lora_bench.audio import list_folder
from lora_bench.errors import DatasetError, ExternalError
from lora_bench.slugs import prompt_slug, slugify, spell_path
from lora_bench.text.tables import read_records

TABLES = ("prompts.csv", "metadata.jsonl")
FILE_COLUMNS, PROMPT_COLUMNS = ("file", "file_name", "path"), ("prompt", "text", "caption")
N_LISTED = 4
_LONG = 10_000
_NUMBER = re.compile(r"-?[0-9]+$")


def match_clips(folder: Path, prompts: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each prompt, in the order of their names, numbers as numbers; others are left out.

    Raises:
        DatasetError: the folder cannot be read.
        ExternalError: a prompt has no file, or a table is wrong.
    """
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    files = list_folder(folder).files
    pairs = _match_names(folder, files, prompts) if table is None else _read_table(table)
    found: dict[str, list[Path]] = {prompt: [] for prompt in prompts}
    for file, prompt in pairs:
        if prompt in found:
            found[prompt].append(file)
    lacking = [prompt for prompt in prompts if not found[prompt]]
    if lacking:
        raise ExternalError(_describe_lack(folder, table, files, lacking, len(prompts)))
    return {prompt: tuple(sorted(dict.fromkeys(matched), key=_order)) for prompt, matched in found.items()}


def _order(path: Path) -> list[tuple[int, str]]:
    """Sort `2.wav` before `10.wav`."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _match_names(folder: Path, files: Sequence[Path], prompts: Sequence[str]) -> Iterator[tuple[Path, str]]:
    known = _name_prompts(prompts)
    for file in files:
        above = file.relative_to(folder).parts[:-1]
        stem = slugify(file.stem, max_length=_LONG)
        names = [*(slugify(part, max_length=_LONG) for part in above), stem, _NUMBER.sub("", stem)]
        prompt = next((known[name] for name in names if name in known), None)
        if prompt is not None:
            yield file, prompt


def _name_prompts(prompts: Sequence[str]) -> dict[str, str]:
    """Return prompts by the names that mean them: the slug of a run's folders, and plain ones that no other has."""
    owners: dict[str, list[str]] = {}
    for prompt in prompts:
        plain = {slugify(prompt), slugify(prompt, max_length=_LONG)}
        for name in {prompt_slug(prompt), *plain}:
            owners.setdefault(name, []).append(prompt)
    return {name: found[0] for name, found in owners.items() if len(found) == 1}


def _read_table(table: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files and prompts of a table's lines.

    Raises:
        ExternalError: a line has no file or prompt, or its file is not there.
    """
    for number, row in _read_rows(table):
        place = f"{spell_path(table)}:{number}"
        named = next((row[key] for key in FILE_COLUMNS if row.get(key)), None)
        prompt = next((row[key] for key in PROMPT_COLUMNS if row.get(key)), None)
        if named is None or prompt is None:
            columns = ", ".join(map(str, row)) or "nothing"
            raise ExternalError(
                f"{place}: has {columns}; expected `{FILE_COLUMNS[0]}` (relative to the table) and "
                f"`{PROMPT_COLUMNS[0]}`"
            )
        file = table.parent / str(named)
        if not file.is_file():
            raise ExternalError(f"{place}: there is no file {spell_path(str(named))} in the table's folder")
        yield file, str(prompt).strip()


def _read_rows(table: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number and the content of each line.

    Raises:
        ExternalError: the table cannot be read, or a line is wrong.
    """
    try:
        for number, row in read_records(table, FILE_COLUMNS, "file,prompt"):
            if isinstance(row, str):
                raise ExternalError(f"{spell_path(table)}:{number}: {row}")
            yield number, row
    except DatasetError as error:
        raise ExternalError(str(error)) from error


def _describe_lack(
    folder: Path, table: Path | None, files: Sequence[Path], lacking: Sequence[str], n_prompts: int
) -> str:
    """Return which prompts have no clip, and where one was expected."""
    shown = lacking[:N_LISTED]
    more = f" and {len(lacking) - len(shown)} more" if len(lacking) > len(shown) else ""
    head = f"{spell_path(folder)}: holds no clip of {len(lacking)} of {n_prompts} prompts"
    if table is not None:
        names = ", ".join(f"`{prompt}`" for prompt in shown)
        return f"{head}: {table.name} has no line with the prompt {names}{more}"
    names = ", ".join(f"`{slugify(prompt)}` or `{prompt_slug(prompt)}`" for prompt in shown)
    found = ", ".join(spell_path(file.relative_to(folder)) for file in files[:N_LISTED]) or "no audio"
    return (
        f"{head}; expected a subfolder, or files with a number at the end, named {names}{more}, or a "
        f"{TABLES[0]} with the columns `file` and `prompt`; found {found}"
    )
