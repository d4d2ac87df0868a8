"""Guards of one trial: sanity measures next to its distances, and the same of the held-out recordings.

A record holds one set of clips: one prompt's, all prompts' together (`prompt` None), or the control's
(`trial` None): what the genre's own recordings that nobody trained on would score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_bench.artifacts import AudioClip, Embeddings, Manifest
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.clip_sound import ClipSound, measure_sound
from lora_bench.evaluation.clip_support import ClipSupport, measure_own_support, measure_support
from lora_bench.metrics.clusters import cluster_embeddings
from lora_bench.metrics.guards import CodeIndex, compare_nearness, diversity_ratio
from lora_bench.progress import Progress, SilentProgress
from lora_bench.stages.dataset import reference_clips
from lora_bench.stages.guard import PARTIAL_MATCH_FRAC, describe_method, match_codes, read_codes
from lora_bench.store import JsonObject, Store, drop_absent, hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.models.token_set import TokenSet

Codes = Sequence["NDArray[np.int16]"]
SOUND, COPIES, CODES, DIVERSITY, ADHERENCE = (
    "silence and repetition", "copies in the sound", "copies in the codes", "diversity", "prompt adherence",
)  # fmt: skip


@dataclass(frozen=True)
class TrialGuards:
    """Figures of one set of clips; None where a figure is unavailable.

    Attributes:
        trial: its id; None for the held-out recordings, which are measured in the same way.
        set: what the clips are.
        prompt: None for all prompts together.
        diversity: by encoder, the mean over prompts of the spread within a prompt over that of the references.
        closer_than_held_out_frac: share of clips that are more like the training set than 95 % of the held-out clips.
        nearest_copy: the clip that most resembles the training set, and the passage that it resembles.
        unscored: why a figure is absent.
        adherence: mean cosine of clips and their prompts.
        recall: by encoder, the share of held-out clips within the support of the clips; for all prompts, of those of
            the genre's prompts as one set; for the held-out recordings, between halves of the tracks.
        coverage: the same, the share of held-out clips that have a clip among their neighbours.
    """

    trial: str | None
    set: Literal["held-out recordings", "generated"]
    prompt: str | None
    n_clips: int
    diversity: Mapping[str, float]
    silent_clips_frac: float | None = None
    silent_seconds_frac: float | None = None
    repetition: float | None = None
    copy_similarity: float | None = None
    copy_similarity_max: float | None = None
    closer_than_held_out_frac: float | None = None
    nearest_copy: str | None = None
    code_match: float | None = None
    code_match_max: float | None = None
    partial_code_copies_frac: float | None = None
    unscored: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
    adherence: float | None = None
    adherence_se: float | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    coverage: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Return the record as `guards.json` holds it: absent figures are left out."""
        return {"trial": self.trial, "set": self.set, "prompt": self.prompt, **drop_absent(self)}


@dataclass(frozen=True)
class PromptClips:
    """The clips of one prompt.

    Attributes:
        clips: the sound, read once.
        code_files: `.npy` of each clip's codes, named as the clip; or why there are none.
        means: by encoder, one vector per clip.
        adherence: [N] cosine of each clip and its prompt's text; or why there is none.
        n_clips: how many clips; None is as many as files of codes.
        key: a hash that stands for the sound of the clips; None hashes it.
        off_genre: whether the prompt is not meant to be of the genre; such clips enter no pooled recall or coverage.
    """

    clips: Iterable[AudioClip]
    code_files: tuple[Path, ...] | str
    means: Mapping[str, Embeddings]
    adherence: NDArray[np.float64] | str
    n_clips: int | None = None
    key: str | None = None
    off_genre: bool = False

    def read_codes(self) -> Codes:
        """Read the codes of the clips.

        Raises:
            UnscoredError: there are none.
        """
        if isinstance(self.code_files, str):
            raise UnscoredError(self.code_files)
        return read_codes(self.code_files)


@dataclass(frozen=True)
class DatasetSide:
    """The training data and the held-out data.

    Attributes:
        manifest: the dataset.
        tokens: codes of both sides.
        frame_rate_hz: of the codes.
        clip_s: length of an excerpt of the held-out side.
        references: by encoder, one vector per held-out clip.
    """

    manifest: Manifest
    tokens: TokenSet
    frame_rate_hz: float
    clip_s: float
    references: Mapping[str, Embeddings]


@dataclass
class MeasuredClips:
    """Figures of a set, clip by clip; those that are unavailable are absent."""

    n_clips: int = 0
    sound: ClipSound | None = None
    codes: Codes = ()
    matches: NDArray[np.float64] | None = None
    unscored: dict[str, str] = field(default_factory=dict)


def measure_guards(
    trial_id: str,
    prompts: Mapping[str, PromptClips],
    dataset: DatasetSide,
    store: Store,
    progress: Progress | None = None,
) -> list[TrialGuards]:
    """Measure the held-out control, every prompt, and all prompts together.

    Args:
        trial_id: of the trial.
        prompts: its clips.
        dataset: what it was trained on.
        store: keeps the training side's features, and the figures of sounds.
        progress: is advanced by the number of clips of a prompt.

    Raises:
        ScoreError, AudioFileError: a clip or its codes are damaged; names it.
        DatasetError: the prepared audio is gone.
    """
    control = _measure(
        lambda: measure_held_out(dataset.manifest, dataset.clip_s, store),
        lambda: _token_codes(dataset.tokens, "eval"),
    )
    control.n_clips = control.n_clips or len(control.codes)
    sets: list[MeasuredClips] = []
    for one in prompts.values():
        sets.append(
            _measure(partial(measure_sound, one.clips, dataset.manifest, store, one.key), one.read_codes)
        )
        (progress or SilentProgress()).advance(sets[-1].n_clips)
    _search_codes([control, *sets], dataset)
    held_out = _describe(None, None, [control], control, [dataset.references], dataset)
    records = [_add_support(held_out, measure_own_support(dataset.references))]
    for (prompt, one), measured in zip(prompts.items(), sets, strict=True):
        measured.n_clips = len(one.code_files) if one.n_clips is None else one.n_clips
        found = _describe(trial_id, prompt, [measured], control, [one.means], dataset)
        found = _add_support(found, measure_support([one.means], dataset.references))
        records.append(_add_adherence(found, [one.adherence]))
    means = [one.means for one in prompts.values()]
    pooled = _describe(trial_id, None, sets, control, means, dataset)
    own = [one.means for one in prompts.values() if not one.off_genre]
    pooled = _add_support(pooled, measure_support(own, dataset.references))
    records.append(_add_adherence(pooled, [one.adherence for one in prompts.values()]))
    return records


def measure_held_out(
    training: Manifest,
    clip_s: float,
    store: Store,
    watch: Callable[[Iterable[AudioClip]], Iterable[AudioClip]] = iter,
) -> ClipSound:
    """Measure the held-out recordings as clips are measured; see `measure_sound`.  `watch` passes the clips on."""
    key = hash_json([training.key, "eval", clip_s])
    return measure_sound(watch(reference_clips(training, "eval", clip_s)), training, store, key)


def _measure(measure: Callable[[], ClipSound], read: Callable[[], Codes]) -> MeasuredClips:
    found = MeasuredClips()
    try:
        found.sound = measure()
        found.n_clips = len(found.sound.names)
        if found.sound.no_copies is not None:
            found.unscored[COPIES] = found.sound.no_copies
    except UnscoredError as reason:
        found.unscored |= {SOUND: str(reason), COPIES: str(reason)}
    try:
        found.codes = read()
    except UnscoredError as reason:
        found.unscored[CODES] = str(reason)
    return found


def _token_codes(tokens: TokenSet, split: str) -> Codes:
    """Return the first-codebook codes [1, F] of every slice of one side that has a valid frame."""
    rows = [row for row, side in enumerate(tokens.splits) if side == split and tokens.valid_frames[row] > 0]
    if not rows:
        raise UnscoredError(f"the dataset has no {split} slice with a whole codec frame")
    return [tokens.codes[row, :1, : tokens.valid_frames[row]] for row in rows]


def _search_codes(sets: Sequence[MeasuredClips], dataset: DatasetSide) -> None:
    tokens = dataset.tokens
    tracks: dict[str, list[NDArray[np.int16]]] = {}
    for row, (track, side) in enumerate(zip(tokens.track_ids, tokens.splits, strict=True)):
        if side == "train" and tokens.valid_frames[row] > 0:
            tracks.setdefault(track, []).append(tokens.codes[row, 0, : tokens.valid_frames[row]])
    index = CodeIndex([np.concatenate(parts) for parts in tracks.values()]) if tracks else None
    for one in sets:
        if index is None:
            one.unscored[CODES] = "the dataset has no training slice with a whole codec frame"
        elif len(one.codes):
            one.matches = match_codes([codes[0] for codes in one.codes], index, dataset.frame_rate_hz)


def _describe(
    trial_id: str | None,
    prompt: str | None,
    sets: Sequence[MeasuredClips],
    control: MeasuredClips,
    means: Sequence[Mapping[str, Embeddings]],
    dataset: DatasetSide,
) -> TrialGuards:
    diversity, lacking = _relate_diversity(means, dataset.references)
    record = TrialGuards(
        trial=trial_id,
        set="held-out recordings" if trial_id is None else "generated",
        prompt=prompt,
        n_clips=sum(one.n_clips for one in sets),
        diversity=diversity,
        unscored={figure: reason for one in sets for figure, reason in one.unscored.items()} | lacking,
        provenance=_describe_provenance(control, dataset),
    )
    sounds = [one.sound for one in sets if one.sound is not None]
    if len(sounds) == len(sets):
        record = replace(
            record,
            silent_clips_frac=float(np.concatenate([one.is_silent for one in sounds]).mean()),
            silent_seconds_frac=float(np.concatenate([one.silent_frac for one in sounds]).mean()),
            repetition=float(np.median(np.concatenate([one.repetition for one in sounds]))),
        )
    copies = [one.copies for one in sounds if one.copies is not None]
    theirs = None if control.sound is None else control.sound.copies
    if len(copies) == len(sets) and theirs is not None:
        similar = np.concatenate([one.similarities for one in copies])
        found = compare_nearness(similar, theirs.similarities)
        record = replace(
            record,
            copy_similarity=found.generated_median,
            copy_similarity_max=float(similar.max()),
            closer_than_held_out_frac=found.above_frac,
            nearest_copy=_name_nearest(sounds, dataset.manifest if trial_id is None else None),
        )
    matches = [one.matches for one in sets if one.matches is not None]
    if len(matches) == len(sets):
        match = np.concatenate(matches)
        record = replace(
            record,
            code_match=float(np.median(match)),
            code_match_max=float(match.max()),
            partial_code_copies_frac=float((match >= PARTIAL_MATCH_FRAC).mean()),
        )
    return record


def _describe_provenance(control: MeasuredClips, dataset: DatasetSide) -> dict[str, str | int | float]:
    return {
        **describe_method(),
        "dataset": dataset.manifest.key,
        "tokens": dataset.tokens.key,
        "clip_s": dataset.clip_s,
        "control_n_clips": control.n_clips,
        "interval": "none; the control row is the yardstick",
    }


def _name_nearest(sounds: Sequence[ClipSound], recordings: Manifest | None) -> str:
    """Name the clip that most resembles the training set, and the passage that it resembles.

    Clips of `recordings` are named by the track's id and their number (see `reference_clips`).
    """
    found = [(sound, sound.copies) for sound in sounds if sound.copies is not None]
    sound, copies = max(reversed(found), key=lambda pair: float(pair[1].similarities.max()))
    clip = int(copies.similarities.argmax())
    name = f"clip {sound.names[clip]}"
    if recordings is not None:
        track_id, _, number = sound.names[clip].rpartition("-")
        source = next(track.source for track in recordings.tracks if track.id == track_id)
        name = f"{source}, excerpt {int(number) + 1}"
    return f"{name}: {copies.sources[clip]} at {copies.times_s[clip]:.1f} s"


def _relate_diversity(
    sets: Sequence[Mapping[str, Embeddings]], references: Mapping[str, Embeddings]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return, by encoder, the mean over prompts of the spread within a prompt over that of the references."""
    found: dict[str, float] = {}
    unscored: dict[str, str] = {}
    for encoder, reference in references.items():
        try:
            theirs = cluster_embeddings(reference, "reference")
            ratios = [
                diversity_ratio(cluster_embeddings(one[encoder], "generated"), theirs)
                for one in sets
                if encoder in one
            ]
        except UnscoredError as reason:
            unscored[f"{DIVERSITY} ({encoder})"] = str(reason)
            continue
        found[encoder] = float(np.mean(ratios))
    return found, unscored


def _add_support(record: TrialGuards, found: ClipSupport) -> TrialGuards:
    return replace(
        record,
        recall=found.recall,
        coverage=found.coverage,
        unscored={**record.unscored, **found.unscored},
    )


def _add_adherence(record: TrialGuards, parts: Sequence[NDArray[np.float64] | str]) -> TrialGuards:
    """Add the mean cosine of clips and their prompts with its standard error over clips, prompts being strata."""
    values = [part for part in parts if not isinstance(part, str)]
    if len(values) < len(parts):
        reason = next(part for part in parts if isinstance(part, str))
        return replace(record, unscored={**record.unscored, ADHERENCE: reason})
    n = sum(len(part) for part in values)
    found = replace(record, adherence=float(np.concatenate(values).mean()))
    if min(len(part) for part in values) > 1:
        variance = sum(len(part) * float(part.var(ddof=1)) for part in values) / n**2
        found = replace(found, adherence_se=float(np.sqrt(variance)))
    return found
