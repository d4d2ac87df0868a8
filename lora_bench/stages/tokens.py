"""Encode audio and captions once; training then needs neither codec nor T5.

Slices are encoded in batches of equal length only: padding shorter ones would change their codes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Manifest, Slice, Track
from lora_bench.errors import DatasetError, StoreError
from lora_bench.models.base import MusicModel
from lora_bench.models.memory import Halving
from lora_bench.models.records import ModelInfo
from lora_bench.models.token_set import TokenSet, load_tokens, save_tokens
from lora_bench.progress import Progress
from lora_bench.store import Store, hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

FORMAT = 1  # raise it when what is stored changes
BATCH_S = 32.0  # seconds of audio per pass through the codec


def token_key(manifest: Manifest, info: ModelInfo) -> str:
    """Return a hash of audio, captions, slices and the model's weights."""
    return hash_json(
        {
            "format": FORMAT,
            "audio": manifest.key,
            "slices": manifest.slices,
            "weights": info.weights_hash,
            "rate": info.audio_format,
        }
    )


def count_valid_frames(piece: Slice, info: ModelInfo) -> int:
    """Count the frames of a slice without padding: all of a full slice, else those wholly inside the audio."""
    if piece.n_valid >= piece.n_samples:
        return info.count_frames(piece.n_samples)
    return piece.n_valid // info.hop_samples


def encode_dataset(manifest: Manifest, model: MusicModel, store: Store, progress: Progress) -> TokenSet:
    """Encode all slices and captions, or take codes and text states from the cache.

    Slices with less than one frame of audio are left out and logged.

    Raises:
        DatasetError: no slice is left, or a prepared file does not fit the manifest.
        OutOfMemoryError: the codec cannot encode even one slice.
    """
    key = token_key(manifest, model.info)
    folder = store.get_or_make(
        "tokens", key, lambda draft: save_tokens(_encode(manifest, model, key, progress), draft)
    )
    tokens = load_tokens(folder)
    if tokens.key != key:
        raise StoreError(
            f"{folder}: holds tokens of another key ({tokens.key}); remove the folder and run again"
        )
    return tokens


def _encode(manifest: Manifest, model: MusicModel, key: str, progress: Progress) -> TokenSet:
    info = model.info
    pieces = [piece for piece in manifest.slices if count_valid_frames(piece, info) > 0]
    if len(pieces) < len(manifest.slices):
        progress.log(
            f"{len(manifest.slices) - len(pieces)} slices shorter than one codec frame were left out"
        )
    if not pieces:
        raise DatasetError(f"{manifest.name}: no slice holds a codec frame of audio; give longer tracks")
    variants = {
        track.id: track.variants for track in manifest.tracks if track.variants and track.split == "train"
    }
    written = [piece.caption for piece in pieces] + [text for texts in variants.values() for text in texts]
    captions = tuple(dict.fromkeys(written))
    progress.start("tokens", total=len(pieces))
    states = [state.numpy() for state in model.encode_text(captions)]
    codes = _encode_slices(pieces, {track.id: track for track in manifest.tracks}, model, progress)
    place = {caption: i for i, caption in enumerate(captions)}
    return TokenSet(
        key=key,
        codes=codes,
        valid_frames=np.array([count_valid_frames(piece, info) for piece in pieces], dtype=np.int64),
        splits=tuple(piece.split for piece in pieces),
        track_ids=tuple(piece.track_id for piece in pieces),
        caption_index=np.array([place[piece.caption] for piece in pieces], dtype=np.int64),
        captions=captions,
        text_states=tuple(states),
        slice_s=max(piece.n_samples for piece in pieces) / info.audio_format.sample_rate_hz,
        choices={track_id: tuple(place[text] for text in texts) for track_id, texts in variants.items()},
    )


def _encode_slices(
    pieces: Sequence[Slice], tracks: dict[str, Track], model: MusicModel, progress: Progress
) -> NDArray[np.int16]:
    """Codes int16 [n, K, F]; shorter slices (of other lengths) end in zeros, which are never valid."""
    info = model.info
    longest = info.count_frames(max(piece.n_samples for piece in pieces))
    codes = np.zeros((len(pieces), info.n_codebooks, longest), dtype=np.int16)

    def encode(batch: Sequence[int]) -> tuple[Sequence[int], Tensor]:
        audio = np.stack([read_slice(pieces[i], tracks[pieces[i].track_id]) for i in batch])
        return batch, model.encode_audio(audio)

    def tell(size: int, half: int) -> None:
        progress.log(f"out of memory while encoding {size} slices at once; going on with {half}")

    halving = Halving(model.device, "encoding one slice", "lower dataset.clip_s", tell=tell)
    order = sorted(range(len(pieces)), key=lambda i: pieces[i].n_samples)
    for n_samples, group in itertools.groupby(order, key=lambda i: pieces[i].n_samples):
        rows = list(group)
        size = max(1, int(BATCH_S * info.audio_format.sample_rate_hz / n_samples))
        halving.limit = size
        while rows:
            part = rows
            batch, encoded = halving.run(len(part), lambda size, part=part: encode(part[:size]))
            codes[batch, :, : encoded.shape[-1]] = encoded.numpy()
            progress.advance(len(batch))
            rows = rows[len(batch) :]
    return codes


def read_slice(piece: Slice, track: Track) -> NDArray[np.float32]:
    """Return the audio of a slice, float32 [C, n_samples], with zeros after `n_valid`.

    Raises:
        DatasetError: the track's file is shorter than the manifest says.
    """
    audio: NDArray[np.float32] = np.load(track.audio, mmap_mode="r")
    cut = audio[:, piece.offset : piece.offset + piece.n_valid]
    if cut.shape[1] != piece.n_valid:
        raise DatasetError(
            f"{track.audio}: {audio.shape[1]} samples, expected at least {piece.offset + piece.n_valid} for "
            f"a slice of {track.source}; remove the cached dataset and run again"
        )
    padded = np.zeros((audio.shape[0], piece.n_samples), dtype=np.float32)
    padded[:, : piece.n_valid] = cut
    return padded
