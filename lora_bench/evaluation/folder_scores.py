"""Score two plain folders of audio, without a run; the numbers are those of a run.

Every audio file of both folders is scored, or the call fails with the file's name.  What a run does with
its clips is done with the files: the same encoders, distances, intervals and provenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lora_bench.artifacts import AudioClip, Embeddings, Score, Unscored
from lora_bench.errors import ModelError, UnscoredError, UsageError
from lora_bench.evaluation.audio_folder import AudioFolder, find_identical, open_folder, track_files
from lora_bench.evaluation.codec import identify_codec, mark_recoded, recode
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.diagnostics import Diagnostics, describe_sets, halve_groups
from lora_bench.metrics.names import TAG_ADHERENCE
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.score import score_embeddings
from lora_bench.store import JsonObject, hash_json, to_jsonable

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.evaluation.folder_guards import FolderGuards
    from lora_bench.models import MusicModel
    from lora_bench.progress import Progress
    from lora_bench.spec.schema import ModelSpec
    from lora_bench.store import Store

SCHEMA = 1
Side = Literal["generated", "reference", "coded"]
MODEL_ENCODERS = frozenset({"encodec", "mfcc20"})  # they take the music model's codec or its rate
VECTORS = "diversity, precision, recall, density, coverage: mean vector of each clip; the rest: all vectors"


@dataclass(frozen=True)
class ScoreOptions:
    """Options of scoring two folders.

    Attributes:
        model: music model whose codec `encodec` and codec-matched metrics use and whose rate `mfcc20` uses; None is
            the pocket model.
        clip_s: cut the files of both folders into excerpts of this length; None takes them whole.
        prompt: text of the generated clips, for `clap_score` and `tag-adherence`.
        with_guards: also measure `FolderChecks`.
    """

    model: ModelSpec | None = None
    clip_s: float | None = None
    prompt: str | None = None
    with_guards: bool = True


@dataclass(frozen=True)
class FolderSide:
    """One of the two folders.

    Attributes:
        hash: of the files' names and contents, and of how they are cut.
    """

    folder: str
    hash: str
    n_files: int


@dataclass(frozen=True)
class EncoderDiagnostics:
    """Figures of one encoder alongside its distances, and where they come from."""

    figures: Diagnostics
    provenance: Mapping[str, str | int | float]

    def to_json(self) -> JsonObject:
        """Return the figures as `lora-bench score --json` prints them."""
        return {**self.figures.to_json(), "provenance": dict(self.provenance)}


@dataclass(frozen=True)
class FolderChecks:
    """What should be read alongside the scores.

    Attributes:
        floors: scores of a part of the reference against the rest, by metric: what real music scores.
        floors_unscored: metrics without a floor, with the reason.
        diagnostics: by encoder.
        guards: silence, loops and copies.
    """

    floors: tuple[Score, ...]
    floors_unscored: tuple[Unscored, ...]
    diagnostics: Mapping[str, EncoderDiagnostics]
    guards: FolderGuards

    def to_json(self) -> JsonObject:
        """Return the checks as `lora-bench score --json` prints them."""
        return {
            "floors": to_jsonable(self.floors),
            "floors_unscored": to_jsonable(self.floors_unscored),
            "beside": {name: found.to_json() for name, found in self.diagnostics.items()},
            "guards": self.guards.to_json(),
        }


@dataclass(frozen=True)
class FolderScores:
    """Scores of a folder of generated audio against a folder of recordings.

    Attributes:
        reference: the recordings.
        generated: the clips.
        clip_s: length of the excerpts that the files were cut into; None is whole files.
        scores: one per metric, as in a run, with provenance.
        unscored: metrics without a score, with the reason.
        identical_files: pairs of a generated and a reference file with the same bytes.
        checks: floors, diagnostics and guards; None if they were not asked for.
    """

    reference: FolderSide
    generated: FolderSide
    clip_s: float | None
    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...]
    identical_files: tuple[tuple[str, str], ...]
    checks: FolderChecks | None = None

    def to_json(self) -> JsonObject:
        """Return the document that `lora-bench score --json` prints."""
        return {
            "schema": SCHEMA,
            "reference": to_jsonable(self.reference),
            "generated": to_jsonable(self.generated),
            "clip_s": self.clip_s,
            "scores": to_jsonable(self.scores),
            "unscored": to_jsonable(self.unscored),
            "identical_files": to_jsonable(self.identical_files),
            **({} if self.checks is None else self.checks.to_json()),
        }


def score_folders(
    reference: Path,
    generated: Path,
    metrics: Sequence[str],
    progress: Progress,
    options: ScoreOptions | None = None,
    store: Store | None = None,
) -> FolderScores:
    """Score a folder of generated audio against a folder of recordings.

    Args:
        reference: recordings, in any format and at any depth; a file is a track.
        generated: clips; a file is a clip.
        metrics: names as `parse_metric` knows them.
        progress: receives every metric and clip.
        options: None takes the defaults.
        store: cache of embeddings; None keeps none.

    Raises:
        UsageError: an unknown metric.
        DatasetError: a folder is missing or holds no audio.
        AudioFileError: a file cannot be read; names it.
        ScoreError: a score cannot be computed from these files; names the clip where there is one.
    """
    parsed = [_parse(name) for name in dict.fromkeys(metrics)]
    chosen = options or ScoreOptions()
    sides = open_folder(reference, chosen.clip_s), open_folder(generated, chosen.clip_s)
    scorer = FolderScorer(*sides, progress=progress, options=chosen, store=store)
    scores: list[Score] = []
    unscored: list[Unscored] = []
    for metric in parsed:
        try:
            scores.append(scorer.score(metric))
        except UnscoredError as reason:
            unscored.append(Unscored(metric.name, chosen.prompt, str(reason)))
    return FolderScores(
        reference=_describe(sides[0]),
        generated=_describe(sides[1]),
        clip_s=chosen.clip_s,
        scores=tuple(scores),
        unscored=tuple(unscored),
        identical_files=find_identical(*sides),
        checks=_measure_checks(scorer, scores) if chosen.with_guards else None,
    )


def _measure_checks(scorer: FolderScorer, scores: Sequence[Score]) -> FolderChecks:
    from lora_bench.evaluation.folder_guards import measure_folder_guards

    metrics = [metric for metric in (parse_metric(score.metric) for score in scores) if metric.has_references]
    floors: list[Score] = []
    lacking: list[Unscored] = []
    for metric in metrics:
        try:
            floors.append(scorer.measure_floor(metric))
        except UnscoredError as reason:
            lacking.append(Unscored(metric.name, None, str(reason)))
    encoders = dict.fromkeys(metric.encoder for metric in metrics)
    whole = replace(scorer.reference, clip_s=None)
    scorer.progress.start("guards", len(scorer.generated.files) + len(whole.files))
    sides = track_files(scorer.generated, scorer.progress), track_files(whole, scorer.progress)
    return FolderChecks(
        floors=tuple(floors),
        floors_unscored=tuple(lacking),
        diagnostics={name: scorer.diagnose(name) for name in encoders},
        guards=measure_folder_guards(*sides, len(whole.files)),
    )


def _parse(name: str) -> Metric:
    try:
        return parse_metric(name)
    except ValueError as error:
        raise UsageError(f"--metric {name}: {error}") from error


def _name_reference(metric: Metric) -> Side:
    return "coded" if metric.codec_matched else "reference"


def _describe(side: AudioFolder) -> FolderSide:
    return FolderSide(side.folder.as_posix(), side.key, len(side.files))


class FolderScorer:
    """Score metric by metric; model, encoders and embeddings are shared."""

    def __init__(
        self,
        reference: AudioFolder,
        generated: AudioFolder,
        *,
        progress: Progress,
        options: ScoreOptions,
        store: Store | None,
    ) -> None:
        self.reference = reference
        self.generated = generated
        self.progress = progress
        self.model_spec = options.model
        self.prompt = options.prompt
        self.store = store
        self._encoders: dict[str, Encoder | UnscoredError] = {}
        self._embeddings: dict[tuple[str, Side], Embeddings] = {}

    def score(self, metric: Metric) -> Score:
        """Score one metric.

        Raises:
            UnscoredError: weights or model are not here, or there are too few files.
            ScoreError, AudioFileError: as `score_folders`.
        """
        encoder = self._encoder(metric.encoder)
        self.progress.start(f"score {metric.name}", len(self.reference.files) + len(self.generated.files))
        is_text = metric.distance == "text"
        other = self._texts(encoder, metric) if is_text else self._embed(encoder, _name_reference(metric))
        score = score_embeddings(metric, self._embed(encoder, "generated"), other, self.prompt)
        about = self._describe_folders(metric.encoder, uses_codec=metric.codec_matched)
        return replace(score, provenance={**score.provenance, **about})

    def measure_floor(self, metric: Metric) -> Score:
        """Score some of the reference files against the rest, by a metric that was scored.

        Raises:
            UnscoredError: the reference is one file.
            ScoreError: as `score_folders`.
        """
        encoder = self._encoder(metric.encoder)
        reference = self._embed(encoder, _name_reference(metric))
        part, rest = halve_groups(reference, len(self._embed(encoder, "generated").clip_names))
        score = score_embeddings(metric, part, rest)
        about = self._describe_folders(metric.encoder, uses_codec=metric.codec_matched)
        about["set"] = "reference files, some against the rest"
        return replace(score, provenance={**score.provenance, **about})

    def diagnose(self, name: str) -> EncoderDiagnostics:
        """Measure the two folders by one encoder, without a distance."""
        encoder = self._encoder(name)
        generated, reference = self._embed(encoder, "generated"), self._embed(encoder, "reference")
        about = {**generated.provenance, **self._describe_folders(name), "vectors": VECTORS}
        return EncoderDiagnostics(describe_sets(generated, reference), about)

    def _describe_folders(self, encoder: str, *, uses_codec: bool = False) -> dict[str, str | int | float]:
        about: dict[str, str | int | float] = {
            "reference_hash": self.reference.key,
            "generated_hash": self.generated.key,
            "n_reference_files": len(self.reference.files),
            "n_generated_files": len(self.generated.files),
            "clip_s": self.generated.clip_s or "whole files",
        }
        if uses_codec or encoder in MODEL_ENCODERS:
            about["music_model"] = self._model_words
        return about

    @cached_property
    def _model(self) -> MusicModel:
        from lora_bench.models import load_model
        from lora_bench.spec.schema import ModelSpec

        try:
            return load_model(self.model_spec or ModelSpec())
        except ModelError as error:
            raise UnscoredError(f"the music model that it needs cannot be loaded: {error}") from error

    @property
    def _model_words(self) -> str:
        chosen = "as asked for" if self.model_spec else "by default; another can be named"
        return f"{self._model.info.name} ({chosen})"

    def _encoder(self, name: str) -> Encoder:
        if name not in self._encoders:
            try:
                self._encoders[name] = self._make_encoder(name)
            except UnscoredError as reason:
                self._encoders[name] = reason
        found = self._encoders[name]
        if isinstance(found, UnscoredError):
            raise found
        return found

    def _make_encoder(self, name: str) -> Encoder:
        from lora_bench.encoders import get_encoder
        from lora_bench.encoders.mfcc import MfccEncoder

        if name == TAG_ADHERENCE and self.prompt is not None:
            from lora_bench.encoders.tag_adherence import TagAdherence, open_tagger

            return TagAdherence(self.prompt, open_tagger())
        encoder = get_encoder(name, music_model=self._model if name in MODEL_ENCODERS else None)
        if isinstance(encoder, MfccEncoder):
            self.progress.log("mfcc20: the coefficients' scale is fitted on the reference folder")
            encoder.fit_scale(self.reference)
        return encoder

    def _embed(self, encoder: Encoder, side: Side) -> Embeddings:
        place = (encoder.name, side)
        if place not in self._embeddings:
            folder = self.generated if side == "generated" else self.reference
            clips: Iterable[AudioClip] = recode(self._model, folder) if side == "coded" else folder
            key = hash_json([folder.key, identify_codec(self._model)]) if side == "coded" else folder.key
            if self.store is None:
                found = encoder.embed(track_files(clips, self.progress))
            else:
                found = embed_clips(encoder, clips, self.store, key, progress=self.progress)
            self._embeddings[place] = mark_recoded(found, self._model) if side == "coded" else found
        return self._embeddings[place]

    def _texts(self, encoder: Encoder, metric: Metric) -> Embeddings:
        embed_text = getattr(encoder, "embed_text", None)
        if self.prompt is None or embed_text is None:
            raise UnscoredError(
                f"{metric.name}: it needs the text that the clips were generated from; give a prompt"
            )
        return embed_text([self.prompt])
