"""`lora-bench init`: write a commented spec for a folder of audio."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench import api
from lora_bench.cli.folder_survey import Survey, describe_survey, list_left_out, make_caption, survey_folder
from lora_bench.cli.options import option
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.slugs import clean_name, spell_path
from lora_bench.store import write_text

CLIP_LENGTHS_S = (30, 20, 15, 10, 8, 5, 4, 3, 2, 1)
MIN_HELD_OUT = 4
MAX_POCKET_S = 8  # it was trained on excerpts of about this length

TEMPLATE = """\
# {found}.
# The shortest file is {shortest:.1f} s, the longest {longest:.1f} s long.
#   lora-bench plan {file}     lists the trials, and the time and memory they take
#   lora-bench run {file}
schema: 1
name: {name}

model: {{id: {model}}}   {about_model}

dataset:
  path: {path}   # relative to this file; never written to
  captions: {captions}
  clip_s: {clip_s}   # length of a training slice; {n_filling} of {n_files} files are at least this long
  split: {{by: {split_by}, eval_frac: {eval_frac}, seed: 0}}   # {about_split}
  # the same changes to the sound of all tracks; `lora-bench inspect {file}` shows what they do to each
  # prepare: {{remove_dc: true, trim_silence_db: -50, loudness_lufs: -16}}

prompts:   # the same for the zero-shot model and every fine-tuned one
  - {prompt}
prompt_sets:
  off_genre: [calm piano piece with strings]   # what fine-tuning should leave alone; never in a verdict

generation: {{n_clips: {n_clips}, clip_s: {generate_s}, guidance: 3.0, top_k: 250, seed: 0}}

metrics: [mfcc20@codec, mfcc20, encodec]   # verdicts are given on the first; @codec: references after the model's codec
  # with their weights installed: vggish, clap, clap_score

defaults:
  lora: {{rank: 16, alpha: 32, targets: attention, dropout: 0.05}}
  # {steps} steps of {batch_size} x {clip_s} s are about {epochs:.1f} epochs of the training tracks
  train: {{steps: {steps}, lr: {rate}, batch_size: {batch_size}, caption_dropout: 0.2{checkpointing}}}

trials:   # the zero-shot model is always included
  variants:
    - {{name: r16-attention}}
    - {{name: r16-all, lora: {{targets: all}}}}

repeats: {{train_seeds: [0]}}   # [0, 1, 2] shows how much trainings differ by chance
{resources}"""


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench init`."""

    folder: Path = option(metavar="FOLDER", help="a folder of recordings")
    output: Path | None = option(
        "-o", "--output", metavar="FILE", help="spec to write; default: the folder's name with .yaml"
    )
    model: str = option(
        "--model",
        default="pocket",
        metavar="ID",
        help="model to fine-tune: a hub id or a folder; default: pocket",
    )
    force: bool = option("--force", help="overwrite an existing spec")


def execute(options: Options) -> int:
    """Inspect the folder, write the spec, check it, and print the next command.

    Raises:
        UsageError: no such folder, or the spec exists already.
        DatasetError: too little audio for a training and a reference side.
    """
    survey = survey_folder(options.folder)
    name = clean_name(options.folder.absolute().name)
    place: Path = options.output or Path(f"{name}.yaml")
    if place.exists() and not options.force:
        raise UsageError(f"{place}: already exists; choose another name with -o, or replace it with --force")
    written = _relate(survey.folder, place.absolute().parent)
    if os.fsencode(written).decode(errors="ignore") != written:
        raise UsageError(
            f"{spell_path(written)}: a spec cannot name this folder, because its path is not UTF-8; rename it, "
            "or use a link to it (`ln -s`)"
        )
    text = write_spec(survey, place, model=options.model)
    write_text(place, text)
    api.load_spec(place)
    print(f"{spell_path(place)}: {describe_survey(survey)}")
    for line in (*list_left_out(survey.left_out), *survey.notes):
        print(line)
    print(f"next: lora-bench plan {spell_path(place)}")
    return EXIT_OK


def choose_clip_s(durations_s: Sequence[float], longest_s: int) -> int:
    """Longest usual slice that at least nine of ten files fill, at most what the model takes."""
    ordered = sorted(durations_s)
    tenth = min(ordered[len(ordered) // 10], longest_s)
    return next((length for length in CLIP_LENGTHS_S if length <= tenth), CLIP_LENGTHS_S[-1])


def choose_eval_frac(n_tracks: int) -> float:
    """A fifth; more where a fifth would be fewer than four tracks, but at most a half."""
    return min(0.5, max(0.2, round(MIN_HELD_OUT / n_tracks, 2)))


def write_spec(survey: Survey, place: Path, *, model: str) -> str:
    """Return the text of a spec that will lie at `place`, with what was found in comments."""
    durations_s = [sound.duration_s for sound in survey.sounds]
    n_tracks = len(survey.sounds)
    is_pocket = model == "pocket"
    eval_frac = choose_eval_frac(n_tracks)
    n_held_out = max(2, round(eval_frac * n_tracks))
    clip_s = choose_clip_s(durations_s, MAX_POCKET_S if is_pocket else CLIP_LENGTHS_S[0])
    steps, rate, batch_size = (100, "2.0e-3", 4) if is_pocket else (1000, "1.0e-4", 8)
    trained_s = survey.total_s * (1 - n_held_out / n_tracks)
    caption = survey.example or survey.fields.example or make_caption(survey.folder.name)
    lines = TEMPLATE.format(
        found=describe_survey(survey),
        shortest=min(durations_s),
        longest=max(durations_s),
        file=place.as_posix(),
        name=clean_name(place.stem),
        model=_quote(model) if not re.fullmatch(r"[\w./-]+", model) else model,
        about_model="# small, in the package; use facebook/musicgen-small for music worth hearing"
        * is_pocket,
        path=_quote(_relate(survey.folder, place.absolute().parent)),
        captions=_write_captions(survey, caption),
        split_by=survey.fields.split_by,
        about_split=_describe_split(survey, n_held_out),
        clip_s=clip_s,
        n_filling=sum(duration_s >= clip_s for duration_s in durations_s),
        n_files=n_tracks,
        eval_frac=f"{eval_frac:g}",
        prompt=_quote(caption),
        n_clips=40 if is_pocket else 150,
        generate_s=min(8, clip_s),
        steps=steps,
        rate=rate,
        batch_size=batch_size,
        epochs=steps * batch_size * clip_s / max(trained_s, 1.0),
        checkpointing="" if is_pocket else ", gradient_checkpointing: auto",
        resources="" if is_pocket else "\nresources: {gpu: 1, cpu: 4}\n",
    )
    return "".join(f"{line.rstrip()}\n" for line in lines.splitlines())


def _describe_split(survey: Survey, n_held_out: int) -> str:
    fields = survey.fields
    kept = "" if fields.split_by == "track" else f"; {fields.n_groups} {fields.split_by}s, each on one side"
    return f"holds out about {n_held_out} whole tracks as references{kept}"


def _write_captions(survey: Survey, caption: str) -> str:
    found = survey.fields
    if survey.captions == "text" and found.template is not None:
        counts = ", ".join(f"{name} {n}" for name, n in found.counts.items())
        return (
            f"   # of {len(survey.sounds)} tracks have: {counts}\n    template: {_quote(found.template)}\n"
            "    measure: []   # [bpm, key, tags] measures fields that are missing\n    # trigger: a word in front of "
            "every caption"
        )
    return {
        "both": "{}        # from metadata.jsonl, or a text file next to the recording",
        "text": f"{{text: {_quote(caption)}}}   # one text for all; better: song.txt next to each song.wav",
        "sidecar": "{source: sidecar}        # a text file next to each recording",
        "metadata": "{source: metadata}       # from metadata.jsonl",
    }[survey.captions]


def _relate(folder: Path, start: Path) -> str:
    """Relative where both lie close together, so that they can be moved together."""
    is_near = folder.is_relative_to(start) or folder.is_relative_to(start.parent)
    return Path(os.path.relpath(folder, start)).as_posix() if is_near else folder.as_posix()


def _quote(text: str) -> str:
    """Text as YAML reads it back; it folds the separators that JSON leaves as they are."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x85\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
