"""A trial of another system: its clips are read or generated, brought to the model's format, and scored."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lora_bench.errors import StoreError
from lora_bench.evaluation.trial_clips import TrialClips
from lora_bench.evaluation.trial_scores import score_clips
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.external import ExternalRecord, label_external
from lora_bench.results.reading import read_if_valid, write_record
from lora_bench.results.trial_files import StateRecord
from lora_bench.runner.stage_times import StageClock
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.external import ExternalSpec
from lora_bench.stages.external.command import Workplace, end_former, generate_external
from lora_bench.stages.external.folder import match_clips
from lora_bench.stages.external.identity import key_command, key_files
from lora_bench.stages.external.importing import import_clips
from lora_bench.store import Store, to_jsonable, write_json, write_text

Files = Mapping[str, Mapping[int, Path]]


def execute_external(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> StateRecord:
    """Collect, embed and score the clips of one external trial; resumes what `folder` and `store` hold.

    A command runs before the model is loaded, so that it has the machine's memory for itself.

    Args:
        trial: what to do, fully resolved.
        folder: the trial's folder; gets `trial.json`, `external.json`, `clips/`, `embeddings/`, `scores.json`,
            `guards.json`.
        store: cache shared with other trials.
        progress: told about stages and steps.

    Returns:
        Figures for the trial's state.

    Raises:
        ExternalError: a prompt has no clip, or the command failed.
        AudioFileError: a file cannot be used; names it.
    """
    from lora_bench.models import load_model
    from lora_bench.stages.dataset import prepare_dataset

    external, files = trial.external, TrialFolder(folder)
    if external is None:
        raise StoreError(f"{files.plan}: an external trial needs the section external")
    clock = StageClock(folder)
    write_json(files.plan, trial)
    with clock.stage("collect" if external.clips is not None else "generate"):
        found, key = _collect(trial, external, files, progress)
    with clock.stage("load"):
        progress.start("load model")
        model = load_model(trial.model)
    with clock.stage("dataset"):
        manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    with clock.stage("import"):
        record = ExternalRecord(label=label_external(to_jsonable(external)), n_planned=trial.sampling.n_clips)
        former = read_if_valid(files.external, ExternalRecord)
        notes = former.notes if former is not None and former.key == key else ()
        made = import_clips(
            found, trial.sampling, model.info.audio_format, files.clips, progress, former_notes=notes
        )
        counts = {prompt: len(one.files) for prompt, one in made.clips.items()}
        write_record(
            files.external,
            record.model_copy(update={"key": key, "n_clips": counts, "notes": made.notes}),
        )
        shutil.rmtree(files.external_raw, ignore_errors=True)
    with clock.stage("score"):
        codes: dict[str, tuple[Path, ...]] = dict.fromkeys(made.clips, ())
        score_clips(TrialClips(trial, model, manifest, made.clips, codes, folder, store), progress)
    return {"wall_s": clock.wall_s, "model": to_jsonable(model.info), "dataset_key": manifest.key}


def _collect(
    trial: TrialPlan, external: ExternalSpec, files: TrialFolder, progress: Progress
) -> tuple[Files, str]:
    """Return the files to take over by prompt and index, and their identity; clips of another identity are removed."""
    sampling = trial.sampling
    end_former(files.external_raw)  # before its folder may be removed, with the note of its process
    if external.clips is not None:
        progress.start("collect")
        matched = match_clips(external.clips, trial.prompts)
        first = {prompt: group[: sampling.n_clips] for prompt, group in matched.items()}
        key = key_files(first, sampling.clip_s)
        _settle_clips(trial, files, key)
        return {prompt: dict(enumerate(group)) for prompt, group in first.items()}, key
    key = key_command(external, sampling.clip_s, sampling.seed)
    _settle_clips(trial, files, key)
    place = Workplace(files.external_raw, files.clips)
    return generate_external(external, trial.prompts, sampling, place, progress), key


def _settle_clips(trial: TrialPlan, files: TrialFolder, key: str) -> None:
    """Remove clips of another identity, and note the present one."""
    mark = files.clips_key
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(files.clips, ignore_errors=True)
        shutil.rmtree(files.external_raw, ignore_errors=True)
    write_text(mark, key)
    write_json(files.clips_prompts, {slug: prompt for prompt, slug in prompt_slugs(trial.prompts).items()})
