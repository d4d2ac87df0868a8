"""One trial's adapter, memory, disk and time before it runs, and where each figure comes from."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lora_bench.errors import ModelError
from lora_bench.forecast.adapter_files import find_adapter_folder, read_adapter
from lora_bench.forecast.adapters import AdapterSize, size_adapter
from lora_bench.forecast.cards import Card, find_card
from lora_bench.forecast.checkpointing import (
    Checkpointing,
    estimate_peak_gib,
    resolve_checkpointing,
    set_checkpointing,
)
from lora_bench.forecast.footprint import GIB, choose_weight
from lora_bench.forecast.history import (
    History,
    Record,
    count_generated_s,
    count_scored_s,
    count_trained_s,
    list_generation_facts,
    list_scoring_facts,
    list_training_facts,
    name_mode,
)
from lora_bench.forecast.remaining import ALL, Remaining, find_remaining
from lora_bench.forecast.roofline import estimate_trial_s
from lora_bench.forecast.scaling import choose_alike, predict_figure, scale_figure
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.forecast.stage_memory import StagePeaks, estimate_stages
from lora_bench.machine.gpus import CPU, count_sharing
from lora_bench.machine.memory import count_free_bytes
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec.schema import LoraSpec, ModelSpec

WAV_HEADER_BYTES = 44
NPY_HEADER_BYTES = 128
Origin = Literal["earlier trials", "probe", "none"]
MemoryOrigin = Literal["earlier trials", "probe", "shapes", "none"]
Basis = Literal["same settings", "other settings", "probe", "shapes", "data sheet", "none"]


@dataclass(frozen=True)
class Prediction:
    """What is left of a trial will take; None is not known.

    Attributes:
        adapter: None for zero-shot, and for a model whose sizes are not known here.
        disk_bytes: clips, their codes, adapter; embeddings (a few MB per metric) come on top.
        memory_gib: peak in training; None without training, also where that is finished.
        stages: on a GPU, peaks of all stages; None on a CPU, and for a model whose sizes are not known here.
        time_s: all stages on this machine, one trial at a time, without what is finished; from a data sheet only the
            work of the GPU.
        origin: what time comes from; `n_records` of them.
        memory_origin: what memory comes from: the same, or an estimate from shapes (`footprint.py`) where nothing was
            trained here; none for zero-shot, and for a model whose sizes are not known here.
        time_basis: how: measured with the same settings, or scaled from others.
        memory_basis: the same of memory.
    """

    adapter: AdapterSize | None
    disk_bytes: int | None
    memory_gib: float | None
    time_s: float | None
    origin: Origin
    n_records: int
    memory_origin: MemoryOrigin
    time_basis: Basis = "none"
    memory_basis: Basis = "none"
    is_trained: bool = False
    """Whether its training is finished."""
    device: str = CPU
    """As in `Forecaster`."""
    stages: StagePeaks | None = None
    checkpointing: Checkpointing | None = None
    """What `train.gradient_checkpointing: auto` comes to; None with another value, and without training."""

    @property
    def peak_gib(self) -> float | None:
        """Peak of the whole trial on a GPU, of its training on a CPU."""
        return self.memory_gib if self.stages is None else self.stages.peak_gib


class Forecaster:
    """Predicts trials; what many of them share is looked up once.

    Args:
        history: what earlier trials took.
        device: where trials run: `gpus.CPU`, the name of a GPU, or `gpus.UNKNOWN`.  Only records of it count.
        card: a GPU by its data sheet, for forecasts on paper; `history` should be empty then.
        n_gpus: `resources.gpu`; trials share a GPU, and its memory, where it is a fraction.
    """

    def __init__(
        self, history: History, *, device: str = CPU, card: Card | None = None, n_gpus: float = 1.0
    ) -> None:
        self.history = history
        self.device = device if card is None else card.name
        self.is_on_paper = card is not None
        self.card = card or find_card(device)
        self._peaks: dict[str, float] = {}
        self._stages: dict[str, StagePeaks] = {}
        self._shapes: dict[str, ModelShape | None] = {}
        self._records: dict[str, tuple[Record, ...]] = {}
        self._adapters: dict[str, AdapterSize] = {}
        self._n_sharing = count_sharing(n_gpus)

    def predict(
        self, trial: TrialPlan, folder: Path | None = None, *, is_trained_by_another: bool = False
    ) -> Prediction:
        """Figures of one trial; what lies finished in its folder is not charged, nor what another trial trains.

        Of another system's clips, disk space alone is known.
        """
        shape = self._find_shape(trial.model)
        if trial.external is not None:
            return Prediction(None, _measure_disk(trial, shape, None), None, None, "none", 0, "none")
        checkpointing = self._resolve_checkpointing(trial, shape)
        if checkpointing is not None:
            trial = set_checkpointing(trial, is_on=checkpointing.is_on)
        adapter = None
        if trial.existing_adapter is not None:
            adapter = _size_existing(trial.existing_adapter)
        elif shape is not None and trial.lora is not None:
            adapter = self._size(trial.model, shape, trial.lora)
        records = self._find_records(trial.model)
        left = ALL if folder is None else find_remaining(trial, folder)
        if is_trained_by_another:
            left = replace(left, train_frac=0.0)
        origin: Origin = "none"
        if records:
            origin = "earlier trials" if records[0].origin == "trial" else "probe"
        time_s, is_same = _predict_time(trial, records, left)
        is_trained = trial.train is not None and left.train_frac == 0.0
        memory_gib, memory_origin, memory_basis = None, "none", "none"
        if trial.train is not None and not is_trained:
            memory_gib, memory_origin, memory_basis = self._predict_memory(trial, records, origin)
        time_basis: Basis = "none" if time_s is None else _name_basis(origin, is_same=is_same)
        if self.is_on_paper and self.card is not None and shape is not None:
            time_s, time_basis = estimate_trial_s(shape, trial, self.card, left), "data sheet"
        return Prediction(
            adapter=adapter,
            disk_bytes=_measure_disk(trial, shape, None if is_trained_by_another else adapter),
            memory_gib=memory_gib,
            time_s=time_s,
            origin=origin,
            n_records=len(records),
            memory_origin=memory_origin,
            time_basis=time_basis,
            memory_basis=memory_basis,
            is_trained=is_trained,
            device=self.device,
            stages=self._estimate_stages(trial, shape, memory_gib),
            checkpointing=None if is_trained else checkpointing,
        )

    def _resolve_checkpointing(self, trial: TrialPlan, shape: ModelShape | None) -> Checkpointing | None:
        if trial.train is None or trial.train.gradient_checkpointing != "auto":
            return None
        return resolve_checkpointing(
            trial, shape, self._memory_gib, has_gpu=self.device != CPU, has_bfloat16=self._has_bfloat16
        )

    @cached_property
    def _memory_gib(self) -> float | None:
        """Memory that a trial may take; None for a GPU that is not known."""
        if self.device == CPU:
            return count_free_bytes() / GIB
        return None if self.card is None else self.card.memory_gib / self._n_sharing

    @property
    def _has_bfloat16(self) -> bool:
        return self.device != CPU and (self.card is None or self.card.bfloat16_tflops is not None)

    def _predict_memory(
        self, trial: TrialPlan, records: Sequence[Record], origin: Origin
    ) -> tuple[float | None, MemoryOrigin, Basis]:
        """Peak in training: that of the same settings; that of the most similar ones and what shapes say between both;
        or what shapes say.
        """
        estimate = self._estimate_memory(trial)
        known = [record for record in records if record.peak_memory_gib is not None]
        alike, is_same = choose_alike(known, trial, list_training_facts)
        peaks = [(record, record.peak_memory_gib) for record in alike if record.peak_memory_gib is not None]
        if is_same:
            return max(peak for _, peak in peaks), origin, _name_basis(origin, is_same=True)
        if not peaks:
            return (None, "none", "none") if estimate is None else (estimate, "shapes", "shapes")
        if estimate is None:
            points = [(_count_load_s(record.trial), peak) for record, peak in peaks]
            return scale_figure(points, _count_load_s(trial)), origin, "other settings"
        moved: list[tuple[float, float]] = []
        for record, peak in peaks:
            own = self._estimate_memory(record.trial)
            if own is not None:
                moved.append(
                    (abs(estimate - own), max(peak + estimate - own, peak * min(1.0, estimate / own)))
                )
        return min(moved)[1] if moved else estimate, origin, "other settings"

    def _estimate_stages(
        self, trial: TrialPlan, shape: ModelShape | None, training_gib: float | None
    ) -> StagePeaks | None:
        if shape is None or self.device == CPU:
            return None
        card, lora = self.card, trial.lora
        weight = choose_weight(trial.model, has_bfloat16=card is None or card.bfloat16_tflops is not None)
        key = f"{trial.model.id} {trial.model.revision} {weight} {lora.spell() if lora else None} {training_gib}"
        key += f" {trial.generation.model_dump_json()} {trial.dataset.clip_s}"
        if key not in self._stages:
            self._stages[key] = estimate_stages(
                shape,
                lora,
                trial.generation,
                trial.dataset.clip_s,
                training_gib=training_gib,
                card_gib=None if card is None else card.memory_gib,
                weight=weight,
            )
        return self._stages[key]

    def _estimate_memory(self, trial: TrialPlan) -> float | None:
        """Peak in training from shapes; None for zero-shot, and without sizes."""
        shape = self._find_shape(trial.model)
        lora, train, model = trial.lora, trial.train, trial.model
        if shape is None or lora is None or train is None:
            return None
        passes = f"{train.batch_size} {name_mode(train)} {trial.dataset.clip_s}"
        key = f"{model.id} {model.revision} {model.dtype} {lora.spell()} {passes}"
        if key not in self._peaks:
            self._peaks[key] = estimate_peak_gib(
                trial, shape, has_gpu=self.device != CPU, has_bfloat16=self._has_bfloat16
            )
        return self._peaks[key]

    def _find_shape(self, model: ModelSpec) -> ModelShape | None:
        key = f"{model.id} {model.revision}"
        if key not in self._shapes:
            self._shapes[key] = find_shape(model)
        return self._shapes[key]

    def _find_records(self, model: ModelSpec) -> tuple[Record, ...]:
        key = f"{model.id} {model.backend} {model.dtype}"
        if key not in self._records:
            self._records[key] = self.history.of_model(model, self.device)
        return self._records[key]

    def _size(self, model: ModelSpec, shape: ModelShape, lora: LoraSpec) -> AdapterSize:
        key = f"{model.id} {model.revision} {lora.spell()}"
        if key not in self._adapters:
            self._adapters[key] = size_adapter(shape, lora)
        return self._adapters[key]


def _size_existing(path: str) -> AdapterSize | None:
    """Size of an adapter that exists already, by its files; None if they are not here or damaged."""
    folder = find_adapter_folder(path)
    try:
        return None if folder is None else read_adapter(folder).size()
    except ModelError:  # which the inputs' checks report
        return None


def _measure_disk(trial: TrialPlan, shape: ModelShape | None, adapter: AdapterSize | None) -> int | None:
    """Bytes of what the trial keeps, computed from the formats of its files."""
    if shape is None:
        return None
    generation = trial.generation
    n_samples = round(generation.clip_s * shape.sample_rate_hz)
    n_frames = -(-n_samples // shape.hop_samples)
    wav = WAV_HEADER_BYTES + 2 * shape.channels * n_samples
    codes = NPY_HEADER_BYTES + 2 * shape.n_codebooks * n_frames if trial.external is None else 0
    return len(trial.prompts) * generation.n_clips * (wav + codes) + (adapter.n_bytes if adapter else 0)


def _name_basis(origin: Origin, *, is_same: bool) -> Basis:
    if origin == "probe":
        return "probe"
    return "same settings" if is_same else "other settings"


def _count_load_s(trial: TrialPlan) -> float:
    """Seconds of audio in one forward pass of training."""
    return 0.0 if trial.train is None else trial.train.batch_size * trial.dataset.clip_s


def _predict_time(trial: TrialPlan, records: Sequence[Record], left: Remaining) -> tuple[float | None, bool]:
    """Sum over stages, and whether all of it was measured with the same settings; None if one was never timed here."""
    fixed = [record.fixed_s for record in records if record.fixed_s is not None]
    generate, is_same = predict_figure(
        records, trial, list_generation_facts, count_generated_s, lambda record: record.generate_s
    )
    if generate is None:
        return None, False
    score, is_score_same = predict_figure(
        records, trial, list_scoring_facts, count_scored_s, lambda record: record.score_s
    )
    total_s = statistics.median(fixed) if fixed else 0.0
    total_s += generate * left.generate_frac + (score or 0.0)
    is_same = (is_same or left.generate_frac == 0.0) and is_score_same
    if trial.train is None or left.train_frac == 0.0:
        return total_s, is_same
    train, is_train_same = predict_figure(
        records, trial, list_training_facts, count_trained_s, lambda record: record.train_s
    )
    if train is None:
        return None, False
    return total_s + train * left.train_frac, is_same and is_train_same
