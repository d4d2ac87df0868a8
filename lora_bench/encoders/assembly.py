"""Steps that all encoders share: check, resample, batch, and join the vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.audio import resample, to_channels
from lora_bench.errors import ScoreError, UnscoredError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip

T = TypeVar("T")


def prepare_clip(
    clip: AudioClip, *, sample_rate_hz: int | None, channels: int, min_samples: int
) -> NDArray[np.float32]:
    """Return the samples of a clip at an encoder's rate and number of channels.

    Args:
        clip: any rate and channel count.
        sample_rate_hz: the encoder's rate; None keeps the clip's own.
        channels: 1 averages the channels, 2 doubles a mono clip.
        min_samples: fewest samples, after resampling, that the encoder accepts.

    Returns:
        float32 [C, S].

    Raises:
        ScoreError: the clip is empty, not finite or too short; names it.
    """
    audio = clip.audio
    if audio.ndim != 2 or audio.shape[0] == 0:
        raise ScoreError(f"clip {clip.name}: its audio has shape {audio.shape}; expected [channels, samples]")
    if not np.isfinite(audio).all():
        bad = int(np.count_nonzero(~np.isfinite(audio)))
        raise ScoreError(
            f"clip {clip.name}: {bad} of {audio.size} samples are NaN or infinite, so it has no embedding; "
            "generate or export it again"
        )
    rate_hz = sample_rate_hz or clip.sample_rate_hz
    if rate_hz != clip.sample_rate_hz and audio.shape[1] > 0:
        audio = resample(audio, clip.sample_rate_hz, rate_hz)
    if audio.shape[1] < min_samples:
        raise ScoreError(
            f"clip {clip.name}: {audio.shape[1]} samples at {rate_hz} Hz are too short for this encoder; "
            f"it needs at least {min_samples} ({min_samples / rate_hz:.2f} s); use longer clips"
        )
    return np.ascontiguousarray(to_channels(audio, channels), dtype=np.float32)


def batch_equal_lengths(
    items: Iterable[tuple[T, NDArray[np.float32]]], *, max_samples: int
) -> Iterator[tuple[list[T], NDArray[np.float32]]]:
    """Stack neighbours of equal shape, so that no clip is padded to another's length.

    Args:
        items: pairs of a key and an array float32 [...]; the order is kept.
        max_samples: a batch holds at most this many numbers, or one item.

    Yields:
        The keys of a batch, and its arrays stacked to [B, ...].
    """
    keys: list[T] = []
    arrays: list[NDArray[np.float32]] = []
    for key, array in items:
        if arrays and (array.shape != arrays[0].shape or (len(arrays) + 1) * array.size > max_samples):
            yield keys, np.stack(arrays)
            keys, arrays = [], []
        keys.append(key)
        arrays.append(array)
    if arrays:
        yield keys, np.stack(arrays)


def embed_pieces(
    clips: Iterable[AudioClip],
    cut: Callable[[AudioClip], Iterable[NDArray[np.float32]]],
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    provenance: Mapping[str, str | int | float],
    *,
    max_samples: int,
    device: torch.device | None = None,
) -> Embeddings:
    """Embed clips in batches of pieces of equal shape; batches are halved if memory runs out.

    Args:
        clips: read one at a time.
        cut: gives the pieces of a clip, float32 [...].
        run: maps stacked pieces [B, ...] to vectors [B, M, D].
        provenance: of the encoder.
        max_samples: see `batch_equal_lengths`.
        device: where `run` computes; None is the CPU.

    Raises:
        ScoreError: as `prepare_clip` and `join_vectors`.
        UnscoredError: `run` raises it; names the clips that it refuses.
        OutOfMemoryError: not even one piece fits.
    """
    import torch

    from lora_bench.models.memory import Halving

    halving = Halving(
        device or torch.device("cpu"),
        f"embedding a piece of a clip ({provenance.get('encoder')})",
        "use shorter clips, or leave the metric out",
    )
    names: list[tuple[str, str]] = []
    vectors: list[list[NDArray[np.float32]]] = []

    def pieces() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for index, clip in enumerate(clips):
            names.append((clip.name, clip.group))
            vectors.append([])
            for piece in cut(clip):
                yield index, piece

    for indices, batch in batch_equal_lengths(pieces(), max_samples=max_samples):
        left, places = batch, iter(indices)
        while len(left):
            part = left
            try:
                done = halving.run(len(part), lambda size, part=part: run(part[:size]))
            except UnscoredError as reason:
                refused = [
                    names[place][0] for place, piece in zip(places, part, strict=True) if _refuses(run, piece)
                ]
                if not refused or len(refused) == len(part) > 1:
                    raise  # no matter of single clips
                raise UnscoredError(f"{reason} ({', '.join(dict.fromkeys(refused))})") from reason
            for rows in done:
                vectors[next(places)].append(np.asarray(rows, dtype=np.float32))
            left = left[len(done) :]
    return join_vectors(names, [np.concatenate(rows) for rows in vectors], provenance)


def _refuses(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], piece: NDArray[np.float32]) -> bool:
    try:
        run(piece[None])
    except UnscoredError:
        return True
    return False


def embed_each(
    clips: Iterable[AudioClip],
    measure: Callable[[AudioClip], NDArray[np.float32]],
    provenance: Mapping[str, str | int | float],
) -> Embeddings:
    """Embed clips one by one; `measure` gives the vectors [M, D] of a clip.

    Raises:
        ScoreError: as `prepare_clip` and `join_vectors`.
    """
    names: list[tuple[str, str]] = []
    vectors: list[NDArray[np.float32]] = []
    for clip in clips:
        vectors.append(measure(clip))
        names.append((clip.name, clip.group))
    return join_vectors(names, vectors, provenance)


def join_vectors(
    clips: Sequence[tuple[str, str]],
    vectors: Sequence[NDArray[np.float32]],
    provenance: Mapping[str, str | int | float],
) -> Embeddings:
    """Join the vectors of each clip into one `Embeddings`.

    Args:
        clips: name and group of each clip.
        vectors: for each clip float32 [M_i, D] with M_i >= 1.
        provenance: of the encoder.

    Raises:
        ScoreError: there is no clip, a clip got no vector, or a vector is not finite.
    """
    if not clips:
        raise ScoreError("there are no clips to embed; expected at least one")
    for (name, _), rows in zip(clips, vectors, strict=True):
        if rows.shape[0] == 0:
            raise ScoreError(f"clip {name}: it is too short to give a single window of this encoder")
        if not np.isfinite(rows).all():
            raise ScoreError(
                f"clip {name}: its embedding is not finite; the audio is damaged or the encoder's weights are"
            )
    dims = {rows.shape[1] for rows in vectors}
    if len(dims) > 1:
        raise ScoreError(f"the encoder gave vectors of different lengths {sorted(dims)}")
    counts = [rows.shape[0] for rows in vectors]
    return Embeddings(
        values=np.concatenate(vectors).astype(np.float32, copy=False),
        clip_index=np.repeat(np.arange(len(clips), dtype=np.int64), counts),
        clip_names=tuple(name for name, _ in clips),
        groups=tuple(group for _, group in clips),
        provenance=dict(provenance),
    )


def cut_windows(audio: NDArray[np.float32], *, window: int, min_samples: int) -> list[NDArray[np.float32]]:
    """Cut windows along the last axis, end to end; a shorter rest is kept if it has `min_samples`.

    Args:
        audio: [..., S] with S >= min_samples.
        window: length of a window in samples.
        min_samples: shortest rest that becomes a window.
    """
    last = max(audio.shape[-1] - min_samples, 0)
    return [audio[..., start : start + window] for start in range(0, last + 1, window)]
