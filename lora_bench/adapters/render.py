"""Generation of a clip with an adapter at some strength, and of its twin by the base model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.adapters.stack import stack_adapters
from lora_bench.audio import save_wav
from lora_bench.errors import UsageError
from lora_bench.models import load_model
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.spec.clip_windows import WINDOW_S
from lora_bench.spec.schema import MAX_CLIP_S, GenerationSpec, ModelSpec


@dataclass(frozen=True)
class ClipRequest:
    """Settings of a clip.

    Attributes:
        prompt: the text.
        duration_s: length; None is that of the run's clips.
        scale: strength of the adapter: 0 is the base model, 1 the adapter as it was trained; None is the run's.
        clip: index of the noise; with the run's prompt, seed and length, 0 is the run's `000.wav`.
        seed: root of the noise; None is the run's.
        melodies: a folder of melodies or a file that the clip follows; None is the run's.
    """

    prompt: str
    duration_s: float | None = None
    scale: float | None = None
    clip: int = 0
    seed: int | None = None
    melodies: Path | None = None


@dataclass(frozen=True)
class ClipSource:
    """Model and sampling of a clip, where no trial states them."""

    model: ModelSpec
    generation: GenerationSpec


def render_pair(
    trial: TrialPlan | ClipSource,
    adapters: Sequence[Path],
    request: ClipRequest,
    file: Path,
    progress: Progress,
) -> tuple[Path, Path]:
    """Write `file` with the adapters, and next to it `<stem>.zero-shot<suffix>` from the same noise.

    Args:
        trial: model and sampling.
        adapters: their folders; the updates of several are added.
        request: prompt, length, strength, noise.
        file: `.wav` or `.flac`, 16 bits.
        progress: advanced by codec frames.

    Returns:
        The clip, and its twin.

    Raises:
        UsageError: a length that the model cannot make.
        ModelError: the model is unavailable or follows no melodies, or the adapter belongs to another.
        DatasetError, AudioFileError: there is no melody, or it cannot be read.
        OutOfMemoryError: one clip does not fit.
    """
    progress.start("load model")
    model = load_model(trial.model)
    info = model.info
    rate_hz = info.audio_format.sample_rate_hz
    longest_s = info.max_frames / info.frame_rate_hz
    if longest_s >= WINDOW_S:
        longest_s = MAX_CLIP_S
    duration_s = trial.generation.clip_s if request.duration_s is None else request.duration_s
    if isinstance(trial, ClipSource) and request.duration_s is None:
        duration_s = min(duration_s, math.floor(longest_s))
    if not 0 < duration_s <= longest_s:
        raise UsageError(
            f"--seconds {duration_s:g}: expected more than 0 and at most {math.floor(longest_s * 10) / 10:g} s, "
            f"the longest clip with {info.name}"
        )
    n_samples = round(duration_s * rate_hz)
    seed = trial.generation.seed if request.seed is None else request.seed
    melodies = trial.generation.melodies if request.melodies is None else request.melodies
    changes = {"seed": seed, "clip_s": duration_s, "melodies": melodies}
    sampling = trial.generation.model_copy(update=changes)
    n_frames = info.count_frames(n_samples)
    twin = file.with_name(f"{file.stem}.zero-shot{file.suffix}")
    with tempfile.TemporaryDirectory() as parent:
        adapter = adapters[0]
        if len(adapters) > 1:
            adapter = Path(parent) / "sum"
            stack_adapters(model, adapters, adapter)
        model.load_adapter(adapter)
    strength = trial.generation.adapter_scale if request.scale is None else request.scale
    for place, scale in ((file, strength), (twin, 0.0)):
        model.adapter_scale = scale
        progress.start("generate" if place is file else "generate zero-shot", n_frames)
        codes = generate_codes(model, request.prompt, [request.clip], n_frames, sampling, progress)
        save_wav(place, model.decode_audio(codes)[0][:, :n_samples], rate_hz)
    return file, twin
