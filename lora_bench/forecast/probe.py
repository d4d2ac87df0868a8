"""A short measurement of training and generation, for machines without an earlier trial.

It runs a few optimiser steps on random codes of the trial's own length and batch, and generates a few
short clips; on a GPU as many at once as the trial does.  Scoring is not measured, so predictions from a probe leave
it out.
"""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from lora_bench.forecast.checkpointing import resolve_for_model, set_checkpointing
from lora_bench.forecast.history import (
    PROBES,
    ProbeRecord,
    Record,
    count_generated_s,
    count_trained_s,
    key_model,
    list_training_facts,
)
from lora_bench.machine.gpus import CPU
from lora_bench.models import MusicModel, load_model
from lora_bench.models import device as devices
from lora_bench.models.decoding.decoder import Decoder, generate_batches
from lora_bench.models.memory import peak_gib, reset_peak
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress, SilentProgress
from lora_bench.stages.generate import decode_sound
from lora_bench.stages.train.steps import enter_training
from lora_bench.store import hash_json, write_json

N_STEPS = 2
N_CLIPS = 4
MAX_CLIP_S, MAX_GPU_CLIP_S = 2.0, 8.0


def measure_probe(trial: TrialPlan, runs_dir: Path, progress: Progress | None = None) -> Record:
    """Measure one fine-tuned trial's model and settings, and keep the record below `runs_dir`.

    Raises:
        ModelError, NoModulesMatchedError: the model or its targets are unavailable.
        StoreError: the disk is full.
    """
    teller = progress or SilentProgress()
    teller.start("probe: load model")
    began_s = time.monotonic()
    model = load_model(trial.model)
    checkpointing = resolve_for_model(trial, model)
    if checkpointing is not None:
        trial = set_checkpointing(trial, is_on=checkpointing.is_on)
    record = Record(
        trial, "probe", fixed_s=time.monotonic() - began_s, device=devices.name_device(model.device)
    )
    teller.start("probe: generate")
    record = _time_generation(model, trial, record)
    if trial.lora is not None and trial.train is not None:
        teller.start("probe: train")
        record = _time_training(model, trial, record)
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    probe = ProbeRecord(host=socket.gethostname(), measured_at=measured_at, record=record)
    write_json(runs_dir / PROBES / f"{make_key(trial, record.device)}.json", probe)
    return record


def make_key(trial: TrialPlan, device: str) -> str:
    """Return the name of a probe's file: one per model, settings and device."""
    facts = [key_model(trial.model), list_training_facts(trial)]
    return hash_json(facts if device == CPU else [*facts, device], length=8)


def _time_generation(model: MusicModel, trial: TrialPlan, record: Record) -> Record:
    """Seconds of all clips, and on a GPU what the first batch takes on top of them: captures of graphs, libraries.

    The first pass over the same clips warms up; it is not in the seconds of the clips.  On a CPU it compiles once per
    machine, which no trial is charged for.
    """
    generation, info = trial.generation, model.info
    is_gpu = devices.is_gpu(model.device)
    clip_s = min(generation.clip_s, MAX_GPU_CLIP_S if is_gpu else MAX_CLIP_S)
    n_frames = info.count_frames(round(clip_s * info.audio_format.sample_rate_hz))
    decoder = Decoder(model, generation)
    decoder.read_prompt(trial.prompts[0])
    n_clips = min(generation.n_clips, N_CLIPS)
    if is_gpu:  # a step of many clips takes hardly longer than one of few
        whole = info.count_frames(round(generation.clip_s * info.audio_format.sample_rate_hz))
        n_at_once = generation.batch_size or decoder.choose_batch_size(whole)
        n_clips = min(generation.n_clips, n_at_once)
    passes: list[float] = []
    for _ in range(2):
        began_s = time.monotonic()
        for batch in generate_batches(
            model, trial.prompts[0], range(n_clips), n_frames, generation, SilentProgress(), decoder
        ):
            for _ in decode_sound(model, batch.codes):
                pass  # it has arrived on the CPU
        passes.append(time.monotonic() - began_s)
    warm_up_s = max(0.0, passes[0] - passes[1]) if is_gpu else 0.0
    return replace(
        record,
        fixed_s=(record.fixed_s or 0.0) + warm_up_s,
        generate_s=passes[1] / (n_clips * clip_s) * count_generated_s(trial),
    )


def _time_training(model: MusicModel, trial: TrialPlan, record: Record) -> Record:
    """Seconds per second of audio and peak memory, after a first step that warms up."""
    lora, train = trial.lora, trial.train
    if lora is None or train is None:
        return record
    clip_s = trial.dataset.clip_s
    info = model.info
    n_frames = min(info.count_frames(round(clip_s * info.audio_format.sample_rate_hz)), info.max_frames)
    texts = model.encode_text([trial.prompts[0]]) * train.batch_size
    model.release_encoders()  # as a trial does before it trains
    reset_peak(model.device)
    model.inject_lora(lora, seed=0)
    parameters = list(model.adapter_parameters().values())
    optimizer = torch.optim.AdamW(parameters, lr=train.peak_lr)
    enter_training(model, train)
    draw = torch.Generator().manual_seed(0)
    shape = (train.batch_size, info.n_codebooks, n_frames)
    codes = torch.randint(info.codebook_size, shape, generator=draw)
    valid_frames = torch.full((train.batch_size,), n_frames)
    began_s = 0.0
    for step in range(N_STEPS + 1):
        if step == 1:
            began_s = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        with model.use_training_arithmetic(train.precision):
            loss = model.training_loss(codes, valid_frames, texts)
        loss.backward()
        optimizer.step()
        float(parameters[0].detach().flatten()[0])  # waits for a GPU
    spent_s = time.monotonic() - began_s
    peak = peak_gib(model.device)
    model.set_training(False)
    model.remove_adapter()
    return replace(
        record,
        train_s=spent_s / (N_STEPS * train.batch_size * clip_s) * count_trained_s(trial),
        peak_memory_gib=peak,
    )
