"""Disk that a run's cache takes: recordings as decoded samples, which are most of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.spec.schema import DatasetSpec
from lora_bench.store import to_jsonable

SAMPLE_BYTES, WAV_BYTES = 4, 2
CODED_BYTES_PER_S = 16_000
"""Of a file whose length its header does not say: 128 kbit/s."""
# embeddings of references and controls, windows for checks, codes: measured with the built-in genre
OTHER_FRAC = 0.15


def forecast_cache(plan: ExperimentPlan, run_folder: Path) -> int | None:
    """Return the bytes by which a plan enlarges the cache; None if a model's format is not known.

    A source whose `dataset.json` is there is in the cache already.
    """
    by_id = {trial.id: trial for trial in plan.trials}
    wanted: dict[tuple[str, int, int], tuple[DatasetSpec, ModelShape]] = {}
    for source in list_sources(to_jsonable(plan.trials)):
        trial: TrialPlan = by_id[source.trial_ids[0]]
        if RunFolder(run_folder).source(source.folder).dataset.is_file():
            continue
        shape = find_shape(trial.model)
        if shape is None:
            return None
        where = str(trial.dataset.path or trial.dataset.builtin)
        wanted[where, shape.sample_rate_hz, shape.channels] = (trial.dataset, shape)
    return sum(_measure(dataset, shape) for dataset, shape in wanted.values())


def _measure(dataset: DatasetSpec, shape: ModelShape) -> int:
    samples = SAMPLE_BYTES * shape.channels
    if dataset.path is None:
        from lora_bench.genres.chip_sound import measure_song
        from lora_bench.genres.chiptune import N_TRACKS, compose_track

        seconds = sum(measure_song(compose_track(index)) for index in range(N_TRACKS))
        return round(seconds * shape.sample_rate_hz * (samples * (1 + OTHER_FRAC) + WAV_BYTES))
    from lora_bench.audio import list_folder

    try:
        files = list_folder(dataset.path).files if dataset.path.is_dir() else (dataset.path,)
    except DatasetError:  # reported with its place elsewhere
        return 0
    return round(_sum_durations(files) * shape.sample_rate_hz * samples * (1 + OTHER_FRAC))


def _sum_durations(files: Iterable[Path]) -> float:
    import soundfile

    seconds = 0.0
    for path in files:
        try:
            seconds += soundfile.info(path).duration
        except (soundfile.SoundFileError, OSError):
            seconds += path.stat().st_size / CODED_BYTES_PER_S if path.exists() else 0.0
    return seconds
