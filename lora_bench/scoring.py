"""Scores of two plain folders of audio, outside of any run; the same numbers as a run's.

Every audio file of both folders is scored, or the call fails with the file's name.  What a run does with
its clips is done with the files: the same encoders, distances, intervals and provenance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.artifacts import AudioClip, Embeddings, Score, Unscored
from lora_bench.audio import list_audio_files, load_audio
from lora_bench.errors import DatasetError, ModelError, UnscoredError, UsageError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.score import score_embeddings
from lora_bench.store import hash_file, hash_json, to_jsonable

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.models import MusicModel
    from lora_bench.progress import Progress
    from lora_bench.spec.schema import ModelSpec
    from lora_bench.store import Store

SCHEMA = 1
MODEL_ENCODERS = frozenset({"encodec", "mfcc20"})  # they take the music model's codec or its rate


@dataclass(frozen=True)
class AudioFolder:
    """The audio files of one folder, read anew each time it is iterated.

    Attributes:
        files: sorted; at any depth.
        clip_s: files are cut into excerpts of this length end to end, a shorter rest is left out, and a
            shorter file is one excerpt; None takes files whole.
    """

    folder: Path
    files: tuple[Path, ...]
    clip_s: float | None = None

    def __iter__(self) -> Iterator[AudioClip]:
        """Clips in the files' order; a clip's group is its file."""
        for path in self.files:
            name = path.relative_to(self.folder).as_posix()
            audio, rate_hz = load_audio(path)
            n_samples = round(self.clip_s * rate_hz) if self.clip_s else audio.shape[1]
            if audio.shape[1] < 2 * n_samples:
                yield AudioClip(name, name, audio[:, :n_samples], rate_hz)
                continue
            for index in range(audio.shape[1] // n_samples):
                piece = audio[:, index * n_samples : (index + 1) * n_samples]
                yield AudioClip(f"{name}#{index}", name, piece, rate_hz)

    @cached_property
    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of each file's bytes by its path in the folder."""
        return {path.relative_to(self.folder).as_posix(): hash_file(path) for path in self.files}

    @property
    def key(self) -> str:
        """Hash of names, contents and cutting: stands for the clips."""
        return hash_json([self.file_hashes, self.clip_s], length=32)


def open_folder(folder: Path, clip_s: float | None = None) -> AudioFolder:
    """The audio files below `folder`.

    Raises:
        DatasetError: no such folder, or no audio in it.
    """
    files = list_audio_files(folder)
    if not files:
        raise DatasetError(f"{folder}: holds no audio files; expected wav, flac, ogg, opus, mp3 or m4a")
    return AudioFolder(folder, tuple(files), clip_s)


def score_folders(
    reference: Path,
    generated: Path,
    metrics: Sequence[str],
    progress: Progress,
    *,
    model: ModelSpec | None = None,
    clip_s: float | None = None,
    prompt: str | None = None,
    store: Store | None = None,
) -> dict[str, Any]:
    """Score a folder of generated audio against a folder of recordings.

    Args:
        reference: recordings, in any format and at any depth; a file is a track.
        generated: clips; a file is a clip.
        metrics: names as `parse_metric` knows them.
        progress: told of every metric and clip.
        model: music model whose codec `encodec` uses and whose rate `mfcc20` uses; None is the pocket model.
        clip_s: cut the files of both folders into excerpts of this length; None takes them whole.
        prompt: text of the generated clips, for `clap_score`.
        store: cache of embeddings; None keeps none.

    Returns:
        JSON-able: `schema`, `reference` and `generated` (folder, hash, number of files and clips),
        `scores` (as in a run, with provenance), `unscored` (metric, reason), `identical_files` (generated
        files whose bytes are those of a reference file).

    Raises:
        UsageError: an unknown metric.
        DatasetError: a folder is missing or holds no audio.
        AudioFileError: a file cannot be read; names it.
        ScoreError: a score cannot be computed from these files; names the clip where there is one.
    """
    parsed = [_parse(name) for name in dict.fromkeys(metrics)]
    sides = open_folder(reference, clip_s), open_folder(generated, clip_s)
    scorer = FolderScorer(*sides, progress=progress, model_spec=model, prompt=prompt, store=store)
    scores: list[Score] = []
    unscored: list[Unscored] = []
    for metric in parsed:
        try:
            scores.append(scorer.score(metric))
        except UnscoredError as reason:
            unscored.append(Unscored(metric.name, prompt, str(reason)))
    return {
        "schema": SCHEMA,
        **{name: _describe(side) for name, side in zip(("reference", "generated"), sides, strict=True)},
        "clip_s": clip_s,
        "scores": to_jsonable(scores),
        "unscored": to_jsonable(unscored),
        "identical_files": find_identical(*sides),
    }


def find_identical(reference: AudioFolder, generated: AudioFolder) -> list[list[str]]:
    """Pairs of a generated and a reference file with the same bytes, which make any distance too small."""
    by_hash = {digest: name for name, digest in reference.file_hashes.items()}
    return [[name, by_hash[digest]] for name, digest in generated.file_hashes.items() if digest in by_hash]


def _parse(name: str) -> Metric:
    try:
        return parse_metric(name)
    except ValueError as error:
        raise UsageError(f"--metric {name}: {error}") from error


def _describe(side: AudioFolder) -> dict[str, Any]:
    return {"folder": side.folder.as_posix(), "hash": side.key, "n_files": len(side.files)}


class FolderScorer:
    """Scores metric by metric; model, encoders and embeddings are made once and shared."""

    def __init__(
        self,
        reference: AudioFolder,
        generated: AudioFolder,
        *,
        progress: Progress,
        model_spec: ModelSpec | None,
        prompt: str | None,
        store: Store | None,
    ) -> None:
        self.reference = reference
        self.generated = generated
        self.progress = progress
        self.model_spec = model_spec
        self.prompt = prompt
        self.store = store
        self._encoders: dict[str, Encoder | UnscoredError] = {}
        self._embeddings: dict[tuple[str, str], Embeddings] = {}

    def score(self, metric: Metric) -> Score:
        """One metric.

        Raises:
            UnscoredError: weights or model are not here, or there are too few files.
            ScoreError, AudioFileError: as `score_folders`.
        """
        encoder = self._encoder(metric.encoder)
        self.progress.start(f"score {metric.name}", len(self.reference.files) + len(self.generated.files))
        other = (
            self._texts(encoder, metric) if metric.distance == "text" else self._embed(encoder, "reference")
        )
        score = score_embeddings(metric, self._embed(encoder, "generated"), other, self.prompt)
        provenance = {
            **score.provenance,
            "reference_hash": self.reference.key,
            "generated_hash": self.generated.key,
            "n_reference_files": len(self.reference.files),
            "n_generated_files": len(self.generated.files),
            "clip_s": self.generated.clip_s or "whole files",
        }
        if metric.encoder in MODEL_ENCODERS:
            provenance["music_model"] = self._model_words
        return replace(score, provenance=provenance)

    @cached_property
    def _model(self) -> MusicModel:
        from lora_bench.models import load_model
        from lora_bench.spec.schema import ModelSpec

        return load_model(self.model_spec or ModelSpec())

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

        try:
            encoder = get_encoder(name, music_model=self._model if name in MODEL_ENCODERS else None)
        except ModelError as error:
            raise UnscoredError(
                f"{name}: the music model that it is built on cannot be loaded: {error}"
            ) from error
        if isinstance(encoder, MfccEncoder):
            self.progress.log("mfcc20: the coefficients' scale is fitted on the reference folder")
            encoder.fit_scale(self.reference)
        return encoder

    def _embed(self, encoder: Encoder, side: str) -> Embeddings:
        place = (encoder.name, side)
        if place not in self._embeddings:
            clips: AudioFolder = getattr(self, side)
            if self.store is None:
                self._embeddings[place] = encoder.embed(self._told(clips))
            else:
                self._embeddings[place] = embed_clips(
                    encoder, clips, self.store, clips.key, progress=self.progress
                )
        return self._embeddings[place]

    def _told(self, clips: AudioFolder) -> Iterator[AudioClip]:
        for clip in clips:
            yield clip
            self.progress.advance(note=clip.name)

    def _texts(self, encoder: Encoder, metric: Metric) -> Embeddings:
        embed_text = getattr(encoder, "embed_text", None)
        if self.prompt is None or embed_text is None:
            raise UnscoredError(
                f"{metric.name}: it needs the text that the clips were generated from; give a prompt"
            )
        return embed_text([self.prompt])
