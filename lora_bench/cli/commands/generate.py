"""`lora-bench generate`: listen to an adapter, beside the base model from the same noise."""

from __future__ import annotations

import argparse
from pathlib import Path

from lora_bench.cli.progress_display import open_display
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.slugs import prompt_slug

MAX_PROMPT = 2000


def execute(arguments: argparse.Namespace) -> int:
    """Write the clip and its twin, and print their names.

    Raises:
        UsageError: no such run or trial, a strength or length that cannot be, a file that is there already.
    """
    prompt = arguments.prompt.strip()
    if not 0 < len(prompt) <= MAX_PROMPT:
        raise UsageError(f"--prompt: {len(prompt)} characters, expected 1 to {MAX_PROMPT}")
    if not 0.0 <= arguments.scale <= 1.0:
        raise UsageError(
            f"--scale {arguments.scale:g}: expected 0 (the base model) to 1 (the adapter as trained)"
        )
    if arguments.clip < 0 or (arguments.seed is not None and arguments.seed < 0):
        raise UsageError("--clip and --seed: expected whole numbers from 0 on")
    run = resolve_run(arguments.run, arguments.runs_dir)
    from lora_bench.adapters.choose import choose_trial

    chosen = choose_trial(run.absolute(), arguments.trial, arguments.metric)
    file = arguments.to or Path(f"{chosen.plan.name}-{prompt_slug(prompt, max_length=40)}.wav")
    check_files(file, force=arguments.force)
    from lora_bench.adapters.render import ClipRequest, render_pair

    request = ClipRequest(prompt, arguments.seconds, arguments.scale, arguments.clip, arguments.seed)
    with open_display(quiet=arguments.quiet) as progress:
        if chosen.reason:
            progress.log(chosen.reason)
        for path in render_pair(chosen.plan, chosen.adapter, request, file, progress):
            print(path)
    return EXIT_OK


def check_files(file: Path, *, force: bool) -> None:
    """Refuse a format that is not written, and to overwrite.

    Raises:
        UsageError: says which file and what to do.
    """
    if file.suffix.lower() not in (".wav", ".flac"):
        raise UsageError(f"--to {file}: expected a name that ends in .wav or .flac")
    if not file.parent.is_dir():
        raise UsageError(f"--to {file}: the folder {file.parent} does not exist; make it first")
    for path in (file, file.with_name(f"{file.stem}.zero-shot{file.suffix}")):
        if path.exists() and not force:
            raise UsageError(
                f"{path}: is there already; give another name with --to, or overwrite with --force"
            )
