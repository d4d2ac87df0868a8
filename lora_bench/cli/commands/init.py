"""`lora-bench init`: a commented spec for a folder of audio, after looking at it."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lora_bench.cli.folder_survey import Survey, describe_survey, list_left_out, survey_folder
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.folder_walk import spell_path
from lora_bench.slugs import clean_name
from lora_bench.spec import load_spec
from lora_bench.store import write_text

CLIP_LENGTHS_S = (30, 20, 15, 10, 8, 5, 4, 3, 2, 1)
MIN_HELD_OUT = 4
MAX_POCKET_S = 8  # it has learnt from excerpts of about this length

TEMPLATE = """\
# {found}.
# The shortest file is {shortest:.1f} s, the longest {longest:.1f} s long.
#   lora-bench plan {file}     every trial, and what it would take
#   lora-bench run {file}
schema: 1
name: {name}

model: {{id: {model}}}   {about_model}

dataset:
  path: {path}   # if relative, then to this file; never written to
  captions: {captions}
  clip_s: {clip_s}   # length of a training slice: nine of ten files are at least as long
  split: {{by: track, eval_frac: {eval_frac}, seed: 0}}   # about {n_held_out} whole tracks are held out as references

prompts:   # the same for the zero-shot and for every fine-tuned model
  - {prompt}
  - calm piano piece with strings   # off-genre: what does fine-tuning do to it?

generation: {{n_clips: {n_clips}, clip_s: {generate_s}, guidance: 3.0, top_k: 250, seed: 0}}

metrics: [mfcc20, mfcc20-seed, encodec]   # where their weights are: vggish, clap, clap_score

defaults:
  lora: {{rank: 16, alpha: 32, targets: attention, dropout: 0.05}}
  # {steps} steps of {batch_size} x {clip_s} s go about {epochs:.1f} times through the training side
  train: {{steps: {steps}, lr: {rate}, batch_size: {batch_size}, caption_dropout: 0.2{checkpointing}}}

trials:   # the zero-shot model is always a row; nobody has to ask for it
  variants:
    - {{name: r16-attention}}
    - {{name: r16-all, lora: {{targets: all}}}}

repeats: {{train_seeds: [0]}}   # [0, 1, 2] tells what differs between trainings by chance
{resources}"""


def execute(arguments: argparse.Namespace) -> int:
    """Look at the folder, write the spec, check it, and say what comes next.

    Raises:
        UsageError: no folder, or the spec is there already.
        DatasetError: too little audio for a training and a reference side.
    """
    survey = survey_folder(arguments.folder)
    name = clean_name(arguments.folder.absolute().name)
    place: Path = arguments.output or Path(f"{name}.yaml")
    if place.exists() and not arguments.force:
        raise UsageError(f"{place}: is there already; give another name with -o, or --force to replace it")
    written = _relate(survey.folder, place.absolute().parent)
    if os.fsencode(written).decode(errors="ignore") != written:
        raise UsageError(
            f"{spell_path(written)}: a spec cannot name this folder, because its path is not UTF-8; rename it, "
            "or make a link to it (`ln -s`) and give that"
        )
    text = write_spec(survey, place, model=arguments.model)
    write_text(place, text)
    load_spec(place)
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
    """The text of the spec, with what was found in comments.

    Args:
        survey: the folder.
        place: where the spec will lie.
        model: `pocket`, a hub id or a local folder.
    """
    durations_s = [sound.duration_s for sound in survey.sounds]
    n_tracks = len(survey.sounds)
    is_pocket = model == "pocket"
    eval_frac = choose_eval_frac(n_tracks)
    n_held_out = max(2, round(eval_frac * n_tracks))
    clip_s = choose_clip_s(durations_s, MAX_POCKET_S if is_pocket else CLIP_LENGTHS_S[0])
    steps, rate, batch_size = (100, "2.0e-3", 4) if is_pocket else (1000, "1.0e-4", 8)
    trained_s = survey.total_s * (1 - n_held_out / n_tracks)
    caption = survey.example or _make_caption(survey.folder.name)
    lines = TEMPLATE.format(
        found=describe_survey(survey),
        shortest=min(durations_s),
        longest=max(durations_s),
        file=place.as_posix(),
        name=clean_name(place.stem),
        model=_quote(model) if not re.fullmatch(r"[\w./-]+", model) else model,
        about_model="# small, inside the package; for music worth hearing facebook/musicgen-small"
        * is_pocket,
        path=_quote(_relate(survey.folder, place.absolute().parent)),
        captions=_write_captions(survey.captions, caption),
        clip_s=clip_s,
        eval_frac=f"{eval_frac:g}",
        n_held_out=n_held_out,
        prompt=_quote(caption),
        n_clips=40 if is_pocket else 150,
        generate_s=min(8, clip_s),
        steps=steps,
        rate=rate,
        batch_size=batch_size,
        epochs=steps * batch_size * clip_s / max(trained_s, 1.0),
        checkpointing="" if is_pocket else ", gradient_checkpointing: true",
        resources="" if is_pocket else "\nresources: {gpu: 1, cpu: 4}\n",
    )
    return "".join(f"{line.rstrip()}\n" for line in lines.splitlines())


def _make_caption(folder: str) -> str:
    words = " ".join(re.sub(r"[_\W]+", " ", folder).split())
    if words.lower() in {"", "music"}:
        return "background music"
    return words if words.lower().endswith("music") else f"{words} music"


def _write_captions(source: str, caption: str) -> str:
    return {
        "both": "{}        # from metadata.jsonl, or else a text beside the file",
        "text": f"{{text: {_quote(caption)}}}   # one text for all; better: song.txt beside each song.wav",
        "sidecar": "{source: sidecar}        # every file has its own text beside it",
        "metadata": "{source: metadata}       # from metadata.jsonl",
    }[source]


def _relate(folder: Path, start: Path) -> str:
    """Relative where both lie close together, so that they can be moved together."""
    is_near = folder.is_relative_to(start) or folder.is_relative_to(start.parent)
    return Path(os.path.relpath(folder, start)).as_posix() if is_near else folder.as_posix()


def _quote(text: str) -> str:
    """Text as YAML reads it back."""
    return json.dumps(text, ensure_ascii=False)
