"""Compare codecs on fixed crops: held-out music, and the built-in genre, which is in no training set.

    python -m pocket_training.codec_eval --work WORK --codec FOLDER [FOLDER ...] --lossy

One row per codec: folders of an `EncodecModel` or a whole model, and with `--lossy` Opus and Vorbis at their
lowest rates for comparison.  `--write FOLDER` writes the crops; the cost of the codec alone in a metric is:

    lora-bench score --reference FOLDER/original/genre --generated FOLDER/codec_0/genre --metric mfcc20 --no-guards

The codec's training measures the same figures.
"""

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from transformers import EncodecModel

from lora_bench.artifacts import AudioClip
from lora_bench.encoders.mfcc import compute_mfcc
from lora_bench.genres.chip_sound import render_song
from lora_bench.genres.chiptune import N_TRACKS, compose_track
from pocket_training.corpus import cut_held_out, load_tracks
from pocket_training.export import load_encodec
from pocket_training.loop import build_parser
from pocket_training.measure import compute_log_mel, compute_perplexity, compute_si_sdr
from pocket_training.shapes import FRAME_RATE_HZ, N_CODEBOOKS, SAMPLE_RATE_HZ
from pocket_training.sources import RENDERED

CROP_S = 4
N_MUSIC, N_GENRE = 45, 15

Codec = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Crops (N, 1, samples) -> reconstruction (N, 1, samples), and codes (N, K, T) where there are any."""


def cut_checks(work: Path) -> dict[str, Tensor]:
    """Cut the crops, (N, 1, samples): `music` from recorded held-out tracks, `genre` from the built-in genre."""
    crop = CROP_S * SAMPLE_RATE_HZ
    tracks = [track for track in load_tracks(work) if track.source not in RENDERED]
    songs = [render_song(compose_track(i * 7 % N_TRACKS), SAMPLE_RATE_HZ) for i in range(N_GENRE)]
    genre = np.stack([song[4 * crop : 5 * crop] for song in songs]).astype(np.float32)
    return {
        "music": cut_held_out(work, tracks, crop, N_MUSIC),
        "genre": torch.from_numpy(genre)[:, None],
    }


def measure_codec(codec: Codec, checks: dict[str, Tensor], write: Path | None = None) -> dict[str, Any]:
    """Measure log-mel L1 (as in the card), SI-SDR, change of level in dB, spread per set, and the codebooks' use.

    The spread is the standard deviation of MFCCs over all frames, divided by that of the originals, mean of 20
    coefficients: a codec that smooths spectra loses it, and with it the distance in `mfcc20`.

    Args:
        codec: Reconstructs crops.
        checks: The crops of each set.
        write: Where to write the reconstructions of each set, as `SET/00.wav` and so on; None writes none.
    """
    facts: dict[str, Any] = {}
    all_codes: list[Tensor] = []
    with torch.no_grad():
        for name, real in checks.items():
            pieces = [codec(piece) for piece in real.split(5)]
            fake = torch.cat([piece[0] for piece in pieces])
            all_codes += [codes for _, codes in pieces if codes is not None]
            if write is not None:
                (write / name).mkdir(parents=True, exist_ok=True)
                for i, clip in enumerate(fake[:, 0].numpy()):
                    soundfile.write(write / name / f"{i:02d}.wav", clip, SAMPLE_RATE_HZ)
            level = (fake.std(-1).clamp_min(1e-6) / real.std(-1).clamp_min(1e-6)).log10()
            facts |= {
                f"{name}_mel": round(float((compute_log_mel(fake) - compute_log_mel(real)).abs().mean()), 4),
                f"{name}_si_sdr_db": round(float(compute_si_sdr(fake, real).mean()), 2),
                f"{name}_level_db": round(float(20 * level.mean()), 2),
                f"{name}_spread": round(float(np.mean(measure_spread(fake) / measure_spread(real))), 3),
            }
    if all_codes:
        codes = torch.cat(all_codes)
        facts["perplexity"] = [round(value) for value in compute_perplexity(codes)]
        facts["codes_used"] = [len(book.unique()) for book in codes.unbind(1)]
    return facts


def measure_spread(audio: Tensor) -> np.ndarray:
    """Return the standard deviation of each MFCC over all frames: (N, 1, samples) -> (20,)."""
    clips = [AudioClip(str(i), str(i), clip.numpy(), SAMPLE_RATE_HZ) for i, clip in enumerate(audio)]
    return np.concatenate([compute_mfcc(clip, SAMPLE_RATE_HZ) for clip in clips], axis=1).std(axis=1)


def use_encodec(model: EncodecModel) -> Codec:
    """Return the function that reconstructs crops with a trained codec."""

    def reconstruct(audio: Tensor) -> tuple[Tensor, Tensor]:
        codes = model.encode(audio).audio_codes
        return model.decode(codes, [None]).audio_values[..., : audio.shape[-1]], codes[0]

    return reconstruct


def pack_opus(audio: np.ndarray, bits_per_s: int) -> bytes:
    """Encode (samples,) as Ogg Opus at about the given rate; libopus has a lowest rate of its own."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = bits_per_s
        frame = av.AudioFrame.from_ndarray(np.asarray(audio * 32767, np.int16)[None], "s16", "mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


def pack_vorbis(audio: np.ndarray, rate_hz: int) -> bytes:
    """Encode (samples,) as Ogg Vorbis at the lowest quality, resampled to `rate_hz`."""
    file = io.BytesIO()
    audio = soxr.resample(audio, SAMPLE_RATE_HZ, rate_hz)
    soundfile.write(file, audio, rate_hz, format="OGG", subtype="VORBIS", compression_level=1.0)
    return file.getvalue()


def use_lossy(pack: Callable[[np.ndarray], bytes], sizes: list[int]) -> Codec:
    """Return the function that reconstructs crops through a file format.

    It appends each crop's size in bytes, without headers, to `sizes`.
    """
    headers = len(pack(np.zeros(SAMPLE_RATE_HZ // 100, np.float32)))

    def reconstruct(audio: Tensor) -> tuple[Tensor, None]:
        clips = []
        for real in audio[:, 0].numpy():
            packed = pack(real)
            sizes.append(len(packed) - headers)
            clip, rate_hz = soundfile.read(io.BytesIO(packed), dtype="float32")
            clip = soxr.resample(clip, rate_hz, SAMPLE_RATE_HZ)[: len(real)]
            clips.append(np.pad(clip, (0, len(real) - len(clip))))
        return torch.from_numpy(np.stack(clips))[:, None], None

    return reconstruct


LOSSY = {
    **{
        f"Opus, asked for {rate / 1000:g} kbit/s": partial(pack_opus, bits_per_s=rate)
        for rate in (2000, 6000, 9000)
    },
    **{f"Vorbis, {rate} Hz": partial(pack_vorbis, rate_hz=rate) for rate in (4000, 8000)},
}


def main() -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="working folder of the data stage")
    parser.add_argument("--codec", type=Path, nargs="*", default=[], help="folders of codecs or whole models")
    parser.add_argument("--lossy", action="store_true", help="compare Opus and Vorbis")
    parser.add_argument("--write", type=Path, help="folder for the crops, original and reconstructed")
    args = parser.parse_args()
    checks = cut_checks(args.work)
    if args.write is not None:
        measure_codec(lambda audio: (audio, None), checks, args.write / "original")
    for i, folder in enumerate(args.codec):
        model = load_encodec(folder)
        rate = N_CODEBOOKS * FRAME_RATE_HZ * math.log2(model.config.codebook_size) / 1000
        write = None if args.write is None else args.write / f"codec_{i}"
        print(f"{folder} | {rate:.1f} kbit/s |", measure_codec(use_encodec(model), checks, write), flush=True)
    for name, pack in LOSSY.items() if args.lossy else ():
        sizes: list[int] = []
        facts = measure_codec(use_lossy(pack, sizes), checks)
        print(f"{name} | {8 * sum(sizes) / len(sizes) / CROP_S / 1000:.1f} kbit/s |", facts, flush=True)


if __name__ == "__main__":
    main()
