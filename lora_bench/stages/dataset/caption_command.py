"""A user's program that describes a track; its answer is kept by the recording's content and the command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lora_bench.errors import DatasetError
from lora_bench.machine.programs import RECORDING_TIMEOUT_S, ProgramError, ask_program
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.field_names import Value
from lora_bench.stages.dataset.metadata import read_fields
from lora_bench.store import Store, hash_json, read_json, write_json
from lora_bench.text.files import read_json_text

COMMAND_VERSION = 1


def ask_command(command: str, path: Path, content_hash: str, store: Store) -> dict[str, Value]:
    """Return the fields that a program prints for a recording.

    Raises:
        DatasetError: the program does not exist, fails, takes longer than ten minutes, or prints nothing useful.
        StoreError: the disk is full.
    """
    key = hash_json({"version": COMMAND_VERSION, "content": content_hash, "command": command}, length=32)

    def write(draft: Path) -> None:
        write_json(draft / "fields.json", _read_answer(_run(command, path), command, path))

    found: dict[str, Any] = read_json(store.get_or_make("fields", key, write) / "fields.json")
    return {name: Value(value, "command") for name, value in found.items()}


def _run(command: str, path: Path) -> str:
    words = shlex.split(command)
    place = str(path.absolute())
    arguments = [word.replace("{path}", place) for word in words]
    if arguments == words:
        arguments.append(place)
    try:
        return ask_program(arguments, timeout_s=RECORDING_TIMEOUT_S)
    except ProgramError as error:
        raise _complain(command, path, str(error)) from error


def _read_answer(text: str, command: str, path: Path) -> dict[str, str | float]:
    if text.lstrip().startswith("{"):
        try:
            document = read_json_text(text)
        except ValueError as error:
            raise _complain(command, path, f"printed JSON that cannot be read ({error})") from error
        fields = read_fields(document)
    else:
        fields = read_fields({"caption": text})
    if not fields:
        raise _complain(command, path, "printed nothing; expected a caption, or a JSON object of fields")
    return fields


def _complain(command: str, path: Path, words: str) -> DatasetError:
    return DatasetError(
        f"dataset.captions.command: `{command}` for {spell_path(path.name)} {words}; try the "
        "command by hand, or correct it"
    )
