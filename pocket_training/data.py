"""Stage 1, data: decode free music to one 16 kHz mono memmap, render scores, split by track.

    python -m pocket_training.data --music DIR --soundfont FluidR3_GM.sf2 --out WORK

`DIR/<package>/` holds each package of `sources.py`, unpacked (`apt-get download P; dpkg-deb -x P*.deb DIR/P`;
`.pk3` archives inside are zip files: unzip them there).  Needs the program `fluidsynth` for the scores.
Writes `WORK/audio.i16` (int16 samples, tracks end to end) and `WORK/tracks.json`.

Cost: about five minutes on two cores for some 15 hours of music.  Seed 0 decides the split (by track) and
the rendered scores.
"""

import json
import random
import re
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from pocket_training.loop import build_parser
from pocket_training.scores import write_scores
from pocket_training.shapes import SAMPLE_RATE_HZ
from pocket_training.sources import SCORES, SOURCES, Source

MAX_TRACK_S = 360.0  # no track weighs more than six minutes
HELD_OUT_FRAC = 0.08
TARGET_RMS = 0.1  # -20 dBFS
PEAK_LIMIT = 0.99


@dataclass
class Track:
    """One track of the memmap."""

    name: str
    source: str
    words: list[str]
    """Caption words known from package, file name and tags."""
    instruments: list[str]
    """Known only for scores."""
    tempo_bpm: float | None
    """Known only for scores; else `captions.py` estimates."""
    key: str | None
    start: int
    """First sample in the memmap."""
    length: int
    """In samples."""
    split: str
    """`train` or `heldout`."""


def load_mono(path: Path, soundfont: Path | None) -> np.ndarray:
    """Decode one file to 16 kHz mono at -20 dBFS RMS, limited in peak; MIDI is rendered.

    Returns:
        int16 samples, shape (samples,).

    Raises:
        ValueError: A MIDI file without a soundfont.
    """
    if path.suffix == ".mid":
        if soundfont is None:
            raise ValueError(f"{path}: rendering MIDI needs --soundfont")
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "out.wav"
            command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", "32000", "-T", "wav", "-F", str(wave)]
            subprocess.run(
                [*command, str(soundfont), str(path)], check=True, capture_output=True, timeout=120
            )
            audio, rate = soundfile.read(wave, dtype="float32", always_2d=True)
    else:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=int(MAX_TRACK_S * 48_000))
    audio = soxr.resample(audio.mean(axis=1), rate, SAMPLE_RATE_HZ)[: int(MAX_TRACK_S * SAMPLE_RATE_HZ)]
    loud = np.flatnonzero(np.abs(audio) > 1e-3)
    if len(loud) == 0:
        return np.zeros(0, np.int16)
    audio = audio[loud[0] : loud[-1] + 1]  # a silent head or tail would teach silence
    audio = audio * (TARGET_RMS / (np.sqrt(np.mean(audio**2)) + 1e-8))
    peak = float(np.abs(audio).max())
    if peak > PEAK_LIMIT:  # soft knee: one loud hit must not turn the whole track down
        audio = np.where(
            np.abs(audio) > 0.7, np.sign(audio) * (0.7 + 0.29 * np.tanh((np.abs(audio) - 0.7) / 0.29)), audio
        )
    return np.asarray(audio * 32767, np.int16)


def describe_file(source: Source, path: Path) -> list[str]:
    """Return the caption words of one file: its package's, those its name suggests, and its title."""
    words = list(source.words)
    low = str(path).lower()
    for piece, extra in source.by_name.items():
        if piece in low:
            words += [word.strip() for word in extra.split(",")]
    title = re.sub(r"[^a-z]+", " ", path.stem.lower()).strip()
    if 3 < len(title) < 28 and not re.match(r"(track|ingame|hr|psymong|marine|david|van)\b", title):
        words.append(title)
    return list(dict.fromkeys(words))


def _decode_job(job: tuple[Path, Path | None]) -> np.ndarray:
    path, soundfont = job
    try:
        return load_mono(path, soundfont)
    except (RuntimeError, subprocess.SubprocessError) as error:  # one broken file must not end the stage
        print(f"left out {path}: {error}", flush=True)
        return np.zeros(0, np.int16)


def collect_files(music: Path) -> list[tuple[Source, Path]]:
    """List the packages' tracks in a fixed order, and print how many each has."""
    found: list[tuple[Source, Path]] = []
    for source in SOURCES:
        folder = music / source.package
        files = sorted(path for path in folder.glob(source.pattern) if path.is_file())
        files = [p for p in files if not any(piece in str(p.relative_to(music)) for piece in source.exclude)]
        print(f"{source.package}: {len(files)} files", flush=True)
        found += [(source, path) for path in files]
    return found


def build_data(music: Path, soundfont: Path, out: Path, n_scores: int, seed: int) -> None:
    """Write the memmap and its index; see the module's docstring."""
    out.mkdir(parents=True, exist_ok=True)
    files = collect_files(music)
    scores = write_scores(out / "scores", n_scores, seed)
    jobs = [(path, soundfont) for _, path in files] + [(score.path, soundfont) for score in scores]
    tracks: list[Track] = []
    position = 0
    rng = random.Random(seed)
    with ProcessPoolExecutor(2) as pool, (out / "audio.i16").open("wb") as sink:
        for i, audio in enumerate(pool.map(_decode_job, jobs, chunksize=2)):
            if len(audio) < 12 * SAMPLE_RATE_HZ:
                continue  # jingles: shorter than a training crop
            held_out = rng.random() < HELD_OUT_FRAC
            split = "heldout" if held_out else "train"
            track = Track("", "", [], [], None, None, position, len(audio), split)
            if i < len(files):
                source, path = files[i]
                track.name, track.source, track.words = path.stem, source.package, describe_file(source, path)
            else:
                score = scores[i - len(files)]
                track.name, track.source, track.words = score.path.stem, SCORES.package, score.words
                track.instruments, track.tempo_bpm, track.key = score.instruments, score.tempo_bpm, score.key
            tracks.append(track)
            audio.tofile(sink)
            position += len(audio)
    (out / "tracks.json").write_text(json.dumps([asdict(track) for track in tracks], indent=1))
    for package in dict.fromkeys(track.source for track in tracks):
        mine = [t for t in tracks if t.source == package]
        hours = sum(t.length for t in mine) / SAMPLE_RATE_HZ / 3600
        print(f"{package}: {len(mine)}, {hours:.1f} h, held out {sum(t.split == 'heldout' for t in mine)}")


def main() -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    parser.add_argument("--music", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--soundfont", type=Path, required=True, help="a General MIDI .sf2")
    parser.add_argument("--out", type=Path, required=True, help="working folder of all stages")
    parser.add_argument("--n-scores", type=int, default=160, help="own scores to write and render")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build_data(args.music, args.soundfont, args.out, args.n_scores, args.seed)


if __name__ == "__main__":
    main()
