"""Text control before and after fine-tuning: a record per prompt and encoder, and one for all prompts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.metrics.text_control import (
    ControlSets,
    Estimated,
    compare_separation,
    measure_pull,
    measure_retention,
    pair_prompts,
    tell_prompts,
)
from lora_bench.results.records import ControlRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

Figures = dict[str, object]


def compare_control(
    names: tuple[str, str],
    encoder: str,
    sets: Mapping[str, tuple[Embeddings, Embeddings]],
    reference: Embeddings,
    off_genre: Sequence[str],
) -> list[ControlRecord]:
    """Measure separation and pull of every prompt and of all together.

    Args:
        names: the trial's id, and that of the base that it is compared with.
        encoder: whose vectors these are.
        sets: by prompt, the base's and the trial's clips.
        reference: the genre's recordings.
        off_genre: prompts that are not meant to be of the genre.

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
        "retention": "1 less the length of that move in any direction over the way; over off-genre prompts together",
    }
    prompts = [*sets, None]
    kinds = [prompt in off_genre for prompt in sets]
    shared = {"trial": names[0], "against": names[1], "encoder": encoder}
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
        record.update(told_apart_base_frac=float(told_base), told_apart_frac=float(told_tuned))


def _add_pull(records: Sequence[Figures], sets: ControlSets, kinds: Sequence[bool]) -> None:
    contrast = _contrast(kinds)
    try:
        pulls = measure_pull(sets, contrast)
        kept = measure_retention(sets, None if contrast is None else np.maximum(contrast, 0.0))
    except UnscoredError as reason:
        for record in records:
            record["note"] = "; ".join(str(note) for note in (record.get("note"), reason) if note)
        return
    for record, pull in zip(records, pulls, strict=False):  # the contrast, if any, comes last
        record.update(_spell("pull", pull))
    for record, found in zip(records[:-1], kept, strict=False):
        record.update(_spell("retention", found))
    if contrast is not None:
        records[-1].update(_spell("off_genre_less_in_genre_pull", pulls[-1]), **_spell("retention", kept[-1]))


def _contrast(kinds: Sequence[bool]) -> NDArray[np.float64] | None:
    """Return weights of the mean over off-genre prompts less that over the genre's own; None without both."""
    off = np.array(kinds, dtype=np.float64)
    own = 1.0 - off
    if not off.sum() or not own.sum():
        return None
    return off / off.sum() - own / own.sum()


def _append_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(values, values.mean())


def _spell(name: str, found: Estimated) -> Figures:
    se = {} if found.se is None else {f"{name}_se": found.se}
    return {
        name: found.value,
        **se,
        f"{name}_ci_low": found.ci_low,
        f"{name}_ci_high": found.ci_high,
    }
