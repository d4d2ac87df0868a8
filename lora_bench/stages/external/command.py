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
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lora_bench.errors import ExternalError
from lora_bench.progress import Progress
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.external.request import WantedClip, WantedPrompt, find_fault, make_seed, write_request
from lora_bench.store import read_json, write_json

N_TAIL_LINES = 40
N_SHOWN = 300
"""Characters of a failed command's last words that the reason shows; more are in `error.txt`."""
N_NAMED = 4
POLL_S = 0.05


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
    _end_former(place.raw)
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
    ended = _run(external, request, files, raw, progress)
    faults = [fault for file in files if (fault := find_fault(file, clip_s)) is not None]
    if ended == "" and not faults:
        return
    which = f"`{' '.join(external.command or ())}`"
    prompt = f" for `{wanted[0].prompt}`" if len(wanted) == 1 else ""
    kept = f"{len(files) - len(faults)} of the {len(files)} clips that it was asked for are whole and kept"
    if ended == "":
        named = "; ".join(faults[:N_NAMED]) + (
            f"; and {len(faults) - N_NAMED} more" * (len(faults) > N_NAMED)
        )
        raise ExternalError(f"{which}{prompt} ended without an error, but {named} ({kept})")
    tail = _read_tail(raw)
    last = " ".join(tail.split())[-N_SHOWN:]
    error = ExternalError(f"{which}{prompt} {ended}; {kept}" + (f"; its last words: {last}" if last else ""))
    error.add_note(f"last lines of the command's output:\n{tail}")
    raise error


def _run(external: ExternalSpec, request: Path, files: Sequence[Path], raw: Path, progress: Progress) -> str:
    """Run the command to its end, and end whatever it started; return how it failed, empty if it did not."""
    command = [*(external.command or ()), str(request)]
    began_s, n_seen = time.monotonic(), 0
    with (raw / "stdout.txt").open("wb") as out, (raw / "stderr.txt").open("wb") as err:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            _note_process(raw, process.pid)
            while not _has_ended(process):
                if external.timeout_s is not None and time.monotonic() - began_s > external.timeout_s:
                    return f"was stopped after timeout_s, {external.timeout_s:g} s"
                n_written = sum(file.is_file() for file in files)
                progress.advance(n_written - n_seen)
                n_seen = n_written
                time.sleep(POLL_S)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _process_note(raw).unlink(missing_ok=True)
    progress.advance(sum(file.is_file() for file in files) - n_seen)
    code = process.returncode
    if code < 0:
        return f"ended with signal {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else ""


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended; where the system can, it is left unreaped: its group keeps its number."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _read_tail(raw: Path) -> str:
    """Return the last lines that the command wrote, of its errors if there are any."""
    for name in ("stderr.txt", "stdout.txt"):
        text = (raw / name).read_text(encoding="utf-8", errors="replace").strip()
        if text:
            return "\n".join(text.splitlines()[-N_TAIL_LINES:])
    return ""


def _process_note(raw: Path) -> Path:
    return raw / "process.json"


def _note_process(raw: Path, pid: int) -> None:
    """Remember the command's process, in case this one is killed."""
    with suppress(psutil.Error):
        write_json(_process_note(raw), [pid, psutil.Process(pid).create_time()])


def _end_former(raw: Path) -> None:
    """End the command of a killed attempt, which would write the same files; the caller holds the trial's lock."""
    note = _process_note(raw)
    if not note.is_file():
        return
    pid, created_s = read_json(note)
    with suppress(psutil.Error, ProcessLookupError):
        if psutil.Process(pid).create_time() == created_s:
            os.killpg(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)], timeout=10.0)
    note.unlink(missing_ok=True)
