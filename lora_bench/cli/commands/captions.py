"""`lora-bench captions`: write the captions of a folder to a file that can be edited and read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.folder_or_spec import read_folder_or_spec, refuse_place_inside
from lora_bench.cli.folder_survey import list_left_out
from lora_bench.cli.options import option, overrides_option, quiet_option, runs_dir_option
from lora_bench.cli.progress_display import open_display
from lora_bench.errors import EXIT_OK, DatasetError, UsageError
from lora_bench.report.formatting import count_noun
from lora_bench.slugs import clean_name, spell_path
from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.data_sources import name_source

SUFFIXES = (".csv", ".tsv", ".jsonl")
MAX_NOTES = 10


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench captions`."""

    source: Path = option(
        metavar="FOLDER|SPEC", help="a folder, archive or list of recordings, or a spec with a dataset"
    )
    to: Path | None = option(
        "--to",
        metavar="FILE",
        help="csv, tsv or jsonl file to write, outside of the folder; default: the folder's name with _captions.csv",
    )
    template: str | None = option(
        "--template", metavar="TEXT", help="text with fields, such as '{genre}, {bpm:.0f} bpm[ in {key}]'"
    )
    trigger: str | None = option("--trigger", metavar="WORD", help="a word in front of every caption")
    force: bool = option("--force", help="overwrite an existing file")
    overrides: Sequence[str] = overrides_option()
    runs_dir: Path = runs_dir_option()
    quiet: bool = quiet_option()


def execute(options: Options) -> int:
    """Gather captions and fields, write them, and print where they come from.

    Raises:
        UsageError: no such folder or spec, a file that exists, or a place inside the folder.
        DatasetError: no audio file, or a source of captions that cannot be used.
    """
    from lora_bench.stages.dataset.caption_export import describe_folder, write_captions
    from lora_bench.store import Store

    store = Store(options.runs_dir / ".cache")
    with open_display(quiet=options.quiet) as progress:
        folder, dataset, _ = read_folder_or_spec(options.source, options.overrides, store, progress)
    spec = _read_captions(options, dataset.captions)
    path = options.to or Path(f"{clean_name(name_source(dataset.path or folder))}_captions.csv")
    _check_place(path, folder, force=options.force)
    with open_display(quiet=options.quiet) as progress:
        found = describe_folder(folder, spec, store, progress)
    if not found.tracks:
        listed = "".join(f"\n  {line}" for line in list_left_out(found.left_out))
        raise DatasetError(
            f"{spell_path(folder)}: no audio file that can be read; expected recordings{listed}"
        )
    write_captions(path, found.tracks)
    for line in (*list_left_out(found.left_out), *found.notes[:MAX_NOTES]):
        print(line)
    empty = [spell_path(track.file) for track in found.tracks if not track.caption]
    print(f"{spell_path(path)}: {count_noun(len(found.tracks), 'track')}, {len(empty)} without a caption")
    if empty:
        more = f" and {len(empty) - MAX_NOTES} more" if len(empty) > MAX_NOTES else ""
        print(f"  write a caption, or remove the row: {', '.join(empty[:MAX_NOTES])}{more}")
    origins = Counter(
        (name, origin.rpartition(":")[0] if origin.rpartition(":")[2].isdigit() else origin)
        for track in found.tracks
        for name, origin in track.origins.items()
    )
    for (name, origin), n in sorted(origins.items()):
        print(f"  {name}: {n} from {origin}")
    print(
        f"next: edit it, and read it back with `captions: {{file: {spell_path(path)}}}` in the spec's dataset"
    )
    return EXIT_OK


def _read_captions(options: Options, spec: CaptionSpec) -> CaptionSpec:
    """Return where captions come from, with the options of the command line."""
    if options.template is not None:
        try:
            parse_template(options.template)
        except ValueError as error:
            raise UsageError(f"--template: {error}") from error
        spec = spec.model_copy(update={"template": options.template, "text": None})
    if options.trigger is not None:
        spec = spec.model_copy(update={"trigger": options.trigger})
    return spec


def _check_place(path: Path, folder: Path, *, force: bool) -> None:
    """Refuse a file that exists, has another suffix, or lies in the user's folder."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--to {spell_path(path)}: expected a file that ends in {', '.join(SUFFIXES)}")
    refuse_place_inside("--to", path, folder)
    if path.exists() and not force:
        raise UsageError(
            f"{spell_path(path)}: already exists; choose another name with --to, or replace it with --force"
        )
