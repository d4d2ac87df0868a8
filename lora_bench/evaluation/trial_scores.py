"""Scores and guards of one trial's clips; embeddings are kept for comparisons.

trials/<id>/embeddings/<encoder>/<prompt>.npz       generated clips
trials/<id>/embeddings/<encoder>/texts.npz          prompts, where the encoder knows texts
trials/<id>/embeddings/<encoder>/reference.json     which file below holds the reference
trials/<id>/embeddings/<encoder>@codec/<prompt>.npz clips of another system after the codec
trials/<id>/embeddings/<encoder>/reference_codec.json   the same after the codec, where a metric is codec-matched
reference_embeddings/<hash>.npz                     held-out recordings, shared by trials
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Embeddings, GeneratedClips, Manifest, Score, Split, Unscored
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.encoding import embed_reference, load_clips, prepare_encoder
from lora_bench.evaluation.melodies import describe_melodies
from lora_bench.evaluation.prompt_ratings import open_raters
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.names import CODEC_MATCHED, PROMPT_RATINGS
from lora_bench.metrics.prompt_tags import NO_TAGS, choose_prompts
from lora_bench.planning.run_folder import EmbeddingFolder, TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.external import label_external
from lora_bench.slugs import prompt_slugs
from lora_bench.store import Store, hash_file, hash_json, read_json, to_jsonable, write_json

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.models import MusicModel

GUARDS_VERSION = 1  # raise it when the same clips give other guards
ADHERENCE_ENCODER = "clap"
NO_CODES = "clips of another system have no codes of this model; their copies are searched in the sound"


@dataclass(frozen=True)
class EncodedTrial:
    """The embeddings of a trial by one encoder.

    Attributes:
        generated: by prompt.
        coded_generated: those of another system after the model's codec, for codec-matched metrics; None for the
            model's own, which are decoded from codes as they are.
        reference: excerpts of the held-out tracks.
        coded_reference: the same after the model's codec; None if no metric is codec-matched.
        texts: one vector per prompt, in their order; None if the encoder knows no texts.
        selection: the same clips with references of the selection side; None where there is no such side.
        unrated: prompts that name no tag, where the encoder rates clips by the tags of their prompts.
    """

    generated: Mapping[str, Embeddings]
    reference: Embeddings
    coded_reference: Embeddings | None
    texts: Embeddings | None
    selection: EncodedTrial | None = None
    coded_generated: Mapping[str, Embeddings] | None = None
    unrated: tuple[str, ...] = ()

    def clips_for(self, metric: Metric) -> Mapping[str, Embeddings]:
        """Return the clips that a metric compares."""
        coded = self.coded_generated if metric.codec_matched else None
        return self.generated if coded is None else coded


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


@dataclass(frozen=True)
class TrialClips:
    """A trial with its clips, its data and its model.

    Attributes:
        folder: the trial's.
        code_files: by prompt, the files of the clips' codes.
    """

    trial: TrialPlan
    model: MusicModel
    manifest: Manifest
    clips: Mapping[str, GeneratedClips]
    code_files: Mapping[str, tuple[Path, ...]]
    folder: Path
    store: Store

    @property
    def clip_s(self) -> float:
        """Length of a clip in seconds."""
        return self.trial.generation.clip_s

    @cached_property
    def sound_keys(self) -> dict[str, str]:
        """By prompt, a hash of the sound of its clips."""
        from lora_bench.stages.embed import hash_clips

        return {prompt: hash_clips(load_clips(clips)) for prompt, clips in self.clips.items()}

    def describe(self, side: Split = "eval") -> dict[str, str | int | float]:
        """Return the provenance of the clips: references of a side, model, sampling and seeds."""
        from lora_bench.stages.generate import read_methods

        if self.trial.external is not None:
            return self._describe_external(side)
        sampling = self.trial.generation
        codes = {files[0].parent for files in self.code_files.values() if files}
        methods = sorted({method for folder in codes for method in read_methods(folder)})
        return {
            "reference_hash": hash_json([self.manifest.key, side, self.clip_s]),
            **({"side": side} if side == "selection" else {}),
            "model": self.model.info.name,
            "model_weights_hash": self.model.info.weights_hash,
            "sampling": f"guidance {sampling.guidance:g}, temperature {sampling.temperature:g}, "
            f"top k {sampling.top_k}, clips of {sampling.clip_s:g} s"
            + (f" in windows that overlap by {sampling.overlap_s:g} s" if sampling.is_in_windows else "")
            + (f", decoded in {sampling.quantization}" if sampling.quantization else ""),
            **describe_melodies(self.trial),
            **({"decoding": " and ".join(methods)} if methods else {}),
            **({"adapter_scale": sampling.adapter_scale} if sampling.adapter_scale != 1.0 else {}),
            "generation_seed": sampling.seed,
            "train_seed": "none" if self.trial.train_seed is None else self.trial.train_seed,
        }

    def _describe_external(self, side: Split) -> dict[str, str | int | float]:
        files = [file for prompt in self.clips.values() for file in prompt.files]
        return {
            "reference_hash": hash_json([self.manifest.key, side, self.clip_s]),
            **({"side": side} if side == "selection" else {}),
            "model": f"external: {label_external(to_jsonable(self.trial.external))}",
            "clips_hash": hash_json([hash_file(file) for file in files]),
            "sampling": f"of another system, clips of {self.clip_s:g} s",
        }

    def encode(self, name: str) -> EncodedTrial:
        """Embed clips, references and prompts, and keep them for comparisons.

        Raises:
            UnscoredError: the encoder's weights are unavailable.
        """
        from lora_bench.stages.embed import save_embeddings

        place = TrialFolder(self.folder).embeddings(name)
        if name in PROMPT_RATINGS:
            raters, reference = open_raters(name, self.trial)
            generated = self._embed_clips(raters, place)
            self._keep_reference(reference, place.reference)
            unrated = tuple(prompt for prompt in self.trial.prompts if prompt not in raters)
            return EncodedTrial(generated, reference, None, None, unrated=unrated)
        encoder = prepare_encoder(
            name, self.model, self.manifest, self.clip_s, self.store, self.trial.encoders.get(name)
        )
        reference, coded = self._embed_references(encoder, name, "eval")
        generated = self._embed_clips(dict.fromkeys(self.trial.prompts, encoder), place)
        self._keep_reference(reference, place.reference)
        if coded is not None:
            self._keep_reference(coded, place.coded_reference)
        embed_text = getattr(encoder, "embed_text", None)
        texts: Embeddings | None = embed_text(list(self.clips)) if embed_text is not None else None
        if texts is not None:
            save_embeddings(texts, place.texts)
        recoded = None
        if coded is not None and self.trial.external is not None:
            recoded = self._embed_recoded(
                encoder, TrialFolder(self.folder).embeddings(f"{name}{CODEC_MATCHED}")
            )
        selection: EncodedTrial | None = None
        if self.manifest.has_selection:
            selection = EncodedTrial(
                generated,
                *self._embed_references(encoder, name, "selection"),
                texts=None,
                coded_generated=recoded,
            )
        return EncodedTrial(generated, reference, coded, texts, selection, recoded)

    def _embed_clips(self, encoders: Mapping[str, Encoder], place: EmbeddingFolder) -> dict[str, Embeddings]:
        """Embed the clips of every prompt that has an encoder, and keep them for comparisons."""
        from lora_bench.stages.embed import embed_clips, save_embeddings

        found: dict[str, Embeddings] = {}
        slugs = prompt_slugs(self.trial.prompts)
        for prompt, encoder in encoders.items():
            found[prompt] = embed_clips(
                encoder, load_clips(self.clips[prompt]), self.store, self.sound_keys[prompt]
            )
            save_embeddings(found[prompt], place.prompt(slugs[prompt]))
        return found

    def _embed_recoded(self, encoder: Encoder, place: EmbeddingFolder) -> dict[str, Embeddings]:
        """Embed another system's clips after the codec, as the references are, and keep them for comparisons."""
        from lora_bench.evaluation.codec import mark_recoded, through_codec
        from lora_bench.stages.embed import embed_clips, save_embeddings

        found: dict[str, Embeddings] = {}
        for prompt, slug in prompt_slugs(self.trial.prompts).items():
            coded = through_codec(self.model, load_clips(self.clips[prompt]))
            found[prompt] = mark_recoded(embed_clips(encoder, coded, self.store), self.model, "generated")
            save_embeddings(found[prompt], place.prompt(slug))
        return found

    def _embed_references(
        self, encoder: Encoder, name: str, side: Split
    ) -> tuple[Embeddings, Embeddings | None]:
        """Return one side's references, as they are and, if a metric asks for them, after the codec."""
        facts = self.manifest, self.clip_s, self.store
        is_matched = any(m.codec_matched and m.encoder == name for m in map(parse_metric, self.trial.metrics))
        coded = embed_reference(encoder, *facts, self.model, side) if is_matched else None
        return embed_reference(encoder, *facts, side=side), coded

    def _keep_reference(self, reference: Embeddings, pointer: Path) -> None:
        """Save references for comparisons, shared by trials, and name their file in `pointer`."""
        from lora_bench.stages.embed import save_embeddings

        key = hash_json([self.manifest.key, self.clip_s, dict(reference.provenance)])
        shared = TrialFolder(self.folder).run.reference_embeddings / f"{key}.npz"
        if not shared.is_file():
            save_embeddings(reference, shared)
        write_json(pointer, {"file": shared.name})


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
            score_metric(metric, encoded, own, sheet, made.describe())
            if encoded.selection is not None and metric.has_references:  # others have no sides
                score_metric(metric, encoded.selection, own, selection, made.describe("selection"))
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
