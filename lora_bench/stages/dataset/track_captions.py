"""The caption of each track and where it comes from: as it is written, or composed by a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_bench.progress import Progress
from lora_bench.spec.caption_template import CaptionTemplate, parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.caption_variants import vary
from lora_bench.stages.dataset.captions import add_trigger, check_captions, search_captions
from lora_bench.stages.dataset.composing import Fields, check_fields, compose, list_empty
from lora_bench.stages.dataset.field_names import name_field
from lora_bench.stages.dataset.metadata import Metadata, match_lines
from lora_bench.store import Store


@dataclass(frozen=True)
class Caption:
    """The training text of a track.

    Attributes:
        text: the caption.
        origins: where each of its fields comes from; `caption` alone if it was written as a whole.
        variants: different texts to choose from in training, `text` first; empty if there is no other.
    """

    text: str
    origins: Mapping[str, str]
    variants: tuple[str, ...] = ()


def caption_tracks(
    folder: Path,
    hashes: Mapping[str, str],
    spec: CaptionSpec,
    metadata: Metadata,
    others: Iterable[str],
    store: Store,
    progress: Progress,
) -> dict[str, Caption]:
    """Return the caption of every track by its path relative to `folder`.

    Args:
        folder: of the dataset.
        hashes: content hash of each track's file, by path relative to `folder`.
        spec: where captions come from.
        metadata: from `read_metadata`.
        others: files that are there and need no caption.
        store: keeps what commands and measurements say.
        progress: told about tracks that are measured, and tags that cannot be read.

    Raises:
        DatasetError: tracks without a caption (up to 10 are listed), or a source that cannot be used.
    """
    if spec.resolved_template is None:
        found = check_captions(folder, search_captions(folder, hashes, spec, metadata, others))
        return {
            path: Caption(text, {"caption": found.origins[path]}) for path, text in found.captions.items()
        }
    templates = _parse_templates(spec)
    template = templates[0]
    lines = match_lines(metadata, [*hashes, *others], [])
    fields = Fields(folder, spec, lines, store, hashes)
    progress.start("captions", len(hashes))
    wanted = [name_field(name) for each in templates for name in each.fields]
    described = fields.gather(hashes, wanted, lambda path: progress.advance(note=path))
    for note in fields.notes:
        progress.log(note)
    for each in templates:
        check_fields(each, described, spec.measure)
    composed = {track.path: compose(template, track) for track in described}
    empty = [path for path, (text, _) in composed.items() if not text]
    if empty:
        raise list_empty(template, empty, len(composed))
    captions: dict[str, Caption] = {}
    for track in described:
        text, origins = composed[track.path]
        variants = (
            (template, text),
            *vary(templates, track, hashes[track.path], spec.field_dropout),
        )
        texts = tuple(
            dict.fromkeys(
                add_trigger(text, None if "trigger" in each.fields else spec.trigger)
                for each, text in variants
            )
        )
        captions[track.path] = Caption(texts[0], origins, texts if len(texts) > 1 else ())
    return captions


def _parse_templates(spec: CaptionSpec) -> list[CaptionTemplate]:
    return [parse_template(text) for text in (spec.resolved_template or "", *spec.alternatives)]


def check_written_fields(folder: Path, paths: Iterable[str], spec: CaptionSpec, metadata: Metadata) -> None:
    """Check a template against the fields that are written down, without a command and without measurements.

    Raises:
        DatasetError: a field that nothing gives, a value that does not fit its format, or a source that cannot be
            used.
    """
    names = list(paths)
    fields = Fields(folder, spec, match_lines(metadata, names, []))
    described = fields.gather(names, ())
    for template in _parse_templates(spec):
        if spec.command is None and spec.captioner is None:  # which may give any field
            check_fields(template, described, spec.measure)
        for track in described:
            compose(template, track)
