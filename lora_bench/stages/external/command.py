"""A command that writes clips of another system.

The command gets the name of a JSON file as its last argument, which lists the clips to write:

    {"schema": 1, "clip_s": 8.0, "settings": {...}, "prompts": [
      {"prompt": "warm lofi", "slug": "warm-lofi", "n_clips": 3,
       "clips": [{"index": 2, "seed": 1029384756, "file": "/.../warm-lofi/002.wav"}]}]}

Clips that are whole are kept when a command fails, and the next call asks for the others alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lora_bench.errors import ExternalError
from lora_bench.machine.programs import ProgramError, call_program
from lora_bench.progress import Progress
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.external.request import WantedClip, WantedPrompt, find_fault, make_seed, write_request
from lora_bench.store import read_json, write_json

N_NAMED = 4


@dataclass(frozen=True)
class Workplace:
    """Folders of a command's clips.

    Attributes:
        raw: files of the command, request and output; a folder per prompt.
        finished: clips that were taken over, a folder per prompt.
    """

    raw: Path
    finished: Path


def generate_external(
    external: ExternalSpec,
    prompts: Sequence[str],
    generation: GenerationSpec,
    place: Workplace,
    progress: Progress,
) -> dict[str, dict[int, Path]]:
    """Call the command for the clips that are missing, and return its files by prompt and index.

    Clips that were taken over before are not among them.

    Raises:
        ExternalError: the command failed, was stopped, or did not write what it was asked for; whole clips are kept.
    """
    wanted = list(_list_wanted(prompts, generation, place))
    n_missing = sum(len(one.clips) for one in wanted)
    progress.start("external", total=len(prompts) * generation.n_clips)
    progress.advance(len(prompts) * generation.n_clips - n_missing)
    for group in [wanted] if external.per == "run" else [[one] for one in wanted]:
        if group:
            _call(external, group, generation.clip_s, place.raw, progress)
    return {
        prompt: {
            index: file
            for index in range(generation.n_clips)
            if (file := place.raw / slug / f"{index:03d}.wav").is_file()
        }
        for prompt, slug in prompt_slugs(prompts).items()
    }


def _list_wanted(
    prompts: Sequence[str], generation: GenerationSpec, place: Workplace
) -> Iterator[WantedPrompt]:
    """Yield prompts with clips that are neither taken over nor written; what is damaged is removed."""
    for prompt, slug in prompt_slugs(prompts).items():
        clips: list[WantedClip] = []
        for index in range(generation.n_clips):
            name = f"{index:03d}.wav"
            file = place.raw / slug / name
            if (place.finished / slug / name).is_file():
                continue
            if find_fault(file, generation.clip_s) is not None:
                file.unlink(missing_ok=True)
                clips.append(WantedClip(index, make_seed(generation.seed, prompt, index), file))
        if clips:
            yield WantedPrompt(prompt, slug, generation.n_clips, tuple(clips))


def _call(
    external: ExternalSpec, wanted: Sequence[WantedPrompt], clip_s: float, raw: Path, progress: Progress
) -> None:
    """Call the command once.

    Raises:
        ExternalError: see `generate_external`.
    """
    for one in wanted:
        (raw / one.slug).mkdir(parents=True, exist_ok=True)
    request = raw / "request.json"
    write_json(request, write_request(wanted, clip_s, external.settings))
    files = [clip.file for one in wanted for clip in one.clips]
    failure = _run(external, request, files, raw, progress)
    faults = [fault for file in files if (fault := find_fault(file, clip_s)) is not None]
    if failure is None and not faults:
        return
    which = f"`{' '.join(external.command or ())}`"
    prompt = f" for `{wanted[0].prompt}`" if len(wanted) == 1 else ""
    kept = f"{len(files) - len(faults)} of the {len(files)} clips that it was asked for are whole and kept"
    if failure is None:
        named = "; ".join(faults[:N_NAMED]) + (
            f"; and {len(faults) - N_NAMED} more" * (len(faults) > N_NAMED)
        )
        raise ExternalError(f"{which}{prompt} ended without an error, but {named} ({kept})")
    mend = "; raise timeout_s or make the command faster" if failure.is_timeout else ""
    error = ExternalError(f"{which}{prompt} {failure}; {kept}{mend}")
    error.add_note(f"last lines of the command's output:\n{failure.tail}")
    raise error from failure


def _run(
    external: ExternalSpec, request: Path, files: Sequence[Path], raw: Path, progress: Progress
) -> ProgramError | None:
    """Run the command to its end, and end whatever it started; return how it failed, None if it did not."""
    n_seen = 0

    def advance() -> None:
        nonlocal n_seen
        n_written = sum(file.is_file() for file in files)
        progress.advance(n_written - n_seen)
        n_seen = n_written

    try:
        call_program(
            [*(external.command or ()), str(request)],
            (raw / "stdout.txt", raw / "stderr.txt"),
            timeout_s=external.timeout_s,
            on_start=lambda pid: _note_process(raw, pid),
            on_poll=advance,
        )
    except ProgramError as error:
        return error
    finally:
        _process_note(raw).unlink(missing_ok=True)
    advance()
    return None


def _process_note(raw: Path) -> Path:
    return raw / "process.json"


def _note_process(raw: Path, pid: int) -> None:
    """Remember the command's process, in case this one is killed."""
    with suppress(psutil.Error):
        write_json(_process_note(raw), [pid, psutil.Process(pid).create_time()])


def end_former(raw: Path) -> None:
    """End the command of a killed attempt, which would write the same files.

    The caller holds the trial's lock, and has not removed the folder `raw`, which has the note of the process.
    """
    note = _process_note(raw)
    if not note.is_file():
        return
    pid, created_s = read_json(note)
    with suppress(psutil.Error, ProcessLookupError):
        if psutil.Process(pid).create_time() == created_s:
            os.killpg(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)], timeout=10.0)
    note.unlink(missing_ok=True)
