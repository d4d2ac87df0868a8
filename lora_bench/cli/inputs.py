"""Checks of the inputs that a spec names: recordings, captions, melodies, models and adapters on this machine.

`validate`, `plan` and `run` report all missing inputs at once, each with its place in the spec.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_bench import api
from lora_bench.cli.clip_lengths import find_long_clips
from lora_bench.cli.existing_adapters import find_unusable_adapters, is_offline
from lora_bench.cli.targets import find_unmatched_targets
from lora_bench.errors import AudioFileError, DatasetError, LoraBenchError, Problem, SpecError
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.spec import LoadedSpec
from lora_bench.spec.data_size import describe_few_tracks
from lora_bench.spec.data_sources import find_kind, is_there
from lora_bench.spec.paths import find_missing_paths, find_stated
from lora_bench.spec.schema import DatasetSpec, ModelSpec
from lora_bench.spec.sides import BUILTIN_TRACKS, MIN_TRACKS, count_sides

MODEL_FILES = ("config.json", "state_dict.bin", "checkpoint.th")


def load_plan(
    spec: Path, overrides: Sequence[str] = (), *, with_inputs: bool = True
) -> tuple[ExperimentPlan, list[Problem]]:
    """Return the plan of a spec, and the problems of its inputs on this machine and of its LoRA targets.

    Args:
        spec: the YAML file.
        overrides: `key=value` each.
        with_inputs: check the inputs; otherwise there are no problems.

    Raises:
        UsageError: the file cannot be opened.
        SpecError: the spec is wrong; missing folders and models are listed with the rest.
    """
    loaded = api.load_spec(spec, overrides, with_paths=with_inputs)
    try:
        plan = api.plan_experiment(loaded)
    except SpecError as error:
        missing = find_missing_paths(loaded.tree) if with_inputs else []
        raise SpecError([*error.problems, *missing]) from error
    if not with_inputs:
        return plan, []
    return plan, [*find_missing_inputs(loaded, plan), *find_unmatched_targets(plan, str(spec))]


def find_missing_inputs(loaded: LoadedSpec, plan: ExperimentPlan) -> list[Problem]:
    """Return the problems of every dataset, model, adapter and folder of melodies that a planned trial needs."""
    used = {trial.model.id for trial in plan.trials}
    used |= {trial.existing_adapter for trial in plan.trials if trial.existing_adapter is not None}
    used |= {str(path) for trial in plan.trials for path in (trial.dataset.path, trial.dataset.captions.file)}
    used |= {str(trial.generation.melodies) for trial in plan.trials}
    externals = [trial.external for trial in plan.trials if trial.external is not None]
    used |= {str(path) for external in externals for path in external.paths}
    problems = find_missing_paths(loaded.tree, used)  # not those of named datasets that no trial takes
    datasets = {trial.dataset.model_dump_json(): trial.dataset for trial in plan.trials}
    for dataset in datasets.values():
        if dataset.path is None:
            problems += _check_builtin(dataset, loaded)
        elif find_kind(dataset.path) == "folder" and dataset.path.is_dir():
            problems += _check_folder(dataset.path, dataset, loaded)
        elif is_there(dataset.path):
            problems += _check_source(dataset.path, dataset, loaded)
        problems += _check_processing(dataset, loaded)
        problems += _check_captioner(dataset, loaded)
    models = {trial.model.model_dump_json(): trial.model for trial in plan.trials}
    for model in models.values():
        problems += _check_model(model, loaded)
    problems += find_unusable_adapters(loaded, plan)
    problems += find_long_clips(loaded, plan)
    if any(trial.generation.melodies for trial in plan.trials):
        from lora_bench.cli.melodies import find_unusable_melodies

        problems += find_unusable_melodies(loaded, plan)
    for trial in plan.trials:
        if trial.external is not None and trial.external.clips is not None:
            problems += _check_clips(trial.external.clips, trial, loaded)
    return list(dict.fromkeys(problems))


def _check_clips(folder: Path, trial: TrialPlan, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report prompts for which another system's folder holds no clips."""
    from lora_bench.stages.external.folder import match_clips

    if folder.is_dir():  # else it is listed among the missing paths
        try:
            match_clips(folder, trial.prompts)
        except LoraBenchError as error:
            place = find_stated(loaded.tree, folder.as_posix())[0]
            yield Problem(place, "external.clips", f"`{trial.name}`: {error}")


def _check_folder(folder: Path, spec: DatasetSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report the problems of a folder of recordings: no audio, too little of it, no captions."""
    from lora_bench.audio import list_folder
    from lora_bench.stages.dataset.captions import find_captions, read_metadata, search_captions
    from lora_bench.stages.dataset.sources import list_packed
    from lora_bench.stages.dataset.track_captions import check_written_fields

    place, captions = find_stated(loaded.tree, folder.as_posix())
    try:
        files = list_folder(folder).files
    except DatasetError as error:
        yield Problem(place, "dataset.path", f"`dataset.path`: {error}")
        return
    if not files and list_packed(folder):
        yield from _check_source(folder, spec, loaded)
        return
    if len(files) < MIN_TRACKS:
        n_files = f"{len(files)} audio file{'s' if len(files) != 1 else ''}" if files else "no audio file"
        yield Problem(
            place,
            "dataset.path",
            f"`dataset.path` is `{folder}`, which holds {n_files}; expected at least {MIN_TRACKS} recordings (wav, "
            "flac, ogg, opus, mp3 or m4a, at any depth); add some or change dataset.path",
        )
    else:
        try:
            n_train = count_sides(len(files), spec.split).train
            yield from _check_size(spec, n_train, place, folder.as_posix())
        except DatasetError as error:
            yield Problem(place, "dataset.split", f"`{folder}`: {error}")
    if not files:
        return
    try:
        if spec.captions.file is not None and not spec.captions.file.is_file():
            return  # listed among the missing paths
        metadata = read_metadata(folder, spec.captions)
        paths = {path.relative_to(folder).as_posix(): path for path in files}
        yield from _check_split(folder, spec, list(paths), loaded)
        if spec.captions.resolved_template is not None:
            check_written_fields(folder, paths, spec.captions, metadata)
            return
        found = search_captions(folder, paths, spec.captions, metadata)
        lacking = [name for name in paths if name in found.missing or name in found.unusable]
        if any(_is_recording(paths[name], files, spec.min_track_s) for name in lacking):
            find_captions(folder, paths, spec.captions, metadata)
    except DatasetError as error:
        yield Problem(captions or place, "dataset.captions", f"`dataset.captions`: {error}")


def _check_split(
    folder: Path, spec: DatasetSpec, paths: Sequence[str], loaded: LoadedSpec
) -> Iterator[Problem]:
    """Report a split by something that no track has."""
    from lora_bench.stages.dataset.grouping import check_groups

    try:
        check_groups(folder, spec, paths)
    except DatasetError as error:
        is_main = loaded.spec.dataset.split == spec.split
        place = loaded.locate("dataset.split.by") if is_main else find_stated(loaded.tree, str(folder))[0]
        yield Problem(place, "dataset.split.by", str(error))


def _check_source(path: Path, spec: DatasetSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report too few recordings in an archive, a table or a list, and missing files of a list."""
    from lora_bench.stages.dataset.sources import check_source, count_recordings

    place, _ = find_stated(loaded.tree, path.as_posix())
    try:
        check_source(path, spec.source_settings)
        n_tracks = count_recordings(path)
    except (DatasetError, SpecError) as error:
        yield Problem(place, "dataset.path", str(error))
        return
    if n_tracks is not None and n_tracks < MIN_TRACKS:
        yield Problem(
            place,
            "dataset.path",
            f"`dataset.path` is `{path}`, which holds {n_tracks} recordings; expected at least {MIN_TRACKS}; add some "
            "or change dataset.path",
        )
    elif n_tracks is not None:
        try:
            n_train = count_sides(n_tracks, spec.split).train
            yield from _check_size(spec, n_train, place, path.as_posix())
        except DatasetError as error:
            yield Problem(place, "dataset.split", f"`{path}`: {error}")


def _check_processing(spec: DatasetSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report a program that is not there, and weights that are missing."""
    if not spec.prepare.is_processed:
        return
    from lora_bench.stages.dataset.vocals import find_weights

    place, _ = find_stated(loaded.tree, spec.path.as_posix() if spec.path is not None else spec.builtin or "")
    command = spec.prepare.command
    if command is not None and shutil.which(command[0]) is None:
        yield Problem(
            place,
            "dataset.prepare.command",
            f"`dataset.prepare.command` is `{' '.join(command)}`, and there is no program `{command[0]}`; expected one "
            "on the PATH, or its whole path",
        )
    if spec.prepare.vocals is not None:
        try:
            find_weights()
        except DatasetError as error:
            yield Problem(place, "dataset.prepare.vocals", str(error))


def _check_captioner(spec: DatasetSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report a captioner that no package offers, that cannot be loaded, or whose settings are wrong."""
    if spec.captions.captioner is None:
        return
    from lora_bench.stages.dataset.captioner import FIELD, Captioner

    try:
        Captioner(spec.captions)
    except (DatasetError, SpecError) as error:
        yield Problem(find_stated(loaded.tree, spec.captions.captioner)[0], FIELD, str(error))


def _check_builtin(spec: DatasetSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report a split of a rendered genre that leaves nothing to train on."""
    place, _ = find_stated(loaded.tree, spec.builtin or "")
    if spec.split.by != "track":
        yield Problem(
            place,
            "dataset.split.by",
            f"dataset.split.by is `{spec.split.by}`, and the tracks of `{spec.builtin}` are single songs without "
            f"{'folders' if spec.split.by == 'folder' else 'tags'}; expected `track`; remove it",
        )
    try:
        n_train = count_sides(BUILTIN_TRACKS[spec.builtin or "chiptune"], spec.split).train
        yield from _check_size(spec, n_train, place, spec.builtin or "")
    except DatasetError as error:
        yield Problem(place, "dataset.split", f"`{spec.builtin}`: {error}")


def _check_size(spec: DatasetSpec, n_train: int, place: str, name: str) -> Iterator[Problem]:
    """Report a part of the training side that is larger than the whole, if all recordings are usable."""
    wanted = None if spec.size is None else spec.size.tracks
    if isinstance(wanted, int) and wanted > n_train:
        yield Problem(place, "dataset.size.tracks", f"`{name}`: {describe_few_tracks(wanted, n_train)}")


def _is_recording(path: Path, files: Sequence[Path], min_track_s: float) -> bool:
    """Return whether a run uses a file; a damaged, short, silent or repeated file needs no caption."""
    from lora_bench.audio import load_audio, read_header
    from lora_bench.stages.dataset.recordings import SILENCE_PEAK
    from lora_bench.store import hash_file

    try:
        if read_header(path).duration_s < min_track_s:
            return False
        if abs(load_audio(path)[0]).max() < SILENCE_PEAK:
            return False
        size = path.stat().st_size
        alike = [other for other in files if other != path and other.stat().st_size == size]
        return not alike or hash_file(path) not in {hash_file(other) for other in alike}
    except (AudioFileError, OSError):
        return False


def _check_model(model: ModelSpec, loaded: LoadedSpec) -> Iterator[Problem]:
    """Report a folder without a model, and a hub model that is not cached while the network is off."""
    if model.id == "pocket":
        return
    place, _ = find_stated(loaded.tree, model.id)
    folder = Path(model.id).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in MODEL_FILES):
            yield Problem(
                place,
                "model.id",
                f"`model.id` is `{model.id}`, a folder without a model; expected config.json and weights "
                "(transformers) or state_dict.bin (audiocraft)",
            )
        return
    if folder.is_absolute() or folder.exists() or not is_offline():
        return
    from lora_bench.forecast.shapes import hub_cache

    repository = hub_cache() / f"models--{model.id.replace('/', '--')}"
    if not any((repository / "snapshots").glob("*/*")):
        yield Problem(
            place,
            "model.id",
            f"`model.id` is `{model.id}`, which is not in the hub's cache ({hub_cache()}), and HF_HUB_OFFLINE is set; "
            f"run `hf download {model.id}` with a network, or set it to a folder",
        )
