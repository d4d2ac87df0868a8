"""One trial from plan to scores, one line per stage; every stage takes up what is already there.

Nothing here decides what is stale by time stamps: each result is kept under a key of what it was made
from (weights, audio, captions, settings, seeds) and is made again when the key differs.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.artifacts import ADAPTER_WEIGHTS, GeneratedClips, Manifest, TrainResult
from lora_bench.audio.melodies import hash_melodies
from lora_bench.errors import StoppedEarlyError, StoreError
from lora_bench.evaluation.attempt_scores import score_attempt
from lora_bench.evaluation.trial_clips import TrialClips
from lora_bench.evaluation.trial_scores import score_clips
from lora_bench.forecast.adapter_files import fingerprint_adapter
from lora_bench.forecast.checkpointing import resolve_for_model
from lora_bench.machine.gpus import CPU
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.trial_files import StateRecord
from lora_bench.runner.ahead import FeaturesAhead
from lora_bench.runner.early_stopping import EarlyStopper
from lora_bench.runner.external_trial import execute_external
from lora_bench.runner.jobs.workers import Workers
from lora_bench.runner.stage_times import StageClock
from lora_bench.slugs import prompt_slugs
from lora_bench.store import Store, hash_file, hash_json, read_json, to_jsonable, write_json, write_text

if TYPE_CHECKING:
    from lora_bench.models import MusicModel
    from lora_bench.models.token_set import TokenSet


def execute_trial(
    trial: TrialPlan, folder: Path, store: Store, progress: Progress, workers: Workers | None = None
) -> StateRecord:
    """Train, generate, embed and score one trial; resumes what `folder` and `store` already hold.

    Args:
        trial: what to do, fully resolved.
        folder: the trial's folder; gets `trial.json`, `train.json`, `adapter/`, `clips/`, `codes/`,
            `embeddings/`, `scores.json`, `guards.json`.
        store: cache shared with other trials.
        progress: told about stages and steps.
        workers: compute features of finished clips meanwhile, see `ahead.py`; None is none.

    Returns:
        Figures for the trial's state: seconds per stage, model facts, dataset key.
    """
    if trial.external is not None:
        return execute_external(trial, folder, store, progress)
    workers = Workers(0) if workers is None else workers
    try:
        return _execute(trial, folder, store, progress, workers)
    finally:
        workers.drop()


def _execute(
    trial: TrialPlan, folder: Path, store: Store, progress: Progress, workers: Workers
) -> StateRecord:
    from lora_bench.models import load_model
    from lora_bench.stages.dataset import prepare_dataset, take_training

    clock = StageClock(folder)
    write_json(TrialFolder(folder).plan, trial)
    with clock.stage("load"):
        progress.start("load model")
        model = load_model(trial.model)
    with clock.stage("dataset"):
        manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    # an attempt of `tune` computes a single metric, and on the selection side
    helpers = workers if trial.tuning is None else Workers(0)
    ahead = FeaturesAhead(helpers, trial, manifest, take_training(manifest, trial.dataset), store)
    ahead.add_controls()
    if trial.existing_adapter is not None:
        from lora_bench.runner.existing_adapter import take_adapter

        with clock.stage("load"):
            progress.start("load adapter")
            take_adapter(trial, trial.existing_adapter, model, folder)
    elif trial.kind == "fine-tuned":
        with clock.stage("train"):
            result = train_trial(trial, model, manifest, folder, store, progress)
        if (
            trial.tuning is not None and trial.tuning.metric is None
        ):  # its held-out loss is all that is asked for
            return _describe_trial(clock, model, manifest, [])
        model.load_adapter(result.adapter)
    model.adapter_scale = trial.generation.adapter_scale
    with clock.stage("generate"):
        clips, codes, notes = _generate(trial, model, folder, progress, ahead)
    metric = None if trial.tuning is None else trial.tuning.metric
    with clock.stage("score"):
        workers.finish("features", progress)
        if metric is not None:
            score_attempt(
                TrialClips(trial, model, manifest.seal(), clips, codes, folder, store), metric, progress
            )
        else:
            score_clips(TrialClips(trial, model, manifest, clips, codes, folder, store), progress)
    return _describe_trial(clock, model, manifest, notes)


def _describe_trial(
    clock: StageClock, model: MusicModel, manifest: Manifest, notes: list[str]
) -> StateRecord:
    from lora_bench.models.device import name_device

    figures: StateRecord = {
        "wall_s": clock.wall_s,
        "model": to_jsonable(model.info),
        "dataset_key": manifest.key,
        "notes": notes,
    }
    if (device := name_device(model.device)) != CPU:
        figures["device"] = device
    return figures


def train_trial(
    trial: TrialPlan, model: MusicModel, manifest: Manifest, folder: Path, store: Store, progress: Progress
) -> TrainResult:
    """The adapter of this trial: the finished one if it was made from the same things, else trained."""
    from lora_bench.models.model_files import former_hashes
    from lora_bench.runner.shared_training import KIND, train_shared
    from lora_bench.stages.dataset import take_training
    from lora_bench.stages.tokens import encode_dataset, token_key
    from lora_bench.stages.train import (
        adapter_key,
        find_finished,
        former_adapter_keys,
        kept_key,
        train_adapter,
    )

    if (
        trial.lora is None
        or trial.train is None
        or trial.train_seed is None
        or isinstance(trial.train.keep, list)
    ):
        raise StoreError(f"{TrialFolder(folder).plan}: a fine-tuned trial needs lora, train and train_seed")
    manifest = take_training(manifest, trial.dataset)
    manifest = manifest.seal()  # what decides over trainings does not even read the tracks that score them
    tokens = encode_dataset(manifest, model, store, progress)
    settings = trial.lora, trial.train, trial.train_seed
    training = adapter_key(tokens, model, *settings)
    key = kept_key(training, trial.train.keep)
    files, stopper = TrialFolder(folder), None
    record, adapter = files.train, files.adapter
    former_tokens = {
        known: token_key(manifest, replace(model.info, weights_hash=known))
        for known in former_hashes(model.info.weights_hash)
    }
    if trial.training is not None:
        store.note_use(KIND, training)
    former_keys = () if trial.train.keep else former_adapter_keys(former_tokens, model, *settings)
    finished = find_finished(adapter, *former_keys, *([key] if trial.training is not None else ()))
    if finished is not None:
        _keep_record(record, key, finished)
        return finished
    if find_finished(adapter, key) is None:
        record.unlink(missing_ok=True)
        shutil.rmtree(adapter, ignore_errors=True)
        stopper = _make_stopper(trial, tokens, model, folder, key)
        model.release_encoders()  # codes and text states are there
    try:
        if stopper is not None:
            stopper.check()
        on_eval = stopper.measure if stopper is not None else None

        def train(place: Path) -> TrainResult:
            found = resolve_for_model(trial, model)
            is_on = found is not None and found.is_on
            return train_adapter(
                tokens, model, *settings, place, progress, on_eval, keep=trial.kept, is_checkpointed=is_on
            )

        if trial.training is None:
            result = train(folder)
        else:
            result = train_shared(training, trial, files, store, progress, train)
    except StoppedEarlyError:
        # the decision stands, nobody resumes from it
        shutil.rmtree(files.checkpoint, ignore_errors=True)
        raise
    _keep_record(record, key, result)
    return result


def _keep_record(record: Path, key: str, result: TrainResult) -> None:
    """Write `train.json`, unless it says the same already."""
    from lora_bench.stages.train import write_result

    document = {"key": key, **write_result(result), "adapter": TrialFolder.adapter}
    if not record.is_file() or read_json(record) != document:
        write_json(record, document)


def _make_stopper(
    trial: TrialPlan, tokens: TokenSet, model: MusicModel, folder: Path, key: str
) -> EarlyStopper | None:
    if trial.early_stopping is None or trial.train is None:
        return None
    group = hash_json([tokens.key, model.info.weights_hash, trial.train.steps])
    own = hash_json([key, trial.early_stopping])
    return EarlyStopper(trial.early_stopping, trial.train.steps, folder, own, group)


def _adapter_hash(trial: TrialPlan, folder: Path) -> str | None:
    if trial.existing_adapter is not None:
        return fingerprint_adapter(TrialFolder(folder).adapter.as_posix())
    weights = TrialFolder(folder).adapter / ADAPTER_WEIGHTS
    return hash_file(weights) if weights.is_file() else None


def _clips_keys(trial: TrialPlan, model: MusicModel, folder: Path) -> list[str]:
    """Hash of everything that a clip depends on apart from its prompt and index; then as earlier versions wrote it."""
    from lora_bench.models.model_files import former_hashes

    facts: dict[str, object] = {
        "adapter": _adapter_hash(trial, folder),
        "sampling": trial.generation.sampling,
    }
    if trial.generation.melodies is not None:
        facts["melodies"] = hash_melodies(trial.generation.melodies)
    if (dtype := str(model.dtype)) != "torch.float32":  # which earlier versions did not note
        facts["dtype"] = dtype
    current = model.info.weights_hash
    return [hash_json({**facts, "weights": known}) for known in (current, *former_hashes(current))]


def _generate(
    trial: TrialPlan, model: MusicModel, folder: Path, progress: Progress, ahead: FeaturesAhead
) -> tuple[dict[str, GeneratedClips], dict[str, tuple[Path, ...]], list[str]]:
    """Clips of every prompt, their code files, and notes; those of other weights or settings are removed first."""
    from lora_bench.models.decoding.decoder import Decoder
    from lora_bench.stages.generate import generate_clips

    keys = _clips_keys(trial, model, folder)
    files = TrialFolder(folder)
    place, codes, mark = files.clips, files.codes, files.clips_key
    if place.is_dir() and (not mark.is_file() or mark.read_text(encoding="utf-8") not in keys):
        shutil.rmtree(place)
        shutil.rmtree(codes, ignore_errors=True)
    write_text(mark, keys[0])
    slugs = prompt_slugs(trial.prompts)
    write_json(files.clips_prompts, {slugs[prompt]: prompt for prompt in trial.prompts})
    decoder = Decoder(model, trial.sampling)
    made: dict[str, GeneratedClips] = {}
    for prompt, slug in slugs.items():
        made[prompt] = generate_clips(
            model,
            prompt,
            trial.sampling,
            place / slug,
            progress,
            codes_folder=codes / slug,
            decoder=decoder,
        )
        ahead.add_clips(made[prompt])
    code_files = {
        prompt: tuple(codes / slugs[prompt] / f"{file.stem}.npy" for file in clips.files)
        for prompt, clips in made.items()
    }
    return made, code_files, [] if decoder.problem is None else [decoder.problem]
