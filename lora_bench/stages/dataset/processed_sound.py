"""The sound of a recording after the user's program and without vocals, as `dataset.prepare` asks; kept by content."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import load_audio
from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.machine.programs import RECORDING_TIMEOUT_S, ProgramError, ask_program
from lora_bench.slugs import spell_path
from lora_bench.spec.prepare import PrepareSpec
from lora_bench.stages.dataset.vocals import identify_separator, remove_vocals
from lora_bench.store import Store, hash_json, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROCESSED_VERSION = 1


def identify_processing(spec: PrepareSpec) -> dict[str, object]:
    """Return what tells processed sounds of one file apart; empty if the sound is not processed.

    Raises:
        DatasetError: weights are missing.
    """
    facts: dict[str, object] = {}
    if spec.command is not None:
        facts["command"] = spec.command
    if spec.vocals is not None:
        facts["separator"] = identify_separator()
    return {"processed": PROCESSED_VERSION, **facts} if facts else {}


def load_processed(
    path: Path,
    content_hash: str,
    sound: tuple[NDArray[np.float32], int],
    spec: PrepareSpec,
    store: Store,
) -> tuple[NDArray[np.float32], int]:
    """Return samples [C, S] of a file, processed if the spec asks for it, and their rate.

    Args:
        path: the file.
        content_hash: of the file.
        sound: its samples [C, S], which stay, and their rate.
        spec: what is asked for.
        store: keeps the result.

    Raises:
        DatasetError: the program fails for it, or weights are missing.
        StoreError: the disk is full.
    """
    facts = identify_processing(spec)
    if not facts:
        return sound

    def write(draft: Path) -> None:
        audio, rate_hz = sound
        if spec.command is not None:
            audio, rate_hz = run_command(spec.command, path, draft)
        if spec.vocals is not None:
            audio, rate_hz = remove_vocals(audio, rate_hz)
        with (draft / "audio.npy").open("wb") as stream:
            np.save(stream, audio)
        write_json(draft / "facts.json", {"sample_rate_hz": rate_hz})

    place = store.get_or_make("processed", hash_json({"content": content_hash, **facts}, length=32), write)
    return np.load(place / "audio.npy"), int(read_json(place / "facts.json")["sample_rate_hz"])


def run_command(command: list[str], path: Path, near: Path) -> tuple[NDArray[np.float32], int]:
    """Return samples [C, S] that a program makes of a recording, and their rate.

    The program gets `{"path": ..., "output": ...}` on its standard input, and both in place of `{path}` and `{output}`
    in its arguments.  It writes a file to `output`, or prints the path of another one in its last line.

    Args:
        command: words of the command.
        path: the recording.
        near: folder on the disk that has space; the file is written to a new one in it, which is removed.

    Raises:
        DatasetError: the program fails, or leaves no sound.
    """

    def complain(words: str) -> DatasetError:
        return DatasetError(
            f"dataset.prepare.command: `{' '.join(command)}` for {spell_path(path.name)} {words}; try the command by "
            "hand, or correct it"
        )

    with tempfile.TemporaryDirectory(dir=near) as folder:
        given = {"path": str(path.absolute()), "output": str(Path(folder, "output.wav"))}
        arguments = [
            word.replace("{path}", given["path"]).replace("{output}", given["output"]) for word in command
        ]
        try:
            printed = ask_program(arguments, given=json.dumps(given), timeout_s=RECORDING_TIMEOUT_S)
        except ProgramError as error:
            raise complain(str(error)) from error
        made = Path(given["output"])
        if not made.exists():
            last = printed.strip().rpartition("\n")[2].strip()
            if not last:
                raise complain(
                    f"neither wrote {{output}} nor printed a path; expected a sound file in {made.name} or the path of "
                    "one in the last line"
                )
            made = Path(folder, last)
        try:
            return load_audio(made)
        except AudioFileError as error:
            raise complain(f"made {spell_path(made.name)}, which {error.reason}") from error
