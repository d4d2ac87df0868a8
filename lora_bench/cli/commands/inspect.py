"""`lora-bench inspect`: look for faults of recordings and captions before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.cli.folder_or_spec import find_audio_format, read_folder_or_spec, refuse_place_inside
from lora_bench.cli.options import json_option, option, overrides_option, quiet_option, runs_dir_option
from lora_bench.cli.progress_display import open_display
from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_OK
from lora_bench.slugs import spell_path
from lora_bench.spec.prepare import is_unset

if TYPE_CHECKING:
    from lora_bench.stages.dataset.inspection import Inspection


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench inspect`."""

    source: Path = option(
        metavar="FOLDER|SPEC", help="a folder, archive or list of recordings, or a spec with a dataset"
    )
    html: Path | None = option(
        "--html", metavar="FILE", help="write a page with players and a map of the tracks"
    )
    overrides: Sequence[str] = overrides_option()
    runs_dir: Path = runs_dir_option()
    quiet: bool = quiet_option()
    json: bool = json_option()


def execute(options: Options) -> int:
    """Decode every file, and print what is odd.

    Raises:
        UsageError: no such folder or spec, or a page inside of the folder.
        DatasetError: the folder cannot be read.
    """
    from lora_bench.stages.dataset.inspection import inspect_folder
    from lora_bench.store import Store, to_jsonable, write_text

    store = Store(options.runs_dir / ".cache")
    with open_display(quiet=options.quiet) as progress:
        folder, spec, model = read_folder_or_spec(options.source, options.overrides, store, progress)
    if options.html is not None:
        refuse_place_inside("--html", options.html, folder)
    audio_format = None if is_unset(spec.prepare) else find_audio_format(model)
    map_by = None if options.html is None else "folder" if model is None else "side"
    with open_display(quiet=options.quiet) as progress:
        found = inspect_folder(folder, spec, store, progress, audio_format, map_by=map_by)
    if options.html is not None:
        from lora_bench.cli.inspection_page import write_inspection_page

        write_text(options.html, write_inspection_page(found))
    if options.json:
        print_json({"summary": found.summarise(), "notes": found.notes, "tracks": to_jsonable(found.tracks)})
        return EXIT_OK
    for name, value in found.summarise().items():
        print(f"{name}: {value}")
    rows = [
        (track.source, what)
        for track in found.tracks
        for what in (
            *([f"left out: {track.left_out}"] if track.left_out else []),
            *track.faults,
            *([f"caption: {track.caption_fault}"] if track.caption_fault and not track.left_out else []),
        )
    ]
    if rows:
        print(format_table(("file", "what"), rows))
    if audio_format is not None:
        print(_write_preparations(found))
    elif not is_unset(spec.prepare):
        print(
            "dataset.prepare: not tried, because the model is not on this machine, so its sample rate is not known"
        )
    for note in found.notes:
        print(note)
    if options.html is not None:
        print(f"page: {spell_path(options.html)}")
    return EXIT_OK


def _write_preparations(found: Inspection) -> str:
    """Return what a run changes in each track as a table."""
    rows = [
        (
            track.source,
            *(
                "" if value is None else template.format(value)
                for template, value in (
                    ("{:+.1f}", made.gain_db),
                    ("{:.1f}" + " (limited by the peak)" * made.is_limited, made.loudness_lufs),
                    ("{:.2f}", None if made.lead_s is None else made.lead_s + (made.tail_s or 0.0)),
                    ("{:+.4f}", made.dc_offset),
                    ("{}", made.clipped_samples),
                )
            ),
        )
        for track in found.used
        if (made := track.preparation) is not None
    ]
    return format_table(("prepared", "gain dB", "LUFS", "s trimmed", "DC offset", "clipped samples"), rows)
