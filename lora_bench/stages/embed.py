"""Embeddings of clips, computed once: kept under a hash of the audio and of all that made the vectors."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.encoders.blas_threads import use_one_blas_thread
from lora_bench.errors import StoreError
from lora_bench.progress import Progress, SilentProgress, track
from lora_bench.store import Store, hash_json, write_bytes

if TYPE_CHECKING:
    from lora_bench.encoders.protocol import Encoder

KIND = "embeddings"
FILE = "embeddings.npz"
FORMAT = 1  # raise it when the way of embedding changes without the provenance showing it


def embed_clips(
    encoder: Encoder,
    clips: Iterable[AudioClip],
    store: Store,
    key: str | None = None,
    *,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed `clips`, or take their embeddings from the cache.

    Args:
        encoder: what embeds; its provenance (weights, rate, windowing, versions) is part of the key.
        clips: excerpts with their names and groups.
        store: cache.
        key: a hash that stands for the audio, names and groups of `clips`, if the caller has one: then a
            hit reads no audio.  None hashes the clips themselves, which are held in memory meanwhile.
        progress: is advanced by one per clip.

    Raises:
        ScoreError: a clip cannot be embedded; names it.
        StoreError: the disk is full, or what is stored is damaged.
    """
    teller = progress or SilentProgress()
    if key is None:
        clips = list(clips)
        key = hash_clips(clips)
    full_key = hash_json([FORMAT, key, dict(encoder.provenance)], length=32)

    def make(folder: Path) -> None:
        with use_one_blas_thread():
            embeddings = encoder.embed(track(clips, teller, lambda clip: clip.name))
        save_embeddings(embeddings, folder / FILE)

    return load_embeddings(store.get_or_make(KIND, full_key, make) / FILE)


def hash_clips(clips: Iterable[AudioClip]) -> str:
    """Return a hash of names, groups, rates and samples of clips, in their order."""
    digest = hashlib.sha256()
    for clip in clips:
        head = json.dumps([clip.name, clip.group, clip.sample_rate_hz, list(clip.audio.shape)])
        digest.update(head.encode())
        digest.update(np.ascontiguousarray(clip.audio, dtype=np.float32).tobytes())
    return digest.hexdigest()


def save_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write one `.npz` file atomically: `values`, `clip_index` and, as JSON text, `about`.

    Raises:
        StoreError: the disk is full.
    """
    about = json.dumps(
        {
            "clip_names": embeddings.clip_names,
            "groups": embeddings.groups,
            "provenance": dict(embeddings.provenance),
        },
        ensure_ascii=False,
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        values=np.asarray(embeddings.values, dtype=np.float32),
        clip_index=np.asarray(embeddings.clip_index, dtype=np.int64),
        about=np.frombuffer(about.encode(), dtype=np.uint8),
    )
    write_bytes(path, buffer.getvalue())


def load_embeddings(path: Path) -> Embeddings:
    """Read what `save_embeddings` wrote.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes().decode())
            return Embeddings(
                values=arrays["values"],
                clip_index=arrays["clip_index"],
                clip_names=tuple(about["clip_names"]),
                groups=tuple(about["groups"]),
                provenance=about["provenance"],
            )
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: expected stored embeddings here; remove {path.parent} and run again"
        ) from error
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"{path}: the stored embeddings are damaged ({error}); remove {path.parent} and run again"
        ) from error
