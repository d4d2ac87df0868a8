"""`lora-bench init`: a commented spec for a folder of audio, after looking at it."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.audio import list_audio_files
from lora_bench.errors import EXIT_OK, AudioFileError, DatasetError, UsageError
from lora_bench.spec import load_spec
from lora_bench.spec.grid import clean_name
from lora_bench.store import write_text

CLIP_LENGTHS_S = (30, 20, 15, 10, 8, 5, 4, 3, 2, 1)
MIN_TRACKS = 3
MIN_HELD_OUT = 4
MAX_LISTED = 5
METADATA = "metadata.jsonl"
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


@dataclass(frozen=True)
class Sound:
    """One readable file: `duration_s` by its header."""

    name: str
    duration_s: float
    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        unreadable: files that cannot be read, with the reason.
        captions: `metadata`, `sidecar` or `text`: where captions can come from.
        example: a caption that was found.
    """

    folder: Path
    sounds: tuple[Sound, ...]
    unreadable: Mapping[str, str]
    captions: str
    example: str | None

    @property
    def total_s(self) -> float:
        """Seconds of all readable files."""
        return sum(sound.duration_s for sound in self.sounds)


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
    text = write_spec(survey, place, model=arguments.model)
    write_text(place, text)
    load_spec(place)
    print(f"{place}: {describe_survey(survey)}")
    for file, reason in list(survey.unreadable.items())[:MAX_LISTED]:
        print(f"left out: {file}: {reason}")
    if len(survey.unreadable) > MAX_LISTED:
        print(f"left out: and {len(survey.unreadable) - MAX_LISTED} more")
    print(f"next: lora-bench plan {place}")
    return EXIT_OK


def survey_folder(folder: Path) -> Survey:
    """Read the headers of all audio files.

    Raises:
        UsageError: no such folder.
        DatasetError: fewer than three files that can be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder of audio files")
    sounds: list[Sound] = []
    unreadable: dict[str, str] = {}
    files = list_audio_files(folder)
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            sounds.append(read_header(path, name))
        except AudioFileError as error:
            unreadable[name] = error.reason
    if len(sounds) < MIN_TRACKS:
        raise DatasetError(
            f"{folder}: {len(sounds)} audio files that can be read, at least {MIN_TRACKS} are needed (some to "
            "train on, two as references); expected wav, flac, ogg, opus, mp3 or m4a at any depth"
        )
    captions, example = _find_captions(folder, files)
    return Survey(folder.absolute(), tuple(sounds), unreadable, captions, example)


def read_header(path: Path, name: str) -> Sound:
    """Length, rate and channels without decoding.

    Raises:
        AudioFileError: the file is damaged, empty, or of a kind that cannot be read.
    """
    import soundfile

    try:
        info = soundfile.info(path)
        duration_s, rate_hz, channels = info.frames / info.samplerate, info.samplerate, info.channels
    except (soundfile.LibsndfileError, ZeroDivisionError):
        duration_s, rate_hz, channels = _read_with_av(path)
    if duration_s <= 0:
        raise AudioFileError(str(path), "holds no sound")
    return Sound(name, duration_s, rate_hz, channels)


def _read_with_av(path: Path) -> tuple[float, int, int]:
    """What libsndfile does not read: m4a and aac."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise AudioFileError(str(path), "holds no audio stream")
            duration_s = (
                float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            )
            if not duration_s and container.duration:
                duration_s = container.duration / av.time_base
            return duration_s, int(stream.rate or 0), int(stream.channels or 0)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioFileError(str(path), f"cannot be read ({error})") from error


def _find_captions(folder: Path, files: Sequence[Path]) -> tuple[str, str | None]:
    """Where captions can come from, and one of them."""
    metadata = folder / METADATA
    if metadata.is_file():
        return "metadata", _first_caption(metadata)
    sidecars = [path.with_suffix(".txt") for path in files if path.with_suffix(".txt").is_file()]
    n_captioned = sum(
        path.with_suffix(".txt").is_file() or path.with_suffix(".json").is_file() for path in files
    )
    if n_captioned == len(files) and n_captioned:
        text = sidecars[0].read_text(encoding="utf-8-sig", errors="replace") if sidecars else ""
        return "sidecar", _clean_caption(text)
    return "text", None


def _first_caption(metadata: Path) -> str | None:
    for line in metadata.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found = next((record[key] for key in ("caption", "text", "description") if record.get(key)), None)
            if isinstance(found, str):
                return _clean_caption(found)
    return None


def _clean_caption(text: str) -> str | None:
    """One line of printable text, at most 200 characters; None if nothing is left."""
    line = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]", " ", text).split())
    return line[:200] or None


def choose_clip_s(durations_s: Sequence[float], longest_s: int) -> int:
    """Longest usual slice that at least nine of ten files fill, at most what the model takes."""
    ordered = sorted(durations_s)
    tenth = min(ordered[len(ordered) // 10], longest_s)
    return next((length for length in CLIP_LENGTHS_S if length <= tenth), CLIP_LENGTHS_S[-1])


def choose_eval_frac(n_tracks: int) -> float:
    """A fifth; more where a fifth would be fewer than four tracks, but at most a half."""
    return min(0.5, max(0.2, round(MIN_HELD_OUT / n_tracks, 2)))


def describe_survey(survey: Survey) -> str:
    """`41 files, 118 minutes, 44100 Hz, 2 channels`."""
    rates = Counter(sound.sample_rate_hz for sound in survey.sounds)
    channels = Counter(sound.channels for sound in survey.sounds)
    sides = {1: "mono", 2: "stereo"}
    named = Counter({sides.get(n, f"{n} channels"): count for n, count in channels.items()})
    return (
        f"{len(survey.sounds)} files, {survey.total_s / 60:.1f} minutes, "
        f"{_list_counts(Counter({f'{rate} Hz': n for rate, n in rates.items()}))}, {_list_counts(named)}"
    )


def _list_counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{value} ({n} files)" for value, n in counts.most_common(3))


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
        "text": f"{{text: {_quote(caption)}}}   # one text for all; better: song.txt beside each song.wav",
        "sidecar": "{source: sidecar}        # every file has its own text beside it",
        "metadata": f"{{source: metadata}}       # from {METADATA}",
    }[source]


def _relate(folder: Path, start: Path) -> str:
    """Relative where both lie close together, so that they can be moved together."""
    is_near = folder.is_relative_to(start) or folder.is_relative_to(start.parent)
    return Path(os.path.relpath(folder, start)).as_posix() if is_near else folder.as_posix()


def _quote(text: str) -> str:
    """Text as YAML reads it back."""
    return json.dumps(text, ensure_ascii=False)
