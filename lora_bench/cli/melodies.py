"""Melodies that a spec names: checked before anything runs, and listed by `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_bench.audio.melodies import check_melodies, list_melodies
from lora_bench.errors import AudioFileError, DatasetError, Problem
from lora_bench.forecast.shapes import find_shape
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.slugs import spell_path
from lora_bench.spec import LoadedSpec
from lora_bench.spec.paths import find_stated

FIELD = "generation.melodies"
MAX_NAMED = 4


def find_unusable_melodies(loaded: LoadedSpec, plan: ExperimentPlan) -> list[Problem]:
    """Return a problem per folder that holds no melodies, and per model that follows none."""
    return list(dict.fromkeys(_find_problems(loaded, plan)))


def _find_problems(loaded: LoadedSpec, plan: ExperimentPlan) -> Iterator[Problem]:
    for path in _list_paths(plan):
        place, _ = find_stated(loaded.tree, path.as_posix())
        try:
            if path.exists():  # else it is listed among the missing paths
                check_melodies(path)
        except (DatasetError, AudioFileError) as error:
            yield Problem(place, FIELD, f"`{FIELD}`: {error}")
    for trial in plan.trials:
        path = trial.generation.melodies
        if path is None or trial.external is not None:
            continue
        shape = find_shape(trial.model)
        if trial.model.backend == "audiocraft" or (shape is not None and shape.decoder.melody is None):
            yield Problem(
                find_stated(loaded.tree, path.as_posix())[0],
                FIELD,
                f"`{FIELD}` is `{path}`, and `model.id` is `{trial.model.id}` on {trial.model.backend}, which follows "
                "no melodies; expected a melody model on transformers, such as facebook/musicgen-melody; change "
                f"model.id or remove {FIELD}",
            )


def describe_melodies(plan: ExperimentPlan) -> list[str]:
    """Return a line per folder of melodies: how many, and which clips follow them."""
    return [line for path in _list_paths(plan) if (line := _describe(path))]


def _describe(path: Path) -> str | None:
    try:
        files = list_melodies(path)
    except DatasetError:
        return None  # listed among the problems
    if len(files) == 1:
        return f"melodies: every clip follows {spell_path(files[0])}"
    names = [spell_path(file.relative_to(path)) for file in files[:MAX_NAMED]]
    more = f" and {len(files) - MAX_NAMED} more" if len(files) > MAX_NAMED else ""
    return (
        f"melodies: {len(files)} of {spell_path(path)} ({', '.join(names)}{more}); clip i of a prompt follows file "
        f"i mod {len(files)}"
    )


def _list_paths(plan: ExperimentPlan) -> list[Path]:
    """Return the folders and files of melodies that the model's clips follow."""
    paths = [trial.generation.melodies for trial in plan.trials if trial.external is None]
    return [path for path in dict.fromkeys(paths) if path is not None]
