"""Clips and references as embeddings of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.artifacts import AudioClip, Embeddings, GeneratedClips, Manifest, Split
from lora_bench.evaluation.codec import identify_codec, mark_recoded, through_codec
from lora_bench.store import Store, hash_json, read_json, write_json

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.models import MusicModel


def load_clips(clips: GeneratedClips) -> Iterator[AudioClip]:
    """Load generated clips from disk; each is its own group."""
    from lora_bench.audio import load_audio

    for path in clips.files:
        audio, rate_hz = load_audio(path)
        yield AudioClip(name=path.stem, group=path.stem, audio=audio, sample_rate_hz=rate_hz)


def embed_reference(
    encoder: Encoder,
    manifest: Manifest,
    clip_s: float,
    store: Store,
    codec: MusicModel | None = None,
    side: Split = "eval",
) -> Embeddings:
    """Embed the references of scores: excerpts of the held-out tracks.

    Args:
        encoder: ready to embed.
        manifest: the data.
        clip_s: length of an excerpt.
        store: cache.
        codec: the model whose codec the excerpts pass through first; None leaves them as they are.
        side: `selection` are the references that searches and choices see.
    """
    from lora_bench.stages.dataset import reference_clips
    from lora_bench.stages.embed import embed_clips

    parts, clips = [manifest.key, side, clip_s], reference_clips(manifest, side, clip_s)
    if codec is None:
        return embed_clips(encoder, clips, store, hash_json(parts))
    key = hash_json([*parts, identify_codec(codec)])
    return mark_recoded(embed_clips(encoder, through_codec(codec, clips), store, key), codec)


def prepare_encoder(
    name: str,
    model: MusicModel | None,
    manifest: Manifest,
    clip_s: float,
    store: Store,
    settings: Mapping[str, Any] | None = None,
) -> Encoder:
    """Return an encoder ready to embed; the scale of `mfcc20` is fitted once, on the training side.

    Args:
        name: of the encoder.
        model: the model under test; encoders of `CPU_ENCODERS` do without.
        manifest: the data.
        clip_s: length of an excerpt.
        store: cache.
        settings: of a plug-in or a command.

    Raises:
        UnscoredError: its weights are unavailable.
    """
    from lora_bench.encoders import get_encoder
    from lora_bench.encoders.blas_threads import use_one_blas_thread
    from lora_bench.encoders.mfcc import MfccEncoder, MfccScale
    from lora_bench.stages.dataset import reference_clips

    if name != MfccEncoder.name:
        return get_encoder(name, music_model=model, settings=settings)
    encoder = MfccEncoder(manifest.format.sample_rate_hz)

    def fit(draft: Path) -> None:
        with use_one_blas_thread():
            scale = encoder.fit_scale(reference_clips(manifest, "train", clip_s))
        write_json(draft / "scale.json", scale)

    key = hash_json([manifest.key, "train", clip_s, encoder.sample_rate_hz])
    found = read_json(store.get_or_make("mfcc_scale", key, fit) / "scale.json")
    encoder.scale = MfccScale(tuple(found["values"]), found["sample_rate_hz"], found["n_clips"])
    return encoder
