"""`lora-bench generate`: generate clips with an adapter and with the base model, from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.audio.melodies import check_melodies
from lora_bench.cli.adapter_options import adapters_option, check_choice, model_option, open_adapters
from lora_bench.cli.options import metric_option, option, quiet_option, runs_dir_option, trial_option
from lora_bench.cli.progress_display import open_display
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK, DatasetError, UsageError
from lora_bench.slugs import prompt_slug

MAX_PROMPT = 2000
MAX_SCALE = 10.0


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench generate`."""

    run: Path | None = option(
        nargs="?",
        metavar="SPEC|RUN_DIR",
        help="a run, given by its spec or its folder; not needed with --adapter",
    )
    runs_dir: Path = runs_dir_option()
    trial: str = trial_option()
    metric: str | None = metric_option()
    prompt: str = option("--prompt", metavar="TEXT", help="text to generate from")
    seconds: float | None = option(
        "--seconds", metavar="S", help="length of the clip; default: that of the run's clips"
    )
    adapters: Sequence[Path] = adapters_option()
    model: str | None = model_option()
    scale: float | None = option(
        "--adapter-scale",
        metavar="S",
        help="strength of the adapter; 0 is the base model; default: that of the trial's clips, else 1",
    )
    clip: int = option("--clip", default=0, metavar="N", help="index of the noise; default: 0")
    melody: Path | None = option(
        "--melody",
        metavar="FILE|FOLDER",
        help="audio whose melody the clip follows, with a melody model; of the N files of a folder, number --clip mod "
        "N; default: the run's",
    )
    seed: int | None = option("--seed", metavar="N", help="seed of the noise; default: the run's")
    to: Path | None = option(
        "--to", metavar="FILE", help="a .wav or .flac file; default: named after trial and prompt"
    )
    force: bool = option("--force", help="overwrite existing files")
    quiet: bool = quiet_option()


def execute(options: Options) -> int:
    """Write both clips and print their paths.

    Raises:
        UsageError: no such run, trial or melody, an invalid strength or length, or a file that exists already.
        AudioFileError: a melody cannot be read.
    """
    prompt = options.prompt.strip()
    if not 0 < len(prompt) <= MAX_PROMPT:
        raise UsageError(f"--prompt: {len(prompt)} characters, expected 1 to {MAX_PROMPT}")
    if options.scale is not None and not 0.0 <= options.scale <= MAX_SCALE:
        raise UsageError(
            f"--adapter-scale {options.scale:g}: expected 0 (the base model) to {MAX_SCALE:g}; 1 is the adapter as "
            "trained"
        )
    if options.clip < 0 or (options.seed is not None and options.seed < 0):
        raise UsageError("--clip and --seed: expected whole numbers of at least 0")
    if options.melody is not None:
        try:
            check_melodies(options.melody)
        except DatasetError as error:
            raise UsageError(f"--melody {error}") from error
    check_choice(options.run, options.adapters, options.model)
    if options.run is None or options.adapters:
        source = open_adapters(options.adapters, options.model)
        name, adapters, reason = (
            "-".join(path.absolute().name for path in options.adapters),
            options.adapters,
            None,
        )
    else:
        from lora_bench.adapters.choose import choose_trial

        chosen = choose_trial(
            resolve_run(options.run, options.runs_dir).absolute(), options.trial, options.metric
        )
        source, name, adapters, reason = chosen.plan, chosen.plan.name, [chosen.adapter], chosen.reason
    file = options.to or Path(f"{name}-{prompt_slug(prompt, max_length=40)}.wav")
    check_files(file, force=options.force)
    from lora_bench.adapters.render import ClipRequest, render_pair

    request = ClipRequest(prompt, options.seconds, options.scale, options.clip, options.seed, options.melody)
    with open_display(quiet=options.quiet) as progress:
        if reason:
            progress.log(reason)
        for path in render_pair(source, adapters, request, file, progress):
            print(path)
    return EXIT_OK


def check_files(file: Path, *, force: bool) -> None:
    """Reject formats that cannot be written, and existing files.

    Raises:
        UsageError: says which file and what to do.
    """
    if file.suffix.lower() not in (".wav", ".flac"):
        raise UsageError(f"--to {file}: expected a name that ends in .wav or .flac")
    if not file.parent.is_dir():
        raise UsageError(f"--to {file}: the folder {file.parent} does not exist; create it first")
    for path in (file, file.with_name(f"{file.stem}.zero-shot{file.suffix}")):
        if path.exists() and not force:
            raise UsageError(
                f"{path}: already exists; choose another name with --to, or overwrite it with --force"
            )
