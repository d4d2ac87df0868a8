"""Generation of a clip with an adapter at some strength, and of its twin by the base model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_bench.audio import save_wav
from lora_bench.errors import UsageError
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.planning.plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.spec.kinds import LOW_RANK

MAGNITUDE, UP = ".lora_magnitude_vector.", ".lora_B."


@dataclass(frozen=True)
class ClipRequest:
    """Settings of a clip.

    Attributes:
        prompt: the text.
        duration_s: length; None is that of the run's clips.
        scale: strength of the adapter, 0 (the base model) to 1 (as it was trained).
        clip: index of the noise; with the run's prompt, seed and length, 0 is the run's `000.wav`.
        seed: root of the noise; None is the run's.
    """

    prompt: str
    duration_s: float | None = None
    scale: float = 1.0
    clip: int = 0
    seed: int | None = None


def render_pair(
    trial: TrialPlan, adapter: Path, request: ClipRequest, file: Path, progress: Progress
) -> tuple[Path, Path]:
    """Write `file` with the adapter, and next to it `<stem>.zero-shot<suffix>` from the same noise.

    Args:
        trial: model and sampling.
        adapter: folder of the adapter.
        request: prompt, length, strength, noise.
        file: `.wav` or `.flac`, 16 bits.
        progress: advanced by codec frames.

    Returns:
        The clip, and its twin.

    Raises:
        UsageError: a length that the model cannot make.
        ModelError: the model is unavailable, or the adapter belongs to another.
        OutOfMemoryError: one clip does not fit.
    """
    progress.start("load model")
    model = load_model(trial.model)
    info = model.info
    rate_hz = info.audio_format.sample_rate_hz
    duration_s = trial.generation.clip_s if request.duration_s is None else request.duration_s
    longest_s = info.max_frames / info.frame_rate_hz
    if not 0 < duration_s <= longest_s:
        raise UsageError(
            f"--seconds {duration_s:g}: expected more than 0 and at most {math.floor(longest_s * 10) / 10:g} s, "
            f"for which {info.name} has positions"
        )
    n_samples = round(duration_s * rate_hz)
    seed = trial.generation.seed if request.seed is None else request.seed
    sampling = trial.generation.model_copy(update={"seed": seed, "clip_s": duration_s})
    n_frames = info.count_frames(n_samples)
    twin = file.with_name(f"{file.stem}.zero-shot{file.suffix}")
    for place, scale in ((file, request.scale), (twin, 0.0)):
        _set_adapter(model, adapter, trial, scale)
        progress.start("generate" if place is file else "generate zero-shot", n_frames)
        codes = generate_codes(model, request.prompt, [request.clip], n_frames, sampling, progress)
        save_wav(place, model.decode_audio(codes)[0][:, :n_samples], rate_hz)
    return file, twin


def _set_adapter(model: MusicModel, adapter: Path, trial: TrialPlan, scale: float) -> None:
    """Load the adapter at a strength; remove it at 0, so that the base model is bit for bit itself."""
    if scale == 0.0:
        model.remove_adapter()
        return
    kind = "lora" if trial.lora is None else trial.lora.kind
    if scale != 1.0 and kind not in LOW_RANK:
        raise UsageError(
            f"--scale {scale:g}: the update of kind {kind} has no strength between; expected 0 (the base model) or 1"
        )
    magnitudes = _base_magnitudes(model, trial) if scale != 1.0 and trial.lora and trial.lora.is_dora else {}
    model.load_adapter(adapter)
    if scale != 1.0:
        scale_adapter(model, scale, magnitudes)


def _base_magnitudes(model: MusicModel, trial: TrialPlan) -> dict[str, torch.Tensor]:
    """Return DoRA's magnitudes before training: the norms of the base weights' rows."""
    if trial.lora is None:
        return {}
    model.inject_lora(trial.lora, seed=0)
    found = model.adapter_parameters().items()
    return {name: value.detach().clone() for name, value in found if MAGNITUDE in f".{name}"}


@torch.no_grad()
def scale_adapter(model: MusicModel, scale: float, base_magnitudes: dict[str, torch.Tensor]) -> None:
    """Scale the update of the loaded adapter in place.

    With DoRA the magnitudes are interpolated between those of the base weights and the trained ones.

    Args:
        model: with the adapter in it.
        scale: 0 to 1.
        base_magnitudes: by parameter name; only those of DoRA.
    """
    for name, parameter in model.adapter_parameters().items():
        if UP in f".{name}":
            parameter.mul_(scale)
        elif name in base_magnitudes:
            parameter.copy_(torch.lerp(base_magnitudes[name], parameter, scale))
