"""Scores and guards of one trial's clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lora_bench.artifacts import Embeddings, Score, Unscored
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.encoding import load_clips
from lora_bench.evaluation.trial_clips import EncodedTrial, TrialClips
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS
from lora_bench.metrics.prompt_tags import NO_TAGS, choose_prompts
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress
from lora_bench.store import hash_file, hash_json, read_json, write_json

GUARDS_VERSION = 2  # raise it when the same clips give other guards
ADHERENCE_ENCODER = "clap"
NO_CODES = "clips of another system have no codes of this model; their copies are searched in the sound"


@dataclass
class ScoreSheet:
    """Scores against the references of one side, and the cells without a score."""

    scores: list[Score] = field(default_factory=list[Score])
    unscored: list[Unscored] = field(default_factory=list[Unscored])

    def arrange(self, metrics: Sequence[str]) -> dict[str, object]:
        """Return the content of a file, in the order of the metrics."""
        order = {name: place for place, name in enumerate(metrics)}
        return {
            "scores": sorted(self.scores, key=lambda score: order[score.metric]),
            "unscored": sorted(self.unscored, key=lambda gap: order[gap.metric]),
        }


def score_clips(made: TrialClips, progress: Progress) -> None:
    """Write `scores.json` and `guards.json`; a metric without weights is unscored, with the reason.

    Scores against the selection side stand apart under `selection`.

    Raises:
        ScoreError, AudioFileError: a clip is damaged; names it.
    """
    from lora_bench.metrics.clusters import average_clips

    parsed = [parse_metric(name, made.trial.distances) for name in made.trial.metrics]
    names = dict.fromkeys(metric.encoder for metric in parsed)
    own = made.trial.own_prompts
    sheet, selection = ScoreSheet(), ScoreSheet()
    means: dict[str, tuple[dict[str, Embeddings], Embeddings]] = {}
    adherence: Mapping[str, np.ndarray] | str | None = None
    about = made.describe()
    about_selection = made.describe("selection") if made.manifest.has_selection else about
    progress.start("score", len(made.trial.metrics) * len(made.trial.prompts))
    for name in names:
        metrics = [m for m in parsed if m.encoder == name]
        try:
            encoded = made.encode(name)
        except UnscoredError as reason:
            prompts = (*made.trial.prompts, None)
            gaps = [Unscored(m.name, prompt, str(reason)) for m in metrics for prompt in prompts]
            sheet.unscored += gaps
            selection.unscored += [gap for gap in gaps if parse_metric(gap.metric).has_references]
            adherence = str(reason) if name == ADHERENCE_ENCODER else adherence
            progress.advance(len(metrics) * len(made.trial.prompts))
            continue
        for metric in metrics:
            score_metric(metric, encoded, own, sheet, about)
            if encoded.selection is not None and metric.has_references:  # others have no sides
                score_metric(metric, encoded.selection, own, selection, about_selection)
            progress.advance(len(made.trial.prompts), note=metric.name)
        if name not in PROMPT_RATINGS:  # which no recordings have
            averaged = {prompt: average_clips(one) for prompt, one in encoded.generated.items()}
            means[name] = averaged, average_clips(encoded.reference)
        if name == ADHERENCE_ENCODER:
            adherence = match_prompts(encoded)
    metrics = made.trial.metrics
    sides = {"selection": selection.arrange(metrics)} if made.manifest.has_selection else {}
    write_json(TrialFolder(made.folder).scores, {**sheet.arrange(metrics), **sides})
    guard_clips(made, means, adherence, progress)


def score_metric(
    metric: Metric,
    encoded: EncodedTrial,
    own_prompts: Sequence[str],
    sheet: ScoreSheet,
    about: Mapping[str, str | int | float],
) -> None:
    """Score every prompt, and the genre's own together; too few clips leave a cell unscored.

    Args:
        metric: what to compute.
        encoded: the trial's embeddings.
        own_prompts: those of the genre.
        sheet: receives the scores, and the cells without one.
        about: added to the provenance.
    """
    from lora_bench.metrics.clusters import take_clips
    from lora_bench.stages.score import score_embeddings, score_pooled

    other = encoded.reference
    if metric.codec_matched and encoded.coded_reference is not None:
        other = encoded.coded_reference
    if metric.distance == "text":
        if encoded.texts is None:
            reason = f"{metric.name}: the encoder knows no texts"
            sheet.unscored += [Unscored(metric.name, prompt, reason) for prompt in (*encoded.generated, None)]
            return
        other = encoded.texts
    clips = encoded.clips_for(metric)
    sheet.unscored += [Unscored(metric.name, prompt, NO_TAGS) for prompt in encoded.unrated]
    for place, (prompt, generated) in enumerate(clips.items()):
        against = take_clips(other, [place]) if metric.distance == "text" else other
        try:
            score = score_embeddings(metric, generated, against, prompt)
            sheet.scores.append(replace(score, provenance={**score.provenance, **about}))
        except UnscoredError as reason:
            sheet.unscored.append(Unscored(metric.name, prompt, str(reason)))
    try:
        if metric.distance == "text":
            other = take_clips(
                other, [place for place, prompt in enumerate(encoded.generated) if prompt in own_prompts]
            )
        prompts, notes = choose_prompts(metric.name, own_prompts)
        score = score_pooled(metric, [clips[prompt] for prompt in prompts], other)
        note = "; ".join(filter(None, [score.note, *notes])) or None
        sheet.scores.append(replace(score, note=note, provenance={**score.provenance, **about}))
    except UnscoredError as reason:
        sheet.unscored.append(Unscored(metric.name, None, str(reason)))


def match_prompts(encoded: EncodedTrial) -> dict[str, np.ndarray] | str:
    """Return the cosine of each clip and its prompt's text, by prompt; or why there is none."""
    from lora_bench.metrics.clusters import average_clips

    if encoded.texts is None:
        return "the encoder knows no texts"
    found: dict[str, np.ndarray] = {}
    for place, (prompt, generated) in enumerate(encoded.generated.items()):
        means = np.asarray(average_clips(generated).values, dtype=np.float64)
        text = np.asarray(encoded.texts.values[place], dtype=np.float64)
        found[prompt] = means @ text / (np.linalg.norm(means, axis=1) * np.linalg.norm(text))
    return found


def guard_clips(
    made: TrialClips,
    means: Mapping[str, tuple[Mapping[str, Embeddings], Embeddings]],
    adherence: Mapping[str, np.ndarray] | str | None,
    progress: Progress,
) -> None:
    """Write `guards.json`, unless it was written for the same clips, data and encoders."""
    from lora_bench.evaluation.trial_guards import DatasetSide, PromptClips, measure_guards
    from lora_bench.stages.dataset import take_training
    from lora_bench.stages.guard import describe_method
    from lora_bench.stages.tokens import encode_dataset

    manifest = take_training(made.manifest, made.trial.dataset)  # copies are of what was trained on
    tokens = encode_dataset(manifest, made.model, made.store, progress)
    files = [file for clips in made.clips.values() for file in clips.files]
    codes = [file for group in made.code_files.values() for file in group if file.is_file()]
    key = hash_json(
        {
            "version": GUARDS_VERSION,
            "method": describe_method(),
            "clips": [[file.name, hash_file(file)] for file in (*files, *codes)],
            "prompts": list(made.clips),
            **({"off_genre": made.trial.off_genre} if made.trial.off_genre else {}),
            "tokens": tokens.key,
            "encoders": {name: dict(reference.provenance) for name, (_, reference) in means.items()},
            "adherence": adherence if isinstance(adherence, str) else None,
        }
    )
    place = TrialFolder(made.folder).guards
    if place.is_file() and read_json(place).get("key") == key:
        return
    progress.start("guards", len(files))
    if adherence is None:
        try:
            adherence = match_prompts(made.encode(ADHERENCE_ENCODER))
        except UnscoredError as reason:
            adherence = str(reason)
    prompts = {
        prompt: PromptClips(
            clips=load_clips(clips),
            code_files=made.code_files[prompt] if made.trial.external is None else NO_CODES,
            n_clips=len(clips.files),
            means={name: generated[prompt] for name, (generated, _) in means.items()},
            adherence=adherence if isinstance(adherence, str) else adherence[prompt],
            key=made.sound_keys[prompt],
            off_genre=prompt not in made.trial.own_prompts,
        )
        for prompt, clips in made.clips.items()
    }
    dataset = DatasetSide(
        manifest=manifest,
        tokens=tokens,
        frame_rate_hz=made.model.info.frame_rate_hz,
        clip_s=made.clip_s,
        references={name: reference for name, (_, reference) in means.items()},
    )
    records = measure_guards(made.trial.id, prompts, dataset, made.store, progress)
    write_json(place, {"key": key, "guards": [record.to_json() for record in records]})
