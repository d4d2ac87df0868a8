"""The sections of a spec as Pydantic models: one class per section, a docstring under each field.

The field docstrings become the descriptions of the JSON Schema, so that an editor shows them.
The whole spec is `experiment.py`, reading YAML (places, parents, overrides) is `loading.py`; expanding
into trials is the package's `plan.py`.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.clip_windows import WINDOW_S
from lora_bench.spec.data_size import DataSizeSpec
from lora_bench.spec.data_sources import find_kind
from lora_bench.spec.lora import LoraSpec
from lora_bench.spec.prepare import PrepareSpec, is_unset
from lora_bench.spec.rates import Rate, RatesByKind
from lora_bench.spec.section import Section, Seed, StatedPath, is_none

# published by Meta beside MusicGen, and conditioned on more than text or not autoregressive
UNSUPPORTED_MODEL = re.compile(r"facebook/(musicgen-style|magnet|audiogen|jasco)")
MELODY_MODEL = re.compile(r"facebook/musicgen-(stereo-)?melody")


class ModelSpec(Section):
    """The MusicGen model that is fine-tuned."""

    id: Annotated[str, StringConstraints(min_length=1)] = "pocket"
    """`pocket` (embedded, offline), a hub id such as `facebook/musicgen-small`, or a local folder."""
    backend: Literal["transformers", "audiocraft"] = "transformers"
    """Library that runs the model."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository; null is the default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the decoder; auto is bfloat16 on a GPU that supports it, else float32."""

    @field_validator("id")
    @classmethod
    def _text_to_music(cls, value: str) -> str:
        if UNSUPPORTED_MODEL.match(value):
            raise ValueError(
                f"`{value}` is not a text-to-music MusicGen (style models also take audio as a prompt), and no "
                "backend supports it; use facebook/musicgen-small, -medium, -large, -melody or their stereo "
                "versions"
            )
        return value

    @model_validator(mode="after")
    def _melody_on_transformers(self) -> ModelSpec:
        if self.backend == "audiocraft" and MELODY_MODEL.match(self.id):
            raise ValueError(
                f"`{self.id}` is a melody model, and backend is `audiocraft`, which does not support it here; use "
                "backend `transformers`"
            )
        return self


def _is_ignore(value: object) -> bool:
    return value == "ignore"


class SplitSpec(Section):
    """The split of the tracks into training, selection and reference tracks, before slicing."""

    by: Literal["track", "album", "artist", "folder", "column"] = "track"
    """Whole tracks are on one side, so no reference clip is trained on. `album`, `artist` and `folder` keep all tracks
    of one on one side, by tags, tables and folder names as in captions; `column` those of equal values of `column`."""
    column: Annotated[str | None, Field(min_length=1, exclude_if=is_none)] = None
    """Column of csv files or key of metadata.jsonl, for `by: column`."""
    near_duplicates: Annotated[Literal["ignore", "report", "together"], Field(exclude_if=_is_ignore)] = (
        "ignore"
    )
    """Search for recordings of the same music (another coding, level, start, pitch or tempo by a little, loops):
    `together` keeps them on one side, `report` lists those on different sides."""
    eval_frac: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Fraction of the tracks that is held out as references (at least two tracks)."""
    selection_frac: Annotated[float | None, Field(ge=0.0, lt=1.0, exclude_if=is_none)] = (
        None  # finished runs from before it are still found
    )
    """Fraction of the tracks (at least one) that is taken from the training side to select by: held-out loss, early
    stopping, searches and the choice of the best trial use these, and the references stay sealed for the scores. Null
    is 0.1 with `search` or `tune`, else 0; with 0, selection uses the references, and the scores of what is selected
    are too good."""
    seed: Seed = 0
    """Seed of the split."""

    @model_validator(mode="after")
    def _names_a_column(self) -> SplitSpec:
        if (self.by == "column") != (self.column is not None):
            found = f"`column` is `{self.column}`" if self.column is not None else "`column` is missing"
            raise ValueError(f"`by` is `{self.by}`, but {found}; `by: column` and `column` belong together")
        return self

    @model_validator(mode="after")
    def _leaves_training_tracks(self) -> SplitSpec:
        if self.eval_frac + (self.selection_frac or 0.0) >= 1.0:
            raise ValueError(
                f"eval_frac {self.eval_frac:g} and selection_frac {self.selection_frac:g} add up to 1 or more, which "
                "leaves no track to train on; lower one of them"
            )
        return self


class DatasetSpec(Section):
    """The genre: a folder or another source of recordings, or a dataset that lora_bench renders itself."""

    path: StatedPath | None = None
    """Folder of wav, flac, ogg, opus, mp3 or m4a files at any depth; never written to. Or a list of files (.txt, .m3u,
    .csv, .tsv), an archive (.zip, .tar, .tar.gz), a table with sounds (.parquet, .arrow), a folder of tables or of
    webdataset shards, `hf:owner/name` for a dataset on the hub, or `plugin:NAME` for tracks from another package."""
    source_settings: Annotated[dict[str, Any], Field(exclude_if=operator.not_)] = Field(default_factory=dict)
    """Settings of the plug-in that `path` names."""
    builtin: Literal["chiptune"] | None = None
    """A genre that lora_bench renders, so no files are needed."""
    captions: CaptionSpec = CaptionSpec()
    """The caption of each track."""
    clip_s: Annotated[float, Field(ge=1.0, le=30.0)] = 10.0
    """Length of a training slice in seconds."""
    min_track_s: Annotated[float, Field(ge=0.5)] = 2.0
    """Minimum length of a track in seconds; shorter tracks are listed and left out."""
    split: SplitSpec = SplitSpec()
    """The split into training, selection and reference tracks."""
    prepare: Annotated[PrepareSpec, Field(exclude_if=is_unset)] = PrepareSpec()
    """Changes to the sound of every recording; none by default."""
    size: Annotated[DataSizeSpec | None, Field(exclude_if=is_none)] = None
    """Part of the training tracks to train on, such as `{tracks: 8}` or `{minutes: 30}`; null is all of them."""

    @field_validator("size")
    @classmethod
    def _all_is_no_part(cls, value: DataSizeSpec | None) -> DataSizeSpec | None:
        return None if value is not None and value.is_whole else value

    @property
    def whole(self) -> DatasetSpec:
        """The dataset with all of its training tracks."""
        return self if self.size is None else self.model_copy(update={"size": None})

    @property
    def recordings(self) -> DatasetSpec:
        """The dataset without what training alone reads: equal ones have the same recordings on the same sides."""
        if self.split.by not in {"track", "folder"}:
            return self.whole  # tables and folder names that captions name also group tracks
        return self.whole.model_copy(update={"captions": CaptionSpec()})

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSpec:
        if (self.path is None) == (self.builtin is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(
                f"give one of `path` (a folder of audio) and `builtin` (`chiptune`), got {given}"
            )
        if self.source_settings and (self.path is None or find_kind(self.path) != "plugin"):
            raise ValueError(
                "`source_settings` are those of a plug-in; write `path: plugin:NAME`, or remove them"
            )
        if self.captions.source == "text" and self.captions.text is None:
            raise ValueError("captions.source is `text`, so captions.text must be given")
        return self


MAX_CLIP_S = 300.0
"""Longest generated clip: the codec decodes it in one piece, which takes some 9 GiB."""


def _is_twelve(value: object) -> bool:
    return value == 12


def _is_one(value: object) -> bool:
    return value == 1.0


class GenerationSpec(Section):
    """Sampling of clips, the same for the zero-shot and the fine-tuned models."""

    n_clips: Annotated[int, Field(ge=2, le=10_000)] = 150
    """Clips per prompt."""
    clip_s: Annotated[float, Field(ge=0.2, le=MAX_CLIP_S)] = 8.0
    """Length of a clip in seconds. Beyond 30 s a clip is made in windows of 30 s, as MusicGen was trained."""
    overlap_s: Annotated[float, Field(ge=1.0, le=29.0, exclude_if=_is_twelve)] = 12.0
    """Of a clip beyond 30 s: each window begins with so many seconds of the one before and continues them."""
    guidance: Annotated[float, Field(ge=1.0, le=20.0)] = 3.0
    """Classifier-free guidance scale; 1 is off."""
    melodies: Annotated[StatedPath | None, Field(exclude_if=is_none)] = None
    """Folder of melodies that clips follow, or one audio file; never written to. Needs a melody model. Clip i of a
    prompt follows file i mod N in the order of their paths, for zero-shot and adapters alike."""
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """Softmax temperature."""
    top_k: Annotated[int, Field(ge=1)] | None = 250
    """Sample from the k most probable codes; null samples from all, 1 is greedy."""
    adapter_scale: Annotated[float, Field(ge=0.0, le=10.0, exclude_if=_is_one)] = 1.0
    """Strength of the adapter: base weights W0 and adapted ones W give W0 + scale (W - W0). 1 is as trained, 0 gives
    the clips of zero-shot. Trials that differ in it share one training."""
    seed: Seed = 0
    """Seed of the noise: a clip depends only on seed, prompt, clip index and step."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Clips per batch; null chooses by free memory. It does not change the noise."""
    quantization: Literal["int8"] | None = None
    """`int8` decodes with 8-bit weights and activations on CPUs: faster, but the clips differ. Null is exact."""

    @property
    def sampling(self) -> dict[str, Any]:
        """Every setting that a clip depends on, but melodies, whose contents count: if one changes, clips are new."""
        return self.model_dump(exclude={"n_clips", "batch_size", "melodies"} | self.idle)

    @property
    def idle(self) -> set[str]:
        """Settings without an effect: clips of one window have no overlap."""
        return set() if self.is_in_windows else {"overlap_s"}

    @property
    def is_in_windows(self) -> bool:
        """True if a clip is longer than a window."""
        return self.clip_s > WINDOW_S


_Step = Annotated[int, Field(ge=1)]


class TrainSpec(Section):
    """Training of an adapter."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimiser steps."""
    lr: Rate | RatesByKind = 1e-4
    """Peak learning rate; or one for each kind of adapter that a spec has, as in `{lora: 1e-4, vera: 1e-2}`."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Slices per forward pass."""
    grad_accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes per optimiser step."""
    warmup_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Fraction of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Norm at which gradients are clipped; null is off."""
    caption_dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    """Fraction of slices that are trained without a caption, which guidance needs."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Precision of the matrix products in training steps; weights, adapter and optimiser keep their type, and the
    held-out loss is measured in the model's precision. Null is the model's precision; bfloat16 needs hardware that
    supports it (a GPU, some CPUs)."""
    gradient_checkpointing: bool | Literal["auto"] = False
    """Recompute activations: less memory, about 1.4 times the time, the same gradients. `auto` does so only where the
    forecast of training without it does not fit into the memory of the device."""
    compile: Annotated[bool, Field(exclude_if=operator.not_)] = (
        False  # finished runs from before it are still found
    )
    """Compile the decoder's layers with torch for training steps; results differ only in rounding and in the random
    numbers of dropout. The first steps take a minute or two, so it suits long runs on a GPU."""
    eval_every: Annotated[int, Field(ge=1)] = 100
    """Steps between measurements of the held-out loss."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints, from which a killed run resumes."""
    keep: Annotated[_Step | Literal["best"] | list[_Step] | None, Field(exclude_if=is_none)] = None
    """Steps after which the adapter is kept, such as `[25, 50]`: each is a row of its own, `NAME@25`, from one training
    whose end is NAME. A single step is NAME's adapter instead of the end's; `best` is the step of the lowest held-out
    loss, which must be that of selection tracks. Null is the last step."""

    @field_validator("keep")
    @classmethod
    def _ascending(cls, value: int | str | list[int] | None) -> int | str | list[int] | None:
        if isinstance(value, list) and (not value or value != sorted(set(value))):
            raise ValueError(f"keep is {value}; expected ascending steps, each once, such as [25, 50]")
        return value

    @model_validator(mode="after")
    def _keeps_steps_that_it_takes(self) -> TrainSpec:
        last = self.keep[-1] if isinstance(self.keep, list) else self.keep
        if isinstance(last, int) and last > self.steps:
            raise ValueError(
                f"keep is {self.keep}, but steps is {self.steps}; expected steps up to {self.steps}"
            )
        return self

    @property
    def is_checkpointed(self) -> bool:
        """Whether activations are recomputed.

        Raises:
            ValueError: it is `auto`, which `forecast/checkpointing.py` resolves for a device.
        """
        if self.gradient_checkpointing == "auto":
            raise ValueError("train.gradient_checkpointing is auto; a device makes it true or false")
        return self.gradient_checkpointing

    @property
    def peak_lr(self) -> float:
        """The peak learning rate; a trial has one number, whatever the spec says by kind.

        Raises:
            ValueError: these are not the settings of a trial.
        """
        if isinstance(self.lr, dict):
            raise ValueError(f"train.lr is a rate for each of {', '.join(self.lr)}; a trial has one of them")
        return self.lr


class DefaultsSpec(Section):
    """Settings that trials start from."""

    lora: LoraSpec = LoraSpec()
    """LoRA settings of every trial, unless the trial sets others."""
    train: TrainSpec = TrainSpec()
    """Training settings of every trial, unless the trial sets others."""


class RepeatsSpec(Section):
    """Repetition of every fine-tuned trial."""

    train_seeds: list[Seed] = Field(default=[0], min_length=1)
    """One training per seed; all of them generate from the same noise."""

    @field_validator("train_seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError(f"train_seeds {value} repeats a seed; each may appear once")
        return value


class ResourcesSpec(Section):
    """Resources of one trial."""

    cpu: Annotated[float, Field(gt=0.0)] = 1.0
    """CPU cores per trial. With a GPU, all but one of them compute features of finished clips meanwhile."""
    gpu: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs per trial; a fraction shares a GPU, but does not limit the memory of a trial."""

    @field_validator("gpu")
    @classmethod
    def _shareable(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError(
                f"{value:g} GPUs cannot be reserved; expected a fraction of one GPU, or a whole number"
            )
        return value

    @property
    def n_workers(self) -> int:
        """Return how many processes compute features while a trial uses its GPU; without one, its cores are busy."""
        return max(0, int(self.cpu) - 1) if self.gpu > 0 else 0


class ListeningSpec(Section):
    """The listening test that `lora-bench listen` writes."""

    questions: list[Literal["preference", "fits_prompt", "fits_genre"]] = Field(
        default=["preference", "fits_prompt", "fits_genre"], min_length=1
    )
    """Questions about a pair: which is preferred, fits the prompt better, sounds more like the held-out recordings.
    Attention checks look at the first."""
    n_pairs: Annotated[int, Field(ge=2, le=200)] = 20
    """Pairs that a listener hears, in addition to attention checks."""
    seed: Seed = 0
    """Seed of the choice of pairs."""

    @field_validator("questions")
    @classmethod
    def _asked_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError(f"questions {value} repeats a question; each may appear once")
        return value


class ReportSpec(Section):
    """The report of the run, which is always written as Markdown, HTML, CSV and JSON."""

    title: str | None = None
    """Heading of the report; null is the spec's name."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=[])
    """Trackers that receive curves and scores during the run: event files in the run's folder, or a service."""
    listening: ListeningSpec = ListeningSpec()
    """The listening test of the run."""
