"""The records that stages hand to one another, frozen, with the legend of axes.

Axes: `B` batch, `K` codebook, `F` codec frame, `C` channel, `S` audio sample, `L` text token,
`N` clip, `M` embedding vector (one or many per clip), `D` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "selection", "eval"]
"""Sides of a dataset: `selection` is what training and searches decide by, `eval` what scores refer to."""
ABSENT_IF_NONE = {"absent_if_none": True}
"""Metadata of a field that JSON does not have if it is None, so that records from before it stay equal."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""Files of an adapter's folder, as PEFT names them."""
ADAPTER_PROVENANCE = "lora_bench.json"
"""What the adapter was trained on and how; next to PEFT's files."""


@dataclass(frozen=True)
class AudioFormat:
    """What a model wants: `sample_rate_hz` and `channels` (1 mono, 2 stereo)."""

    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class Preparation:
    """What `dataset.prepare` did to a recording; None for what it was not asked for.

    Attributes:
        clipped_samples: in the file, in runs at the highest or lowest level; they are not repaired.
        dc_offset: mean that was subtracted, as a share of full scale, of the channel where it was largest.
        lead_s, tail_s: silence that was cut off at the start and the end.
        gain_db: gain that was applied; None for silence, too.
        loudness_lufs: integrated loudness after it.
        is_limited: whether it is less than was asked for, because the peak would have risen above -1 dBFS.
    """

    clipped_samples: int
    dc_offset: float | None = None
    lead_s: float | None = None
    tail_s: float | None = None
    gain_db: float | None = None
    loudness_lufs: float | None = None
    is_limited: bool = False


@dataclass(frozen=True)
class Track:
    """One recording of the dataset after preparation.

    Attributes:
        id: first 16 hex digits of the SHA-256 of the source file's bytes.
        source: path relative to the dataset folder (or name of a rendered track).
        audio: prepared samples, float32 `.npy` of shape [C, S] at the model's rate.
        caption: training text.
        split: `train`, `selection`, or `eval` for the reference side.
        duration_s: length in seconds.
        caption_origins: where the caption's fields come from, such as `captions.csv:3` or `tag TCON`, by field.
        preparation: what was changed in its sound; None, and absent in JSON, if nothing was asked for.
        variants: captions to choose from in training, `caption` included; None, and absent in JSON, if there is one.
    """

    id: str
    source: str
    audio: Path
    caption: str
    split: Split
    duration_s: float
    caption_origins: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    preparation: Preparation | None = field(default=None, metadata=ABSENT_IF_NONE)
    variants: tuple[str, ...] | None = field(default=None, metadata=ABSENT_IF_NONE)


@dataclass(frozen=True)
class Excluded:
    """A file that was found but not used, with the reason in words."""

    source: str
    reason: str


@dataclass(frozen=True)
class NearDuplicate:
    """Two recordings of the same music, by their sources, and the correlation of their spectra (1: the same)."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True)
class Slice:
    """A cut of one track: `n_samples` long after zero padding, `n_valid` of them from the track."""

    track_id: str
    split: Split
    offset: int
    n_samples: int
    n_valid: int
    caption: str


@dataclass(frozen=True)
class Manifest:
    """A prepared dataset.

    Attributes:
        key: hash of the audio content, captions, split and format; everything cached depends on it.
        folder: where the prepared audio lies (in the cache, never the user's folder).
        slices: training-length slices of all splits, in track order.
        resampler: name and version of the resampler, for provenance.
        near_duplicates: recordings of the same music; None if they were not searched for.
    """

    key: str
    name: str
    folder: Path
    format: AudioFormat
    clip_s: float
    tracks: tuple[Track, ...]
    excluded: tuple[Excluded, ...]
    slices: tuple[Slice, ...]
    resampler: str
    near_duplicates: tuple[NearDuplicate, ...] | None = None

    def of_split(self, split: Split) -> tuple[Track, ...]:
        """Tracks of one side."""
        return tuple(track for track in self.tracks if track.split == split)

    @property
    def has_selection(self) -> bool:
        """Whether some tracks are there to select by."""
        return any(track.split == "selection" for track in self.tracks)

    def seal(self) -> Manifest:
        """Return the manifest without the `eval` side, if it has tracks to select by; else as it is."""
        if not self.has_selection:
            return self
        return replace(
            self,
            tracks=tuple(track for track in self.tracks if track.split != "eval"),
            slices=tuple(piece for piece in self.slices if piece.split != "eval"),
        )


@dataclass(frozen=True)
class AudioClip:
    """An excerpt to be scored: `audio` float32 [C, S], `group` the track (or the clip itself)."""

    name: str
    group: str
    audio: NDArray[np.float32]
    sample_rate_hz: int


@dataclass(frozen=True)
class Embeddings:
    """What an encoder made of a set of clips.

    Attributes:
        values: [M, D] float; all vectors of clip 0, then of clip 1 and so on.
        clip_index: [M] int, the clip of each vector, ascending from 0 to N - 1.
        clip_names: N names.
        groups: N cluster labels: the track of a reference clip, the clip itself if generated.
        provenance: encoder, weights hash, rate, window, resampler, versions.
    """

    values: NDArray[np.float32]
    clip_index: NDArray[np.int64]
    clip_names: tuple[str, ...]
    groups: tuple[str, ...]
    provenance: Mapping[str, str | int | float]


@dataclass(frozen=True)
class Score:
    """One cell of a results table; `value` is never filled in when it was not computed.

    `prompt` None is the score over the clips of all prompts.  `value` is the plug-in estimate, as other
    tools report it; `corrected` is the estimate without the bias of a finite sample.  `se` and the 95 %
    interval belong to `corrected`, so `value` may lie above the interval; they are None where no
    interval is defined, and `note` says why or what to mind.
    """

    metric: str
    prompt: str | None
    value: float
    n_generated: int
    n_reference: int
    dim: int
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    corrected: float | None = None
    note: str | None = None
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Unscored:
    """A cell that stays empty, and why."""

    metric: str
    prompt: str | None
    reason: str


@dataclass(frozen=True)
class LossPoint:
    """One point of a training curve; losses in nats per code, mean over codebooks."""

    step: int
    train_loss: float | None
    eval_loss: float | None
    lr: float
    wall_s: float


@dataclass(frozen=True)
class TrainResult:
    """What training left behind.

    Attributes:
        adapter: folder that plain `peft.PeftModel.from_pretrained` loads.
        matched_modules: number of adapted modules per target group, e.g. `{"self_attention": 24}`.
        curve: losses over steps, first and last included.
        wall_s: seconds of the steps that made the adapter; those after the last checkpoint of a killed attempt are
            not in it, but in the trial's time for the stage.
        step: at which the adapter was kept; None for the last one.
        gradient_checkpointing: whether it was on at the end; None if an earlier version trained it.
    """

    adapter: Path
    trainable_params: int
    matched_modules: Mapping[str, int]
    curve: tuple[LossPoint, ...]
    wall_s: float
    peak_memory_gib: float
    step: int | None = None
    gradient_checkpointing: bool | None = None


@dataclass(frozen=True)
class GeneratedClips:
    """Clips of one prompt on disk, in index order (`000.wav`, ...), and what they cost."""

    prompt: str
    files: tuple[Path, ...]
    wall_s: float
