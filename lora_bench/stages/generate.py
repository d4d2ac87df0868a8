"""Generate clips of a prompt as wav files; existing clips are kept."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import GeneratedClips
from lora_bench.audio import load_audio
from lora_bench.errors import AudioFileError
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import Decoder, generate_batches
from lora_bench.models.memory import Halving
from lora_bench.progress import Progress
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.wav_writer import WavWriter
from lora_bench.store import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SOUND_BATCH = {"cpu": 1, "cuda": 16}
"""Clips that pass through the codec at once."""
METHODS = "decoding.json"
"""Next to codes: how they were decoded; several methods if a run was resumed on another machine."""


def generate_clips(
    model: MusicModel,
    prompt: str,
    generation: GenerationSpec,
    folder: Path,
    progress: Progress,
    *,
    codes_folder: Path | None = None,
    decoder: Decoder | None = None,
) -> GeneratedClips:
    """Generate `folder/000.wav`, `001.wav` and so on; complete files are kept.

    An interrupted call resumes with the same result: a clip's noise depends on the clip alone, and on a CPU each
    clip passes through the codec by itself (see `SOUND_BATCH`).  The caller sees to it that kept files were
    made with the same model and sampling.

    Args:
        model: with or without an adapter.
        prompt: the text.
        generation: sampling, number and length of the clips.
        folder: made if it is not there.
        progress: advanced by codec frames.
        codes_folder: gets each clip's codes, `000.npy` int16 [K, F], and `METHODS`; None keeps none.
        decoder: see `generate_batches`.

    Returns:
        All clips, each exactly `clip_s` long, in index order; `wall_s` counts this call only.

    Raises:
        ModelError: the clip is longer than the model's positions, or logits are not finite.
        OutOfMemoryError: not even one clip fits.
        StoreError: the disk is full; finished clips are kept.
    """
    begin = time.monotonic()
    rate_hz = model.info.audio_format.sample_rate_hz
    n_samples = round(generation.clip_s * rate_hz)
    n_frames = model.info.count_frames(n_samples)
    files = tuple(folder / f"{index:03d}.wav" for index in range(generation.n_clips))
    folder.mkdir(parents=True, exist_ok=True)
    missing = [index for index, file in enumerate(files) if not _is_complete(file, n_samples, rate_hz)]
    progress.start("generate", total=generation.n_clips * n_frames)
    progress.advance((generation.n_clips - len(missing)) * n_frames)
    if missing:
        decoder = Decoder(model, generation) if decoder is None else decoder
        if codes_folder is not None:
            write_json(codes_folder / METHODS, sorted({*read_methods(codes_folder), decoder.method}))
        with WavWriter() as writer:
            for batch in generate_batches(model, prompt, missing, n_frames, generation, progress, decoder):
                chosen = [files[index] for index in batch.clip_ids]
                if codes_folder is not None:  # before the clip, so that a clip that is there has its codes
                    save_codes(batch.codes, [codes_folder / f"{file.stem}.npy" for file in chosen])
                save_clips(model, batch.codes, chosen, n_samples, writer)
    return GeneratedClips(prompt=prompt, files=files, wall_s=time.monotonic() - begin)


def read_methods(codes_folder: Path) -> list[str]:
    """Return the methods by which the codes of a folder were decoded; empty without a record."""
    record = codes_folder / METHODS
    return list(read_json(record)) if record.is_file() else []


def _is_complete(file: Path, n_samples: int, rate_hz: int) -> bool:
    """Return whether a clip is there at full length; any other is generated again."""
    if not file.is_file():
        return False
    try:
        audio, found_hz = load_audio(file)
    except AudioFileError:
        return False
    return audio.shape[1] == n_samples and found_hz == rate_hz


def save_clips(
    model: MusicModel, codes: Tensor, files: Sequence[Path], n_samples: int, writer: WavWriter
) -> None:
    """Decode codes [N, K, F] and write them, cut to `n_samples`."""
    rate_hz = model.info.audio_format.sample_rate_hz
    for audio, file in zip(decode_sound(model, codes), files, strict=True):
        writer.put(file, audio[:, :n_samples], rate_hz)


def save_codes(codes: Tensor, files: Sequence[Path]) -> None:
    """Write the codes [N, K, F] of clips, int16 [K, F] each."""
    for clip, file in zip(codes, files, strict=True):
        buffer = io.BytesIO()
        np.save(buffer, clip.cpu().numpy().astype(np.int16))
        write_bytes(file, buffer.getvalue())


def decode_sound(model: MusicModel, codes: Tensor) -> Iterator[NDArray[np.float32]]:
    """Yield the audio [C, S] of codes [N, K, F], clip by clip; if memory runs out, the batch is halved."""
    what = f"decoding one clip of {codes.shape[-1]} frames"
    halving = Halving(model.device, what, "lower generation.clip_s", limit=SOUND_BATCH[model.device.type])
    left = codes
    while len(left):
        part = left
        batch = halving.run(len(part), lambda size, part=part: model.decode_audio(part[:size]))
        yield from batch
        left = left[len(batch) :]
