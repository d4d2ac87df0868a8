"""One recording: its content hash and its prepared samples in the store, or why it is left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from lora_bench.artifacts import AudioFormat, Excluded, Preparation
from lora_bench.audio import RESAMPLER, identify, load_audio, resample, to_channels
from lora_bench.errors import AudioFileError
from lora_bench.spec.prepare import PrepareSpec, is_unset
from lora_bench.stages.dataset.processed_sound import identify_processing, load_processed
from lora_bench.stages.dataset.sound_edits import count_clipped, edit_sound
from lora_bench.store import Store, hash_file, hash_json, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREPARED_VERSION = 2
"""Part of the cache key; raise it when the same file would be prepared differently."""
EDITS_VERSION = 1
"""Part of the cache key of changed sound; raise it when the same settings would change it differently."""

SILENCE_PEAK_DBFS = -60.0
SILENCE_PEAK = 10.0 ** (SILENCE_PEAK_DBFS / 20.0)
_AS_IT_IS = PrepareSpec()
# Lossy codecs overshoot full scale by a few dB; ten times full scale is a float file in integer units.
MAX_PEAK = 10.0


@dataclass(frozen=True)
class Recording:
    """A usable file.

    Attributes:
        source: path relative to the dataset folder, with `/`, printable.
        content_hash: SHA-256 of the source file's bytes, 64 hex digits.
        audio: prepared samples, float32 `.npy` [C, S].
        n_samples: S.
        preparation: what was changed in its sound; None if nothing was asked for.
    """

    source: str
    content_hash: str
    audio: Path
    n_samples: int
    preparation: Preparation | None = None


class SourceFile:
    """A file that is read and decoded once, when somebody asks for it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, in hex.

        Raises:
            AudioFileError: it is plainly no audio, or cannot be read.
        """
        identify(self.path)  # what is plainly no audio is not read to its end
        try:
            return hash_file(self.path)
        except OSError as error:
            raise AudioFileError(str(self.path), f"cannot be read ({error.strerror})") from error

    @cached_property
    def sound(self) -> tuple[NDArray[np.float32], int]:
        """Samples [C, S] and their rate in Hz; nobody may write to them.

        Raises:
            AudioFileError: the file cannot be decoded.
        """
        return load_audio(self.path)


def prepare_recording(
    file: SourceFile,
    source: str,
    audio_format: AudioFormat,
    min_track_s: float,
    store: Store,
    prepare: PrepareSpec = _AS_IT_IS,
) -> Recording | Excluded:
    """Decode, resample and change one file into the store, unless the same content already lies there.

    Raises:
        StoreError: the disk is full.
    """
    try:
        content_hash = file.content_hash
        key = hash_json(
            {
                "version": PREPARED_VERSION,
                "content": content_hash,
                "sample_rate_hz": audio_format.sample_rate_hz,
                "channels": audio_format.channels,
                "resampler": RESAMPLER,
                **identify_edits(prepare),
            },
            length=32,
        )
        place = store.get_or_make(
            "audio",
            key,
            lambda draft: _write_prepared(file, audio_format, prepare, draft, store),
        )
    except AudioFileError as error:
        return Excluded(source, error.reason)
    facts = read_json(place / "facts.json")
    n_samples, peak = int(facts["n_samples"]), float(facts["peak"])
    preparation = TypeAdapter(Preparation | None).validate_python(facts.get("preparation"))
    reason = find_fault(n_samples / audio_format.sample_rate_hz, peak, min_track_s, preparation)
    if reason is not None:
        return Excluded(source, reason)
    return Recording(source, content_hash, place / "audio.npy", n_samples, preparation)


def identify_edits(prepare: PrepareSpec) -> dict[str, object]:
    """Return what changes the prepared samples, for keys; empty if nothing does."""
    if is_unset(prepare):
        return {}
    return {"prepare": prepare, "edits": EDITS_VERSION, **identify_processing(prepare)}


def _write_prepared(
    file: SourceFile, audio_format: AudioFormat, prepare: PrepareSpec, draft: Path, store: Store
) -> None:
    audio, sample_rate_hz = file.sound
    n_clipped = 0 if is_unset(prepare) else count_clipped(audio)
    if prepare.is_processed:
        audio, sample_rate_hz = load_processed(file.path, file.content_hash, file.sound, prepare, store)
    audio = resample(to_channels(audio, audio_format.channels), sample_rate_hz, audio_format.sample_rate_hz)
    edits: dict[str, Preparation] = {}
    if not is_unset(prepare):
        audio, edits["preparation"] = edit_sound(
            audio, audio_format.sample_rate_hz, prepare, clipped_samples=n_clipped
        )
    _save_npy(draft / "audio.npy", audio)
    peak = float(np.abs(audio).max(initial=0.0))
    write_json(draft / "facts.json", {"n_samples": audio.shape[1], "peak": peak, **edits})


def _save_npy(path: Path, audio: NDArray[np.float32]) -> None:
    # numpy.save hands the file to C and raises an OSError without errno on a full disk, which nobody
    # can tell from other faults; Python's own write says ENOSPC.
    with path.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(audio)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(np.ascontiguousarray(audio).data)


def find_fault(
    duration_s: float, peak: float, min_track_s: float, preparation: Preparation | None = None
) -> str | None:
    """Return why a recording is left out, in words; None if it is used."""
    if peak < SILENCE_PEAK:
        level = f"peak {20.0 * np.log10(peak):.0f} dBFS" if peak > 0.0 else "every sample is zero"
        return f"is silent ({level}; expected above {SILENCE_PEAK_DBFS:.0f} dBFS)"
    if peak > MAX_PEAK:
        return f"has samples of {peak:.0f} times full scale; is it a float file in integer units?"
    if duration_s < min_track_s:
        cut_s = 0.0 if preparation is None else (preparation.lead_s or 0.0) + (preparation.tail_s or 0.0)
        without = f" without {cut_s:.2f} s of silence at its ends" if cut_s else ""
        return f"is too short ({duration_s:.2f} s{without}; dataset.min_track_s is {min_track_s:g} s)"
    return None
