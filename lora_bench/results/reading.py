"""Read and write the JSON files of a run as records.

Other programs write a `results.json` or `plan.json` as well, and so did earlier versions: what does not fit
is one sentence with the file, the field and its value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lora_bench.errors import StoreError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.records import Record
from lora_bench.results.run_files import RunPlan
from lora_bench.results.run_records import RunResults
from lora_bench.store import read_json, write_text

AnyRecord = TypeVar("AnyRecord")
MAX_SHOWN = 40
_EXPECTED = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "model_type": "an object",
    "dataclass_type": "an object",
    "run_name": "a name without slashes",
    "trial_name": "an object with a name",
}


@contextmanager
def expect_form(path: Path) -> Iterator[None]:
    """Turn the problem of a record that is made from a file into a `StoreError` that names the file."""
    try:
        yield
    except ValidationError as error:
        raise StoreError(
            f"{path}: not in the form of a run ({describe_problem(error)}); expected a {path.name} that "
            "`lora-bench run` has written"
        ) from error


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a JSON file of a run.

    Args:
        path: of the file.
        kind: a record, a dataclass or a typed dictionary.

    Raises:
        StoreError: it is missing, damaged, or holds something else.
    """
    found = read_json(path)
    with expect_form(path):
        return _make_adapter(kind).validate_python(found)


def read_part(path: Path, kind: type[AnyRecord], problems: list[str]) -> AnyRecord | None:
    """Read a file that may not be there yet (None); what is wrong with it is added to `problems`."""
    if not path.is_file():
        return None
    try:
        return read_record(path, kind)
    except StoreError as error:
        problems.append(str(error))
        return None


def read_if_valid(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """Read a file that may not be there yet, or may be damaged while a trial runs: None in both cases."""
    return read_part(path, kind, [])


@cache
def _make_adapter(kind: type[AnyRecord]) -> TypeAdapter[AnyRecord]:
    return TypeAdapter(kind)


def describe_problem(error: ValidationError) -> str:
    """Return the first problem in words: the field, its value, and what was expected."""
    first = error.errors(include_url=False)[0]
    field = _name_field(first["loc"])
    kind, value = first["type"], first["input"]
    if kind == "missing":
        return f"`{field}` is missing"
    context = first.get("ctx", {})
    expected = _EXPECTED.get(kind) or context.get("expected") or context.get("expected_tags")
    if expected is None:
        return f"`{field}`: {first['msg']}"
    if not field:
        return f"holds a {type(value).__name__}, expected {expected}"
    return f"`{field}` is {_show(value)}, expected {expected}"


def _name_field(location: tuple[int | str, ...]) -> str:
    """Return `trials[0].scores[2].value`; in a free document pydantic also names the type at each depth."""
    if location and location[-1] == "float":
        location = tuple(part for part in location if part not in ("dict", "list", "float"))
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(
        "."
    )


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def render_record(record: Record) -> str:
    """Return the text of a record's file: JSON, without fields that were never given, NaN refused."""
    content = record.model_dump(by_alias=True, exclude_unset=True)
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically.

    Raises:
        StoreError: the disk is full.
    """
    write_text(path, render_record(record))


def read_results_file(path: Path) -> RunResults:
    """Read a `results.json`; without a name in it, the results have that of the folder.

    Raises:
        StoreError: it is damaged, or not the results of a run.
    """
    found = read_record(path, RunResults)
    return found if found.name else found.model_copy(update={"name": path.absolute().parent.name})


def read_run_plan(run_folder: Path) -> RunPlan:
    """Read the plan of a run.

    Raises:
        StoreError: it is damaged, or not a plan of ours.
    """
    return read_record(RunFolder(run_folder).plan, RunPlan)
