"""Check of the lengths of clips against the positions that a model has, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lora_bench.errors import Problem
from lora_bench.forecast.shapes import find_shape
from lora_bench.forecast.stage_memory import count_frames, count_window_steps
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import LoadedSpec
from lora_bench.spec.clip_windows import WINDOW_S

FIELD = "generation.clip_s"


def find_long_clips(loaded: LoadedSpec, plan: ExperimentPlan) -> list[Problem]:
    """Return a problem per length that a model cannot generate; models of unknown size are not checked."""
    return list(dict.fromkeys(_find_problems(loaded, plan)))


def _find_problems(loaded: LoadedSpec, plan: ExperimentPlan) -> Iterator[Problem]:
    made = {
        (trial.model.model_dump_json(), trial.generation.clip_s): trial
        for trial in reversed(plan.trials)  # the first of each counts
        if trial.external is None
    }
    for trial in reversed(made.values()):
        shape = find_shape(trial.model)
        if shape is None:
            continue
        n_before = 0 if shape.decoder.melody is None else shape.decoder.melody.chroma_length
        n_free = shape.decoder.max_positions - n_before - count_window_steps(shape, trial.generation)[0]
        if n_free < 0:
            n_frames = n_free + count_frames(shape, min(trial.generation.clip_s, WINDOW_S))
            longest_s = math.floor(10 * n_frames * shape.hop_samples / shape.sample_rate_hz) / 10
            yield Problem(
                loaded.locate(FIELD),
                FIELD,
                f"`{FIELD}` of `{trial.configuration}` is {trial.generation.clip_s:g}, and {trial.model.id} has "
                f"positions for clips of {longest_s:g} s; make clips shorter",
            )
