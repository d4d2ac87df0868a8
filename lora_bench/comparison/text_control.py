"""Text control before and after fine-tuning: a record per prompt and encoder, and one for all prompts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.metrics.text_control import (
    ControlSets,
    Estimated,
    compare_separation,
    measure_pull,
    pair_prompts,
    tell_prompts,
)
from lora_bench.metrics.verdicts import MoveVerdict, SeparationVerdict
from lora_bench.results.records import ControlRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

Figures = dict[str, object]
Word = TypeVar("Word", SeparationVerdict, MoveVerdict)
# For a change below zero, above zero, and neither.
SEPARATION_WORDS = (SeparationVerdict.REDUCED, SeparationVerdict.RAISED, SeparationVerdict.NO_CHANGE)
MOVE_WORDS = (MoveVerdict.AWAY, MoveVerdict.TOWARDS, MoveVerdict.NO_MOVE)


def compare_control(
    names: tuple[str, str],
    encoder: str,
    sets: Mapping[str, tuple[Embeddings, Embeddings]],
    reference: Embeddings,
    off_genre: Mapping[str, bool | None],
    rule: str,
) -> list[ControlRecord]:
    """Measure separation and pull of every prompt and of all together.

    Args:
        names: the trial's id, and that of the base that it is compared with.
        encoder: whose vectors these are.
        sets: by prompt, the base's and the trial's clips.
        reference: the genre's recordings.
        off_genre: which prompts are; None where that is unknown.
        rule: how that was decided, in words.

    Returns:
        One record per prompt and one for all; figures that are unavailable are absent, with a `note`.

    Raises:
        ScoreError: different dimensions, or values that are not finite.
    """
    base, tuned = zip(*sets.values(), strict=True)
    merged = merge_provenance([one.provenance for one in (*base, *tuned)], reference.provenance)
    about = {
        **merged,
        "vectors": "mean of a clip's windows",
        "separation": "unbiased squared distance of prompt means over the variance within prompts",
        "pull": "move of a prompt's mean along the way to the recordings' mean, as a share of that way",
        "interval": "95 % paired delete-one-clip jackknife; for pull on the reference's tracks, too",
        "off_genre": rule,
    }
    prompts = [*sets, None]
    kinds: list[bool | None] = [off_genre.get(prompt) for prompt in sets]
    shared = {"figure": "control", "trial": names[0], "against": names[1], "encoder": encoder}
    records: list[Figures] = [
        {**shared, "prompt": prompt, "off_genre": kind, "provenance": about}
        for prompt, kind in zip(prompts, [*kinds, None], strict=True)
    ]
    try:
        paired = pair_prompts(base, tuned, reference)
    except UnscoredError as reason:
        return [ControlRecord.model_validate({**record, "note": str(reason)}) for record in records]
    counts = [len(vectors) for vectors in paired.base]
    for record, n in zip(records, [*counts, sum(counts)], strict=True):
        record["n_pairs"] = n
        record["n_reference"] = paired.reference.n_clips
        record["dim"] = paired.reference.vectors.shape[1]
    _add_separation(records, paired)
    _add_pull(records, paired, kinds)
    return [ControlRecord.model_validate(record) for record in records]


def _add_separation(records: Sequence[Figures], sets: ControlSets) -> None:
    try:
        base, tuned, changes = compare_separation(sets)
    except UnscoredError as reason:
        for record in records:
            record["note"] = str(reason)
        return
    told = [_append_mean(tell_prompts(side)) for side in (sets.base, sets.tuned)]
    values = zip(records, _append_mean(base), _append_mean(tuned), changes, *told, strict=True)
    for record, ours, theirs, change, told_base, told_tuned in values:
        record.update(separation_base=float(ours), separation=float(theirs))
        record.update(_spell("separation_change", change))
        record.update(separation_verdict=_judge(change, SEPARATION_WORDS))
        record.update(told_apart_base_frac=float(told_base), told_apart_frac=float(told_tuned))


def _add_pull(records: Sequence[Figures], sets: ControlSets, kinds: Sequence[bool | None]) -> None:
    contrast = _contrast(kinds)
    try:
        pulls = measure_pull(sets, contrast)
    except UnscoredError as reason:
        for record in records:
            record["note"] = "; ".join(str(note) for note in (record.get("note"), reason) if note)
        return
    for record, pull in zip(records, pulls, strict=False):  # the contrast, if any, comes last
        record.update(_spell("pull", pull), pull_verdict=_judge(pull, MOVE_WORDS))
    if contrast is not None:
        records[-1].update(_spell("off_genre_less_in_genre_pull", pulls[-1]))


def _contrast(kinds: Sequence[bool | None]) -> NDArray[np.float64] | None:
    """Return weights of the mean over off-genre prompts less that over the genre's own; None without both."""
    off = np.array([kind is True for kind in kinds], dtype=np.float64)
    own = np.array([kind is False for kind in kinds], dtype=np.float64)
    if not off.sum() or not own.sum():
        return None
    return off / off.sum() - own / own.sum()


def _append_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(values, values.mean())


def _spell(name: str, found: Estimated) -> Figures:
    return {
        name: found.value,
        f"{name}_se": found.se,
        f"{name}_ci_low": found.ci_low,
        f"{name}_ci_high": found.ci_high,
    }


def _judge(found: Estimated, words: tuple[Word, Word, Word]) -> Word:
    """Return one of `words`, for below zero, above zero, and neither."""
    if found.ci_low is None or found.ci_high is None or found.ci_low <= 0.0 <= found.ci_high:
        return words[2]
    return words[0] if found.ci_high < 0.0 else words[1]
