"""Plain folders of audio as clips."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from lora_bench.artifacts import AudioClip
from lora_bench.audio import AUDIO_SUFFIXES, identify, list_folder, load_audio
from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.progress import Progress, track
from lora_bench.slugs import spell_path
from lora_bench.store import hash_file, hash_json


@dataclass(frozen=True)
class AudioFolder:
    """The audio files of one folder, read again each time it is iterated.

    Attributes:
        files: sorted; at any depth.
        clip_s: files are cut into excerpts of this length end to end, a shorter rest is left out, and a
            shorter file is one excerpt; None takes files whole.
    """

    folder: Path
    files: tuple[Path, ...]
    clip_s: float | None = None

    def __iter__(self) -> Iterator[AudioClip]:
        """Yield clips in the files' order; a clip's group is its file."""
        for path in self.files:
            name = spell_path(path.relative_to(self.folder))
            audio, rate_hz = load_audio(path)
            n_samples = round(self.clip_s * rate_hz) if self.clip_s else audio.shape[1]
            if audio.shape[1] < 2 * n_samples:
                yield AudioClip(name, name, audio[:, :n_samples], rate_hz)
                continue
            for index in range(audio.shape[1] // n_samples):
                piece = audio[:, index * n_samples : (index + 1) * n_samples]
                yield AudioClip(f"{name}#{index}", name, piece, rate_hz)

    @cached_property
    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of each file's bytes by its path in the folder."""
        return {spell_path(path.relative_to(self.folder)): _hash(path) for path in self.files}

    @property
    def key(self) -> str:
        """Hash of names, contents and clip length."""
        return hash_json([self.file_hashes, self.clip_s], length=32)


def open_folder(folder: Path, clip_s: float | None = None) -> AudioFolder:
    """Return the audio files below `folder`.

    Raises:
        DatasetError: no such folder, or no audio in it.
        AudioFileError: part of it cannot be read.
    """
    listing = list_folder(folder)
    for name, reason in listing.dropped.items():
        if PurePath(name).suffix.lower() in AUDIO_SUFFIXES | {""}:  # sound may be behind it
            raise AudioFileError(str(folder / name), f"{reason}; mend it or remove it from the folder")
    if not listing.files:
        raise DatasetError(
            f"{spell_path(folder)}: holds no audio files; expected wav, flac, ogg, opus, mp3 or m4a"
        )
    return AudioFolder(folder, listing.files, clip_s)


def _hash(path: Path) -> str:
    try:
        if not path.is_file():
            identify(path)  # says what it is; reading a pipe would wait for its writer
        return hash_file(path)
    except OSError as error:
        raise AudioFileError(str(path), f"cannot be read ({error.strerror})") from error


def track_files(clips: Iterable[AudioClip], progress: Progress) -> Iterator[AudioClip]:
    """Yield clips, and advance the progress by one after the last clip of a file."""
    files = itertools.groupby(clips, lambda clip: clip.group)
    for _, group in track(files, progress, lambda file: file[0]):
        yield from group


def find_identical(reference: AudioFolder, generated: AudioFolder) -> tuple[tuple[str, str], ...]:
    """Return pairs of a generated and a reference file with the same bytes, which make any distance too small."""
    by_hash = {digest: name for name, digest in reference.file_hashes.items()}
    hashes = generated.file_hashes.items()
    return tuple((name, by_hash[digest]) for name, digest in hashes if digest in by_hash)
