"""One trial from plan to scores, one line per stage; every stage takes up what is already there.

Nothing here decides what is stale by time stamps: each result is kept under a key of what it was made
from (weights, audio, captions, settings, seeds) and is made again when the key differs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.artifacts import AudioClip, Embeddings, GeneratedClips, Manifest, Score, TrainResult, Unscored
from lora_bench.errors import StoreError, UnscoredError
from lora_bench.names import prompt_slugs
from lora_bench.plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.store import Store, hash_file, hash_json, read_json, to_jsonable, write_json

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.models import MusicModel

SAMPLING_FIELDS = ("clip_s", "guidance", "temperature", "top_k", "seed")


@dataclass
class StageClock:
    """Seconds of work per stage, carried over from earlier attempts through `state.json`."""

    wall_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; repeated stages add up."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.wall_s[name] = round(self.wall_s.get(name, 0.0) + time.monotonic() - start, 3)


def execute_trial(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:
    """Train, generate, embed and score one trial; resumes what `folder` and `store` already hold.

    Args:
        trial: what to do, fully resolved.
        folder: the trial's folder; gets `trial.json`, `train.json`, `adapter/`, `clips/`, `scores.json`.
        store: cache shared with other trials.
        progress: told about stages and steps.

    Returns:
        Figures for the trial's state: seconds per stage, model facts, dataset key.
    """
    from lora_bench.models import load_model
    from lora_bench.stages.dataset import prepare_dataset

    clock = StageClock()
    write_json(folder / "trial.json", trial)
    with clock.stage("load"):
        progress.start("load model")
        model = load_model(trial.model)
    with clock.stage("dataset"):
        manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    if trial.kind == "fine-tuned":
        with clock.stage("train"):
            result = _train(trial, model, manifest, folder, store, progress)
        model.load_adapter(result.adapter)
    with clock.stage("generate"):
        clips = _generate(trial, model, folder, progress)
    with clock.stage("score"):
        _score(trial, model, manifest, clips, folder, store, progress)
    return {
        "wall_s": clock.wall_s,
        "model": to_jsonable(model.info),
        "dataset_key": manifest.key,
    }


def _train(
    trial: TrialPlan, model: MusicModel, manifest: Manifest, folder: Path, store: Store, progress: Progress
) -> TrainResult:
    """The adapter of this trial: taken up if it was made from the same things, else trained."""
    from lora_bench.stages.tokens import encode_dataset
    from lora_bench.stages.train import train_adapter

    if trial.lora is None or trial.train is None or trial.train_seed is None:
        raise StoreError(f"{folder}/trial.json: a fine-tuned trial needs lora, train and train_seed")
    tokens = encode_dataset(manifest, model, store, progress)
    key = hash_json(
        {
            "tokens": tokens.key,
            "weights": model.info.weights_hash,
            "lora": trial.lora,
            "train": trial.train,
            "seed": trial.train_seed,
        }
    )
    record = folder / "train.json"
    if record.is_file() and (folder / "adapter").is_dir():
        found = read_json(record)
        if found.get("key") == key:
            return TrainResult(
                adapter=folder / "adapter",
                trainable_params=found["trainable_params"],
                matched_modules=found["matched_modules"],
                curve=(),
                wall_s=found["wall_s"],
                peak_memory_gib=found["peak_memory_gib"],
            )
    mark = folder / "train.key"
    if mark.is_file() and mark.read_text(encoding="utf-8") != key:
        # A checkpoint of other data or settings must not be gone on from.
        for left_over in (folder / "checkpoint", folder / "adapter"):
            shutil.rmtree(left_over, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key, encoding="utf-8")
    result = train_adapter(tokens, model, trial.lora, trial.train, trial.train_seed, folder, progress)
    write_json(record, {"key": key, **to_jsonable(result), "adapter": "adapter"})
    return result


def _adapter_hash(folder: Path) -> str | None:
    weights = folder / "adapter" / "adapter_model.safetensors"
    return hash_file(weights) if weights.is_file() else None


def _generate(
    trial: TrialPlan, model: MusicModel, folder: Path, progress: Progress
) -> dict[str, GeneratedClips]:
    """Clips of every prompt; clips of other weights or sampling settings are removed first."""
    from lora_bench.stages.generate import generate_clips

    sampling = trial.generation.model_dump(include=set(SAMPLING_FIELDS))
    key = hash_json(
        {"weights": model.info.weights_hash, "adapter": _adapter_hash(folder), "sampling": sampling}
    )
    place = folder / "clips"
    mark = place / "key"
    if place.is_dir() and (not mark.is_file() or mark.read_text(encoding="utf-8") != key):
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    mark.write_text(key, encoding="utf-8")
    slugs = prompt_slugs(trial.prompts)
    write_json(place / "prompts.json", {slugs[prompt]: prompt for prompt in trial.prompts})
    return {
        prompt: generate_clips(model, prompt, trial.generation, place / slugs[prompt], progress)
        for prompt in trial.prompts
    }


def load_clips(clips: GeneratedClips) -> Iterator[AudioClip]:
    """Generated clips from disk; each is its own group."""
    from lora_bench.audio import load_audio

    for path in clips.files:
        audio, rate_hz = load_audio(path)
        yield AudioClip(name=path.stem, group=path.stem, audio=audio, sample_rate_hz=rate_hz)


def embed_reference(encoder: Encoder, manifest: Manifest, clip_s: float, store: Store) -> Embeddings:
    """The reference side of every score: excerpts of the held-out tracks."""
    from lora_bench.stages.dataset import reference_clips
    from lora_bench.stages.embed import embed_clips

    key = hash_json([manifest.key, "eval", clip_s])
    return embed_clips(encoder, reference_clips(manifest, "eval", clip_s), store, key)


def prepare_encoder(name: str, model: MusicModel, manifest: Manifest, clip_s: float, store: Store) -> Encoder:
    """An encoder ready to embed; `mfcc20`'s scale is fitted once, on the training side.

    Raises:
        UnscoredError: its weights are not to be had.
    """
    from lora_bench.encoders import get_encoder
    from lora_bench.encoders.mfcc import MfccEncoder, MfccScale
    from lora_bench.stages.dataset import reference_clips

    encoder = get_encoder(name, music_model=model)
    if isinstance(encoder, MfccEncoder):

        def fit(draft: Path) -> None:
            write_json(draft / "scale.json", encoder.fit_scale(reference_clips(manifest, "train", clip_s)))

        key = hash_json([manifest.key, "train", clip_s, encoder.sample_rate_hz])
        found = read_json(store.get_or_make("mfcc_scale", key, fit) / "scale.json")
        encoder.scale = MfccScale(tuple(found["values"]), found["sample_rate_hz"], found["n_clips"])
    return encoder


def _score(
    trial: TrialPlan,
    model: MusicModel,
    manifest: Manifest,
    clips: Mapping[str, GeneratedClips],
    folder: Path,
    store: Store,
    progress: Progress,
) -> None:
    """Scores of every metric and prompt into `scores.json`; a metric without weights is unscored."""
    from lora_bench.metrics import parse_metric
    from lora_bench.stages.embed import embed_clips, save_embeddings
    from lora_bench.stages.score import score_embeddings, score_pooled

    scores: list[Score] = []
    unscored: list[Unscored] = []
    slugs = prompt_slugs(trial.prompts)
    progress.start("score", len(trial.metrics) * len(trial.prompts))
    for name in trial.metrics:
        metric = parse_metric(name)
        try:
            encoder = prepare_encoder(metric.encoder, model, manifest, trial.generation.clip_s, store)
            reference = embed_reference(encoder, manifest, trial.generation.clip_s, store)
        except UnscoredError as reason:
            unscored += [Unscored(name, prompt, str(reason)) for prompt in (*trial.prompts, None)]
            progress.advance(len(trial.prompts))
            continue
        generated: dict[str, Embeddings] = {}
        for prompt, prompt_clips in clips.items():
            generated[prompt] = embed_clips(encoder, load_clips(prompt_clips), store)
            save_embeddings(
                generated[prompt], folder / "embeddings" / metric.encoder / f"{slugs[prompt]}.npz"
            )
            scores.append(score_embeddings(metric, generated[prompt], reference, prompt))
            progress.advance(note=name)
        scores.append(score_pooled(metric, list(generated.values()), reference))
    write_json(folder / "scores.json", {"scores": scores, "unscored": unscored})
