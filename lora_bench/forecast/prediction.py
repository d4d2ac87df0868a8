"""One trial's adapter, memory, disk and time before it runs, and where each figure comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_bench.forecast.adapters import AdapterSize, size_adapter
from lora_bench.forecast.footprint import choose_arithmetic, estimate_training
from lora_bench.forecast.history import History, Record, count_trained_s, median_rate, name_way, nearest
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.plan import TrialPlan
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.spec.targets import spell_targets

WAV_HEADER_BYTES = 44
NPY_HEADER_BYTES = 128
Origin = Literal["earlier trials", "probe", "none"]
MemoryOrigin = Literal["earlier trials", "probe", "shapes", "none"]


@dataclass(frozen=True)
class Prediction:
    """What a trial will take; None is not known.

    Attributes:
        adapter: None for zero-shot, and for a model whose sizes are not known here.
        disk_bytes: clips, their codes, adapter; embeddings (a few MB per metric) come on top.
        memory_gib: peak in training.
        time_s: all stages on this machine, one trial at a time.
        origin: what time comes from; `n_records` of them.
        memory_origin: what memory comes from: the same, or an estimate from shapes (`footprint.py`) where nothing was
            trained here; none for zero-shot, and for a model whose sizes are not known here.
    """

    adapter: AdapterSize | None
    disk_bytes: int | None
    memory_gib: float | None
    time_s: float | None
    origin: Origin
    n_records: int
    memory_origin: MemoryOrigin


class Forecaster:
    """Predicts trials; what many of them share is looked up once.

    Args:
        history: what earlier trials took.
        has_gpu: whether trials run on a GPU; only estimates from shapes ask for it.
    """

    def __init__(self, history: History, *, has_gpu: bool = False) -> None:
        self.history = history
        self.has_gpu = has_gpu
        self._peaks: dict[str, float] = {}
        self._shapes: dict[str, ModelShape | None] = {}
        self._records: dict[str, tuple[Record, ...]] = {}
        self._adapters: dict[str, AdapterSize] = {}

    def predict(self, trial: TrialPlan) -> Prediction:
        """Figures of one trial."""
        shape = self._find_shape(trial.model)
        adapter = None
        if shape is not None and trial.lora is not None:
            adapter = self._size(trial.model, shape, trial.lora)
        records = self._find_records(trial.model)
        origin: Origin = "none"
        if records:
            origin = "earlier trials" if records[0].origin == "trial" else "probe"
        memory_gib, memory_origin = _predict_memory(trial, records), origin
        if memory_gib is None:
            memory_gib = self._estimate_memory(trial, shape)
            memory_origin = "none" if memory_gib is None else "shapes"
        return Prediction(
            adapter=adapter,
            disk_bytes=_measure_disk(trial, shape, adapter),
            memory_gib=memory_gib,
            time_s=_predict_time(trial, records),
            origin=origin,
            n_records=len(records),
            memory_origin=memory_origin,
        )

    def _estimate_memory(self, trial: TrialPlan, shape: ModelShape | None) -> float | None:
        """Peak in training from shapes; None for zero-shot, and without sizes."""
        lora, train, model = trial.lora, trial.train, trial.model
        if shape is None or lora is None or train is None:
            return None
        passes = f"{train.batch_size} {name_way(train)} {trial.dataset.clip_s}"
        adapter = f"{lora.rank} {lora.targets} {lora.use_dora} {lora.dropout > 0}"
        key = f"{model.id} {model.revision} {model.dtype} {adapter} {passes}"
        if key not in self._peaks:
            arithmetic = choose_arithmetic(model, train, has_gpu=self.has_gpu)
            footprint = estimate_training(shape, lora, train, trial.dataset.clip_s, arithmetic)
            self._peaks[key] = footprint.predict_peak_gib(arithmetic.device)
        return self._peaks[key]

    def _find_shape(self, model: ModelSpec) -> ModelShape | None:
        key = f"{model.id} {model.revision}"
        if key not in self._shapes:
            self._shapes[key] = find_shape(model)
        return self._shapes[key]

    def _find_records(self, model: ModelSpec) -> tuple[Record, ...]:
        key = f"{model.id} {model.backend} {model.dtype}"
        if key not in self._records:
            self._records[key] = self.history.of_model(model)
        return self._records[key]

    def _size(self, model: ModelSpec, shape: ModelShape, lora: LoraSpec) -> AdapterSize:
        key = f"{model.id} {model.revision} {lora.rank} {lora.targets} {lora.use_dora}"
        if key not in self._adapters:
            self._adapters[key] = size_adapter(shape, lora)
        return self._adapters[key]


def _measure_disk(trial: TrialPlan, shape: ModelShape | None, adapter: AdapterSize | None) -> int | None:
    """Bytes of what the trial keeps, computed from the formats of its files."""
    if shape is None:
        return None
    generation = trial.generation
    n_samples = round(generation.clip_s * shape.sample_rate_hz)
    n_frames = -(-n_samples // shape.hop_samples)
    wav = WAV_HEADER_BYTES + 2 * shape.channels * n_samples
    codes = NPY_HEADER_BYTES + 2 * shape.n_codebooks * n_frames
    return len(trial.prompts) * generation.n_clips * (wav + codes) + (adapter.n_bytes if adapter else 0)


def _predict_time(trial: TrialPlan, records: Sequence[Record]) -> float | None:
    """Sum over stages; None if training or generation was never timed here."""
    if not records:
        return None
    generation = trial.generation
    audio_s = len(trial.prompts) * generation.n_clips * generation.clip_s
    generate = median_rate(record.generate_rate for record in records)
    if generate is None:
        return None
    total_s = audio_s * generate + (median_rate(record.fixed_s for record in records) or 0.0)
    total_s += audio_s * len(trial.metrics) * (median_rate(record.score_rate for record in records) or 0.0)
    if trial.train is None or trial.lora is None:
        return total_s
    alike = _find_alike(trial, records)
    train = median_rate(record.train_rate for record in alike)
    return None if train is None else total_s + count_trained_s(trial) * train


def _find_alike(trial: TrialPlan, records: Sequence[Record]) -> list[Record]:
    if not records or trial.train is None or trial.lora is None:
        return []
    targets = str(spell_targets(trial.lora.targets))
    return nearest(records, targets=targets, way=name_way(trial.train))


def _predict_memory(trial: TrialPlan, records: Sequence[Record]) -> float | None:
    """Peak in training, by the audio in one forward pass.

    From passes of two lengths or more, the line through them; from one, that figure for shorter passes and
    in proportion for longer ones, which is rather too much than too little.
    """
    if trial.train is None:
        return None
    load_s = trial.train.batch_size * trial.dataset.clip_s
    peaks: dict[float, float] = {}
    for record in _find_alike(trial, records):
        if record.load_s is not None and record.peak_memory_gib is not None:
            peaks[record.load_s] = max(peaks.get(record.load_s, 0.0), record.peak_memory_gib)
    if not peaks:
        return None
    if load_s in peaks:
        return peaks[load_s]
    low, high = min(peaks), max(peaks)
    if low == high:
        return peaks[low] * max(1.0, load_s / low)
    slope = max((peaks[high] - peaks[low]) / (high - low), 0.0)
    return max(peaks[low] + slope * (load_s - low), 0.0)
